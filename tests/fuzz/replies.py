"""What servers answer: token endpoints, programs that print tokens, upstreams. Only what is listed is raised.

An input is a kind of parser, a status, and the bytes; those of a token endpoint are header lines, an empty line,
and the body. What is raised says nothing of what came.
"""

import math
from collections.abc import Callable
from typing import Final

from proxy.grants import authorization, command, device
from proxy.grants.expiry import LONGEST_LIFETIME
from proxy.grants.login import ResponseRules
from proxy.grants.oauth2 import error_of, verdict
from proxy.grants.reply import TOKEN_LIMIT, Fault, InvalidReply, RejectedReply, classify, read, retry_after
from proxy.grants.request import Granted, TokenReply
from proxy.grants.undecided import is_undecided, rotated
from proxy.http1.answer import AnswerHead
from proxy.http1.bodies import Chunked, Sized
from proxy.http1.section import Malformed
from proxy.redact import Secret
from tests.fuzz.taking import Taking

WORDS: Final = (
    *(
        b'{"access_token":"',
        b'"token_type":"bearer"',
        b'"expires_in":3600',
        b'"refresh_token":"',
        b'"exp":',
        b"\n\n",
    ),
    *(
        b'"error":"invalid_grant"',
        b'"error_description":"',
        b"eyJhbGciOiJub25lIn0.",
        b"va.",
        b"1e400",
        b"NaN",
        b"null",
    ),
    *(
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\n",
        b"Retry-After: 120\n",
        b"Content-Encoding: gzip\n",
        b"\xef\xbb\xbf",
    ),
    *(
        b"Content-Type: text/html\n",
        b"Authorization: x\n",
        b"2030-01-01T00:00:00Z",
        b'"device_code":"',
        b'"user_code":"',
    ),
    *(
        b'"verification_uri":"https://a.example"',
        b'"interval":5',
        b"authorization_pending",
        b"slow_down",
        b"state=s&",
    ),
    *(
        b"code=c&",
        b"error=access_denied",
        b"iss=",
        b"password=",
        b"username=",
        b'"Secret":"',
        b'"status":{"token":"',
    ),
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b";x=y",
    ),
    *(b"Content-Length: 5\r\n", b"Connection: close\r\n", b"Keep-Alive: timeout=5\r\n", b"\r\nX: ", b"\r", b"\n"),
)
NOW: Final = 1_700_000_000.0
RULES: Final = (
    ResponseRules(
        refresh_token="/refresh_token", lifetime="/expires_in", refresh_lifetimes=("/refresh_expires_in",)
    ),
    ResponseRules(token="/a/0/b", expires="/exp", refresh_expires="/rexp", success={"/ok": True, "/error": None}),
    ResponseRules(token="header:Authorization", expires="jwt", default_lifetime=60.0),
    ResponseRules(token="text", expires="vanilla"),
    ResponseRules(lifetime="/expires_in", lifetime_unit="minutes", expires="jwt", success={"/who": Secret("me")}),
)
STATUSES: Final = (200, 200, 201, 302, 400, 401, 403, 408, 429, 500, 503)
SENTENCES: Final = frozenset(each.value for each in Fault) | {
    "The token reply says that the request failed (response.success)."
}
FORMS: Final[tuple[command.Form, ...]] = ("auto", "text", "exec_credential", "docker", "git", "azure")
ATTEMPT: Final = authorization.Attempt(Secret("v"), Secret("s"))
#: The server's own words for the log are no longer than that.
LONGEST_WORDS: Final = 1024
#: A chunk's size line, and what of trailers there may be.
BARREN: Final = 256


def check(data: bytes) -> None:
    """Raise AssertionError where an answer is taken for what it is not, or anything that is not listed."""
    taking = Taking(data)
    taking.choice((_token, _token, _error, _codes, _poll, _program, _callback, _head, _chunks))(taking)


def _reply(taking: Taking) -> TokenReply:
    status = taking.choice(STATUSES)
    head, mark, body = taking.rest().partition(b"\n\n")
    if not mark:
        head, body = b"", head
    pairs = (line.partition(": ") for line in head.decode("latin-1").split("\n") if line)
    return TokenReply(status, tuple((name, value) for name, _, value in pairs), body)


def _token(taking: Taking) -> None:
    rules = taking.choice(RULES)
    reply = _reply(taking)
    assert classify(reply.status, (200,)) in {"accepted", "rejected", "transient", "misconfigured"}
    assert is_undecided(reply) in {True, False}
    pause = retry_after(reply.headers, NOW)
    assert pause is None or (pause > 0 and math.isfinite(pause))
    kept = rotated(reply, rules, now_wall=NOW)
    assert kept is None or _is_token(kept)
    try:
        granted = read(reply, rules, now_wall=NOW)
    except InvalidReply as error:
        assert str(error) in SENTENCES
        assert error.refresh_token is None or _is_token(error.refresh_token)
    except RejectedReply as error:
        assert str(error) in SENTENCES
    else:
        _check_granted(granted)


def _check_granted(granted: Granted) -> None:
    assert _is_token(granted.token)
    assert granted.refresh_token is None or _is_token(granted.refresh_token)
    for seconds in (granted.lifetime, granted.refresh_lifetime, granted.contradicted):
        assert seconds is None or 0 < seconds <= LONGEST_LIFETIME
    assert granted.expires_at_wall is None or math.isfinite(granted.expires_at_wall)


def _is_token(secret: Secret) -> bool:
    """May it stand in a header?"""
    value = secret.reveal()
    return 0 < len(value) <= TOKEN_LIMIT and all("!" <= each <= "~" for each in value)


def _error(taking: Taking) -> None:
    hidden = Secret("a-password-to-hide")
    reply = _reply(taking)
    error = error_of(reply, [hidden])
    assert verdict(reply, error) in {"accepted", "rejected", "transient", "misconfigured"}
    for words in (error.code, error.stated, error.description):
        assert words.isprintable()
        assert len(words) <= LONGEST_WORDS
        assert hidden.reveal() not in words


def _codes(taking: Taking) -> None:
    try:
        codes = device.read_codes(_reply(taking))
    except device.InvalidDeviceReply as error:
        assert str(error).startswith(tuple(each.value for each in device.Fault))
        assert str(error).isprintable()
        return
    for shown in (codes.user_code, codes.page, codes.page_with_code or "-"):
        assert shown.isascii()
        assert shown.isprintable()
    assert codes.page.startswith(("https://", "http://localhost", "http://127.0.0.1"))
    assert 0 < codes.lifetime <= LONGEST_LIFETIME
    assert 1.0 <= codes.interval <= 60.0


def _poll(taking: Taking) -> None:
    polling = device.Polling(1.0 + taking.byte(), taking.byte())
    said, words, after = device.answered(polling, _reply(taking), NOW)
    assert isinstance(said, device.Said)
    assert words.isprintable()
    assert 1.0 <= after.pause <= LONGEST_LIFETIME


def _program(taking: Taking) -> None:
    form = taking.choice(FORMS)
    printed = taking.rest()
    try:
        granted = command.read(printed, form, now_wall=NOW)
    except command.BadOutput as error:
        assert str(error).isprintable()
        assert error.__suppress_context__ or error.__context__ is None
        return
    assert granted.token.reveal().isprintable()
    assert granted.lifetime is None or math.isfinite(granted.lifetime)


def _callback(taking: Taking) -> None:
    promised = bool(taking.byte() % 2)
    query = taking.rest().decode("latin-1")
    try:
        code = authorization.read_callback(query, ATTEMPT, issuer="https://a.example", promised=promised)
    except authorization.InvalidCallback as error:
        assert str(error).startswith(tuple(each.value for each in authorization.Fault))
        assert str(error).isprintable()
        return
    assert code.reveal().isprintable()
    assert "state=s" in query or "%" in query or "+" in query


def _head(taking: Taking) -> None:
    raw = taking.rest()
    try:
        head = AnswerHead(raw)
    except Malformed as error:
        assert not str(error)
        return
    assert raw.startswith(b"HTTP/1.")
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert 100 <= head.status <= 599
    assert b"\r\n".join(line for _, _, line in head.fields) == head.raw
    assert head.length is None or b"transfer-encoding" not in head.values
    assert head.keep_alive_timeout is None or head.keep_alive_timeout >= 0
    for asked_by_head in (True, False):
        head.decoder(head.framing(asked_by_head=asked_by_head))


def _chunks(taking: Taking) -> None:
    """However a body is cut on its way, it is the same body, or no body."""
    cuts = [1 + taking.byte() % 16 for _ in range(4)]
    data = taking.rest()
    whole = _decoded(lambda: Chunked(BARREN), [data])
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[at : at + size])
        at += size
    cut = _decoded(lambda: Chunked(BARREN), pieces)
    if whole is None:
        assert cut is None, "taken in pieces alone"
    else:
        assert cut == whole or (cut is None and not whole[1]), "another body in pieces"
        if whole[1]:
            assert whole[0] == _naive(data[: len(data) - len(whole[2])]), "another body"
    sized = Sized(cuts[0])
    body = sized.feed(data)
    assert (body + sized.rest, sized.done) == (data, len(data) >= cuts[0])


def _decoded(make: Callable[[], Chunked], pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    """The body, whether it ended, and what came behind it; None where it is malformed."""
    decoder, body = make(), b""
    try:
        for number, piece in enumerate(pieces):
            body += decoder.feed(piece)
            if decoder.done:
                return body, True, decoder.rest + b"".join(pieces[number + 1 :])
    except Malformed:
        return None
    return body, False, b""


def _naive(data: bytes) -> bytes:
    """The body of complete chunks, read off one after the other."""
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line.partition(b";")[0].rstrip(b" \t"), 16)
        if not size:
            return body
        body, end, data = body + data[:size], data[size : size + 2], data[size + 2 :]
        assert end == b"\r\n"
