"""The inspector in a real browser on the real traffic of a real proxy: every function of it, and what is hostile.

In dark and light, on wide and narrow screens; axe-core looks at each view.
"""

import asyncio
import json
import subprocess
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import WSMsgType, web
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]  # it has no stubs
from websockets.asyncio.client import ClientConnection, connect

from proxy.clock import SystemClock
from proxy.demo.serving import serving
from proxy.demo.teletracker import TeleTracker
from tests.support.browser import chromium, needs_chromium
from tests.support.harness import Proxy, StartProxy
from tests.support.inspectorpage import Page
from tests.support.leaks import Canaries
from tests.support.raw import head, within
from tests.support.vendors import Vendor

pytestmark = [needs_chromium, pytest.mark.slow]

#: Each would set `ran` if it were taken for anything but text.
PAYLOAD: Final = "<script>globalThis.ran=1</script><img src=x onerror=globalThis.ran=1>\"'`${globalThis.ran=1}"
#: What of that a method, a field's name, and a path may hold (RFC 9110 section 5.6.2, RFC 3986).
TOKEN: Final = "x'`globalThis.ran=1`'".replace("=", "").replace("(", "")
PATH: Final = "/site/evil/'\"><svg/onload=globalThis.ran=1>"
WIDE: Final = "() => document.documentElement.scrollWidth <= innerWidth"
CARD: Final = "[aria-label='Credential tracker']"
SERIOUS: Final = {"serious", "critical"}


def png() -> bytes:
    """A picture: eight squares of grey."""
    pixels = b"".join(b"\0" + bytes(range(0, 256, 8)) for _ in range(16))
    parts = [(b"IHDR", b"\0\0\0\x20\0\0\0\x10\x08\0\0\0\0"), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in parts
    )


class Site:
    """A service with an answer of each kind; its stream of events says what is put into `said`, until None is."""

    def __init__(self) -> None:
        self.url = ""
        self.said: asyncio.Queue[str | None] = asyncio.Queue()
        self.asked: list[tuple[str, str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """By the path."""
        self.asked.append((request.method, request.raw_path, (await request.read()).decode("latin-1")))
        _, _, name, *_ = request.path.split("/")
        answer = getattr(self, f"_{name}", None)
        if answer is None:
            return web.json_response({"error": "none", "n": 12345678901234567890}, status=404)
        made: web.StreamResponse = await answer(request)
        return made

    async def _json(self, _request: web.Request) -> web.StreamResponse:
        items = [{"id": number, "name": f"thing {number}", "paid": number % 2 == 0} for number in range(3)]
        return web.json_response({"items": items, "total": 12345678901234567890, "next": None})

    async def _picture(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=png(), content_type="image/png")

    async def _bytes(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\0\1\2\3 plain \xff", content_type="application/octet-stream")

    async def _long(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="all work and no play\n" * 5000)

    async def _lapsed(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    async def _boom(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="broken")

    async def _evil(self, request: web.Request) -> web.StreamResponse:
        fields = {
            "Server": PAYLOAD,
            "ETag": PAYLOAD,
            f"X-{TOKEN}": PAYLOAD,
            "Content-Type": f"text/html; a={PAYLOAD}",
        }
        said = request.headers.get("User-Agent", "")
        body = f"{PAYLOAD} {said}".encode()
        return web.Response(status=418, reason=f"{PAYLOAD} {said}", body=body, headers=fields)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        while (text := await self.said.get()) is not None:
            await stream.write(f"event: news\ndata: {text}\n\n".encode())
        return stream

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(json.dumps({"heard": message.data}))
        return socket


@pytest.fixture
def clock() -> SystemClock:
    """The page goes by the time of day."""
    return SystemClock()


class Live:
    """A page before a proxy, and what is around them."""

    def __init__(self, page: Page, proxy: Proxy, tracker: Vendor[TeleTracker], site: Site) -> None:
        self.page = page
        self.tab = page.tab
        self.proxy = proxy
        self.tracker = tracker
        self.site = site
        self.look = ""

    async def sees(self, view: str) -> None:
        """Keep a picture of it, and have axe-core judge it."""
        await self.tab.evaluate("() => document.getElementById('toasts').replaceChildren()")
        await self.page.shot(f"{view}-{self.look}")
        assert await self.tab.evaluate(WIDE)
        found = (await Axe().run(self.tab)).response["violations"]
        told = {
            f"{each['id']}: {node['html'][:200]}"
            for each in found
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        }
        assert (view, sorted(told)) == (view, [])

    async def filters(self, text: str) -> None:
        """Type this into the box."""
        await self.tab.fill("#filter", text)

    async def opens(self, text: str) -> None:
        """The newest exchange that the filter leaves, in full."""
        if await self.tab.locator("exchange-detail").is_visible():
            await self.tab.click(".back")
        await self.filters(text)
        await self.page.paths()
        await self.tab.locator(".space .row[aria-rowindex='2']").click()
        await self.tab.locator("exchange-detail .part").first.wait_for()

    async def closes(self) -> None:
        """No exchange is open any more, nothing is filtered."""
        await self.tab.click(".back")
        await self.filters("")


@dataclass(frozen=True)
class Around:
    """What a proxy needs."""

    proxying: StartProxy
    tracker: Vendor[TeleTracker]
    clock: SystemClock
    canaries: Canaries


@pytest.fixture
def around(proxying: StartProxy, tracker: Vendor[TeleTracker], clock: SystemClock, canaries: Canaries) -> Around:
    """All of it."""
    return Around(proxying, tracker, clock, canaries)


@asynccontextmanager
async def living(around: Around, **context: Any) -> AsyncIterator[Live]:
    """A proxy to the tracker, with logins and refreshes, and to a site with a static token; the page before it."""
    tracker = around.tracker
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", site.answer)
    async with chromium(1) as browser, serving(app) as site.url:
        config = {
            "routes": [
                {"name": "calls", "prefix": "/", "upstream": tracker.url, "credential": "tracker"},
                {
                    "name": "site",
                    "prefix": "/site",
                    "upstream": site.url,
                    "strip_prefix": False,
                    "credential": "site",
                    "deny": [{"paths": ["/site/denied"]}],
                },
            ],
            "credentials": {
                "tracker": dict(tracker.credential),
                "site": {"type": "static", "token": {"env": "SITE"}},
            },
            "admin": {"listen": "127.0.0.1:0", "inspector": {"exchanges": 5000}},
        }
        environ = {**tracker.environ, "SITE": around.canaries.mint("token")}
        async with around.proxying(config, environ=environ, clock=around.clock) as proxy:
            made = await browser.new_context(accept_downloads=True, **context)
            await made.grant_permissions(["clipboard-read", "clipboard-write"])
            made.set_default_timeout(10_000)
            page = Page(await made.new_page())
            await page.enters(proxy)
            try:
                yield Live(page, proxy, tracker, site)
                proxy.artefacts.add("page", await page.tab.content())
                assert page.complaints == []
                assert await page.tab.evaluate("() => globalThis.ran") is None
            finally:
                site.said.put_nowait(None)
                await made.close()


async def requests(live: Live) -> None:
    """One of each kind; the token of the tracker expires in between, and is renewed."""
    proxy = live.proxy
    assert (await proxy.ask("GET", "/calls")).status == 200
    for path in ("json?page=2&ticket=hidden", "gone", "boom", "picture", "bytes", "long"):
        await proxy.ask("GET", f"/site/{path}", {"Accept": "*/*", "X-Own": "of the client"})
    assert (await proxy.ask("GET", "/site/denied")).code == "path_denied"
    live.tracker.double.expire()
    assert (await proxy.ask("GET", "/calls?page=2")).status == 200


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
async def test_every_function_works_on_live_traffic(
    around: Around, colours: str, width: int, tmp_path: Path
) -> None:
    """As a person would click through them, with a token that is refused and renewed in between."""
    screen = {"viewport": {"width": width, "height": 800}, "color_scheme": colours}
    async with living(around, **screen) as live:
        live.look = f"{colours}-{width}"
        await requests(live)
        await live.page.says("#count", "9 exchanges")
        await _lists(live)
        await _explains(live)
        await _shows_bodies(live)
        await _sends_again(live)
        await _gives_away(live, tmp_path)
        await _shows_messages(live)
        await _presents(live)
        await _rules(live)
        await _tells_what_no_upstream_said_to_the_client(live)
        await _explains_what_stays(live)


async def _lists(live: Live) -> None:
    """The list, its filters, pause, and the credentials with their timeline and plots."""
    page, tab = live.page, live.tab
    if not await tab.locator("#overview[open]").count():
        await tab.click("#overview > summary")
    await page.says(".card .life", "generation 2 · expires in")
    await tab.locator(".timeline .m-bad").wait_for(state="attached")
    await tab.click(f"{CARD} summary")
    for said in ("obtained, generation 1", "refused, generation 1 – 401 on route calls", "obtained, generation 2"):
        await page.says(f"{CARD} .history li", said)
    before = await page.text(f"{CARD} .life")
    await tab.locator(f"{CARD} .life:text-is('{before}')").wait_for(state="detached")
    await tab.wait_for_function("() => document.querySelectorAll('figure rect').length > 2")
    assert await tab.locator(".l-p95").count() == 1
    await live.sees("list")
    await tab.click(f"{CARD} summary")
    await tab.click("#overview > summary")
    for typed, left in {
        "status:5xx": ["/site/boom"],
        "route:site path:gone": ["/site/gone"],
        "retried": ["/calls?page=2"],
        "path_denied": ["/site/denied"],
        "ms:>100000": [],
    }.items():
        await live.filters(typed)
        assert (typed, await page.paths()) == (typed, left)
    await tab.click("[data-term='status:4xx']")
    await live.filters("")
    await tab.click("#pause")
    await live.proxy.ask("GET", "/site/json")
    await page.says("#count", "paused, 1 new")
    await tab.click("#pause")
    await page.says("#count", "10 exchanges")


async def _explains(live: Live) -> None:
    """Why, both attempts, what was added, dropped and masked, and where the time went."""
    page, tab = live.page, live.tab
    await live.opens("retried")
    await page.says(".why", "sent again with generation 2, and that was accepted")
    assert await page.attempts() == ["Attempt 1: 401, token refused", "Attempt 2: 200"]
    await page.says(".attempt", "added credential tracker, generation 2")
    assert "First byte" in str(await tab.locator(".spent").get_attribute("aria-label"))
    await live.sees("retried")
    await live.opens("path_denied")
    await page.says(".why", "The proxy itself said path_denied, on route site. Its rules say: deny: ")
    await live.opens("page=2 route:site")
    await page.says("exchange-detail h2", "ticket=***")
    await page.says(".fields", "masked only fields known to be harmless are shown")
    await page.says("exchange-detail .none", "Bodies are off.")
    await page.keeps_bodies()
    await live.closes()


async def _tells_what_no_upstream_said_to_the_client(live: Live) -> None:
    """The proxy's own answer, and what the answer said that refused a token, in the column of that attempt."""
    page = live.page
    assert (await live.proxy.ask("GET", "/site/denied?page=6")).code == "path_denied"
    await live.opens("path_denied page=6")
    await page.says("[aria-label^=Response] .note", "the proxy's own answer")
    await page.says("[aria-label^=Response] pre", '"code": "path_denied"')
    await live.sees("own")
    live.tracker.double.expire()
    assert (await live.proxy.ask("GET", "/calls?page=6")).status == 200
    await live.opens("page=6 retried")
    await page.says(".attempt.bad .unheard pre", "The bearer token is missing, unknown or expired.")
    await live.sees("refused")
    await live.closes()


async def _explains_what_stays(live: Live) -> None:
    """A 401 to a fixed token, and one behind which the token request failed: which of them it is."""
    page = live.page
    assert (await live.proxy.ask("GET", "/site/lapsed")).status == 401
    await live.opens("path:lapsed")
    await page.says(".why", "This is a fixed token: make a new one at the vendor and put it in its place.")
    live.tracker.double.expire()
    live.tracker.double.set(token_endpoint="down")
    assert (await live.proxy.ask("GET", "/calls?page=5")).status == 401
    await live.opens("page=5 route:calls")
    await page.says(".why", "No newer token could be had: ")
    await live.sees("stays")
    await live.closes()


async def _shows_bodies(live: Live) -> None:
    """Once they are on: JSON indented, a picture, bytes as hex, and where it was cut."""
    page, tab = live.page, live.tab
    for path in ("json", "picture", "bytes", "long"):
        await live.proxy.ask("POST", f"/site/{path}?page=3", {"Content-Type": "text/plain"}, b"a question")
    await live.opens("method:POST path:json page=3")
    await page.says("pre", '"total": 12345678901234567890')
    await page.says("pre", "a question")
    await live.sees("json")
    await live.opens("method:POST path:picture")
    await tab.wait_for_function("() => document.querySelector('img.shown')?.naturalWidth === 32")
    await live.opens("method:POST path:bytes")
    await page.says("pre.hex", "00000000  00 01 02 03 20 70 6c 61")
    await live.opens("method:POST path:long")
    await page.says(".cut", "cut at 65536 bytes")
    await live.closes()


async def _sends_again(live: Live) -> None:
    """As it was, and changed; always with the token of now."""
    page, tab = live.page, live.tab
    live.tracker.double.expire()
    await live.opens("page=2 route:calls")
    await tab.click("text=Replay >> nth=0")
    await page.says(".toast", "Sent again: 200.")
    await page.says(".why", "sent again with generation 3")
    await live.opens("method:POST path:json page=3")
    await tab.click("text=Edit and replay")
    await tab.fill("[name=method]", "PUT")
    await tab.fill("[name=query]", "page=4")
    await tab.fill("[name=body]", "another question")
    await live.sees("edit")
    await tab.click("dialog .first")
    await page.says("exchange-detail h2", "PUT /site/json?page=4")
    assert live.site.asked[-1] == ("PUT", "/site/json?page=4", "another question")
    await live.closes()


async def _gives_away(live: Live, folder: Path) -> None:
    """As a command that works and holds no secret, and as HAR: one, and all that the filter leaves."""
    page, tab = live.page, live.tab
    await live.opens("method:POST path:json page=3")
    await tab.click("text=Copy as curl")
    await page.says(".toast", "Copied.")
    command = await tab.evaluate("() => navigator.clipboard.readText()")
    live.proxy.artefacts.add("command", command)
    before = len(live.site.asked)
    answer = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", command], capture_output=True, check=True, timeout=30
    )
    assert b'"total"' in answer.stdout
    assert live.site.asked[before:] == [("POST", "/site/json?page=3", "a question")]
    for button, text in (
        ("exchange-detail button:text-is('HAR')", None),
        ("#har", "route:site status:200 -path:json"),
    ):
        count = 1
        if text is not None:
            await live.closes()
            await live.filters(text)
            count = len(await page.paths())
            assert count > 3
        async with tab.expect_download() as download:
            await tab.click(button)
        path = folder / "exchange.har"
        await (await download.value).save_as(path)
        entries = json.loads(path.read_text("utf-8"))["log"]["entries"]
        assert len(entries) == count
        assert {each["response"]["status"] for each in entries} == {200}
    await live.filters("")


async def _shows_messages(live: Live) -> None:
    """Those of a stream of events and of a WebSocket, while they go on and after."""
    page, tab, site = live.page, live.tab, live.site
    asking = asyncio.create_task(live.proxy.ask("GET", "/site/events"))
    site.said.put_nowait('{"price": 1}')
    await page.says(".row .mark", "live")
    await live.opens("live")
    await page.says(".goes", "It goes on")
    await page.says(".message pre", '{"price": 1}')
    site.said.put_nowait('{"price": 2}')
    await page.says(".message pre", '{"price": 2}')
    site.said.put_nowait(None)
    await asking
    await tab.locator(".goes").wait_for(state="detached")
    assert await tab.locator(".message").count() == 2
    socket: ClientConnection
    async with connect(live.proxy.url.replace("http", "ws") + "/site/ws") as socket:
        await live.filters("kind:websocket")
        await page.says(".row .mark", "live")
        await live.opens("kind:websocket")
        await socket.send('{"ask": "what"}')
        await page.says(".message.by-client pre", '"ask": "what"')
        await page.says(".message.by-upstream pre", '"heard"')
        await tab.locator("section[aria-label=Messages]").scroll_into_view_if_needed()
        await live.sees("websocket")
    await tab.locator(".goes").wait_for(state="detached")
    await page.says(".message .about", "close")
    await live.closes()


async def _presents(live: Live) -> None:
    """In presentation mode nothing leaves that the page does not show."""
    page, tab = live.page, live.tab
    await live.opens("method:POST path:json page=3")
    # On a narrow screen the exchange lies over the button.
    is_narrow = not await tab.evaluate("() => matchMedia('(min-width: 761px)').matches")
    await (page.press("m") if is_narrow else tab.click("#discreet"))
    await page.says(".why", "led to •••")
    for hidden in ("127.0.0.1", "12345678901234567890", "page=3", "a question"):
        assert hidden not in await tab.locator("exchange-detail").inner_html()
    for name in ("Copy as curl", "HAR", "Edit and replay"):
        assert await tab.locator(f"exchange-detail button:text-is('{name}')").is_disabled()
    assert await tab.locator("#har").is_disabled()
    await page.press("c")
    await page.says(".toast", "Not in presentation mode")
    await live.sees("presentation")
    await (page.press("m") if is_narrow else tab.click("#discreet"))
    assert await tab.locator("#har").is_enabled()
    await live.closes()


async def _rules(live: Live) -> None:
    """Refresh, theme, keys, help, and the end of all of it."""
    page, tab = live.page, live.tab
    if not await tab.locator("#overview[open]").count():
        await tab.click("#overview > summary")
    await tab.click("[aria-label='Refresh credential tracker']")
    await page.says(".toast", "Credential tracker: generation 4.")
    await page.says(".card .life", "generation 4")
    await tab.click("#overview > summary")
    await tab.click("#help")
    await page.says("dialog h2", "Keys")
    await live.sees("help")
    await page.press("Escape")
    assert await tab.evaluate("() => document.activeElement.id") == "help"
    await tab.locator("exchange-list .grid").focus()
    await page.press("g", "Enter")
    await tab.locator("exchange-detail .part").first.wait_for()
    await page.press("Escape")
    assert await tab.locator("exchange-detail").is_hidden()
    await tab.click("#theme")
    await page.says("#theme", "Theme: dark")
    await tab.click("#theme")
    await page.says("#theme", "Theme: light")
    await live.sees("light")
    await tab.click("#clear")
    await page.says("#count", "0 exchanges")


@pytest.mark.threat(82)
async def test_082_what_is_hostile_shows_as_text_and_what_is_secret_does_not_show(
    around: Around,
) -> None:
    """Markup and live tokens in the method, path, query, names and values of fields, bodies, the status text.

    Of a method that is none nothing shows, since nothing of a malformed request does.
    """
    async with living(around, viewport={"width": 1280, "height": 800}) as live:
        page, tab = live.page, live.tab
        await tab.click("#bodies")
        await page.says("#bodies", "Bodies: on")
        token = live.proxy.environ["SITE"]
        tracked = live.tracker.double.issued
        assert (await live.proxy.ask("GET", "/calls")).status == 200
        secrets = [token, *live.tracker.double.issued[len(tracked) :]]
        said = f"{PAYLOAD} {' '.join(secrets)}"
        lines = [f"User-Agent: {said}", f"X-{TOKEN}: {said}", f"Referer: http://x/{secrets[0]}?q={PAYLOAD}"]
        for method, path in (
            (TOKEN, PATH),
            (secrets[0], PATH),
            ("PUT", PATH),
            ("POST", f"/site/evil/{secrets[0]}?q={PAYLOAD.replace(' ', '+')}&{secrets[-1]}={secrets[0]}"),
        ):
            body = said.encode()
            async with live.proxy.connect() as client:
                client.send(head(method, path, *lines, f"Content-Length: {len(body)}") + body)
                answer = await within(client.reader.readuntil(b"\r\n\r\n"))
            assert answer.startswith(b"HTTP/1.1 4")
        await page.says("#count", "5 exchanges")
        for number in (2, 3, 4, 5):
            await tab.locator(f".space .row[aria-rowindex='{number}']").click()
            await tab.locator("exchange-detail .part").first.wait_for()
            await live.proxy.ask("GET", "/site/json")
            shown = await tab.content()
            assert not [each for each in secrets if each in shown]
        await live.opens("bad_request")
        assert await tab.locator("exchange-detail h2").inner_text() == "400 -"
        await live.opens("method:POST")
        await page.says(".attempt dl", f"{PAYLOAD} {PAYLOAD} ***")
        await page.says("pre", PAYLOAD)
        await page.says("exchange-detail .fields", PAYLOAD)
        await page.says("exchange-detail h2", "***")
        assert await tab.locator("main script, main img, main svg[onload], main iframe").count() == 0
        live.look = "light-1280"
        await live.sees("hostile")


async def test_five_thousand_live_exchanges_take_few_rows_wherever_one_scrolls(
    around: Around,
) -> None:
    """They stay few while more come and one scrolls; what is kept is bounded by the configuration."""
    async with living(around, viewport={"width": 1280, "height": 800}) as live:
        page, tab = live.page, live.tab
        async with live.proxy.connect() as client:
            for _ in range(5100):
                assert (await client.ask("GET", "/site/denied")).status == 403
        await page.says("#count", "5000 exchanges")
        most = await tab.evaluate(
            """async () => {
                const grid = document.querySelector('.grid');
                let most = 0;
                for (let y = 0; y <= grid.scrollHeight; y += 1999) {
                    grid.scrollTop = y;
                    await new Promise(requestAnimationFrame);
                    await new Promise(requestAnimationFrame);
                    most = Math.max(most, document.querySelectorAll('.row').length);
                    const seen = document.elementFromPoint(300, grid.getBoundingClientRect().bottom - 20);
                    if (!seen.closest('.row')) throw new Error(`a gap at ${y}`);
                }
                return most;
            }"""
        )
        assert most < 60
        listed = (await live.proxy.admin("GET", "/api/exchanges?limit=9999")).json()
        assert (listed["kept"], listed["capacity"]) == (5000, 5000)
