"""The wire corpus (tests/wire/README.md) through a real proxy: each case whole, and again one byte a segment."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support import corpus
from tests.support.corpus import AnswerCase, Group, RequestCase
from tests.support.harness import StartProxy
from tests.support.leaks import Artefacts, Canaries
from tests.support.messages import Malformed, read_answer, read_request
from tests.support.playing import Rig
from tests.support.routes import Keyed
from tests.support.wire import Client, Feed, Recorder
from tests.support.wiretext import spell

AnyGroup = Group[RequestCase] | Group[AnswerCase]
REQUESTS: Final = corpus.requests()
ANSWERS: Final = corpus.answers()
GROUPS: Final[tuple[AnyGroup, ...]] = (*REQUESTS, *ANSWERS)
#: What the corpus expects of the configuration.
PLACES: Final = [{"header": "Authorization", "scheme": "Bearer"}, {"header": "X-Api-Key", "scheme": None}]
LIMITS: Final = {"header_bytes": "8KiB", "body_bytes": "64KiB"}
DENY: Final = [{"paths": ["/denied/*"]}]


def marked(group: AnyGroup) -> pytest.MarkDecorator:
    """The numbers that it is about, as a marker."""
    return pytest.mark.threat(*group.numbers)


in_bytes_or_whole = pytest.mark.parametrize(
    "in_bytes",
    [pytest.param(False, id="whole"), pytest.param(True, id="byte by byte", marks=pytest.mark.unmeasured)],
)


@pytest.fixture
def keyed(canaries: Canaries) -> Keyed:
    """A static token that must not show."""
    return Keyed(canaries.mint("token"))


@asynccontextmanager
async def rigged(
    proxying: StartProxy, keyed: Keyed, canaries: Canaries, artefacts: Artefacts, *, in_bytes: bool, closing: bool
) -> AsyncIterator[Rig]:
    """A proxy in front of an upstream; with `closing` that one takes one good request a connection."""
    async with Recorder(in_bytes=in_bytes, closing=closing) as upstream, Recorder() as other:
        config = keyed.config(upstream.url, top={"limits": LIMITS, "admin": {"listen": None}}, deny=DENY)
        config["credentials"]["default"]["place"] = PLACES
        async with proxying(config, environ=keyed.environ) as proxy:
            rig = Rig(
                urlsplit(proxy.url).port or 0,
                upstream,
                other,
                values={
                    "canary": canaries.mint("token").encode(),
                    "token": keyed.token.encode(),
                    "upstream": upstream.authority.encode(),
                    "other": other.authority.encode(),
                },
                own={
                    "host": upstream.authority,
                    "authorization": f"Bearer {keyed.token}",
                    "x-api-key": keyed.token,
                },
                in_bytes=in_bytes,
            )
            artefacts.watch("what clients got", lambda: bytes(rig.transcript))
            yield rig


def assert_as_written(group: AnyGroup, wrong: Mapping[str, Sequence[str]]) -> None:
    """Fail with every complaint about every case of the group."""
    if wrong:
        lines = [f"  {group.name}: {case}: {complaint}" for case, each in wrong.items() for complaint in each]
        pytest.fail("\n".join([group.why.strip(), *lines]), pytrace=False)


@in_bytes_or_whole
@pytest.mark.parametrize("group", [pytest.param(each, id=each.name, marks=marked(each)) for each in REQUESTS])
async def test_what_clients_send_comes_to_what_the_corpus_says(
    group: Group[RequestCase],
    proxying: StartProxy,
    keyed: Keyed,
    canaries: Canaries,
    artefacts: Artefacts,
    *,
    in_bytes: bool,
) -> None:
    """The answers, the state of the connection, and the bytes that reached the upstream; 023 to 047."""
    async with rigged(proxying, keyed, canaries, artefacts, in_bytes=in_bytes, closing=False) as rig:
        wrong = {case.name: complaints for case in group.cases if (complaints := await rig.request(case))}
    assert_as_written(group, wrong)


@in_bytes_or_whole
@pytest.mark.parametrize("group", [pytest.param(each, id=each.name, marks=marked(each)) for each in ANSWERS])
async def test_what_upstreams_answer_comes_to_what_the_corpus_says(
    group: Group[AnswerCase],
    proxying: StartProxy,
    keyed: Keyed,
    canaries: Canaries,
    artefacts: Artefacts,
    *,
    in_bytes: bool,
) -> None:
    """What the client gets, and whether the upstream's connection is used again; 036, 042 to 044, 061 to 073."""
    async with rigged(proxying, keyed, canaries, artefacts, in_bytes=in_bytes, closing=True) as rig:
        wrong = {case.name: complaints for case in group.cases if (complaints := await rig.answer(case))}
    assert_as_written(group, wrong)


# -- the corpus and its tools

#: Sections 3.3, 3.4 and 3.6 of the threat table.
THREATS: Final = {*range(23, 49), *range(61, 74)}
#: Those of them that are no matter of bytes on a connection.
ELSEWHERE: Final = {
    34: "a loop is seen by addresses",
    48: "there is one parser, and it is ours",
    67: "timeouts",
    68: "streams, and how much memory they take",
    71: "name resolution",
    72: "cookies of one client for another",
}


def test_every_threat_of_the_wire_is_in_the_corpus() -> None:
    """A number that no group cites is excused in the table above, with its reason."""
    cited = {number for group in GROUPS for number in group.numbers}
    assert THREATS - cited == set(ELSEWHERE)


def test_every_case_has_a_name_of_its_own() -> None:
    """The list of differences refers to it."""
    names = [case.id for group in GROUPS for case in group.cases]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("a\nb\n\n", b"a\r\nb\r\n\r\n"),
        (r"\r\n\t\0\\\xfF", b"\r\n\t\0\\\xff"),
        ("a\\\nb", b"ab"),
        (r"\{ab*3}c", b"abababc"),
        (r"\{a\r\n*2}", b"a\r\na\r\n"),
        (r"{a*3}\{name}", b"{a*3}value"),
        (r"<\{}>", b"<hole>"),
    ],
)
def test_a_text_spells_its_bytes(text: str, spelled: bytes) -> None:
    """Line ends are CRLF, escapes are what the README says."""
    assert spell(text, {"": b"hole", "name": b"value"}) == spelled


@pytest.mark.parametrize(
    ("text", "error"),
    [("\\q", ValueError), ("a\\", ValueError), (r"\{none}", KeyError), ("\xe4", UnicodeEncodeError)],
)
def test_a_text_with_a_slip_spells_nothing(text: str, error: type[Exception]) -> None:
    """A typing error must not become a case that tests something else."""
    with pytest.raises(error):
        spell(text, {})


def test_a_key_that_is_none_and_a_name_that_stands_twice_are_noticed() -> None:
    """Either would leave a case out without a word."""
    with pytest.raises(TypeError):
        corpus.group_of({"group": "g", "threats": [], "why": "", "sned": "", "cases": {}}, RequestCase)
    with pytest.raises(yaml.YAMLError):
        yaml.load("{a: 1, a: 2}", corpus.UniqueKeys)  # noqa: S506  a SafeLoader


REQUEST: Final = b"GET / HTTP/1.1\r\n"
ANSWER: Final = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        REQUEST + b"X : a\r\n\r\n",
        REQUEST + b"X: a\r\n b\r\n\r\n",
        REQUEST + b"X: a\nY: b\r\n\r\n",
        REQUEST + b"X: a\x01\r\n\r\n",
        REQUEST + b"Content-Length: +5\r\n\r\nhello",
        REQUEST + b"Content-Length: 05\r\n\r\nhello",
        REQUEST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        REQUEST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        REQUEST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX : a\r\n\r\n",
    ],
)
def test_the_reader_of_messages_forgives_nothing(data: bytes) -> None:
    """What the proxy writes is read by it, so it must not be more lenient than the strictest of upstreams."""
    with pytest.raises(Malformed):
        read_request(data, 0)


@pytest.mark.parametrize(
    ("data", "method", "over", "complete"),
    [
        (ANSWER + b"Content-Length: 4\r\n\r\nfine", "GET", False, True),
        (ANSWER + b"Content-Length: 5\r\n\r\nfine", "GET", True, False),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", "GET", False, True),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX: a\r\n\r\n", "GET", False, True),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX: a\r\n", "GET", True, False),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n", "GET", True, False),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfi", "GET", True, False),
        (ANSWER + b"\r\nfine", "GET", False, False),
        (ANSWER + b"\r\nfine", "GET", True, True),
        (ANSWER + b"Content-Length: 4\r\n\r\n", "HEAD", False, True),
    ],
)
def test_the_reader_of_messages_knows_what_is_whole(
    data: bytes, method: str, *, over: bool, complete: bool
) -> None:
    """A body that broke off must not pass for a whole one."""
    message = read_answer(data, 0, method=method, over=over)
    assert message is not None
    assert message.complete is complete


async def test_byte_by_byte_means_one_byte_a_segment() -> None:
    """Each byte arrives alone: no two of them are written or read together."""
    sizes: list[int] = []

    class Sizes(Feed):
        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))
            super().data_received(data)

        def eof_received(self) -> bool:
            super().eof_received()
            return False

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sizes, "127.0.0.1", 0)
    async with server:
        _, client = await loop.create_connection(Client, *server.sockets[0].getsockname())
        await client.send(b"GET / HTTP/1.1\r\n\r\n", in_bytes=True)
        client.transport.write_eof()
        await client.over()
        client.transport.close()
    assert sizes == [1] * 18
