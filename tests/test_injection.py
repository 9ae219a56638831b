"""Where the credential goes, who wins, and that it goes last and once."""

import string
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.injection import AUTHORIZATION, Inject, Injection, Outgoing, Place, Replace, places_to_fill, render

HEADER = Place("header", "X-Api-Key")
QUERY = Place("query", "access_token")
COOKIE = Place("cookie", "session")
#: A parameter that is only called so; the header is another place.
NAMESAKE = Place("query", "Authorization")
P = Replace(b"PLACEHOLDER")


@pytest.mark.threat(50)
@pytest.mark.parametrize(
    ("token", "kinds"),
    [
        ("abc.DEF-123_~+/=", {"header", "query", "cookie"}),
        ("!", {"header", "query", "cookie"}),
        ("a b", {"query"}),
        ('a"b', {"header", "query"}),
        ("a;b", {"header", "query"}),
        ("a,b", {"header", "query"}),
        ("a\\b", {"header", "query"}),
        ("a\r\nX: y", {"query"}),
        ("a\n", {"query"}),
        ("a\0", {"query"}),
        ("ä", {"query"}),
        ("\x7f", {"query"}),
        ("", set()),
    ],
)
def test_050_a_token_fits_only_where_it_cannot_break_the_message(token: str, kinds: set[str]) -> None:
    """A query takes any, escaped; an empty token is none."""
    assert {place.kind for place in (HEADER, QUERY, COOKIE) if place.fits(token)} == kinds


def _parts(injection: Injection) -> tuple[bytes, bytes, bytes]:
    return injection.lines, injection.query, injection.cookies


def test_a_token_is_rendered_for_all_of_its_places() -> None:
    """With its scheme or raw, escaped in a query, and the constant fields behind it."""
    places = (AUTHORIZATION, HEADER, QUERY, Place("query", "a b"), COOKIE, Place("cookie", "s2"))
    assert _parts(render(places, "t+/k", [("X-Version", "1")])) == (
        b"Authorization: Bearer t+/k\r\nX-Api-Key: t+/k\r\nX-Version: 1\r\n",
        b"access_token=t%2B%2Fk&a%20b=t%2B%2Fk",
        b"session=t+/k; s2=t+/k",
    )
    assert _parts(render((), "t")) == _parts(Injection()) == (b"", b"", b"")


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_050_any_token_in_a_query_is_one_parameter(token: str) -> None:
    """It reads back as it was, and stays on its line."""
    injection = render((QUERY,), token)
    assert parse_qsl(injection.query.decode("ascii"), strict_parsing=True) == [("access_token", token)]
    assert set(injection.query.decode()) <= set(string.ascii_letters + string.digits + "_.-~%=")


ALL = (HEADER, QUERY, COOKIE)


@pytest.mark.threat(49)
@pytest.mark.parametrize(
    ("inject", "places", "fields", "query", "filled"),
    [
        # overwrite: always, whatever the client brings.
        ("overwrite", ALL, {}, None, ALL),
        ("overwrite", ALL, {b"x-api-key": [b"theirs"]}, b"access_token=theirs", ALL),
        # if-absent: a value in any place, or in Authorization, is the client's own choice.
        ("if-absent", ALL, {}, None, ALL),
        ("if-absent", ALL, {b"x-other": [b"x"], b"cookie": [b"sessions=x"]}, b"token=x", ALL),
        ("if-absent", ALL, {b"x-api-key": [b"theirs"]}, None, ()),
        ("if-absent", ALL, {}, b"a&access_token=theirs", ()),
        ("if-absent", ALL, {b"cookie": [b"a=b; session=theirs"]}, None, ()),
        ("if-absent", ALL, {b"authorization": [b"Basic theirs"]}, None, ()),
        ("if-absent", (AUTHORIZATION,), {b"authorization": [b"Basic theirs"]}, None, ()),
        ("if-absent", (NAMESAKE,), {b"authorization": [b"Basic theirs"]}, None, ()),
        ("if-absent", (NAMESAKE,), {}, None, (NAMESAKE,)),
        # replace: only a value that equals the placeholder.
        (P, ALL, {}, None, ()),
        (P, ALL, {b"x-api-key": [b"theirs"]}, None, ()),
        (P, ALL, {b"x-api-key": [b"PLACEHOLDER"]}, None, (HEADER,)),
        (P, ALL, {b"x-api-key": [b"Token PLACEHOLDER"]}, None, (HEADER,)),
        (P, ALL, {b"x-api-key": [b"xPLACEHOLDER"]}, b"access_token=PLACEHOLDER", (QUERY,)),
        (P, ALL, {b"cookie": [b"session=PLACEHOLDER"]}, b"access_token=PLACE%48OLDER", (QUERY, COOKIE)),
        (P, (AUTHORIZATION,), {b"authorization": [b"bearer PLACEHOLDER"]}, None, (AUTHORIZATION,)),
        (P, (AUTHORIZATION,), {b"authorization": [b"placeholder"]}, None, ()),
        # A placeholder in an Authorization that is no place of ours asks for the credential where it belongs.
        (P, ALL, {b"authorization": [b"Bearer PLACEHOLDER"]}, None, ALL),
        (P, (NAMESAKE,), {b"authorization": [b"Bearer PLACEHOLDER"]}, None, (NAMESAKE,)),
    ],
)
def test_049_who_wins(
    inject: Inject, places: tuple[Place, ...], fields: Any, query: bytes | None, filled: tuple[Place, ...]
) -> None:
    """The places that get our credential in each mode."""
    assert places_to_fill(inject, places, fields, query, authorization_is_key=False) == filled


@pytest.mark.parametrize(
    ("inject", "places", "filled"),
    [
        ("overwrite", (AUTHORIZATION,), (AUTHORIZATION,)),
        ("if-absent", (AUTHORIZATION,), (AUTHORIZATION,)),
        ("if-absent", (HEADER,), (HEADER,)),
        ("if-absent", (Place("header", "authorization", "Token"),), (Place("header", "authorization", "Token"),)),
        (P, (AUTHORIZATION,), ()),
    ],
)
def test_a_client_key_in_authorization_does_not_count_as_present(
    inject: Inject, places: tuple[Place, ...], filled: tuple[Place, ...]
) -> None:
    """It was meant for us, even where the placeholder is spelled like it."""
    fields = {b"authorization": [b"Bearer PLACEHOLDER"]}
    assert places_to_fill(inject, places, fields, None, authorization_is_key=True) == filled


def _outgoing(*, query: bytes | None = None, cookies: list[bytes] | None = None) -> Outgoing:
    lines = b"Host: api.example\r\nAccept: */*\r\nX-Raw: \xff\xfe\r\nAccept: x\r\nContent-Length: 3\r\n"
    return Outgoing("POST", b"/v2/a%2Fb", query, lines, cookies or [])


@pytest.mark.threat(39)
def test_039_the_credential_is_the_very_last_field() -> None:
    """So nothing before it can take it away; the lines before it stand as they are."""
    head = _outgoing(query=b"a&&b", cookies=[b"a=b", b"c=d"]).head(
        render((AUTHORIZATION, QUERY, COOKIE), "token", [("X-Version", "1")])
    )
    assert head == (
        b"POST /v2/a%2Fb?a&&b&access_token=token HTTP/1.1\r\n"
        b"Host: api.example\r\n"
        b"Accept: */*\r\n"
        b"X-Raw: \xff\xfe\r\n"
        b"Accept: x\r\n"
        b"Content-Length: 3\r\n"
        b"Cookie: a=b; c=d; session=token\r\n"
        b"Authorization: Bearer token\r\n"
        b"X-Version: 1\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    ("query", "places", "target"),
    [
        (None, (), b"/v2/a%2Fb"),
        (b"", (), b"/v2/a%2Fb?"),
        (b"a=b", (), b"/v2/a%2Fb?a=b"),
        (None, (QUERY,), b"/v2/a%2Fb?access_token=token"),
        (b"", (QUERY,), b"/v2/a%2Fb?access_token=token"),
        (b"a=b&", (QUERY,), b"/v2/a%2Fb?a=b&&access_token=token"),
    ],
)
def test_the_target_with_and_without_a_token_in_it(
    query: bytes | None, places: tuple[Place, ...], target: bytes
) -> None:
    """The client's own query stays as it came, before ours."""
    assert _outgoing(query=query).head(render(places, "token")).split(b" ")[1] == target


@pytest.mark.parametrize(
    ("cookies", "places", "line"),
    [
        ([], (), None),
        ([b"a=b"], (), b"Cookie: a=b"),
        ([b"a=b", b"c"], (), b"Cookie: a=b; c"),
        ([], (COOKIE,), b"Cookie: session=token"),
        ([b"a=b"], (COOKIE,), b"Cookie: a=b; session=token"),
    ],
)
def test_at_most_one_cookie_field_goes_out(
    cookies: list[bytes], places: tuple[Place, ...], line: bytes | None
) -> None:
    """RFC 6265 section 5.4; an HTTP/2 client sends several, which HTTP/1.1 joins (RFC 9113 section 8.2.3)."""
    lines = _outgoing(cookies=cookies).head(render(places, "token")).split(b"\r\n")
    assert [each for each in lines if each.startswith(b"Cookie")] == ([] if line is None else [line])


def test_the_same_outgoing_takes_another_credential() -> None:
    """The second attempt begins from the same pieces; the first token leaves no trace in it."""
    outgoing = _outgoing(query=b"a", cookies=[b"b=c"])
    places = (AUTHORIZATION, QUERY, COOKIE)
    first, second = (outgoing.head(render(places, token)) for token in ("first-token", "second-token"))
    assert first.replace(b"first-token", b"second-token") == second
    assert first.count(b"first-token") == 3


def test_077_neither_an_injection_nor_a_head_prints_what_it_holds() -> None:
    """Both hold live values."""
    outgoing = Outgoing("GET", b"/", b"canary", b"A: canary\r\n", [b"canary=canary"])
    assert "canary" not in f"{render((AUTHORIZATION, QUERY, COOKIE), 'canary')!r}{outgoing!r}"
