"""The authorization code grant as data: what is sent along, and what may come back."""

import base64
import hashlib
import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.grants.authorization import (
    Attempt,
    Fault,
    InvalidCallback,
    attempt,
    authorization_url,
    read_callback,
    redirect_uri,
)
from proxy.redact import Secret

ISSUER: Final = "https://id.example.com"
STATE: Final = "the-state-of-this-login"
MADE: Final = Attempt(Secret("verifier"), Secret(STATE))


def test_verifier_and_challenge_are_those_of_the_standard() -> None:
    """The example of RFC 7636, appendix B."""
    octets = bytes.fromhex("7418dfb49799e0254ffa607dd8adbbba16d4254d69d6bff05b58055853848d79")
    made = attempt(lambda _size: octets)
    assert made.verifier == Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert made.parameters()["code_challenge"] == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_each_value_has_randomness_of_its_own() -> None:
    """Two times 32 bytes; the verifier is within 43 to 128 characters (RFC 7636 section 4.1)."""
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked)]) * size

    made = attempt(random)
    assert asked == [32, 32]
    assert made.verifier != made.state
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", made.verifier.reveal())
    assert made.parameters() == {
        "state": made.state.reveal(),
        "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(made.verifier.reveal().encode()).digest())
        .decode()
        .rstrip("="),
        "code_challenge_method": "S256",
    }


def test_the_browser_comes_back_to_the_address_and_no_name() -> None:
    """`localhost` may mean something else (RFC 8252 section 8.3)."""
    assert redirect_uri(4711, "/callback") == "http://127.0.0.1:4711/callback"


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("https://a.example/authorize", "https://a.example/authorize?scope=a%20b%26c&state=s"),
        ("https://a.example/authorize?", "https://a.example/authorize?scope=a%20b%26c&state=s"),
        (
            "https://a.example/auth?access_type=offline&prompt=consent%20x",
            "https://a.example/auth?access_type=offline&prompt=consent%20x&scope=a%20b%26c&state=s",
        ),
        ("https://a.example/?sc%6Fpe=old&flag", "https://a.example/?flag&scope=a%20b%26c&state=s"),
    ],
    ids=["none", "empty", "kept", "ours win"],
)
def test_a_query_of_the_page_is_kept(url: str, whole: str) -> None:
    """As it is written; no parameter comes twice (RFC 6749 section 3.1), one without a value not at all."""
    assert authorization_url(url, {"scope": "a b&c", "audience": None, "state": "s"}) == whole


def _query(**changes: str | None) -> str:
    given = {"code": "abc", "state": STATE, **changes}
    return urlencode({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (_query(), "abc"),
        (_query(code="with space + / ~"), "with space + / ~"),
        (_query(iss=ISSUER), "abc"),
        (_query(session_state="whatever"), "abc"),
        (_query(code="c" * 4096), "c" * 4096),
    ],
    ids=["plain", "odd characters", "the server names itself", "unknown parameters", "long"],
)
def test_a_code_of_this_login_is_taken(query: str, code: str) -> None:
    """Unknown parameters are ignored (RFC 6749 section 4.1.2)."""
    assert read_callback(query, MADE, issuer=ISSUER, promised=False) == Secret(code)


@pytest.mark.threat(110)
@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (_query(state=None), Fault.FOREIGN),
        (_query(state=""), Fault.FOREIGN),
        (_query(state=STATE[:-1]), Fault.FOREIGN),
        (_query(state=STATE.upper()), Fault.FOREIGN),
        (_query() + f"&state={STATE}", Fault.FOREIGN),
        (_query(state="other", error="access_denied"), Fault.FOREIGN),
        ("", Fault.FOREIGN),
        (_query() + "&a=b" * 70, Fault.FOREIGN),
        (_query(state="\udcff".encode("utf-8", "surrogateescape").decode("latin-1")), Fault.FOREIGN),
        (_query(iss="https://evil.example"), Fault.MIXED_UP),
        (_query(iss=ISSUER + "/"), Fault.MIXED_UP),
        (_query(iss="https://evil.example", error="access_denied"), Fault.MIXED_UP),
        (_query(iss=ISSUER) + f"&iss={ISSUER}", Fault.MIXED_UP),
        (_query(error="access_denied"), Fault.DENIED),
        (_query(error="access_denied", code=None), Fault.DENIED),
        (_query(code=None), Fault.NO_CODE),
        (_query(code=""), Fault.NO_CODE),
        (_query() + "&code=other", Fault.NO_CODE),
        (_query(code="a\r\nb"), Fault.NO_CODE),
        (_query(code="c" * 4097), Fault.NO_CODE),
    ],
)
def test_anything_else_is_refused_and_says_why(query: str, fault: Fault) -> None:
    """The state comes first: without it nothing else counts, not even an error."""
    with pytest.raises(InvalidCallback) as refused:
        read_callback(query, MADE, issuer=ISSUER, promised=False)
    assert refused.value.fault is fault


@pytest.mark.parametrize(
    ("query", "issuer", "promised"),
    [
        (_query(iss=ISSUER), ISSUER, True),
        (_query(iss="https://evil.example"), None, False),
        (_query(), None, False),
    ],
    ids=["promised and there", "nobody knows the name", "nothing said"],
)
def test_the_name_of_the_server_is_compared_where_it_is_known(
    query: str,
    issuer: str | None,
    promised: bool,  # noqa: FBT001  a column of the table
) -> None:
    """Without an issuer there is nothing to compare with."""
    assert read_callback(query, MADE, issuer=issuer, promised=promised) == Secret("abc")


def test_a_server_that_promises_its_name_must_give_it() -> None:
    """RFC 9207 section 2.4."""
    with pytest.raises(InvalidCallback) as refused:
        read_callback(_query(), MADE, issuer=ISSUER, promised=True)
    assert refused.value.fault is Fault.MIXED_UP


@pytest.mark.parametrize(
    ("error", "shown"),
    [("access_denied", "access_denied"), ("login_required", "login_required"), ("<b>secret</b>", "error")],
)
def test_only_registered_codes_are_shown(error: str, shown: str) -> None:
    """A browser can be sent here with anything."""
    with pytest.raises(InvalidCallback) as refused:
        read_callback(_query(error=error), MADE, issuer=None, promised=False)
    assert str(refused.value) == f"The server, or the person there, did not agree, {shown}."


@pytest.mark.threat(110)
@given(st.text(), st.text(st.characters(codec="ascii"), max_size=40))
def test_whatever_comes_without_the_state_changes_nothing(query: str, state: str) -> None:
    """No text of a browser is anything but foreign."""
    if STATE in query or state == STATE:
        return
    for text in (query, f"{query}&state={state}", urlencode({"code": query, "state": state})):
        with pytest.raises(InvalidCallback) as refused:
            read_callback(text, MADE, issuer=None, promised=False)
        assert refused.value.fault is Fault.FOREIGN


@given(
    st.dictionaries(
        st.sampled_from(["scope", "state", "audience"]),
        st.text(st.characters(exclude_categories=["Cs"])),
        min_size=1,
    )
)
def test_what_is_sent_can_be_read_back(parameters: dict[str, str]) -> None:
    """Every value arrives as it was."""
    url = authorization_url("https://a.example/x?kept=1", dict(parameters))
    found = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert found == [("kept", "1"), *parameters.items()]
