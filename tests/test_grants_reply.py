"""What token replies mean: tokens, lifetimes and verdicts, and that no reply can break or leak."""

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.grants import expiry
from proxy.grants.login import ResponseRules
from proxy.grants.pointer import resolve
from proxy.grants.reply import (
    BODY_LIMIT,
    TOKEN_LIMIT,
    Fault,
    InvalidReply,
    RejectedReply,
    Verdict,
    classify,
    read,
    retry_after,
)
from proxy.grants.request import Granted, TokenReply
from proxy.redact import Secret

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
LONGEST = expiry.LONGEST_LIFETIME
TOKEN = "c04c7ff7-5fa1-48fb-aa2a-bcf97a6b8a79"
VANILLA = "va.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX.gNjbcA.fgc0U5h"  # test vector: ends at 1893456000


def jwt(claims: object) -> str:
    """An unsigned JWT with these claims."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


def answer(body: object, rules: ResponseRules, headers: Mapping[str, str] | None = None) -> Granted:
    """Read a reply with `body` (bytes as they are, everything else as JSON)."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(TokenReply(200, tuple((headers or {}).items()), raw), rules, now_wall=NOW)


def fault(body: object, rules: ResponseRules, headers: Mapping[str, str] | None = None) -> Fault:
    """Why a reply is refused."""
    with pytest.raises(InvalidReply) as caught:
        answer(body, rules, headers)
    assert str(caught.value) == caught.value.fault.value
    return caught.value.fault


TELETRACKER = ResponseRules(
    token="/token",
    refresh_token="/refreshToken",
    lifetime="/tokenLifetime",
    expires="/tokenExpiration",
    refresh_expires="/refreshTokenExpiration",
    success={"/success": True},
)


def test_a_teletracker_reply_is_read_as_its_document_shows_it() -> None:
    """Lifetime beats the expiry, which is kept for people; keys that nobody documented do not disturb."""
    granted = answer(
        {
            "success": True,
            "guid": "71067212-8141-4887-b48e-ccabcfb07196",
            "token": TOKEN,
            "tokenExpiration": "2018-04-01T21:39:12+00:00",
            "tokenLifetime": 3600,
            "refreshToken": "dff78899-ed3b-4965-8f44-474ac2bf7354",
            "refreshTokenExpiration": "2023-12-13T22:13:20+00:00",
            "more": [1, {"x": None}],
        },
        TELETRACKER,
    )
    assert granted == Granted(
        token=Secret(TOKEN),
        refresh_token=Secret("dff78899-ed3b-4965-8f44-474ac2bf7354"),
        lifetime=3600.0,
        refresh_lifetime=29 * 86400.0,
        expires_at_wall=1522618752.0,
    )


def test_a_mainbrainer_reply_counts_in_minutes() -> None:
    """A client that assumes seconds would log in every two minutes."""
    granted = answer(
        {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 120, "userName": "Tom"},
        ResponseRules(lifetime="/expires_in", lifetime_unit="minutes"),
    )
    assert granted.lifetime == 7200.0


@pytest.mark.parametrize(
    ("place", "body", "headers"),
    [
        ("/access_token", {"access_token": TOKEN}, {}),
        ("/access_token", b"\xef\xbb\xbf" + json.dumps({"access_token": TOKEN}).encode(), {}),
        ("/data/access_token", {"data": {"access_token": TOKEN}}, {}),
        ("/tokens/1/v", {"tokens": [{}, {"v": TOKEN}]}, {}),
        ("/a~1b/m~0n", {"a/b": {"m~n": TOKEN}}, {}),
        ("/~01", {"~1": TOKEN}, {}),
        ("/", {"": TOKEN}, {}),
        ("/access_token", {"access_token": TOKEN, "token_type": "bEaReR"}, {}),
        ("/access_token", {"access_token": TOKEN, "token_type": None}, {}),
        ("/access_token", {"access_token": TOKEN + "\r\n"}, {}),
        ("/access_token", {"access_token": TOKEN}, {"content-encoding": "Identity"}),
        ("header:X-Subject-Token", b"", {"x-subject-token": TOKEN}),
        ("header:X-Subject-Token", b"not json", {"X-SUBJECT-TOKEN": f"  {TOKEN} "}),
        ("text", TOKEN.encode(), {}),
        ("text", TOKEN.encode() + b"\r\n", {}),
    ],
)
def test_the_token_is_found_where_the_rules_say(place: str, body: object, headers: dict[str, str]) -> None:
    """By JSON pointer, in a header, or as the whole text."""
    assert answer(body, ResponseRules(token=place), headers).token == Secret(TOKEN)


DEEP = b'{"access_token":' + b"[" * 50_000


@pytest.mark.threat(50)
@pytest.mark.parametrize(
    ("place", "body", "headers", "expected"),
    [
        ("/access_token", b"", {}, Fault.NOT_JSON),
        ("/access_token", b"<html>", {}, Fault.NOT_JSON),
        ("/access_token", b"\xff\xfe", {}, Fault.NOT_JSON),
        ("/access_token", DEEP, {}, Fault.NOT_JSON),
        ("/access_token", b'{"access_token":"a","expires_in":NaN}', {}, Fault.NOT_JSON),
        ("/access_token", b'{"access_token":"a","expires_in":-Infinity}', {}, Fault.NOT_JSON),
        ("/access_token", b'{"access_token":"a","n":' + b"9" * 5000 + b"}", {}, Fault.NOT_JSON),
        ("/access_token", b'"' + b"a" * BODY_LIMIT, {}, Fault.TOO_LARGE),
        ("text", b"a" * (BODY_LIMIT + 1), {}, Fault.TOO_LARGE),
        ("/access_token", {"access_token": TOKEN}, {"Content-Encoding": "gzip"}, Fault.ENCODED),
        ("/access_token", {}, {}, Fault.NO_TOKEN),
        ("/access_token", [], {}, Fault.NO_TOKEN),
        ("/access_token", None, {}, Fault.NO_TOKEN),
        ("/access_token", TOKEN, {}, Fault.NO_TOKEN),
        ("/access_token", {"access_token": None}, {}, Fault.NO_TOKEN),
        ("/access_token", {"access_token": 12345}, {}, Fault.NO_TOKEN),
        ("/access_token", {"access_token": [TOKEN]}, {}, Fault.NO_TOKEN),
        ("/tokens/01", {"tokens": ["a", "b"]}, {}, Fault.NO_TOKEN),
        ("/tokens/-1", {"tokens": ["a", "b"]}, {}, Fault.NO_TOKEN),
        ("/tokens/-", {"tokens": ["a", "b"]}, {}, Fault.NO_TOKEN),
        ("/tokens/2", {"tokens": ["a", "b"]}, {}, Fault.NO_TOKEN),
        ("/tokens/" + "9" * 5000, {"tokens": ["a", "b"]}, {}, Fault.NO_TOKEN),
        ("/access_token", {"access_token": ""}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": "\r\n"}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": "a b"}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": " a"}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": "a\r\nX: y"}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": "a\u0000"}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": "tokén"}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": "a" * (TOKEN_LIMIT + 1)}, {}, Fault.BAD_TOKEN),
        ("/access_token", {"access_token": TOKEN, "token_type": "mac"}, {}, Fault.NOT_BEARER),
        ("/access_token", {"access_token": TOKEN, "token_type": 7}, {}, Fault.NOT_BEARER),
        ("/access_token", {"access_token": TOKEN, "token_type": ""}, {}, Fault.NOT_BEARER),
        ("header:X-Token", b"", {}, Fault.NO_TOKEN),
        ("header:X-Token", b"", {"X-Token": ""}, Fault.NO_TOKEN),
        ("header:X-Token", b"", {"X-Token": "a", "x-token": "b"}, Fault.NO_TOKEN),
        ("text", b"", {}, Fault.BAD_TOKEN),
        ("text", "tokén".encode(), {}, Fault.BAD_TOKEN),
    ],
)
def test_a_reply_without_a_usable_token_is_refused(
    place: str, body: object, headers: dict[str, str], expected: Fault
) -> None:
    """With a fixed sentence each (threats 50, 56)."""
    assert fault(body, ResponseRules(token=place), headers) is expected


@pytest.mark.threat(56)
@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (3600, "seconds", 3600.0),
        (3600.5, "seconds", 3600.5),
        ("3599", "seconds", 3599.0),
        ("3599.25", "seconds", 3599.25),
        (900_000, "milliseconds", 900.0),
        ("900000", "milliseconds", 900.0),
        (120, "minutes", 7200.0),
        (0.5, "minutes", 30.0),
        (1e99, "seconds", LONGEST),
        (10**18, "minutes", LONGEST),
        (1 << 4000, "seconds", Fault.BAD_LIFETIME),
        (0, "seconds", Fault.BAD_LIFETIME),
        (0.0, "minutes", Fault.BAD_LIFETIME),
        (-1, "seconds", Fault.BAD_LIFETIME),
        ("-1", "seconds", Fault.BAD_LIFETIME),
        (True, "seconds", Fault.BAD_LIFETIME),
        (False, "seconds", Fault.BAD_LIFETIME),
        ("", "seconds", Fault.BAD_LIFETIME),
        ("soon", "seconds", Fault.BAD_LIFETIME),
        ("nan", "seconds", Fault.BAD_LIFETIME),
        ("inf", "seconds", Fault.BAD_LIFETIME),
        ("1e3", "seconds", Fault.BAD_LIFETIME),
        ("1_000", "seconds", Fault.BAD_LIFETIME),
        (" 5", "seconds", Fault.BAD_LIFETIME),
        ("٣", "seconds", Fault.BAD_LIFETIME),
        ("9" * 5000, "seconds", Fault.BAD_LIFETIME),
        ([], "seconds", Fault.BAD_LIFETIME),
        ({}, "seconds", Fault.BAD_LIFETIME),
    ],
)
def test_lifetimes_come_in_units_and_as_numbers_or_strings(
    value: object, unit: Any, expected: float | Fault
) -> None:
    """What is no positive finite number is refused; what is absurdly long is ten years."""
    rules = ResponseRules(lifetime="/expires_in", lifetime_unit=unit)
    body = {"access_token": TOKEN, "expires_in": value}
    if isinstance(expected, Fault):
        assert fault(body, rules) is expected
    else:
        assert answer(body, rules).lifetime == expected


def test_a_number_beyond_every_float_is_no_lifetime() -> None:
    """JSON's 1e999 reads as infinite."""
    body = b'{"access_token":"a","expires_in":1e999}'
    assert fault(body, ResponseRules(lifetime="/expires_in")) is Fault.BAD_LIFETIME


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-11-14T22:14:20Z", 60.0),
        ("2023-11-14T22:14:20+00:00", 60.0),
        ("2023-11-14T14:14:20-08:00", 60.0),
        ("2023-11-15T03:44:20+05:30", 60.0),
        ("2023-11-14T22:14:20.0000000+00:00", 60.0),
        ("2023-11-14T22:14:20.5000000Z", 60.5),
        ("2023-11-14T22:14:20.999747Z", 60.999747),
        ("2023-11-14 22:14:20.590", 60.59),
        ("2023-11-14 22:14:20", 60.0),
        ("2023-11-14", 86400.0 - 80000.0),
        ("2023-11-15", 2 * 86400.0 - 80000.0),
        (1_700_000_060, 60.0),
        (1_700_000_060.5, 60.5),
        ("1700000060", 60.0),
        (1_700_000_060_000, 60.0),
        ("1700000060500", 60.5),
        ("9999-12-31", LONGEST),
        ("9999-12-31T23:59:59Z", LONGEST),
        ("2023-11-14T22:13:20Z", Fault.EXPIRED),
        ("2023-11-13", Fault.EXPIRED),
        ("0001-01-01T00:00:00+23:59", Fault.EXPIRED),
        (0, Fault.EXPIRED),
        (-5, Fault.EXPIRED),
        ("tomorrow", Fault.BAD_EXPIRES),
        ("", Fault.BAD_EXPIRES),
        ("2023-13-01", Fault.BAD_EXPIRES),
        ("2023-11-14T22:14:20+99:00", Fault.BAD_EXPIRES),
        ("Tue, 14 Nov 2023 22:14:20 GMT", Fault.BAD_EXPIRES),
        ("2023-11-14T22:14:20Z" + "0" * 100, Fault.BAD_EXPIRES),
        (True, Fault.BAD_EXPIRES),
        (["2024-01-01"], Fault.BAD_EXPIRES),
        (None, None),
    ],
)
def test_an_absolute_expiry_becomes_a_lifetime(value: object, expected: float | Fault | None) -> None:
    """In every form that a vendor uses; a date ends with its day."""
    rules = ResponseRules(expires="/expires")
    body = {"access_token": TOKEN, "expires": value}
    if isinstance(expected, Fault):
        assert fault(body, rules) is expected
    else:
        assert answer(body, rules).lifetime == (None if expected is None else pytest.approx(expected, abs=1e-5))


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Tue, 14 Nov 2023 21:13:20 GMT", 3660.0),
        ("Tuesday, 14-Nov-23 21:13:20 GMT", 3660.0),
        ("Tue Nov 14 21:13:20 2023", 3660.0),
        ("nonsense", 60.0),
        ("", 60.0),
    ],
)
def test_the_servers_own_clock_beats_ours(date: str, expected: float) -> None:
    """The vendor reckoned the expiry on that clock, so its skew falls out."""
    body = {"access_token": TOKEN, "expires": 1_700_000_060}
    assert answer(body, ResponseRules(expires="/expires"), {"Date": date}).lifetime == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"expires_in": 100, "expires": "1999-01-01"}, 100.0),
        ({"expires_in": 100, "expires": "nonsense"}, 100.0),
        ({"expires": 1_700_000_060}, 60.0),
        ({"expires_in": None, "expires": 1_700_000_060}, 60.0),
        ({}, 1800.0),
        ({"expires_in": None, "expires": None}, 1800.0),
    ],
)
def test_lifetime_comes_before_expiry_and_both_before_the_default(body: dict[str, object], expected: float) -> None:
    """Clocks of vendors differ from ours; durations do not."""
    rules = ResponseRules(lifetime="/expires_in", expires="/expires", default_lifetime=1800.0)
    assert answer({"access_token": TOKEN, **body}, rules).lifetime == expected


@pytest.mark.parametrize(
    ("kind", "token", "expected"),
    [
        ("jwt", jwt({"exp": NOW + 60}), 60.0),
        ("jwt", jwt({"exp": str(int(NOW) + 60)}), 60.0),
        ("jwt", jwt({"exp": NOW}), Fault.EXPIRED),
        ("jwt", jwt({"sub": "no exp"}), 7.0),
        ("jwt", jwt({"exp": True}), 7.0),
        ("jwt", jwt([1]), 7.0),
        ("jwt", "opaque", 7.0),
        ("jwt", "a.%%%.c", 7.0),
        ("jwt", "a.b.c", 7.0),
        ("jwt", "a.AAAA.c", 7.0),
        ("jwt", "a.b.c.d.e", 7.0),
        ("vanilla", VANILLA, 1893456000.0 - NOW),
        ("vanilla", VANILLA.replace("gNjbcA", "AAAAAA"), Fault.EXPIRED),
        ("vanilla", VANILLA[:-1], 7.0),
        ("vanilla", "vnla_sys.whatever", 7.0),
    ],
)
def test_tokens_that_carry_their_own_expiry_are_read_offline(
    kind: str, token: str, expected: float | Fault
) -> None:
    """Unverified, and a token of another shape just says nothing."""
    rules = ResponseRules(expires=kind, default_lifetime=7.0)
    if isinstance(expected, Fault):
        assert fault({"access_token": token}, rules) is expected
    else:
        assert answer({"access_token": token}, rules).lifetime == expected


@given(st.integers(0, 2**32 - 1))
def test_the_expiry_of_every_vanilla_token_is_read(seconds: int) -> None:
    """Little-endian, base64url, with `-` and `_` too."""
    part = base64.urlsafe_b64encode(struct.pack("<I", seconds)).rstrip(b"=").decode()
    assert expiry.vanilla_expiry(f"va.{'A' * 32}.{part}.fgc0U5h") == seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("rt-1", "rt-1"),
        ("rt-1\n", "rt-1"),
        ("", None),
        (None, None),
        (5, Fault.BAD_REFRESH_TOKEN),
        (False, Fault.BAD_REFRESH_TOKEN),
        ("a b", Fault.BAD_REFRESH_TOKEN),
        ("a\r\nb", Fault.BAD_REFRESH_TOKEN),
        ("é", Fault.BAD_REFRESH_TOKEN),
    ],
)
def test_a_refresh_token_may_be_absent_but_not_broken(value: object, expected: str | Fault | None) -> None:
    """Azure's managed identity sends an empty string for "none"."""
    rules = ResponseRules(refresh_token="/refresh_token")
    body = {"access_token": TOKEN, "refresh_token": value}
    if isinstance(expected, Fault):
        assert fault(body, rules) is expected
    else:
        assert answer(body, rules).refresh_token == (None if expected is None else Secret(expected))


@pytest.mark.parametrize("value", [None, 0, "nonsense", "1999-01-01", True, []])
def test_an_odd_refresh_expiry_only_means_that_it_is_not_known(value: object) -> None:
    """Keycloak writes 0 for "none"; the endpoint will tell when the refresh token is over."""
    rules = ResponseRules(refresh_expires="/refresh_expires")
    assert answer({"access_token": TOKEN, "refresh_expires": value}, rules).refresh_lifetime is None


@pytest.mark.parametrize(
    ("expected", "found", "holds"),
    [
        (True, True, True),
        (True, False, False),
        (True, 1, False),
        (True, "true", False),
        (1, True, False),
        (1, 1.0, True),
        ("ok", "ok", True),
        ("ok", "OK", False),
        (Secret("ok"), "ok", True),
        (Secret("ok"), 1, False),
        (None, None, True),
        (None, "invalid_grant", False),
        (False, None, False),
    ],
)
def test_a_reply_whose_success_does_not_hold_is_a_rejection(*, expected: Any, found: object, holds: bool) -> None:
    """A status of 200 means nothing to some vendors; types count."""
    rules = ResponseRules(success={"/s": expected})
    if holds:
        assert answer({"access_token": TOKEN, "s": found}, rules).token == Secret(TOKEN)
    else:
        with pytest.raises(RejectedReply):
            answer({"access_token": TOKEN, "s": found}, rules)


def test_a_rejection_is_noticed_before_the_missing_token() -> None:
    """`{"success": false}` is a wrong password, not a strange server; `error: null` may be absent."""
    with pytest.raises(RejectedReply):
        answer({"success": False}, TELETRACKER)
    assert answer({"access_token": TOKEN}, ResponseRules(success={"/error": None})).token == Secret(TOKEN)


@pytest.mark.threat(54)
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "accepted"),
        (201, "accepted"),
        *[(status, "rejected") for status in (400, 401, 403, 409, 422)],
        *[(status, "transient") for status in (408, 429, 500, 502, 503, 504, 599)],
        *[(status, "misconfigured") for status in (202, 204, 301, 302, 307, 308, 404, 405, 410, 415, 418, 600)],
    ],
)
def test_each_status_has_one_verdict(status: int, verdict: Verdict) -> None:
    """Redirects are never followed, whatever they promise (threat 54)."""
    assert classify(status, (200, 201)) == verdict


def test_an_accepted_status_is_accepted_whatever_its_class() -> None:
    """The description knows its vendor."""
    assert classify(422, (200, 422)) == "accepted"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), None),
        ((("Retry-After", "30"),), 30.0),
        ((("retry-after", " 30 "),), 30.0),
        ((("Retry-After", "0"),), None),
        ((("Retry-After", "-5"),), None),
        ((("Retry-After", "1e9"),), None),
        ((("Retry-After", "9" * 5000),), None),
        ((("Retry-After", "soon"),), None),
        ((("Retry-After", "5"), ("Retry-After", "6")), None),
        ((("Retry-After", "Tue, 14 Nov 2023 22:15:20 GMT"),), 120.0),
        ((("Retry-After", "Tue, 14 Nov 2023 22:13:20 GMT"),), None),
        ((("Retry-After", "Tue, 99 Nov 2023 22:13:20 GMT"),), None),
        ((("Retry-After", "Tue, 14 Nov 2023 23:15:20 GMT"), ("Date", "Tue, 14 Nov 2023 23:13:20 GMT")), 120.0),
        ((("Retry-After", "Tue, 14 Nov 2023 22:15:20 GMT"), ("Date", "Tue, 14 Nov 2023 23:13:20 GMT")), None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: tuple[tuple[str, str], ...], expected: float | None) -> None:
    """RFC 9110 section 10.2.3; the past and the absurd count as absent. A date is one of the server's own clock."""
    assert retry_after(headers, NOW) == expected


# RFC 6901 section 5, with its own document.
RFC = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/nothing", "missing"),
        ("/foo/bar", "missing"),
        ("/foo/00", "missing"),
        ("/foo/0/0", "missing"),
    ],
)
def test_pointers_resolve_as_the_rfc_shows(pointer: str, expected: object) -> None:
    """The examples of RFC 6901 section 5."""
    assert resolve(RFC, pointer, missing="missing") == expected


def test_a_null_is_found_where_a_missing_member_is_not() -> None:
    """Whoever cares passes `missing`."""
    assert resolve({"a": None}, "/a", missing=1) is None
    assert resolve({}, "/a", missing=1) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = ("token", "refreshToken", "tokenLifetime", "tokenExpiration", "refreshTokenExpiration", "token_type")
REPLIES = st.dictionaries(st.sampled_from(KEYS), JSON).map(
    lambda document: json.dumps({"success": True, **document}).encode()
)
RULES = st.sampled_from(
    [
        TELETRACKER,
        ResponseRules(token="text", expires="jwt"),
        ResponseRules(token="text", expires="vanilla", lifetime="/tokenLifetime"),
        ResponseRules(token="/token", expires="/tokenExpiration"),
        ResponseRules(token="header:X", expires="/tokenExpiration", refresh_token="text"),
    ]
)
SENTENCES = {("The token reply says that the request failed (response.success).",)} | {
    (each.value,) for each in Fault
}
HEADERS = st.lists(st.tuples(st.sampled_from(["X", "Date", "Content-Encoding"]), st.text()), max_size=3).map(tuple)


@given(st.binary() | JSON.map(lambda document: json.dumps(document).encode()) | REPLIES, RULES, HEADERS)
@example(DEEP, TELETRACKER, ())
@example(b"a." + base64.urlsafe_b64encode(b"[" * 12_000) + b".c", ResponseRules(token="text", expires="jwt"), ())
def test_no_reply_can_raise_anything_else_or_be_quoted(
    body: bytes, rules: ResponseRules, headers: tuple[tuple[str, str], ...]
) -> None:
    """Either a token that a header can carry, or one of the fixed sentences, with nothing chained to it."""
    try:
        outcome: Granted | Exception = read(TokenReply(200, headers, body), rules, now_wall=NOW)
    except (InvalidReply, RejectedReply) as error:
        outcome = error
    if isinstance(outcome, Exception):
        assert outcome.args in SENTENCES
        assert outcome.__suppress_context__ or outcome.__context__ is None
        return
    value = outcome.token.reveal()
    assert value.isascii()
    assert value.isprintable()
    assert " " not in value
    assert outcome.lifetime is None or 0 < outcome.lifetime <= LONGEST


@given(st.text(max_size=40) | st.from_regex(r"[A-Za-z0-9:, +-]{0,40}", fullmatch=True))
def test_no_text_breaks_the_reading_of_dates(text: str) -> None:
    """What is no date is None."""
    assert isinstance(expiry.http_date(text), float | None)
    assert isinstance(expiry.instant(text), float | None)


@pytest.mark.parametrize(
    ("stated", "own", "expected", "contradicted"),
    [
        (3600, 3600, 3600.0, None),
        (3600, 1800, 3600.0, None),
        (3600, 7200, 3600.0, None),
        (3600, 1799, 1799.0, 3600.0),
        (3600, 7201, 3600.0, 3600.0),
        (3_600_000, 3600, 3600.0, 3_600_000.0),
        (60, 3600, 60.0, 60.0),
        (3600, 0, 3600.0, 3600.0),
        (3600, -50, 3600.0, 3600.0),
        (1e12, 1e12, LONGEST, None),
    ],
)
def test_a_lifetime_that_the_token_itself_contradicts_gives_way_to_the_earlier_end(
    stated: float, own: float, expected: float, contradicted: float | None
) -> None:
    """Milliseconds or minutes under the standard name; an end in the past is a matter of clocks, not of units."""
    granted = answer(
        {"access_token": jwt({"exp": NOW + own}), "expires_in": stated}, ResponseRules(lifetime="/expires_in")
    )
    assert (granted.lifetime, granted.contradicted) == (expected, contradicted)


def test_a_lifetime_is_compared_by_the_servers_clock() -> None:
    """Ours may be an hour off."""
    body = {"access_token": jwt({"exp": NOW + 3600}), "expires_in": 7200}
    rules = ResponseRules(lifetime="/expires_in")
    assert answer(body, rules, {"Date": "Tue, 14 Nov 2023 21:13:20 GMT"}).contradicted is None
    assert answer(body, rules, {"Date": "Tue, 14 Nov 2023 22:33:20 GMT"}).contradicted == 7200.0


def test_only_a_lifetime_of_the_reply_is_compared() -> None:
    """The default is a guess of ours."""
    body = {"access_token": jwt({"exp": NOW + 3600})}
    granted = answer(body, ResponseRules(lifetime="/expires_in", default_lifetime=60.0))
    assert (granted.lifetime, granted.contradicted) == (60.0, None)
