"""HTTP/1.1 on the wire: what is read, what is refused, and that neither depends on how the network cut it.

h11 is the independent reader: whatever is taken here, it reads in the same way.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadExpectation, BadFraming, ProxyError
from proxy.http1.answer import BARREN_MOST, CHUNKED, LENGTH, NO_BODY, SWITCHED, UNTIL_CLOSE, AnswerHead
from proxy.http1.bodies import LAST_CHUNK, SIZE_LINE, Chunked, Decoder, Sized, UntilEnd, chunk
from proxy.http1.request import METHODS, RequestSection, content_length, request_line
from proxy.http1.section import MOST_FIELDS, BadText, Malformed, Names, Section, TooMany, has_bare_lf
from tests.support import vocabulary

#: RFC 9110 section 5.6.2.
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CONTROLS: Final = [bytes([code]) for code in (*range(0x20), 0x7F) if code != 0x09]

names: Final = st.lists(st.sampled_from(TOKEN), min_size=1, max_size=20).map(bytes)
#: Visible ASCII, obs-text, and blanks within.
values: Final = st.lists(st.sampled_from([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)]), max_size=20).map(bytes)
blanks: Final = st.text(" \t", max_size=3).map(str.encode)


# -- field sections


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"", []),
        (b"A: 1", [(b"a", b"1", b"A: 1")]),
        (b"A:1", [(b"a", b"1", b"A:1")]),
        (b"A: \t 1 2\t ", [(b"a", b"1 2", b"A: \t 1 2\t ")]),
        (b"A:", [(b"a", b"", b"A:")]),
        (b"A: \t", [(b"a", b"", b"A: \t")]),
        (b"A: b: c", [(b"a", b"b: c", b"A: b: c")]),
        (b"a: \xff\x80\xa0", [(b"a", b"\xff\x80\xa0", b"a: \xff\x80\xa0")]),
        (b"X_a.B: 1", [(b"x_a.b", b"1", b"X_a.B: 1")]),
        (b"!#$%&'*+-.^_`|~9z: 1", [(b"!#$%&'*+-.^_`|~9z", b"1", b"!#$%&'*+-.^_`|~9z: 1")]),
        (b"B: 1\r\nA: 2\r\nb: 3", [(b"b", b"1", b"B: 1"), (b"a", b"2", b"A: 2"), (b"b", b"3", b"b: 3")]),
    ],
)
def test_037_a_field_section_is_read_and_each_line_stays_as_it_came(raw: bytes, fields: list[Any]) -> None:
    """Order, spelling, duplicates and white space; only the value is without what stands around it."""
    section = Section(raw)
    assert section.fields == fields
    assert section.raw == raw
    assert sum(map(len, section.values.values())) == len(fields)


def test_values_are_found_by_their_lower_case_name_in_their_order() -> None:
    """All lines of a field, and nothing for one that is not there."""
    section = Section(b"X-A: 1\r\nB: 2\r\nx-a:  3 ")
    assert section.values == {b"x-a": [b"1", b"3"], b"b": [b"2"]}


@pytest.mark.threat(39)
@pytest.mark.parametrize(
    ("raw", "options"),
    [
        (b"A: 1", set()),
        (b"Connection: ", set()),
        (b"Connection: Close", {b"close"}),
        (b"Connection: close, X-A\r\nconnection:\tKeep-Alive ,,", {b"close", b"x-a", b"keep-alive"}),
    ],
)
def test_039_connection_options_are_gathered_from_all_their_fields(raw: bytes, options: set[bytes]) -> None:
    """RFC 9110 section 7.6.1: case-insensitive, empty elements mean nothing."""
    assert Section(raw).options - {b""} == options


BROKEN_SECTIONS: Final = {
    "no colon": (b"A", Malformed),
    "no colon in the last line": (b"A: 1\r\nB", Malformed),
    "no name": (b": 1", Malformed),
    "space before the colon": (b"A : 1", Malformed),
    "tab before the colon": (b"A\t: 1", Malformed),
    "space within a name": (b"A B: 1", Malformed),
    "space before the first name": (b" A: 1", Malformed),
    "folded": (b"A: 1\r\n 2", Malformed),
    "folded with a colon": (b"A: 1\r\n B: 2", Malformed),
    "folded by a tab": (b"A: 1\r\n\t2", Malformed),
    "an empty line": (b"A: 1\r\n\r\nB: 2", Malformed),
    "an empty line at the end": (b"A: 1\r\n", Malformed),
    "a quote in a name": (b'"A": 1', Malformed),
    "a slash in a name": (b"A/B: 1", Malformed),
    "bytes beyond ASCII in a name": (b"\xc4: 1", Malformed),
    "a control character in a name": (b"A\x01: 1", Malformed),
    "a NUL in a name": (b"A\0: 1", Malformed),
    "a bare LF in a name": (b"A\nB: 1", Malformed),
    "a bare LF in a value": (b"A: 1\nB: 2", Malformed),
    "a bare LF at the end of a value": (b"A: 1\n\r\nB: 2", Malformed),
    "a bare CR in a value": (b"A: 1\rB: 2", Malformed),
    "a bare CR at the end of a value": (b"A: 1\r\r\nB: 2", Malformed),
    "a bare CR at the very end": (b"A: 1\r", Malformed),
    "LF and CR the wrong way round": (b"A: 1\n\rB: 2", Malformed),
    "a NUL in a value": (b"A: \0", BadText),
    "a DEL in a value": (b"A: 1\x7f", BadText),
    "an escape sequence in a value": (b"A: 1\r\nB: \x1b[31m", BadText),
}


@pytest.mark.threat(37)
@pytest.mark.parametrize("name", BROKEN_SECTIONS)
def test_037_what_is_malformed_is_refused_and_never_mended(name: str) -> None:
    """Half a line end breaks the structure, any other control character only the value it stands in."""
    raw, kind = BROKEN_SECTIONS[name]
    with pytest.raises(Malformed) as error:
        Section(raw)
    assert type(error.value) is kind
    assert error.value.args == ()


@pytest.mark.threat(63)
@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_063_no_control_character_passes_anywhere_in_a_field(control: bytes) -> None:
    """In a value at either end or within, and in a name."""
    for raw in (b"A: %b1", b"A: 1%b", b"A: 1%b2", b"A%b: 1", b"%bA: 1", b"B: 2\r\nA: 1%b2\r\nC: 3"):
        with pytest.raises(Malformed):
            Section(raw % control)


@pytest.mark.threat(116)
def test_116_the_number_of_fields_is_bounded() -> None:
    """At the bound, and one more."""
    line = b"A: 1"
    assert len(Section(b"\r\n".join([line] * MOST_FIELDS)).fields) == MOST_FIELDS
    with pytest.raises(TooMany):
        Section(b"\r\n".join([line] * (MOST_FIELDS + 1)))


def test_114_what_is_remembered_of_names_is_bounded_and_changes_nothing() -> None:
    """Clients could choose a new name for each field for ever."""
    known = Names()
    for number in range(Names.MOST * 2):
        assert known[b"X-%d" % number] == b"x-%d" % number
    assert len(known) == Names.MOST
    long = b"X" * (Names.LONGEST + 1)
    fresh = Names()
    assert fresh[long] == long.lower()
    assert fresh[long[1:]] == long[1:].lower()
    assert list(fresh) == [long[1:]]
    with pytest.raises(Malformed):
        fresh[b"X "]
    assert b"X " not in fresh


@given(st.lists(st.tuples(names, blanks, values, blanks), max_size=10))
def test_037_any_proper_section_is_read_for_what_it_is(lines: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    """The lines add up to the bytes that came, and h11 reads the same names and values."""
    wire = [name + b":" + before + value + behind for name, before, value, behind in lines]
    section = Section(b"\r\n".join(wire))
    expected = [(name.lower(), value.strip(b" \t")) for name, _, value, _ in lines]
    assert [(name, value) for name, value, _ in section.fields] == expected
    assert [line for _, _, line in section.fields] == wire
    assert [value for values in section.values.values() for value in values] == [
        value for name in dict.fromkeys(name for name, _ in expected) for key, value in expected if key == name
    ]


@pytest.mark.threat(37)
@given(
    st.lists(st.sampled_from([b"A", b"b", b":", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"1"])).map(
        b"".join
    )
)
def test_037_what_is_taken_at_all_h11_reads_in_the_same_way(raw: bytes) -> None:
    """It is more lenient (it mends folded lines and bare line feeds), so what both take is what is taken here."""
    try:
        section = Section(raw)
    except Malformed:
        return
    event = _by_h11(b"GET / HTTP/1.1\r\nHost: a\r\n" + raw + b"\r\n" * (2 if raw else 1))
    assert isinstance(event, h11.Request)
    assert list(event.headers)[1:] == [(name, value) for name, value, _ in section.fields]


def _by_h11(wire: bytes) -> object:
    """The first event of a client's bytes."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(wire)
    return reader.next_event()


@pytest.mark.threat(37)
@pytest.mark.parametrize(
    ("data", "has_one"),
    [
        (b"", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False),
        (b"GET / HTTP/1.1\r", False),
        (b"GET / HTTP/1.1\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\n", True),
        (b"\n\r", True),
    ],
)
def test_037_a_line_end_without_cr_is_noticed_before_the_head_is_whole(data: bytes, *, has_one: bool) -> None:
    """Its end would never come."""
    assert has_bare_lf(data) is has_one


# -- request lines


@pytest.mark.threat(27)
@pytest.mark.parametrize(("version", "minor"), [(b"HTTP/1.1", 1), (b"HTTP/1.0", 0)])
@pytest.mark.parametrize("method", [*vocabulary.METHODS, b"CONNECT", b"TRACE"])
def test_027_every_method_of_the_registry_is_known(method: bytes, version: bytes, minor: int) -> None:
    """RFC 9110 section 16.1.1; the target is whatever stands between."""
    assert request_line(b"%b /a?b %b" % (method, version)) == (method.decode(), b"/a?b", minor)
    assert METHODS[method] == method.decode()


@pytest.mark.parametrize(
    "target", [b"/", b"*", b"//x", b"http://x/", b"x:443", b"/\xff", b"/\x01", b"/\t", b"/\r", b"/#f", b"\xa0"]
)
def test_a_target_is_not_judged_with_its_line(target: bytes) -> None:
    """The guard does that, and tells what is wrong with it (`routes.split_target`)."""
    assert request_line(b"GET %b HTTP/1.1" % target) == ("GET", target, 1)


@pytest.mark.threat(27)
@pytest.mark.parametrize(
    "line",
    [
        b"", b" ", b"  ", b"GET", b"GET /", b"GET HTTP/1.1", b"GET / ", b"GET  HTTP/1.1", b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"GET /a b HTTP/1.1", b"GET\t/\tHTTP/1.1",
        b"GET / HTTP/1.1\t", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\0", b"get / HTTP/1.1", b"Get / HTTP/1.1",
        b"FOO / HTTP/1.1", b"PRI * HTTP/1.1", b"* / HTTP/1.1", b"GET\0 / HTTP/1.1", b"GETX / HTTP/1.1",
        b"GET / http/1.1", b"GET / HTTP/1.2", b"GET / HTTP/1", b"GET / HTTP/1.1.1", b"GET / HTTP/1.10",
        b"GET / HTTP/01.1", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTPS/1.1", b"GET / HTTP /1.1",
        b"GET / HTTP/1.\xb9", b"\x16\x03\x01 / HTTP/1.1",
    ],
)  # fmt: skip
def test_027_a_request_line_is_three_words_and_two_of_them_are_known(line: bytes) -> None:
    """Single spaces between, nothing around (RFC 9112 section 3 allows for more, and says what comes of it)."""
    with pytest.raises(Malformed):
        request_line(line)


# -- the section of a request


def request(*lines: bytes, minor: int = 1) -> RequestSection:
    """A section with a Host and these lines."""
    return RequestSection(b"\r\n".join((b"Host: a", *lines)), minor)


@pytest.mark.threat(35)
@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], None),
        ([b"Content-Length: 0"], 0),
        ([b"content-length:  5\t"], 5),
        ([b"Content-Length: 0005"], 5),
        ([b"Content-Length: 999999999999999999"], 10**18 - 1),
    ],
)
def test_035_a_declared_length_is_a_number(lines: list[bytes], length: int | None, minor: int) -> None:
    """Without one, and without chunks, there is no body."""
    section = request(*lines, minor=minor)
    assert (section.length, section.chunked, section.has_body) == (length, False, length is not None)
    assert section.minor == minor


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" CHUNKED\t"])
def test_035_the_one_coding_that_is_taken_is_chunked(value: bytes) -> None:
    """In any spelling (RFC 9112 section 7)."""
    section = request(b"Transfer-Encoding: " + value)
    assert (section.length, section.chunked, section.has_body) == (None, True, True)


CHUNKED_LINE: Final = b"Transfer-Encoding: chunked"
MISFRAMED: Final = [
    [b"Content-Length: 5", b"Content-Length: 5"],
    [b"Content-Length: 5", b"content-length: 6"],
    [b"Content-Length: 5", CHUNKED_LINE],
    [CHUNKED_LINE, b"Content-Length: 0"],
    [CHUNKED_LINE, CHUNKED_LINE],
    *([b"Content-Length: " + value] for value in (
        b"", b"5, 5", b"5,5", b"+5", b"-5", b"-0", b"5.0", b"0x5", b"5 5", b"5a", b"1_0", b"\xb2", b"\xd9\xa5",
        b"1" * 19, b"1" * 1000, b'"5"', b"five", b"NaN",
    )),
    *([b"Transfer-Encoding: " + value] for value in (
        b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"chunked,",
        b",chunked", b"xchunked", b"chunkedx", b'"chunked"', b"chunked;q=1", b"chunked x", b"chunked\t,",
        b"\xa0chunked",
    )),
    [b"Transfer-Encoding: gzip", CHUNKED_LINE],
]  # fmt: skip


@pytest.mark.threat(35)
@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("lines", MISFRAMED)
def test_035_an_ambiguous_length_is_refused(lines: list[bytes], minor: int) -> None:
    """RFC 9112 section 6.3 calls each an error; which of two readings another program takes nobody knows."""
    with pytest.raises(BadFraming):
        request(*lines, minor=minor)


@pytest.mark.threat(35)
def test_035_there_are_no_chunks_in_http_1_0() -> None:
    """It does not know them (RFC 9112 section 6.1)."""
    with pytest.raises(BadFraming):
        request(CHUNKED_LINE, minor=0)


@pytest.mark.threat(1)
@pytest.mark.parametrize(
    ("raw", "minor", "is_proper"),
    [
        (b"Host: a", 1, True),
        (b"host:", 1, True),
        (b"Host: a", 0, True),
        (b"", 0, True),
        (b"X: 1", 0, True),
        (b"", 1, False),
        (b"X: 1", 1, False),
        (b"Host: a\r\nHost: a", 1, False),
        (b"Host: a\r\nhost: b", 0, False),
    ],
)
def test_001_a_request_has_one_host(raw: bytes, minor: int, *, is_proper: bool) -> None:
    """RFC 9112 section 3.2; HTTP/1.0 may do without, and what that means is the guard's to say."""
    if is_proper:
        assert RequestSection(raw, minor).raw == raw
    else:
        with pytest.raises(Malformed):
            RequestSection(raw, minor)


@pytest.mark.threat(45)
@pytest.mark.parametrize(
    ("lines", "minor", "expects"),
    [
        ([], 1, False),
        ([b"Expect: 100-continue"], 1, True),
        ([b"expect:100-Continue "], 1, True),
        ([b"Expect: 100-continue", b"Expect: 100-continue"], 1, True),
        ([b"Expect: 100-continue"], 0, False),
        ([b"Expect: anything"], 0, False),
        ([b"Expect: anything"], 1, None),
        ([b"Expect: "], 1, None),
        ([b"Expect: 100-continue, 100-continue"], 1, None),
        ([b"Expect: 100-continue", b"Expect: more"], 1, None),
    ],
)
def test_045_the_only_expectation_is_100_continue(lines: list[bytes], minor: int, expects: bool | None) -> None:  # noqa: FBT001  a column of the table
    """Of HTTP/1.0 none is heeded (RFC 9110 section 10.1.1)."""
    if expects is None:
        with pytest.raises(BadExpectation):
            request(*lines, minor=minor)
    else:
        assert request(*lines, minor=minor).expects is expects


def test_what_is_concluded_of_a_section_belongs_to_it_alone() -> None:
    """Two sections of the same bytes do not share it."""
    first, second = request(), request()
    first.memo["a"] = 1
    assert second.memo == {}


@pytest.mark.threat(35)
@given(st.lists(st.sampled_from("0123456789+-_ .,xa\u0665\xb2").map(str.encode), max_size=25).map(b"".join))
def test_035_a_length_is_digits_alone(value: bytes) -> None:
    """What `int` would take besides is none."""
    number = content_length(value)
    if number is None:
        assert not value.isdigit() or len(value) > 18
    else:
        assert value.strip(b"0123456789") == b""
        assert number == int(value) < 10**18


# -- the head of an answer


def answer(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> AnswerHead:
    """A head of these field lines."""
    return AnswerHead(b"\r\n".join((line, *lines)))


@pytest.mark.threat(70)
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.0 200 OK", 200),
        (b"HTTP/1.1 200 ", 200),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/1.1 404 Not \xe9\t(here) ", 404),
        (b"HTTP/1.1 599 x", 599),
        (b"HTTP/1.1 100 Continue", 100),
    ],
)
def test_070_a_status_line_is_a_version_and_a_code(line: bytes, status: int) -> None:
    """The reason is text that goes no further; some servers leave out the space in front of an empty one."""
    assert answer(line=line).status == status
    assert answer(b"A: 1", line=line).values == {b"a": [b"1"]}


@pytest.mark.threat(70)
@pytest.mark.parametrize(
    "line",
    [
        b"", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 20x", b"HTTP/1.1 099",
        b"HTTP/1.1 600 X", b"HTTP/1.1 999 X", b"HTTP/1.1 000", b"HTTP/1.1 -20", b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK", b" HTTP/1.1 200 OK", b"HTTP/2 200", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK",
        b"HTTP/0.9 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"SSH-2.0-x", b"HTTP/1.1 200OK",
        b"HTTP/1.1 200 O\x1bK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK",
        b"HTTP/1.1 200 \x7f", b"HTTP/1.1 200\n", b"HTTP/1.1 \xb2\xb2\xb2 OK",
    ],
)  # fmt: skip
def test_070_anything_else_is_no_status_line(line: bytes) -> None:
    """Other versions, codes that no class has, and control characters in the reason (threat 63)."""
    with pytest.raises(Malformed):
        answer(line=line)


@pytest.mark.threat(44)
@pytest.mark.parametrize(
    ("status", "lines", "get", "head"),
    [
        (200, [b"Content-Length: 5"], LENGTH, NO_BODY),
        (200, [b"Content-Length: 0"], LENGTH, NO_BODY),
        (200, [CHUNKED_LINE], CHUNKED, NO_BODY),
        (200, [b"transfer-encoding:Chunked"], CHUNKED, NO_BODY),
        (200, [], UNTIL_CLOSE, NO_BODY),
        (500, [], UNTIL_CLOSE, NO_BODY),
        (204, [], NO_BODY, NO_BODY),
        (204, [b"Content-Length: 5"], NO_BODY, NO_BODY),
        (204, [CHUNKED_LINE], NO_BODY, NO_BODY),
        (304, [], NO_BODY, NO_BODY),
        (304, [b"Content-Length: 5"], NO_BODY, NO_BODY),
        (304, [CHUNKED_LINE], NO_BODY, NO_BODY),
        (101, [], SWITCHED, SWITCHED),
        (101, [b"Content-Length: 5"], SWITCHED, SWITCHED),
        (205, [b"Content-Length: 0"], LENGTH, NO_BODY),
    ],
)
def test_044_how_a_body_ends_is_said_by_head_and_method(
    status: int, lines: list[bytes], get: str, head: str
) -> None:
    """RFC 9112 section 6.3, in its order."""
    read = answer(*lines, line=b"HTTP/1.1 %d X" % status)
    assert read.framing(asked_by_head=False) == get
    assert read.framing(asked_by_head=True) == head


def test_each_framing_has_its_decoder() -> None:
    """None where there is nothing to take; a switched connection ends as one without a length does."""
    sized, chunked = answer(b"Content-Length: 5"), answer(CHUNKED_LINE)
    decoder = sized.decoder(LENGTH)
    assert isinstance(decoder, Sized)
    assert (decoder.feed(b"hello!"), decoder.rest) == (b"hello", b"!")
    assert isinstance(chunked.decoder(CHUNKED), Chunked)
    assert isinstance(answer().decoder(UNTIL_CLOSE), UntilEnd)
    assert isinstance(answer().decoder(SWITCHED), UntilEnd)
    assert sized.decoder(NO_BODY) is None
    empty = answer(b"Content-Length: 0").decoder(LENGTH)
    assert empty is not None
    assert empty.done


@pytest.mark.threat(64)
def test_064_an_answer_may_have_so_many_extensions_and_trailers_and_no_more() -> None:
    """They are held until the end of the body is there."""
    for size, is_taken in ((BARREN_MOST - 20, True), (BARREN_MOST + 1, False)):
        decoder = answer(CHUNKED_LINE).decoder(CHUNKED)
        assert decoder is not None
        wire = b"0\r\nX: " + b"a" * size + b"\r\n\r\n"
        if is_taken:
            decoder.feed(wire)
            assert decoder.done
        else:
            with pytest.raises(TooMany):
                decoder.feed(wire)


@pytest.mark.parametrize(
    ("lines", "length"),
    [([], None), ([b"Content-Length: 7"], 7), ([b"Content-Length: 007"], 7), ([CHUNKED_LINE], None)],
)
def test_the_declared_length_is_known_whatever_it_is_about(lines: list[bytes], length: int | None) -> None:
    """Of a HEAD and a 304 it tells the size of what is not sent."""
    for status in (200, 204, 304):
        assert answer(*lines, line=b"HTTP/1.1 %d X" % status).length == length


@pytest.mark.threat(35)
@pytest.mark.parametrize(
    ("line", "lines"),
    [
        *((b"HTTP/1.1 200 OK", lines) for lines in MISFRAMED),
        *((b"HTTP/1.1 304 X", lines) for lines in MISFRAMED),
        (b"HTTP/1.0 200 OK", [CHUNKED_LINE]),
        (b"HTTP/1.1 200 OK", [b"A: 1", b" 2"]),
        (b"HTTP/1.1 200 OK", [b"A : 1"]),
        (b"HTTP/1.1 200 OK", [b"A: \x01"]),
        (b"HTTP/1.1 200 OK", [b"A"]),
    ],
)
def test_035_an_answer_whose_end_is_ambiguous_is_none(line: bytes, lines: list[bytes]) -> None:
    """The same that is refused of a client; a body that only a confused reader would see is no exception."""
    with pytest.raises(Malformed):
        answer(*lines, line=line)


@pytest.mark.parametrize(
    ("status", "is_interim"), [(100, True), (101, False), (102, True), (103, True), (199, True), (200, False)]
)
def test_an_interim_answer_is_told_from_a_final_one(status: int, *, is_interim: bool) -> None:
    """A 101 is final: there is no HTTP behind it (RFC 9110 section 15.2.2)."""
    assert answer(line=b"HTTP/1.1 %d X" % status).is_interim is is_interim


@pytest.mark.parametrize(
    ("line", "lines", "keeps"),
    [
        (b"HTTP/1.1 200 OK", [], True),
        (b"HTTP/1.1 200 OK", [b"Connection: close"], False),
        (b"HTTP/1.1 200 OK", [b"Connection: X", b"connection: Close"], False),
        (b"HTTP/1.1 200 OK", [b"Connection: keep-alive, close"], False),
        (b"HTTP/1.0 200 OK", [], False),
        (b"HTTP/1.0 200 OK", [b"Connection: Keep-Alive"], True),
        (b"HTTP/1.0 200 OK", [b"Connection: keep-alive, close"], False),
        (b"HTTP/1.1 204 X", [], True),
        (b"HTTP/1.1 204 X", [b"Content-Length: 0"], True),
        (b"HTTP/1.1 204 X", [b"Content-Length: 5"], False),
        (b"HTTP/1.1 204 X", [CHUNKED_LINE], False),
        (b"HTTP/1.1 304 X", [b"Content-Length: 5"], True),
    ],
)
def test_043_whether_a_connection_serves_again_is_said_by_its_answer(
    line: bytes, lines: list[bytes], *, keeps: bool
) -> None:
    """RFC 9112 section 9.3; a 204 that speaks of a body may send one, which would be the next answer."""
    assert answer(*lines, line=line).keep_alive is keeps


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], None),
        ([b"Keep-Alive: timeout=5"], 5.0),
        ([b"Keep-Alive: max=9 , timeout = 5"], 5.0),
        ([b"keep-alive: max=100 , Timeout=15 "], 15.0),
        ([b"Keep-Alive: max=1", b"Keep-Alive: timeout=2"], 2.0),
        ([b"Keep-Alive: timeout=0"], 0.0),
        ([b"Keep-Alive: timeout=3, timeout=9"], 3.0),
        ([b"Keep-Alive: timeout"], None),
        ([b"Keep-Alive: timeout="], None),
        ([b"Keep-Alive: timeout=-1"], None),
        ([b"Keep-Alive: timeout=1.5"], None),
        ([b"Keep-Alive: timeout=99999999"], None),
        ([b"Keep-Alive: \xb2=timeout"], None),
        ([b"X: timeout=5"], None),
    ],
)
def test_how_long_an_idle_connection_lives_is_said_by_the_upstream(
    lines: list[bytes], seconds: float | None
) -> None:
    """The first proper number of seconds counts."""
    assert answer(*lines).keep_alive_timeout == seconds


@given(
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Found", b"HTTP/1.1 304 X"]),
    st.lists(st.tuples(names.filter(vocabulary.is_free), blanks, values, blanks), max_size=10),
)
def test_037_h11_reads_the_same_answer(line: bytes, lines: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    """Status, names and values."""
    wire = [name + b":" + before + value + behind for name, before, value, behind in lines]
    head = answer(*wire, line=line)
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(b"\r\n".join((line, *wire, b"", b"")))
    event = reader.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == head.status
    assert list(event.headers) == [(name, value) for name, value, _ in head.fields]


# -- bodies


def take(decoder: Decoder, pieces: Iterable[bytes]) -> tuple[bytes, bytes | None]:
    """The body in these pieces, and what is behind it (None: it is not complete). Raises `Malformed`."""
    body, behind = bytearray(), None
    for piece in pieces:
        if behind is None:
            body += decoder.feed(piece)
            behind = decoder.rest if decoder.done else None
        else:
            behind += piece
    return bytes(body), behind


def sliced(wire: bytes, at: Iterable[int]) -> list[bytes]:
    """The bytes cut at these places; no piece is empty."""
    places = sorted({place for place in at if 0 < place < len(wire)})
    return [wire[begin:end] for begin, end in zip([0, *places], [*places, len(wire)], strict=True) if end > begin]


def everywhere(wire: bytes) -> list[list[bytes]]:
    """Whole, one byte at a time, and in two pieces at every place."""
    return [[wire], sliced(wire, range(len(wire))), *(sliced(wire, [at]) for at in range(1, len(wire)))]


@pytest.mark.parametrize("length", [0, 1, 5, 10])
def test_a_sized_body_ends_behind_its_last_byte(length: int) -> None:
    """What follows is somebody else's, however it came."""
    wire = b"helloworld"
    for pieces in everywhere(wire + b"NEXT") if length else []:
        assert take(Sized(length), pieces) == (wire[:length], wire[length:] + b"NEXT")
    assert Sized(length).done is (length == 0)
    assert take(Sized(11), [wire]) == (wire, None)


def test_a_body_that_ends_with_the_connection_never_ends_by_itself() -> None:
    """Only the connection knows."""
    decoder = UntilEnd()
    assert [decoder.feed(piece) for piece in (b"a", b"", b"0\r\n\r\n")] == [b"a", b"", b"0\r\n\r\n"]
    assert not decoder.done
    assert decoder.rest == b""


BARREN: Final = 10_000
#: Chunked bodies, what they hold, and the trailers behind them.
CHUNKED_BODIES: Final = {
    "empty": (b"0\r\n\r\n", b"", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    "several": (b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", b"abcdef", b""),
    "hexadecimal in both cases": (
        b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n",
        b"01234567890123456789a",
        b"",
    ),
    "leading zeros": (b"005\r\nhello\r\n000\r\n\r\n", b"hello", b""),
    "line ends within": (b"8\r\n\r\n0\r\n\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r\n\r", b""),
    "extensions": (b'5;a=b\r\nhello\r\n5 \t; c="d;\\"\xff"\r\nworld\r\n0;e\r\n\r\n', b"helloworld", b""),
    "an empty extension": (b"5;\r\nhello\r\n0;\r\n\r\n", b"hello", b""),
    "a trailer": (b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"hello", b"X-Sum: 1"),
    "trailers": (b"0\r\nX-Sum:1 \r\nx-sum: \xff\r\n\r\n", b"", b"X-Sum:1 \r\nx-sum: \xff"),
}


@pytest.mark.threat(36)
@pytest.mark.parametrize("name", CHUNKED_BODIES)
def test_036_a_chunked_body_is_read_the_same_wherever_it_is_cut(name: str) -> None:
    """The body, its trailers, and what is behind it; an end that is cut off is no end."""
    wire, body, trailers = CHUNKED_BODIES[name]
    for pieces in everywhere(wire + b"NEXT"):
        decoder = Chunked(BARREN)
        assert take(decoder, pieces) == (body, b"NEXT")
        assert decoder.trailers is not None
        assert decoder.trailers.raw == trailers
    for end in range(len(wire)):
        decoder = Chunked(BARREN)
        found, behind = take(decoder, [wire[:end]] if end else [])
        assert (behind, decoder.trailers, body.startswith(found)) == (None, None, True)


BAD_CHUNKED_BODIES: Final = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "an extension alone": b";a\r\nhello\r\n0\r\n\r\n",
    "a size of other letters": b"g\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n",
    "a digit beyond ASCII": b"\xb2\r\nab\r\n0\r\n\r\n",
    "a space in front": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "a tab behind": b"5\t\r\nhello\r\n0\r\n\r\n",
    "more digits than any size has": b"1000000000000000\r\n",
    "zeros without end": b"0000000000000000\r\n\r\n",
    "a bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "a bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a NUL in an extension": b"5;\0\r\nhello\r\n0\r\n\r\n",
    "a control character in an extension": b"5;\x1b\r\nhello\r\n0\r\n\r\n",
    "a shorter chunk": b"6\r\nhello\r\n0\r\n\r\n",
    "a longer chunk": b"4\r\nhello\r\n0\r\n\r\n",
    "no end behind a chunk": b"5\r\nhello0\r\n\r\n",
    "a bare LF behind a chunk": b"5\r\nhello\n0\r\n\r\n",
    "a bare CR behind a chunk": b"5\r\nhello\r0\r\n\r\n",
    "two ends behind a chunk": b"5\r\nhello\r\n\r\n0\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "a bare LF in a trailer": b"0\r\nX: 1\nY: 2\r\n\r\n",
    "a bare CR behind the last chunk": b"0\r\n\rX: 1\r\n\r\n",
    "a bare LF behind the last chunk": b"0\r\n\n",
    "a bare LF for the end of the trailers": b"0\r\nX: 1\r\n\n",
    "bare LFs behind a trailer": b"0\r\nX: 1\n\n",
    "a control character in a trailer": b"0\r\nX: \x01\r\n\r\n",
}


@pytest.mark.threat(36)
@pytest.mark.parametrize("name", BAD_CHUNKED_BODIES)
def test_036_a_broken_chunked_body_is_refused_wherever_it_is_cut(name: str) -> None:
    """Every other reading is one that two parsers may not share."""
    for pieces in everywhere(BAD_CHUNKED_BODIES[name]):
        with pytest.raises(Malformed):
            take(Chunked(BARREN), pieces)


@pytest.mark.parametrize("step", [1, 100, 10 * SIZE_LINE])
@pytest.mark.parametrize(("length", "is_taken"), [(SIZE_LINE, True), (SIZE_LINE + 1, False)])
def test_064_a_size_line_is_bounded(length: int, step: int, *, is_taken: bool) -> None:
    """With its end; one that never ends is refused when it is too long."""
    line = b"5;" + b"a" * (length - 4) + b"\r\n"
    wire = line + b"hello\r\n0\r\n\r\n"
    pieces = sliced(wire, range(0, len(wire), step))
    if is_taken:
        assert take(Chunked(BARREN), pieces) == (b"hello", b"")
    else:
        with pytest.raises(Malformed):
            take(Chunked(BARREN), pieces)
        with pytest.raises(Malformed):
            take(Chunked(BARREN), sliced(line[:-1], range(0, len(line), step)))


@pytest.mark.threat(64)
@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(("over", "is_taken"), [(0, True), (1, False)])
def test_064_what_comes_without_a_byte_of_the_body_is_bounded(over: int, step: int, *, is_taken: bool) -> None:
    """The trailers with all ends of lines, at the bound and beyond it."""
    before, behind = b"5\r\nhello\r\n", b"\r\n\r\n"
    last = b"0\r\nX: "
    wire = before + last + b"a" * (1000 - len(last) - len(behind) + over) + behind
    pieces = sliced(wire, range(0, len(wire), step))
    if is_taken:
        assert take(Chunked(1000), pieces) == (b"hello", b"")
    else:
        with pytest.raises(TooMany):
            take(Chunked(1000), pieces)


@pytest.mark.parametrize("step", [1, 100_000])
def test_064_extensions_count_until_a_byte_of_the_body_comes(step: int) -> None:
    """A long body may have many in all; trailers without end are refused before it comes."""
    wire = b"1;aaaaaaaaaa\r\nx\r\n" * 1000 + LAST_CHUNK
    assert take(Chunked(100), sliced(wire, range(0, len(wire), step))) == (b"x" * 1000, b"")
    endless = b"0\r\n" + b"X: 1\r\n" * 100
    with pytest.raises(TooMany):
        take(Chunked(100), sliced(endless, range(0, len(endless), step)))


def test_116_the_number_of_trailers_is_bounded() -> None:
    """As that of fields is."""
    with pytest.raises(TooMany):
        take(Chunked(BARREN), [b"0\r\n" + b"X: 1\r\n" * (MOST_FIELDS + 1) + b"\r\n"])


def test_what_lies_within_one_chunk_is_not_copied() -> None:
    """Large bodies pass in the pieces that came."""
    decoder = Chunked(BARREN)
    decoder.feed(b"100000\r\n")
    piece = bytes(60_000)
    assert decoder.feed(piece) is piece
    sized = Sized(100_000)
    assert sized.feed(piece) is piece


sizes: Final = st.lists(st.binary(min_size=1, max_size=300), max_size=6)
cuts: Final = st.lists(st.integers(0, 2000), max_size=30)


@given(sizes, cuts)
def test_036_what_is_written_in_chunks_h11_reads_and_so_do_we(body: list[bytes], at: list[int]) -> None:
    """Wherever the network cuts it."""
    wire = b"".join(piece for part in body for piece in chunk(part)) + LAST_CHUNK
    assert take(Chunked(BARREN), sliced(wire, at)) == (b"".join(body), b"")
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    assert isinstance(reader.next_event(), h11.Request)
    found = bytearray()
    while isinstance(event := reader.next_event(), h11.Data):
        found += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert bytes(found) == b"".join(body)


#: What chunked bodies are made of, proper and not.
_PIECES: Final = [
    *(b"0\r\n", b"1\r\n", b"5;x=y\r\n", b"a\r\n", b"hello", b"\r\n", b"\r", b"\n", b"x", b" ", b"\t", b";", b"0"),
    *(b"X: 1\r\n", b"X: 1", b":", b"\0", b"\xff", b"\r\n\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"5\r\nhello\r\n"),
]


def outcome(pieces: Sequence[bytes]) -> object:
    """What becomes of a chunked body: its bytes, its rest and its trailers; None: it is refused."""
    decoder = Chunked(40)
    try:
        body, behind = take(decoder, pieces)
    except Malformed:
        return None
    return body, behind, None if decoder.trailers is None else decoder.trailers.raw


@pytest.mark.threat(36)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join), cuts)
def test_036_what_becomes_of_any_bytes_does_not_depend_on_how_they_are_cut(wire: bytes, at: list[int]) -> None:
    """Neither the body nor the verdict."""
    assert outcome(sliced(wire, [place % (len(wire) + 1) for place in at])) == outcome([wire] if wire else [])


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join))
def test_036_a_chunked_body_that_is_taken_h11_takes_too(wire: bytes) -> None:
    """And finds the same bytes in it; it is more lenient, so the reverse does not hold."""
    try:
        body, behind = take(Chunked(BARREN), [wire] if wire else [])
    except Malformed:
        return
    if behind is None:
        return
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    reader.next_event()
    found = bytearray()
    while isinstance(event := reader.next_event(), h11.Data):
        found += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert bytes(found) == body


@given(st.integers(0, 60), st.binary(max_size=60), cuts)
def test_a_sized_body_does_not_depend_on_how_it_is_cut(length: int, wire: bytes, at: list[int]) -> None:
    """So many bytes, and the rest behind them."""
    decoder = Sized(length)
    if decoder.done:
        assert length == 0
        return
    whole = len(wire) >= length
    assert take(decoder, sliced(wire, at)) == (wire[:length], wire[length:] if whole else None)


@pytest.mark.threat(80)
def test_no_error_of_this_part_holds_a_byte_of_what_came() -> None:
    """080: they end up in tracebacks."""
    for broken in (lambda: Section(b"SECRET"), lambda: request_line(b"SECRET"), lambda: answer(line=b"SECRET")):
        with pytest.raises(Malformed) as error:
            broken()
        assert "SECRET" not in f"{error.value!r}"
    for lines in ([b"Content-Length: SECRET"], [b"Expect: SECRET"]):
        with pytest.raises(ProxyError) as refused:
            request(*lines)
        assert "SECRET" not in f"{refused.value!r} {refused.value.detail}"
