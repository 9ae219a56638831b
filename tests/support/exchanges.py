"""Strategies for whole exchanges: requests and answers as raw bytes, each with what must arrive of it.

Law: a message is built from pieces whose meaning is known, and never parsed back; so nothing here can share a
mistake with a parser. What must arrive is written by RFC 9110 and RFC 9112, not by looking at the proxy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hypothesis import strategies as st

from tests.support.vocabulary import METHODS, NAMES_OF_ANSWERS, NAMES_OF_REQUESTS, SETTLED, STATUSES, is_free

Field = tuple[bytes, bytes]
Framing = Literal["none", "length", "chunked", "close"]
DrawFields = st.SearchStrategy[list[Field]]

#: Values are 0x20-0x7e, 0x80-0xff and tab (RFC 9110 section 5.5).
_VALUE_CHARACTERS: Final = st.characters(
    min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f", include_characters="\t"
)
_TOKEN: Final = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: What a target may hold besides escapes: printable ASCII without `#`, and without what has a meaning of its own.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "#%/?")
_ESCAPE: Final = st.builds("%{:{}}".format, st.integers(1, 255), st.sampled_from(["02x", "02X"]))


@dataclass(frozen=True, slots=True)
class Body:
    """A body: its content, its framing, how it goes over the wire, and the trailer fields behind its chunks."""

    framing: Framing = "none"
    content: bytes = b""
    wire: bytes = b""
    trailers: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A request: `lines` are all that is sent, `crossing` those of them that must arrive, in this order."""

    method: bytes
    target: bytes
    version: bytes
    lines: tuple[Field, ...]
    crossing: tuple[Field, ...]
    body: Body

    @property
    def wire(self) -> bytes:
        """As it is sent."""
        return b"%b %b HTTP/%b\r\n%b%b" % (
            self.method, self.target, self.version, block(self.lines), self.body.wire,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its interim answers before it; `lines` and `crossing` as in a request.

    `length` is the value of its Content-Length, which may stand there without a body (HEAD, 304). `closes`: the
    upstream must close behind it (RFC 9112 sections 6.3 and 9.3).
    """

    status: int
    version: bytes
    interim: tuple[tuple[int, tuple[Field, ...]], ...]
    lines: tuple[Field, ...]
    crossing: tuple[Field, ...]
    body: Body
    length: int | None
    closes: bool

    @property
    def wire(self) -> bytes:
        """As it is sent."""
        heads = [b"HTTP/1.1 %d Interim\r\n%b" % (status, block(lines)) for status, lines in self.interim]
        return b"%bHTTP/%b %d Some Words\r\n%b%b" % (
            b"".join(heads), self.version, self.status, block(self.lines), self.body.wire,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and the answer that the upstream gives to it."""

    request: Request
    answer: Answer


def block(lines: Sequence[Field]) -> bytes:
    """Field lines and the empty line behind them."""
    return b"".join(b"%b:%b\r\n" % line for line in lines) + b"\r\n"


def stripped(lines: Sequence[Field]) -> tuple[Field, ...]:
    """The same fields without the white space around their values, which is no part of them."""
    return tuple((name, value.strip(b" \t")) for name, value in lines)


def cut(wire: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`wire` in pieces of these sizes; what is left is one more. A size of 0 stands for 400 single bytes."""
    pieces: list[bytes] = []
    at = 0
    for size in sizes:
        for width in [size] if size else [1] * 400:
            pieces.append(wire[at : at + width])
            at += width
    return [piece for piece in (*pieces, wire[at:]) if piece]


#: How a stream of bytes is cut into segments.
segmentations: Final = st.one_of(
    st.just([]),
    st.just([0]),
    st.lists(st.one_of(st.integers(1, 40), st.integers(1, 2000)), max_size=10),
    st.builds(lambda size: [size, 0], st.integers(1, 300)),
)


def _names(known: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Field names in any case, well-known ones and any token."""
    spelled = st.builds(lambda name, spell: spell(name), st.sampled_from(known), st.sampled_from(_SPELLINGS))
    return spelled | st.text(_TOKEN, min_size=1, max_size=16).map(str.encode).filter(is_free)


_SPELLINGS: Final = [bytes, bytes.lower, bytes.upper, bytes.swapcase]
_values: Final = st.text(_VALUE_CHARACTERS, max_size=30).map(lambda value: value.encode("latin-1"))
#: The space that everybody writes, none, or more; behind the value too.
_padded: Final = st.builds(
    lambda value, pad: pad.replace(b"x", value), _values, st.sampled_from([b" x", b"x", b"\t x \t"])
)


def _fields(known: Sequence[bytes]) -> DrawFields:
    """Up to eight fields, some of them twice."""
    pairs = st.tuples(_names(known), _padded)
    twice = st.builds(
        lambda name, values: [(name, value) for value in values], _names(known), st.lists(_padded, max_size=3)
    )
    return st.builds(
        lambda first, again, rest: [*first, *again, *rest],
        st.lists(pairs, max_size=3),
        twice,
        st.lists(pairs, max_size=2),
    )


_fields_of_requests: Final = _fields(NAMES_OF_REQUESTS)
_fields_of_answers: Final = _fields(NAMES_OF_ANSWERS)
_fields_of_trailers: Final = st.lists(st.tuples(_names([b"X-Checksum", b"Server-Timing"]), _padded), max_size=3)


def _segment() -> st.SearchStrategy[str]:
    return st.lists(st.text(_PLAIN, max_size=5) | _ESCAPE, max_size=3).map("".join)


def _settled(path: str) -> bool:
    """Has no reading with dot segments, which the guard refuses where they climb."""
    return not any(sign in path.lower() for sign in ("..", "%2e", "%25"))


_paths: Final = st.one_of(
    st.lists(_segment(), min_size=1, max_size=4).map("/".join).filter(_settled),
    st.sampled_from(SETTLED),
)
_queries: Final = st.none() | st.lists(st.text(_PLAIN + "/?", max_size=6) | _ESCAPE, max_size=5).map("".join)
targets: Final = st.builds(
    lambda path, query: (f"/{path}" if query is None else f"/{path}?{query}").encode(), _paths, _queries
)

#: Small ones in all their bytes, and large ones that cross every buffer; 0x0d0a30 and the like are in both.
_contents: Final = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"0\r\n\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
    st.builds(
        lambda size, first: bytes((first + at) % 256 for at in range(256)) * size,
        st.integers(1, 300),
        st.integers(0, 255),
    ),
)
_extensions: Final = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b;\t c=\\"1\\""', b";a=1;b=2"])
_sizes: Final = st.sampled_from([b"%x", b"%X", b"0%x", b"%04X"])


@st.composite
def _chunked(draw: st.DrawFn, *, with_trailers: bool) -> Body:
    """A chunked body of arbitrary chunks (RFC 9112 section 7.1)."""
    content = draw(_contents)
    pieces = cut(content, draw(st.lists(st.integers(1, 5000), max_size=5)))
    trailers = draw(_fields_of_trailers) if with_trailers else []
    wire = b"".join(b"%b%b\r\n%b\r\n" % (draw(_sizes) % len(piece), draw(_extensions), piece) for piece in pieces)
    last = draw(st.sampled_from([b"0", b"000"])) + draw(_extensions)
    return Body("chunked", content, b"%b%b\r\n%b" % (wire, last, block(trailers)), stripped(trailers))


def _plain(framing: Framing) -> st.SearchStrategy[Body]:
    return _contents.map(lambda content: Body(framing, content, content))


def _framing_lines(body: Body) -> list[Field]:
    if body.framing == "chunked":
        return [(b"transfer-Encoding", b"\tChunked ")]
    return [(b"CONTENT-length", b" %d" % len(body.content))] if body.framing == "length" else []


@st.composite
def _among(draw: st.DrawFn, lines: list[Field], others: list[Field]) -> tuple[Field, ...]:
    """`others` put in between `lines`, whose order stays."""
    mixed = list(lines)
    for other in others:
        mixed.insert(draw(st.integers(0, len(mixed))), other)
    return tuple(mixed)


@st.composite
def _naming(draw: st.DrawFn, lines: list[Field], *options: bytes) -> tuple[list[Field], tuple[Field, ...]]:
    """A Connection field with these options and the names of some `lines`, and the lines that still cross."""
    named = {name.lower() for name, _ in lines if draw(st.integers(0, 5)) == 0}
    tokens = draw(st.permutations([*sorted(named), *options]))
    crossing = tuple(line for line in lines if line[0].lower() not in named)
    return ([(b"Connection", b" " + b" , ".join(tokens))] if tokens else []), stripped(crossing)


#: Fields that stop here, whatever they say: hop-by-hop ones, those of a proxy, and credentials of the client.
_STOPPING: Final[list[Field]] = [
    (b"Keep-Alive", b" timeout=5"), (b"TE", b" trailers"), (b"Proxy-Connection", b" keep-alive"),
    (b"X-Forwarded-For", b" 192.0.2.1"), (b"x_forwarded_host", b" x.example"), (b"Forwarded", b" for=192.0.2.1"),
    (b"authorization", b" Basic YTpi"), (b"Authorization", b" Bearer x"), (b"Proxy-Authorization", b" Basic YTpi"),
]  # fmt: skip
_STOPPING_IN_ANSWERS: Final[list[Field]] = [
    (b"Keep-Alive", b" timeout=5"), (b"Proxy-Connection", b" keep-alive"), (b"access-control-allow-origin", b" *"),
]  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, *, last: bool) -> Request:
    """A request that the guard admits; `last` on its connection, it may also be one of HTTP/1.0."""
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"])) if last else b"1.1"
    kinds = [st.just(Body()), _plain("length")]
    body = draw(st.one_of(*kinds) if version == b"1.0" else st.one_of(*kinds, _chunked(with_trailers=True)))
    lines = draw(_fields_of_requests)
    connection, crossing = draw(_naming(lines, *([b"close"] if last and draw(st.booleans()) else [])))
    stopping = draw(st.lists(st.sampled_from(_STOPPING), max_size=2))
    others = [(b"Host", b" localhost"), *connection, *stopping, *_framing_lines(body)]
    return Request(
        draw(st.sampled_from(METHODS)), draw(targets), version, draw(_among(lines, others)), crossing, body
    )


@st.composite
def answers(draw: st.DrawFn, method: bytes) -> Answer:
    """An answer to this method."""
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from(STATUSES))
    length: int | None = None
    if method == b"HEAD" or status in (204, 304):
        body = Body()
        length = None if status == 204 else draw(st.none() | st.integers(0, 10**12))
    else:
        framings = [_plain("length"), _plain("close")]
        body = draw(
            st.one_of(*framings) if version == b"1.0" else st.one_of(*framings, _chunked(with_trailers=True))
        )
        length = len(body.content) if body.framing == "length" else None
    lines = draw(_fields_of_answers)
    closes = draw(st.integers(0, 3)) == 0
    connection, crossing = draw(_naming(lines, *([b"close"] if closes else [])))
    stopping = draw(st.lists(st.sampled_from(_STOPPING_IN_ANSWERS), max_size=1))
    framing = _framing_lines(body) if body.framing == "chunked" else []
    if length is not None:
        framing = [(b"Content-LENGTH", b" %d" % length)]
    interim = draw(st.lists(_interim, max_size=2)) if version == b"1.1" else []
    mixed = draw(_among(lines, [*connection, *stopping, *framing]))
    closes = closes or version == b"1.0" or body.framing == "close"
    return Answer(status, version, tuple(interim), mixed, crossing, body, length, closes)


#: RFC 9110 section 15.2: all of them are forwarded; 100 belongs to Expect, 101 to Upgrade.
_interim: Final = st.tuples(
    st.sampled_from([102, 103, 103, 104]), st.lists(st.tuples(_names([b"Link"]), _padded), max_size=3).map(tuple)
)


@st.composite
def exchanges(draw: st.DrawFn, *, last: bool) -> Exchange:
    """A request and its answer."""
    request = draw(requests(last=last))
    return Exchange(request, draw(answers(request.method)))


@st.composite
def conversations(draw: st.DrawFn) -> list[Exchange]:
    """Two to six exchanges that share a connection; some say the same again, as clients do."""
    different = draw(st.lists(exchanges(last=False), min_size=1, max_size=3))
    again = draw(st.lists(st.sampled_from(different), max_size=2))
    return [*different, *again, draw(exchanges(last=True))]
