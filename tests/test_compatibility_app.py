"""A single-page app in a real browser, at a service that demands the bearer: of its own origin, or of ours."""

import asyncio
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from proxy.demo.serving import serving
from tests.support.browser import chromium, needs_chromium
from tests.support.gate import gate
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries
from tests.support.raw import within

pytestmark = [pytest.mark.slow, needs_chromium]

PAGE: Final = """<!doctype html><link rel=icon href=data:,><title>Calls</title>
<ul id=calls></ul> <form><input name=caller><button>Add</button></form> <output></output>
<script type=module src=/app.js></script>
"""
APP: Final = """
const base = new URLSearchParams(location.search).get("base") ?? "";
const calls = document.querySelector("#calls"), form = document.querySelector("form");
const ask = async options => {
  const answer = await fetch(`${base}/calls`, options);
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
};
const show = async () => calls.replaceChildren(...(await ask()).map(caller => {
  const item = document.createElement("li");
  item.textContent = caller;
  return item;
}));
form.onsubmit = async event => {
  event.preventDefault();
  const body = JSON.stringify({caller: form.elements.caller.value});
  await ask({method: "POST", headers: {"Content-Type": "application/json"}, body});
  await show();
};
await show();
new EventSource(`${base}/events`).onmessage = ({data}) => document.querySelector("output").append(data, " ");
"""


@dataclass
class Calls:
    """What the app shows; on its own origin, and, for `base`, from elsewhere."""

    callers: list[str] = field(default_factory=lambda: ["first"])
    #: The page listens no more.
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The page, its script, the calls, or two events, one in each stream."""
        if request.path in {"/", "/app.js"}:
            text, kind = (PAGE, "text/html") if request.path == "/" else (APP, "text/javascript")
            return web.Response(text=text, content_type=kind)
        if request.path == "/events":
            last = request.headers.get("Last-Event-ID", "0")
            if last == "2":
                self.heard.set()
                return web.Response(status=204)  # which ends it (HTML, server-sent events)
            text = f"retry: 1\nid: {int(last) + 1}\ndata: event{int(last) + 1}\n\n"
            return web.Response(text=text, content_type="text/event-stream")
        if request.method == "POST":
            self.callers.append((await request.json())["caller"])
        return web.json_response(self.callers)


@pytest.mark.parametrize("origin", ["its own server", "the proxy"])
async def test_a_single_page_app(proxying: StartProxy, canaries: Canaries, origin: str) -> None:
    """It reads, writes JSON and listens to events, each once with an old token; of a listed origin, or of ours."""
    calls = Calls()
    elsewhere = web.Application()
    elsewhere.router.add_get("/{rest:.*}", calls.answer)
    async with (
        serving(elsewhere) as url,
        gate(calls.answer, canaries) as server,
        chromium(urlsplit(url).port or 0) as browser,
    ):
        app = url.replace("127.0.0.1", "localhost")
        guard = {"browser": True} if origin == "the proxy" else {"origins": [app]}
        config = {**server.config, "guard": guard}
        async with proxying(config, environ=server.environ) as proxy:
            base = proxy.url.replace("127.0.0.1", "localhost")
            tab = await browser.new_page()
            errors: list[str] = []
            tab.on("pageerror", lambda error: errors.append(str(error)))
            server.once(lambda request: "Last-Event-ID" in request.headers)
            await tab.goto(f"{base}/" if origin == "the proxy" else f"{app}/?base={base}")
            await tab.get_by_text("event1 event2").wait_for()
            await tab.get_by_text("first").wait_for()
            await within(calls.heard.wait())
            server.end()
            await tab.get_by_role("textbox").fill("second")
            await tab.get_by_role("button").click()
            await tab.get_by_text("second").wait_for()
            assert await tab.locator("li").all_text_contents() == ["first", "second"]
            proxy.artefacts.add("page", await tab.content())
    assert errors == []
    assert server.refused == ["/events", "/calls"]
    assert ("POST", "/calls", 200) in server.seen
