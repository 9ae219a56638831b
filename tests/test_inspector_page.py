"""The inspector's page in a real browser, before a double of its API: what it shows, and that it runs nothing."""

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from proxy.demo.teletracker import TeleTracker
from tests.support.browser import chromium, needs_chromium
from tests.support.harness import HeldClock, StartProxy
from tests.support.inspectorfake import (
    JSON,
    STATIC,
    Inspector,
    attempt,
    body,
    detail,
    inspecting,
    report,
    retried,
    summary,
)
from tests.support.inspectorpage import Page
from tests.support.vendors import Vendor

#: The rule for modules of Python is one for these too.
LONGEST_MODULE: Final = 300
#: What would make markup, or code, of a text.
FORBIDDEN: Final = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    r"|\beval\(|new Function|setHTMLUnsafe|\bimport\(|https?://(?!www\.w3\.org/2000/svg)"
)
#: Each would set `ran` if it were taken for anything but text.
PAYLOADS: Final = (
    "<script>globalThis.ran = 1</script>",
    "<img src=x onerror='globalThis.ran = 1'>",
    "\"'><svg onload='globalThis.ran = 1'>",
    "javascript:globalThis.ran=1",
)
_GIF: Final = "R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="

browsing = (needs_chromium, pytest.mark.asyncio(loop_scope="module"))


def at_once(test: Any) -> Any:
    """The marks of a test that needs a browser, and that every change is to pass."""
    for mark in browsing:
        test = mark(test)
    return test


def in_browser(test: Any) -> Any:
    """The same of one that `make test-slow` runs: browsers take their time."""
    return pytest.mark.slow(at_once(test))


def sources() -> list[Path]:
    """All that the page is made of."""
    return sorted(STATIC.iterdir())


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_a_file_of_the_page_makes_no_markup_of_text_and_is_short_enough(path: Path) -> None:
    """Text becomes text alone, nothing comes from elsewhere, and no script or style stands in the document."""
    text = path.read_text("utf-8")
    assert FORBIDDEN.findall(text) == []
    if path.suffix == ".js":
        assert len(text.splitlines()) <= LONGEST_MODULE
        assert text.startswith("/**")
    if path.suffix == ".html":
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", text) == []


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Any]:
    """One for all tests."""
    async with chromium(1) as made:
        yield made


@asynccontextmanager
async def visiting(browser: Any, inspector: Inspector, **context: Any) -> AsyncIterator[Page]:
    """The page; at the end it has complained of nothing."""
    made = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
    made.set_default_timeout(10_000)
    try:
        async with inspecting(inspector):
            page = Page(await made.new_page(), inspector)
            await page.opens()
            yield page
            assert page.complaints == []
            assert await page.tab.evaluate("() => globalThis.ran") is None
            await page.tab.close()
    finally:
        await made.close()


def some(count: int, **more: Any) -> list[JSON]:
    """Plain ones."""
    return [detail(summary(number, **more)) for number in range(1, count + 1)]


@in_browser
async def test_an_exchange_shows_as_it_happens_the_newest_on_top(browser: Any) -> None:
    """What was there is there, and what comes comes above it, without a reload."""
    async with visiting(browser, Inspector(some(2))) as page:
        assert await page.paths() == ["/v2/things/2", "/v2/things/1"]
        page.inspector.happens(retried(3))
        await page.says("#count", "3 exchanges")
        assert await page.paths() == ["/v2/things/3", "/v2/things/2", "/v2/things/1"]
        await page.says(".row .mark", "retried")


@in_browser
async def test_what_goes_on_is_shown_once_and_ends_where_it_stands(browser: Any) -> None:
    """A later word of the same exchange takes the place of the first."""
    async with visiting(browser, Inspector()) as page:
        page.inspector.push("exchange", summary(1, live=True, kind="sse"))
        await page.says(".row .mark", "live")
        page.inspector.happens(detail(summary(1, kind="sse")))
        await page.says(".row .c-ms", "12.5 ms")
        assert await page.paths() == ["/v2/things/1"]
        assert await page.text(".row .c-marks >> nth=1") == "sse"


#: What is typed, and what of the four it leaves.
FILTERS: Final = {
    "status:5xx": ["/c"],
    "status:404": ["/b"],
    "status:>=400": ["/d", "/c", "/b"],
    "status:400-403": ["/d"],
    "status:error": ["/d", "/c", "/b"],
    "route:bill": ["/b", "/a"],
    "method:post": ["/b"],
    "retried": ["/a"],
    "route:billing -method:POST": ["/a"],
    "path_denied": ["/d"],
    "ms:>500": ["/c"],
    '"post 404"': ["/b"],
    "nothing of the kind": [],
    "status:banana": [],
    "-status:4x4x": [],
    "ms:long": [],
}


@in_browser
async def test_one_box_filters_by_status_route_method_and_text(browser: Any) -> None:
    """All terms must hold; a minus turns one round; what comes is filtered as well."""
    found = [
        retried(1, path="/a", route="billing"),
        detail(summary(2, path="/b", route="billing", method="POST", status=404)),
        detail(summary(3, path="/c", status=503, ms=900.0)),
        detail(summary(4, path="/d", status=403, error="path_denied", route=None)),
    ]
    async with visiting(browser, Inspector(found)) as page:
        for number, (typed, left) in enumerate(FILTERS.items(), 5):
            await page.tab.fill("#filter", typed)
            assert (typed, await page.paths()) == (typed, left)
            page.inspector.happens(detail(summary(number, path="/e", status=302)))
            await page.says("#count", f"of {number} exchanges")
            assert (typed, await page.paths()) == (typed, left)


@in_browser
async def test_a_filter_that_cannot_be_meant_says_what_may_stand_there(browser: Any) -> None:
    """Not that nothing matches."""
    status, ms = "status: takes 200, 4xx, 400-499, >=400, error or ok.", "ms: takes milliseconds, such as 500, "
    async with visiting(browser, Inspector(some(2))) as page:
        for typed, said in {"status:banana": status, "-status:4x4x": status, "a ms:long": ms}.items():
            await page.tab.fill("#filter", typed)
            await page.says(".empty", said)
        await page.tab.fill("#filter", "status:503")
        await page.says(".empty", "Nothing matches the filter.")


@at_once
async def test_five_thousand_exchanges_take_fewer_than_a_hundred_rows(browser: Any) -> None:
    """Wherever one looks, what one looks at is there; and it stays there while more come above."""
    async with visiting(browser, Inspector(some(5000))) as page:
        count = "() => document.querySelectorAll('.row').length"
        await page.says("#count", "5000 exchanges")
        assert (await page.paths())[0] == "/v2/things/5000"
        assert await page.tab.evaluate(count) < 100
        await page.tab.evaluate("() => document.querySelector('.grid').scrollTo(0, 2500 * 32)")
        assert "/v2/things/2500" in await page.paths()
        assert await page.tab.evaluate(count) < 100
        seen = "() => document.elementFromPoint(300, 600).closest('.row').dataset.id"
        before = await page.tab.evaluate(seen)
        page.inspector.happens(*(detail(summary(number)) for number in range(5001, 5031)))
        await page.tab.wait_for_function("() => document.querySelector('.grid').scrollTop >= 2530 * 32")
        await page.paths()
        assert await page.tab.evaluate(seen) == before
        await page.says("#count", "5000 exchanges")
        await page.press("G")
        assert (await page.paths())[-1] == "/v2/things/31"


@in_browser
async def test_a_retried_exchange_shows_both_attempts_side_by_side(browser: Any) -> None:
    """And why, above all else; with what was added, dropped and masked, each in a word."""
    async with visiting(browser, Inspector([retried(1)])) as page:
        await page.tab.click(".space .row")
        await page.says(".why", "which answered 200")
        assert await page.attempts() == ["Attempt 1: 401, token refused", "Attempt 2: 200"]
        boxes = [await each.bounding_box() for each in await page.tab.locator(".attempt").all()]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        words = await page.tab.locator(".word").all_inner_texts()
        assert set(words) == {"added", "dropped", "masked", "written anew"}
        assert "Token wait 2.0 ms" in str(await page.tab.locator(".spent").get_attribute("aria-label"))


@in_browser
async def test_what_a_refused_answer_said_stands_in_the_column_of_its_attempt(browser: Any) -> None:
    """Once bodies are kept; where they are not a button says so; one that broke off is not called empty."""
    said = {
        'What it said\n\n26 B · application/json\n\n{\n  "error": "invalid_token"\n}': body(
            '{"error": "invalid_token"}', "application/json"
        ),
        "What it said\n\nBodies are off. Switch on": None,
        "What it said\n\n0 B · text/plain cut at 0 bytes\n\nNothing of it was kept.": body("", truncated=True),
        "What it said\n\nNo body.": body(""),
    }
    found = [retried(number) for number in range(1, len(said) + 1)]
    for each, kept in zip(found, said.values(), strict=True):
        each["attempts"][0]["body"] = kept
    async with visiting(browser, Inspector(found)) as page:
        await page.press("G", "Enter")
        for number, told in enumerate(said, 1):
            await page.says("exchange-detail h2", f"/v2/things/{number}")
            await page.tab.locator(".attempt .unheard").wait_for()
            first, second = await page.tab.locator(".attempt").all()
            assert await first.locator(".unheard").inner_text() == told
            assert await second.locator(".unheard").count() == 0
            await page.press("k")
        await page.press("G")
        await page.says(".attempt .unheard", "invalid_token")
        await page.press("m")
        await page.says(".attempt .unheard", "26 B, hidden in presentation mode.")
        assert "invalid_token" not in await page.tab.content()


@in_browser
async def test_bodies_are_shown_as_what_they_are(browser: Any) -> None:
    """JSON indented with its numbers as they came, images, bytes as hex; what was cut says so."""
    number = "12345678901234567890"
    found = [
        detail(
            summary(1),
            request={
                "http": "1.1",
                "fields": [],
                "body": body(f'{{"a":[1,{number}],"b":{{}}}}', "application/json"),
            },
            response={"status": 200, "fields": [], "body": body(None, "image/gif", bytes=43, kept=43, base64=_GIF)},
        ),
        detail(
            summary(2),
            request={
                "http": "1.1",
                "fields": [],
                "body": body('{"a":"cu', "application/json", bytes=99, truncated=True),
            },
            response={
                "status": 200,
                "fields": [],
                "body": body(None, "", bytes=3, kept=3, base64=base64.b64encode(b"\0\x01A").decode()),
            },
        ),
    ]
    async with visiting(browser, Inspector(found, settings={"bodies": 65536, "exchanges": 500})) as page:
        await page.press("G", "Enter")
        await page.says("pre", number)
        assert await page.text("pre") == f'{{\n  "a": [\n    1,\n    {number}\n  ],\n  "b": {{}}\n}}'
        await page.tab.wait_for_function("() => document.querySelector('img.shown')?.naturalWidth === 1")
        await page.press("k")
        await page.says(".cut", "cut at 8 bytes")
        assert await page.text("pre") == '{\n  "a": "cu'
        assert re.fullmatch(r"00000000  00 01 41 +\.\.A", await page.text("pre.hex"))


@in_browser
async def test_bodies_that_are_off_can_be_switched_on_where_they_are_missed(browser: Any) -> None:
    """The button stands where a body would."""
    async with visiting(browser, Inspector(some(1))) as page:
        await page.tab.click(".space .row")
        await page.keeps_bodies()
        assert ("POST", "/api/inspector", {"bodies": 65536}) in page.inspector.asked
        assert await page.tab.locator(".keep").count() == 0


@at_once
@pytest.mark.threat(82)
async def test_markup_in_any_field_shows_as_text(browser: Any) -> None:
    """In each field of an exchange and of a credential, in the list, the detail, the dialogs and the toasts."""
    payload = " ".join(PAYLOADS)
    words = dict.fromkeys(("client", "method", "route", "path", "query", "error", "credential", "kind"), payload)
    fields = [[payload, payload, payload], [payload, payload, f"added: {payload}"]]
    said = body(payload, payload, encoding=payload)
    sent = attempt(3, 200, upstream=payload, target=payload, fields=fields, answer=fields, connection=payload)
    evil = detail(
        summary(1, **words),
        why=payload,
        attempts=[{**sent, "body": said}, {**sent, "error": payload, "status": None}],
        request={"http": payload, "fields": fields, "body": said},
        response={"status": payload, "fields": fields, "body": body(payload, "text/event-stream")},
    )
    event = {"at": "2026-11-22T19:00:00.123Z", "what": payload, "generation": payload, "detail": payload}
    credential = report(payload, state=payload, last_error=payload)
    settings = {"bodies": 1, "exchanges": 10}
    inspector = Inspector(
        [evil], [credential], {payload: [event]}, settings, (409, {"detail": payload, "title": payload})
    )
    async with visiting(browser, inspector) as page:
        page.inspector.push("token", {**event, "credential": payload})
        await page.tab.click(".card summary")
        await page.tab.click(".space .row")
        await page.says(".why", payload)
        for where in (
            ".c-path",
            ".c-route",
            ".mark.ours",
            ".card h2",
            ".state",
            ".history",
            ".fields th",
            ".attempt pre",
            "pre",
        ):
            await page.says(where, payload)
        await page.press("r")
        await page.says(".toast", payload)
        await page.press("e")
        await page.tab.locator("dialog [name=path]").wait_for()
        await page.press("Escape")
        assert await page.tab.locator("main script, main img, main svg[onload], main iframe").count() == 0


@in_browser
async def test_keys_do_what_buttons_do(browser: Any) -> None:
    """Down, up, open, close, filter, pause, replay, help; in the box they are letters."""
    async with visiting(browser, Inspector(some(3))) as page:
        current = ".space .row.current .c-path"
        await page.press("j")
        await page.says(current, "/v2/things/3")
        await page.press("j", "ArrowDown")
        await page.says(current, "/v2/things/1")
        await page.press("k", "Enter")
        await page.says("exchange-detail h2", "/v2/things/2")
        assert urlsplit(page.tab.url).fragment == "id2"
        await page.press("r")
        await page.says(".toast", "Sent again: 200.")
        assert ("POST", "/api/exchanges/id2/replay", {}) in page.inspector.asked
        await page.press("Escape")
        assert await page.tab.locator("exchange-detail").is_hidden()
        await page.press("p")
        page.inspector.happens(detail(summary(4)))
        await page.says("#count", "paused, 1 new")
        assert len(await page.paths()) == 3
        await page.press("p")
        await page.says("#count", "4 exchanges")
        await page.press("/")
        await page.tab.keyboard.type("jkr?3")
        assert await page.tab.input_value("#filter") == "jkr?3"
        await page.press("Escape", "?")
        await page.says("dialog h2", "Keys")
        await page.press("Escape")
        await page.tab.locator("dialog").wait_for(state="detached")


@in_browser
async def test_an_exchange_can_be_changed_before_it_is_sent_again(browser: Any) -> None:
    """What was masked or is the proxy's to write does not go along; the new one is shown as it comes."""
    first = detail(
        summary(1, method="POST", query="page=2&key=***"),
        request={
            "http": "1.1",
            "fields": [
                ["Accept", "*/*", None],
                ["X-Tenant", "*** (4 bytes)", "masked: only fields known to be harmless are shown"],
                ["Content-Length", "7", "written anew"],
            ],
            "body": body('{"a":1}', "application/json"),
        },
    )
    inspector = Inspector([first], replayed=(200, {"id": "id2", "status": 200, "left_out": []}))
    async with visiting(browser, inspector) as page:
        await page.tab.click(".space .row")
        await page.tab.click("text=Edit and replay")
        await page.says("dialog", "was masked: fill it in")
        await page.tab.fill("[name=query]", "page=3")
        await page.tab.fill("[name=fields]", "no field")
        await page.tab.click("dialog .first")
        await page.says("dialog .error", "This is no field: no field")
        await page.tab.fill("[name=fields]", "Accept: */*\nX-New: a: b\n")
        await page.tab.click("dialog .first")
        await page.says(".toast", "Sent again")
        assert inspector.asked[-1] == (
            "POST",
            "/api/exchanges/id1/replay",
            {
                "method": "POST",
                "path": "/v2/things/1",
                "query": "page=3",
                "fields": [["Accept", "*/*"], ["X-New", "a: b"]],
                "body": '{"a":1}',
            },
        )
        inspector.happens(detail(summary(2)))
        await page.says("exchange-detail h2", "/v2/things/2")


@in_browser
async def test_what_is_left_out_of_a_request_is_said_before_it_goes_and_after(browser: Any) -> None:
    """How many fields; of a body only where there was one. A value that came as `***` is none of them."""
    request = {
        "http": "1.1",
        "fields": [
            ["Via", "***", None],
            ["User-Agent", "own/1 (***)", "masked: not all of it is shown as it came"],
            ["X-Tenant", "*** (4 bytes)", "masked: only fields known to be harmless are shown"],
            ["Connection", "keep-alive", "dropped: it is about this connection alone"],
        ],
        "body": None,
    }
    shown = [detail(summary(number, bytes_in=number - 1), request=request) for number in (1, 2)]
    lacks = "Left out, since it is masked or was not kept: 2 of its fields."
    answer = {"id": None, "status": 200, "left_out": ["2 of its fields"]}
    async with visiting(browser, Inspector(shown, replayed=(200, answer))) as page:
        for row, hints in (2, ["The body was not kept: write one, or leave it empty."]), (3, []):
            await page.tab.click(f".space .row[aria-rowindex='{row}']")
            await page.tab.click("text=Edit and replay")
            await page.says("dialog label:has([name=fields]) small", lacks)
            assert await page.tab.input_value("[name=fields]") == "Via: ***"
            assert await page.tab.locator("dialog label:has([name=body]) small").all_inner_texts() == hints
            await page.press("Escape")
        await page.press("r")
        await page.says(".toast", f"Sent again: 200. {lacks}")


@in_browser
async def test_a_credential_shows_its_state_its_life_and_what_became_of_it(browser: Any) -> None:
    """It counts down, tells what failed and when it is tried again, and can be refreshed."""
    event = {"at": "2026-11-22T19:00:00.123Z", "what": "refreshed", "generation": 3, "detail": None}
    reports = [
        report(),
        report(
            "billing", state="invalid", generation=0, expires_in=None, last_error="It said no.", next_attempt_in=9.0
        ),
    ]
    async with visiting(browser, Inspector(credentials=reports, timelines={"default": [event]})) as page:
        await page.says(".card .life", "expires in 49 min 5")
        await page.tab.wait_for_function("() => /49 min 58 s/.test(document.querySelector('.life').textContent)")
        assert await page.tab.locator(".timeline .m-good").count() == 1
        await page.says(".card .error", "It said no.")
        await page.says(".card .life", "no token yet · next attempt in")
        page.inspector.push("token", {**event, "credential": "default", "what": "rejected", "detail": "401"})
        await page.tab.locator(".timeline .m-bad").wait_for(state="attached")
        page.inspector.push("credential", report("default", generation=8, expires_in=30.0))
        await page.says(".card .life.soon", "generation 8 · expires in")
        await page.tab.click("text=Refresh >> nth=0")
        await page.says(".toast", "Credential default: generation 4.")


@in_browser
async def test_presentation_mode_leaves_no_host_no_id_no_query_and_no_body_in_the_page(browser: Any) -> None:
    """Not even where it cannot be seen: they are not in the document."""
    secret = ("api.example.com", "/77", "acme", "4711", "10.1.2.3", "in-the-body")
    shown = summary(1, path="/v2/things/77", query="q=acme", client="ada@10.1.2.3")
    found = detail(
        shown,
        why="Route default (/v2/things/77) led to https://api.example.com, which answered 200. "
        "Its rules say: the key of client acme is for GET of /v2.",
        attempts=[attempt(3, 200, target="/v2/things/77?q=acme")],
        request={
            "http": "1.1",
            "fields": [["Referer", "https://api.example.com/x", None], ["X-Id", "4711", None]],
            "body": body("in-the-body"),
        },
    )
    reports = [report(last_error="https://api.example.com/token did not answer (10.1.2.3)")]
    async with visiting(browser, Inspector([found], reports)) as page:
        await page.tab.click(".space .row")
        await page.says("pre", "in-the-body")
        await page.press("m")
        await page.says(".why", "Route default (/v2/things/•••) led to •••, which answered 200.")
        await page.says(".why", "the key of client ••• is for GET of ")
        assert await page.paths() == ["/v2/things/•••?•••"]
        document = await page.tab.content()
        assert [word for word in secret if word in document] == []
        await page.shot("presentation")
        await page.press("m")
        await page.says("pre", "in-the-body")


@in_browser
async def test_a_proxy_that_restarts_is_found_again(browser: Any) -> None:
    """The page says that it lost it, and that what it showed is gone."""
    inspector = Inspector(some(3))
    made = await browser.new_context()
    made.set_default_timeout(15_000)
    async with inspecting(inspector):
        page = Page(await made.new_page(), inspector)
        await page.opens()
    await page.says("#link", "no connection: trying again")
    inspector.details = some(1)
    async with inspecting(inspector, urlsplit(inspector.url).port or 0):
        await page.says("#link", "live")
        await page.says("#count", "1 exchanges")
        await page.says(".toast", "The proxy restarted.")
        assert await page.paths() == ["/v2/things/1"]
        await page.tab.close()
    await made.close()


@in_browser
async def test_a_command_is_copied_and_the_list_cleared(browser: Any) -> None:
    """The command is what the proxy wrote."""
    async with visiting(browser, Inspector(some(2)), permissions=["clipboard-read", "clipboard-write"]) as page:
        await page.tab.click(".space .row >> nth=0")
        await page.tab.click("text=Copy as curl")
        await page.says(".toast", "Copied.")
        copied = await page.tab.evaluate("() => navigator.clipboard.readText()")
        assert copied.startswith("curl 'http://127.0.0.1:8080/v2/things/")
        await page.tab.click("#clear")
        await page.says(".empty", "Nothing yet.")
        assert page.inspector.details == []


@in_browser
async def test_what_the_filter_leaves_is_handed_out_and_nothing_else(browser: Any) -> None:
    """Whatever it says: the file holds what the list shows, less what still goes on."""
    inspector = Inspector([*some(5), detail(summary(6, live=True))])
    async with visiting(browser, inspector) as page:
        for text in ("path:things -path:/1", "kind:http ms:>0", '"things/2"', "things 3", ""):
            await page.tab.fill("#filter", text)
            shown = {f"/v2/things/{number}" for number in range(1, 6)} & set(await page.paths())
            assert shown
            async with page.tab.expect_download() as download:
                await page.tab.click("#har")
            assert (await download.value).suggested_filename == "exchanges.har"
            method, path, sent = inspector.asked[-1]
            assert (method, path) == ("POST", "/api/exchanges.har")
            paths = {each["path"] for each in inspector.details if each["id"] in sent["ids"]}
            assert paths == shown, text


@in_browser
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
async def test_it_fits_in_dark_and_light_on_wide_and_narrow_screens(browser: Any, colours: str, width: int) -> None:
    """Nothing is wider than the screen; on a narrow one the detail lies over the list, and a button leads back."""
    found = [
        detail(summary(number, status=status, ms=number * 9.0, route="billing"))
        for number, status in enumerate([200, 200, 204, 301, 404, 500, 200, 200, 200, 429, 200, 200], 1)
    ]
    found.append(detail(summary(13, status=403, error="path_denied", route=None)))
    found.append(
        retried(14, path="/v2/invoices/with/a/rather/long/path/that/does/not/fit/anywhere", query="page=2")
    )
    found[-1]["response"]["body"] = body('{"items": [{"id": 1, "paid": true}]}', "application/json")
    times = [f"2026-11-22T19:0{minute}:00.123Z" for minute in range(3)]
    events = [{"at": at, "what": "refreshed", "generation": 3, "detail": None} for at in times]
    reports = [report(), report("billing", state="invalid", generation=0, last_error="It said no.")]
    screen = {"viewport": {"width": width, "height": 800}, "color_scheme": colours}
    async with visiting(browser, Inspector(found, reports, {"default": events}), **screen) as page:
        wide = "() => document.documentElement.scrollWidth <= innerWidth"
        ground = await page.tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(14, 18, 23)") == (colours == "dark")
        assert await page.tab.evaluate(wide)
        await page.shot(f"list-{colours}-{width}")
        await page.tab.click(".space .row[aria-rowindex='2']")
        await page.says(".why", "answered 200")
        assert await page.tab.evaluate(wide)
        await page.shot(f"detail-{colours}-{width}")
        box = await page.tab.locator("exchange-detail").bounding_box()
        assert (box["width"] == width) == (width == 400)
        await page.tab.click(".back")
        assert await page.tab.locator("exchange-detail").is_hidden()
        await page.tab.click("#theme")
        await page.says("#theme", "Theme: dark")
        ground = await page.tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(14, 18, 23)"


@needs_chromium
async def test_it_shows_what_the_proxy_itself_does(
    proxying: StartProxy, tracker: Vendor[TeleTracker], clock: HeldClock
) -> None:
    """A token that is refused and renewed, both attempts, a replay, a body, and a refresh by its button."""
    top = {"admin": {"listen": "127.0.0.1:0", "inspector": {}}}
    async with (
        chromium(1) as browser,
        proxying({**tracker.config, **top}, environ=tracker.environ, clock=clock) as proxy,
    ):
        page = Page(await browser.new_page(viewport={"width": 1280, "height": 800}))
        page.tab.set_default_timeout(10_000)
        await page.enters(proxy)
        assert (await proxy.ask("GET", "/calls")).status == 200
        tracker.double.expire()
        assert (await proxy.ask("GET", "/calls?page=2")).status == 200
        await page.says("#count", "2 exchanges")
        assert await page.paths() == ["/calls?page=2", "/calls"]
        await page.says(".card .life", "generation 2")
        assert await page.tab.locator(".timeline .m-good").count() == 2
        await page.press("j", "Enter")
        await page.says(".why", "sent again with generation 2")
        assert await page.attempts() == ["Attempt 1: 401, token refused", "Attempt 2: 200"]
        await page.keeps_bodies()
        await page.press("r")
        await page.says(".toast", "Sent again: 200.")
        await page.says("#count", "3 exchanges")
        await page.says("exchange-detail pre", "{")
        await page.shot("proxy")
        await page.tab.click("text=Refresh >> nth=0")
        await page.says(".card .life", "generation 3")
        await page.tab.click("#clear")
        await page.says("#count", "0 exchanges")
        shown = await page.tab.content()
        proxy.artefacts.add("page", shown)
        assert page.complaints == []
        await page.tab.close()
