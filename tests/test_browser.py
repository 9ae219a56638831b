"""A real browser: a page of somebody else's tries everything it can, and an app that may call us works.

Each attempt has a path of its own, by which the access log and the upstream tell of it. It is made twice, once with
the guard switched off: what does not get through then either would prove nothing.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web

from proxy.demo.serving import serving
from proxy.guard import Guard
from tests.support.browser import EVIL, chromium, needs_chromium
from tests.support.harness import Proxy, StartProxy
from tests.support.leaks import Canaries
from tests.support.routes import Keyed
from tests.support.site import Site, site
from tests.support.unguarded import switch_off

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

#: Of a request, as the access log has it: method, status, code.
Line = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """`script`, a function of a URL that ends in `ending`, tries to reach that, and gives what it could learn.

    `learns` is what that is where it gets through, which has the status `fine`; `asks`: behind a preflight.
    """

    script: str
    learns: str | None = None
    ending: str = "txt"
    method: str = "GET"
    fine: int = 200
    asks: bool = False

    def refused(self, code: str) -> list[Line]:
        """What the log has of it then."""
        status = 401 if code == "client_key_required" else 403
        return [("OPTIONS", 403, "cors_denied")] if self.asks else [(self.method, status, code)]

    @property
    def passed(self) -> list[Line]:
        """What it has where nothing is in its way."""
        return [("OPTIONS", 204, "")] * self.asks + [(self.method, self.fine, "")]


Attempts = Mapping[str, Attempt]


def fetched(options: str = "", url: str = "u", **more: Any) -> Attempt:
    """By `fetch`."""
    script = f"u => fetch({url}, {{{options}}}).then(r => r.type === 'opaque' ? null : r.text(), () => null)"
    return Attempt(script, **{"learns": "fine", **more})


def element(tag: str, attributes: str, learn: str = "null", **more: Any) -> Attempt:
    """By an element `it` of the page, with these attributes; `learn` is what it knows once that is loaded."""
    script = f"""u => new Promise(done => {{
        const it = Object.assign(document.createElement({tag!r}), {{{attributes}}});
        it.onload = () => done({learn});
        it.onerror = () => done(null);
        document.body.append(it);
    }})"""
    return Attempt(script, **more)


def form(attributes: str, method: str) -> Attempt:
    """By a form, whose answer is shown where its attributes say."""
    script = f"""u => {{
        const it = Object.assign(document.createElement('form'), {{action: u, method: '{method}', {attributes}}});
        document.body.append(it);
        it.submit();
        return null;
    }}"""
    return Attempt(script, ending="html", method=method)


def elements(more: str = "") -> dict[str, Attempt]:
    """What any page may embed, without asking anybody."""
    color = "getComputedStyle(document.body).color"
    return {
        "img": element("img", f"{more} src: u", "String(it.width)", learns="1", ending="gif"),
        "script": element("script", f"{more} src: u", "globalThis.ran", learns="ran", ending="js"),
        "style": element("link", f"{more} rel: 'stylesheet', href: u", color, learns="rgb(1, 2, 3)", ending="css"),
    }


#: Without an `Origin`.
BARE: Final[Attempts] = {
    **elements(),
    "img-redirected": element("img", "src: `/to?${u}`", "String(it.width)", learns="1", ending="gif"),
    "no-cors": fetched("mode: 'no-cors'", learns=None),
}
#: With one.
SIMPLE: Final[Attempts] = {
    "get": fetched(),
    "get-with-cookies": fetched("credentials: 'include'"),
    "get-redirected": fetched(url="`/to?${u}`"),
    "get-without-referrer": fetched("referrerPolicy: 'no-referrer'"),
    "head": fetched("method: 'HEAD'", method="HEAD", learns=""),
    "post": fetched("method: 'POST', body: 'x'", method="POST"),
    "post-no-cors": fetched("method: 'POST', body: 'x', mode: 'no-cors'", method="POST", learns=None),
    "xhr": Attempt(
        """u => new Promise(done => {
            const it = new XMLHttpRequest();
            it.onload = () => done(it.responseText);
            it.onerror = () => done(null);
            it.open('POST', u);
            it.send('x');
        })""",
        "fine",
        method="POST",
    ),
    "worker": Attempt(
        """u => new Promise(done => {
            const code = `fetch('${u}').then(r => r.text(), () => null).then(it => postMessage(it))`;
            new Worker(URL.createObjectURL(new Blob([code]))).onmessage = event => done(event.data);
        })""",
        "fine",
    ),
    "beacon": Attempt("u => { navigator.sendBeacon(u, 'x'); return null; }", method="POST"),
    "events": Attempt(
        """u => new Promise(done => {
            const it = new EventSource(u);
            it.onmessage = event => { it.close(); done(event.data); };
            it.onerror = () => { it.close(); done(null); };
        })""",
        "fine",
        "events",
    ),
    "module": Attempt("u => import(u).then(it => it.ran, () => null)", "ran", "mjs"),
}
#: With `Origin: null`.
NOWHERE: Final[Attempts] = {
    "frame-without-origin": Attempt(
        """u => new Promise(done => {
            const code = `fetch('${u}').then(r => r.text(), () => null).then(it => parent.postMessage(it, '*'))`;
            addEventListener('message', event => done(event.data));
            const it = document.createElement('iframe');
            it.sandbox = 'allow-scripts';
            it.srcdoc = `<script>${code}</script>`;
            document.body.append(it);
        })""",
        "fine",
    ),
}
#: Behind a preflight.
ASKING: Final[Attempts] = {
    "json": fetched(
        "method: 'POST', body: '{}', headers: {'Content-Type': 'application/json'}", method="POST", asks=True
    ),
    "put": fetched("method: 'PUT', body: 'x'", method="PUT", asks=True),
    "delete": fetched("method: 'DELETE', credentials: 'include'", method="DELETE", asks=True),
    "header": fetched("headers: {Authorization: 'Bearer mine'}", asks=True),
}
#: With an `Origin`, and without any field of Fetch Metadata.
SOCKETS: Final[Attempts] = {
    "websocket": Attempt(
        """u => new Promise(done => {
            const it = new WebSocket(u.replace('http', 'ws'));
            it.onopen = () => it.send('echo');
            it.onmessage = event => { it.close(); done(event.data); };
            it.onerror = () => done(null);
        })""",
        "echo",
        fine=101,
    ),
}
#: The answers to these are shown as pages.
PAGES: Final[Attempts] = {
    "frame": element("iframe", "src: u", ending="html"),
    "object": element("object", "data: u, type: 'text/html'", ending="html"),
    "form-post": form("target: '_blank'", "POST"),
    "form-without-origin": form("target: '_blank', rel: 'noreferrer'", "POST"),
    "window": Attempt("u => { open(u); return null; }", ending="html"),
    "location": Attempt("u => { open('about:blank').location = u; return null; }", ending="html"),
}


@dataclass
class Scene:
    """The proxy, the upstream behind it, and a browser."""

    proxy: Proxy
    upstream: Site
    token: str
    browser: Any

    def url(self, host: str = "127.0.0.1") -> str:
        """The proxy's, under this name."""
        return f"http://{host}:{urlsplit(self.proxy.url).port}"

    @asynccontextmanager
    async def profile(self) -> AsyncIterator[Any]:
        """Playwright's `BrowserContext`: cookies and all else of its own."""
        made = await self.browser.new_context()
        try:
            yield made
        finally:
            await made.close()

    @asynccontextmanager
    async def page(self, url: str, *, held: bool = False) -> AsyncIterator["Page"]:
        """A page in a profile of its own. `held`: as it was before its name led to us."""
        async with self.profile() as profile:
            tab = await profile.new_page()
            if held:
                await tab.route(url, lambda asked: asked.fulfill(body="", content_type="text/html"))
            await tab.goto(url)
            yield Page(tab, self)


class Page:
    """One that tries to reach the proxy."""

    def __init__(self, tab: Any, scene: Scene) -> None:
        self._tab = tab
        self._scene = scene
        self._rounds = 0

    async def tries(self, attempts: Attempts, base: str) -> tuple[dict[str, Any], dict[str, list[Line]]]:
        """Make the attempts, each below `base`: what the page learned by them, and what the log has of each."""
        proxy = self._scene.proxy
        before = len(proxy.lines())
        self._rounds += 1
        learned = {
            # What a browser could not load it may not ask for again; another query makes it another thing.
            name: await self._tab.evaluate(attempt.script, f"{base}/{name}.{attempt.ending}?{self._rounds}")
            for name, attempt in attempts.items()
        }

        def found(lines: list[dict[str, Any]]) -> dict[str, list[Line]]:
            return {
                name: [
                    (line["method"], line["status"], line["error"] or "")
                    for line in lines[before:]
                    if line["path"].endswith(f"/{name}.{attempt.ending}")
                ]
                for name, attempt in attempts.items()
            }

        # Behind a preflight that is granted, another line follows.
        await proxy.told(
            lambda lines: all(here and here[-1][:2] != ("OPTIONS", 204) for here in found(lines).values())
        )
        proxy.artefacts.add("page", repr(learned))
        return learned, found(proxy.lines())

    async def fails(self, attempts: Attempts, base: str, code: str = "origin_not_allowed") -> None:
        """Each is refused with that code, and nothing at all reaches the upstream."""
        learned, lines = await self.tries(attempts, base)
        assert lines == {name: attempt.refused(code) for name, attempt in attempts.items()}
        assert self._scene.upstream.seen == []
        assert [name for name, attempt in attempts.items() if learned[name] == attempt.learns is not None] == []

    async def succeeds(self, attempts: Attempts, base: str) -> None:
        """Each gets through, with our credential, and the page learns all that there is to learn."""
        before = len(self._scene.upstream.seen)
        learned, lines = await self.tries(attempts, base)
        assert lines == {name: attempt.passed for name, attempt in attempts.items()}
        assert learned == {name: attempt.learns for name, attempt in attempts.items()}
        assert {(it.path, it.headers["Authorization"]) for it in self._scene.upstream.seen[before:]} == {
            (f"/{name}.{attempt.ending}", f"Bearer {self._scene.token}") for name, attempt in attempts.items()
        }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def other() -> AsyncIterator[Site]:
    """A site that is not ours."""
    async with site() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(other: Site) -> AsyncIterator[Any]:
    """One for all tests."""
    async with chromium(other.port) as made:
        yield made


class Stage(Protocol):
    """`staged(guard)`: an async context manager that gives a `Scene`.

    `key` is in the environment as KEY, `fields` stand in each answer of the upstream, `port` is the proxy's (0: any
    free one), `route` are further keys of the route.
    """

    def __call__(
        self,
        guard: Mapping[str, Any] = ...,
        *,
        key: str = ...,
        fields: Mapping[str, str] = ...,
        port: int = ...,
        **route: Any,
    ) -> Any:
        """Set it up for the block."""
        ...


@pytest.fixture
def staged(proxying: StartProxy, browser: Any, canaries: Canaries) -> Stage:
    """Starts a proxy with a static token in front of a site."""
    keyed = Keyed(canaries.mint("token"))

    @asynccontextmanager
    async def start(
        guard: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        fields: Mapping[str, str] | None = None,
        port: int = 0,
        **route: Any,
    ) -> AsyncIterator[Scene]:
        async with site(fields) as upstream:
            top = {"guard": dict(guard or {}), "listen": f"127.0.0.1:{port}"}
            config = keyed.config(upstream.url, top=top, **route)
            async with proxying(config, environ={**keyed.environ, "KEY": key}) as proxy:
                yield Scene(proxy, upstream, keyed.token, browser)

    return start


# -- a page of somebody else's


@pytest.mark.patches
@pytest.mark.threat(2, 5, 6, 8)
@pytest.mark.parametrize(("visited", "base"), [(EVIL, "127.0.0.1"), ("localhost", "localhost")])
async def test_002_a_page_of_another_site_or_of_another_port_reaches_nothing(
    staged: Stage, other: Site, monkeypatch: pytest.MonkeyPatch, visited: str, base: str
) -> None:
    """By `fetch`, from a worker, by image, script, style, beacon, events, WebSocket, and behind a preflight."""
    attempts = {**BARE, **SIMPLE, **NOWHERE, **ASKING, **SOCKETS}
    async with staged() as scene, scene.page(f"http://{visited}:{other.port}/") as page:
        await page.fails(attempts, scene.url(base))
        switch_off(monkeypatch)
        await page.succeeds(attempts, scene.url(base))


@pytest.mark.patches
@pytest.mark.threat(2, 8, 9)
async def test_009_nor_its_frames_its_forms_and_its_windows(
    staged: Stage, other: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where a browser may show our answers; nor does it fetch an icon for the page that says no."""
    async with staged({"browser": True}) as scene, scene.page(f"http://{EVIL}:{other.port}/") as page:
        await page.fails(PAGES, scene.url())
        switch_off(monkeypatch)
        await page.succeeds(PAGES, scene.url())


@pytest.mark.patches
@pytest.mark.threat(1, 8)
async def test_001_a_page_whose_name_was_re_pointed_to_us_reaches_nothing(
    staged: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of our origin for the browser, which sends no `Origin`, asks no preflight, and would show it all."""
    attempts: Attempts = {
        **{name: BARE[name] for name in ("img", "script", "style")},
        **{name: SIMPLE[name] for name in ("get-with-cookies", "post", "worker", "beacon", "events", "module")},
        **{name: replace(attempt, asks=False) for name, attempt in ASKING.items()},
        **SOCKETS,
        "frame": PAGES["frame"],
        "form-post": PAGES["form-post"],
    }
    async with staged({"browser": True}) as scene, scene.page(f"{scene.url(EVIL)}/", held=True) as page:
        await page.fails(attempts, scene.url(EVIL), "host_not_allowed")
        switch_off(monkeypatch)
        await page.succeeds(attempts, scene.url(EVIL))


@pytest.mark.patches
@pytest.mark.threat(7, 8)
async def test_007_nothing_is_reached_at_0_0_0_0(
    staged: Stage, other: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For which a browser sends no Fetch Metadata."""
    attempts = {**BARE, "get": SIMPLE["get"], **SOCKETS, "frame": PAGES["frame"]}
    async with staged({"browser": True}) as scene, scene.page(f"http://{EVIL}:{other.port}/") as page:
        await page.fails(attempts, scene.url("0.0.0.0"), "host_not_allowed")
        switch_off(monkeypatch)
        await page.succeeds(attempts, scene.url("0.0.0.0"))


@pytest.mark.threat(2, 8)
async def test_002_under_a_name_that_is_not_below_localhost_a_key_is_needed(staged: Stage, other: Site) -> None:
    """Browsers send no Fetch Metadata to it, so that what has no `Origin` looks like curl's: that remains."""
    hosts = ["api.localhost", "api.test"]
    async with staged({"hosts": hosts}) as scene, scene.page(f"http://{EVIL}:{other.port}/") as page:
        await page.fails({**BARE, **SOCKETS}, scene.url("api.localhost"))
        await page.fails({"get": SIMPLE["get"], **SOCKETS}, scene.url("api.test"))
        await page.succeeds(BARE, scene.url("api.test"))


#: Lets a page of its origin be there without any server: it answers whatever is opened by itself.
WORKER: Final = """
    oninstall = () => skipWaiting();
    onactivate = event => event.waitUntil(clients.claim());
    onfetch = event => {
        const page = '<!doctype html><link rel=icon href=data:,>', headers = {'Content-Type': 'text/html'};
        if (event.request.mode === 'navigate') event.respondWith(new Response(page, {headers}));
    };
"""


async def _leave_a_worker(profile: Any) -> int:
    """Serve a page that registers `WORKER` in this profile, and end: the port that is free again."""

    async def answer(request: web.Request) -> web.Response:
        # Where it may be cached, the browser does not ask for it again by itself.
        kind = "text/javascript" if request.path == "/worker.js" else "text/html"
        text = WORKER if request.path == "/worker.js" else "<!doctype html>"
        return web.Response(text=text, content_type=kind, headers={"Cache-Control": "max-age=86400"})

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    async with serving(app) as url:
        port = urlsplit(url).port or 0
        tab = await profile.new_page()
        await tab.goto(f"http://localhost:{port}/")
        await tab.evaluate("""async () => {
            await navigator.serviceWorker.register('/worker.js', {updateViaCache: 'all'});
            await navigator.serviceWorker.ready;
        }""")
        await tab.close()
    return port


@pytest.mark.patches
@pytest.mark.threat(8, 9)
async def test_009_a_service_worker_that_an_earlier_server_left_on_our_port_reaches_nothing(
    staged: Stage, browser: Any, other: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any site can open its page, which is of our origin: a browser asks nobody whether that has changed hands."""
    attempts: Attempts = {
        **{name: BARE[name] for name in ("img", "script", "style")},
        **{name: SIMPLE[name] for name in ("get", "post", "xhr", "worker", "beacon", "events", "module")},
        **{name: replace(attempt, asks=False) for name, attempt in ASKING.items()},
        **SOCKETS,
    }
    profile = await browser.new_context()
    try:
        async with staged(port=await _leave_a_worker(profile)) as scene:
            tab = await profile.new_page()
            await tab.goto(f"http://{EVIL}:{other.port}/")
            async with profile.expect_page() as opened:
                await tab.evaluate("url => { open(url); }", f"{scene.url('localhost')}/a.html")
            page = Page(await opened.value, scene)
            await page.fails(attempts, scene.url("localhost"))
            monkeypatch.setattr(Guard, "_has_pages", lambda *_: True)
            await page.succeeds(attempts, scene.url("localhost"))
    finally:
        await profile.close()


# -- an app that may call


@pytest.mark.threat(2, 4, 5, 6)
async def test_005_an_app_of_a_listed_origin_works(staged: Stage, other: Site) -> None:
    """It loads modules, sends what needs a preflight, opens WebSockets. What has no `Origin` must ask with one."""
    app = f"http://localhost:{other.port}"
    attempts: Attempts = {**SIMPLE, **ASKING, **SOCKETS, **elements("crossOrigin: 'anonymous',")}
    async with staged({"origins": [app]}) as scene, scene.page(app) as page:
        await page.fails({**BARE, **NOWHERE}, scene.url("localhost"))
        await page.succeeds(attempts, scene.url("localhost"))


@pytest.mark.threat(5, 11)
async def test_005_a_preflight_is_answered_before_the_key_is_asked_for(
    staged: Stage, other: Site, canaries: Canaries
) -> None:
    """A browser sends no key with it. Where the app can set no field, the key is in the path."""
    app, key = f"http://localhost:{other.port}", canaries.mint("key")
    guard = {"origins": [app], "client_key": {"env": "KEY"}}
    async with staged(guard, key=key) as scene, scene.page(app) as page:
        await page.fails(SOCKETS, scene.url(), "client_key_required")
        _, lines = await page.tries(ASKING, scene.url())
        assert {name: each[-1] for name, each in lines.items()} == {
            name: (attempt.method, 401, "client_key_required") for name, attempt in ASKING.items()
        }
        assert scene.upstream.seen == []
        await page.succeeds({"key": fetched(f"headers: {{'X-Proxy-Key': '{key}'}}", asks=True)}, scene.url())
        await page.succeeds({**ASKING, **SOCKETS}, f"{scene.url()}/~{key}")


@pytest.mark.threat(9)
async def test_009_an_address_that_a_person_types_opens_no_page(staged: Stage) -> None:
    """The refusal says what would change that."""
    async with staged() as scene, scene.profile() as profile:
        tab = await profile.new_page()
        answer = await tab.goto(f"{scene.url()}/a.html")
        assert (answer.status, (await answer.json())["code"]) == (403, "origin_not_allowed")
        assert "set guard.browser" in await tab.inner_text("body")
        await scene.proxy.told(lambda lines: len(lines) == 1)
        assert scene.upstream.seen == []


@pytest.mark.threat(9)
async def test_009_a_page_of_the_upstream_works_where_that_is_configured(staged: Stage) -> None:
    """By all that a page can do; what it frames without an origin is not its own."""
    own: Attempts = {
        name: replace(attempt, asks=False)
        for name, attempt in {**BARE, **SIMPLE, **ASKING, **SOCKETS, **PAGES}.items()
        if "redirected" not in name and "no-cors" not in name
    }
    async with staged({"browser": True}) as scene, scene.page(f"{scene.url('localhost')}/a.html") as page:
        _, lines = await page.tries(NOWHERE, scene.url("localhost"))
        assert lines == {name: attempt.refused("origin_not_allowed") for name, attempt in NOWHERE.items()}
        await page.succeeds(own, scene.url("localhost"))


# -- what an upstream tells the browser


@pytest.mark.slow
@pytest.mark.threat(10)
@pytest.mark.parametrize("rewrites", [True, False])
async def test_010_a_cookie_stays_with_the_name_that_it_was_got_by(
    staged: Stage, other: Site, *, rewrites: bool
) -> None:
    """Whatever `Domain` the upstream wrote. Other ports of that name have it too: that is how cookies are."""
    fields = {"Set-Cookie": "session=theirs; Domain=apps.localhost"}
    guard = {"hosts": ["crm.apps.localhost"], "browser": True}
    async with staged(guard, fields=fields, rewrite={"cookies": rewrites}) as scene, scene.profile() as profile:
        tab = await profile.new_page()
        for _ in range(2):
            await tab.goto(f"{scene.url('crm.apps.localhost')}/a.html")
        assert scene.upstream.seen[-1].cookies == {"session": "theirs"}
        before = len(other.seen)
        for name in ("apps.localhost", "mail.apps.localhost", "crm.apps.localhost"):
            await tab.goto(f"http://{name}:{other.port}/a.html")
        cookies = [dict(each.cookies) for each in other.seen[before:]]
        assert cookies == [{}, {}, {"session": "theirs"}] if rewrites else [{"session": "theirs"}] * 3


@pytest.mark.slow
@pytest.mark.threat(73)
@pytest.mark.parametrize("rewrites", [True, False])
async def test_073_what_other_services_of_this_machine_stored_is_not_cleared(
    staged: Stage, other: Site, *, rewrites: bool
) -> None:
    """However much the upstream wants it."""
    fields = {"Clear-Site-Data": '"cookies", "storage"'}
    shown, kept = {"browser": True}, {"hsts": rewrites}
    async with staged(shown, fields=fields, rewrite=kept) as scene, scene.profile() as profile:
        tab = await profile.new_page()
        await tab.goto(f"http://localhost:{other.port}/a.html")
        await tab.evaluate("document.cookie = 'mine=1'")
        await tab.goto(f"{scene.url('localhost')}/a.html")
        await tab.goto(f"http://localhost:{other.port}/a.html")
        assert await tab.evaluate("document.cookie") == ("mine=1" if rewrites else "")
