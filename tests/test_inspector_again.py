"""A captured request once more, by the inspector and by curl: what arrives is what came, what lacks is told."""

import shlex
from pathlib import Path
from typing import Final

import pytest

from tests.support.api import Seen, api
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries
from tests.support.programs import program, run, surroundings
from tests.support.raw import LAST_CHUNK, chunk, framed, head
from tests.support.routes import Keyed
from tests.test_inspector import ALL, ask, newest

#: More than is kept of a body, and so much that curl by itself asks first whether it may send it.
LARGE: Final = 1_500_000
KEPT: Final = 300_000
#: A replay frames and announces a body in its own way.
FRAMING: Final = frozenset({"content-length", "transfer-encoding", "expect"})


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token."""
    return Keyed(canaries.mint("token"))


def arrived(seen: Seen, *, less: frozenset[str] = frozenset()) -> tuple[object, ...]:
    """All of it; fields in the order of their names, since no other order means anything (RFC 9110 section 5.3)."""
    fields = sorted(
        ((name.lower(), value) for name, value in seen.headers if name.lower() not in less),
        key=lambda field: field[0],
    )
    return seen.method, seen.target, fields, seen.body


@pytest.mark.parametrize(
    ("came", "body"),
    [
        (("GET", "/"), b""),
        (("GET", "/a?page=1", "User-Agent: own/1", "Accept: text/plain"), b""),
        (("GET", "/%7Ea/b%2Fc?q=[1]{2}'\"$HOME", "Accept-Language: 'de', \"en\";q=0.5"), b""),
        (("GET", "/", "Accept: a/b", "Accept: c/d", "Accept-Language:"), b""),
        (("GET", "/", "Accept:", "User-Agent:"), b""),
        (("GET", "/", "Content-Length: 9"), b"of a read"),
        (("HEAD", "/", "Accept: */*"), b""),
        (("POST", "/", "Content-Length: 0"), b""),
        (("POST", "/"), b""),
        (("DELETE", "/a", "Content-Length: 0", "Accept: */*"), b""),
        (("POST", "/", "Content-Length: 8"), b"@a\n'$b'\n"),
        (("POST", "/", "Content-Type: application/json", "Content-Length: 11"), b'{"page": 1}'),
        (("POST", "/", "Content-Type: text/plain", "Transfer-Encoding: chunked"), b"in pieces"),
        (("PUT", "/", "Content-Type: text/plain", "Expect: 100-continue", "Content-Length: 5"), b"asked"),
    ],
)
async def test_what_is_sent_again_arrives_as_it_came(
    proxying: StartProxy, keyed: Keyed, tmp_path: Path, came: tuple[str, ...], body: bytes
) -> None:
    """By a replay, but for its framing, and by curl, which adds nothing of its own."""
    program("curl")
    async with (
        api() as upstream,
        proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy,
        proxy.connect() as client,
    ):
        is_chunked = "Transfer-Encoding: chunked" in came
        client.send(head(*came) + (chunk(body) + LAST_CHUNK if is_chunked else body))
        assert (await client.answer(came[0])).status == 200
        exchange = f"/api/exchanges/{(await newest(proxy))['id']}"
        replayed = (await ask(proxy, "POST", f"{exchange}/replay")).json()
        assert (replayed["status"], replayed["left_out"]) == (200, [])
        command = (await ask(proxy, "GET", f"{exchange}/curl")).body.decode()
        assert command.startswith("curl ")
        await run(proxy.artefacts, "sh", "-c", command, environ=surroundings(tmp_path))
    first, second, third = upstream.seen
    assert arrived(third) == arrived(first)
    less = FRAMING if is_chunked or "Expect: 100-continue" in came else frozenset()
    assert arrived(second, less=less) == arrived(first, less=less)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (bytes(range(256)) * (LARGE // 256), "its body, or a part of it"),
        (b"a" * 200_000, "its body, which is too long for a command: put it into a file called body"),
        (b"a\0", "its body, which is no text: put it into a file called body"),
    ],
    ids=["more than is kept", "more than an argument may have", "no text"],
)
async def test_a_body_from_a_file_arrives_as_it_came(
    proxying: StartProxy, keyed: Keyed, tmp_path: Path, body: bytes, told: str
) -> None:
    """The command says that it is needed; nobody is asked first, since nobody was."""
    program("curl")
    (tmp_path / "body").write_bytes(body)
    top = {"admin": {"listen": "127.0.0.1:0", "inspector": {"bodies": KEPT}}}
    async with api() as upstream, proxying(keyed.config(upstream.url, top=top), environ=keyed.environ) as proxy:
        await proxy.ask("POST", "/", {"Content-Type": "application/octet-stream"}, body)
        shown = await newest(proxy)
        command = (await ask(proxy, "GET", f"/api/exchanges/{shown['id']}/curl")).body.decode()
        await run(proxy.artefacts, "sh", "-c", command, cwd=tmp_path, environ=surroundings(tmp_path))
    assert command.startswith(f"# Left out, since it is masked or was not kept: {told}\ncurl ")
    first, second = upstream.seen
    assert arrived(second) == arrived(first)


async def test_a_field_that_is_masked_within_is_left_out_and_told(proxying: StartProxy, keyed: Keyed) -> None:
    """Whatever was masked, cut or escaped of it: `***` is not sent in its place, nor curl's own value."""
    fields = {
        "User-Agent": f"own/1 ({keyed.token})",
        "Referer": "https://example.com/a?page=1&key=4711",
        "Content-Location": "https://example.com/a#part",
        "If-Match": f'"{"aB3dE5gH7" * 12}"',
        "Accept": "text/plain, " * 200,
        "Accept-Language": "fran\xe7ais",
        "Accept-Charset": "utf-8",
        "Via": "***",
    }
    async with api() as upstream, proxying(keyed.config(upstream.url, top=ALL), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/", fields)
        shown = await newest(proxy)
        notes = {name: note for name, _, note in shown["request"]["fields"]}
        exchange = f"/api/exchanges/{shown['id']}"
        replayed = (await ask(proxy, "POST", f"{exchange}/replay")).json()
        edited = (await ask(proxy, "POST", f"{exchange}/replay", document={"fields": [["Accept", "*/*"]]})).json()
        first, command = (await ask(proxy, "GET", f"{exchange}/curl")).body.decode().splitlines()
        har = (await ask(proxy, "GET", "/api/exchanges.har")).json()["log"]["entries"][0]
    masked = {*fields} - {"Accept-Charset", "Via"}
    assert {name for name, note in notes.items() if note == "masked: not all of it is shown as it came"} == masked
    assert (notes["Accept-Charset"], notes["Via"]) == (None, None)
    assert (replayed["left_out"], edited["left_out"]) == (["6 of its fields"], [])
    assert first == "# Left out, since it is masked or was not kept: 6 of its fields"
    words = shlex.split(command)
    assert words[5:] == ["-H", "Accept-Charset: utf-8", "-H", "Via: ***", "-H", "User-Agent:", "-H", "Accept:"]
    sent = {name.lower() for name, _ in upstream.seen[1].headers}
    assert sent.isdisjoint(map(str.lower, masked))
    assert "accept-charset" in sent
    commented = {each["name"] for each in har["request"]["headers"] if "not all of it" in each.get("comment", "")}
    assert commented == masked


async def test_a_target_that_is_cut_is_not_sent_again(proxying: StartProxy, keyed: Keyed) -> None:
    """What is shown of it ends in a mask, and the command says so."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/" + "a" * 3000)
        shown = await newest(proxy)
        refused = await ask(proxy, "POST", f"/api/exchanges/{shown['id']}/replay")
        command = (await ask(proxy, "GET", f"/api/exchanges/{shown['id']}/curl")).body.decode()
    assert shown["path"].endswith("aaa***")
    assert (refused.status, refused.code) == (409, "not_kept")
    assert command.startswith("# Left out, since it is masked or was not kept: a part of its target\n")
    assert len(upstream.seen) == 1


async def test_a_client_key_is_not_said_to_be_left_out(proxying: StartProxy, keyed: Keyed) -> None:
    """Also where the request went no further than the proxy: the key is added to what is repeated."""
    top = {**ALL, "guard": {"client_keys": {"reader": {"key": {"env": "READER"}}}}}
    config = keyed.config("http://localhost:1", top=top, deny=[{"methods": ["GET"]}])
    key = "reader-key-0123456789"
    async with proxying(config, environ={**keyed.environ, "READER": key}) as proxy:
        assert (await proxy.ask("GET", "/a", {"X-Proxy-Key": key})).code == "path_denied"
        exchange = f"/api/exchanges/{(await newest(proxy))['id']}"
        replayed = (await ask(proxy, "POST", f"{exchange}/replay")).json()
        command = (await ask(proxy, "GET", f"{exchange}/curl")).body.decode()
    assert (replayed["status"], replayed["left_out"]) == (403, [])
    assert command.startswith("curl ")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_nobody_read_is_not_sent_again_as_none(
    proxying: StartProxy, keyed: Keyed, framing: str
) -> None:
    """The proxy refuses by the head alone; what was to come after it is not known."""
    config = keyed.config("http://localhost:1", top=ALL, deny=[{"methods": ["POST"]}])
    async with proxying(config, environ=keyed.environ) as proxy, proxy.connect() as client:
        client.send(head("POST", "/a", framed(framing, 6)[0]))
        assert (await client.answer()).code == "path_denied"
        exchange = f"/api/exchanges/{(await newest(proxy))['id']}"
        refused = await ask(proxy, "POST", f"{exchange}/replay")
        edited = await ask(proxy, "POST", f"{exchange}/replay", document={"body": ""})
        command = (await ask(proxy, "GET", f"{exchange}/curl")).body.decode()
    assert (refused.status, refused.code) == (409, "not_kept")
    assert edited.json()["status"] == 403
    assert command.startswith("# Left out, since it is masked or was not kept: its body, or a part of it\n")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "GE T"}, "The method is one word"),
        ({"method": "GET\r\nX: y"}, "The method is one word"),
        ({"method": ""}, "The method is one word"),
        ({"method": "GET/1"}, "The method is one word"),
        ({"fields": [["X Own", "a"]]}, "The name of a field is one word"),
        ({"fields": [["X-Own:", "a"]]}, "The name of a field is one word"),
        ({"fields": [["", "a"]]}, "The name of a field is one word"),
        ({"fields": [["X-Own\r\nX", "a"]]}, "The name of a field is one word"),
        ({"fields": [["X-\xd6wn", "a"]]}, "The name of a field is one word"),
        ({"fields": [["X-Own", "a\r\nX: y"]]}, "Path, query and the values of fields take printable ASCII only"),
        ({"path": "/a b"}, "Path, query and the values of fields take printable ASCII only"),
        ({"path": "b"}, "Write a path that begins with /."),
    ],
)
async def test_what_is_no_request_is_refused_with_the_reason(
    proxying: StartProxy, keyed: Keyed, changes: dict[str, object], told: str
) -> None:
    """Before anything is sent (RFC 9110 sections 5.1 and 9.1)."""
    async with api() as upstream, proxying(keyed.config(upstream.url), environ=keyed.environ) as proxy:
        await proxy.ask("GET", "/a")
        path = f"/api/exchanges/{(await newest(proxy))['id']}/replay"
        refused = await ask(proxy, "POST", path, document=changes)
    assert (refused.status, refused.code) == (400, "bad_request")
    assert refused.json()["detail"].startswith(told)
    assert len(upstream.seen) == 1
