"""OAuth 2.0 token requests as data: how a client proves who it is, what each grant sends, what errors mean."""

import base64
import json
from typing import Any, Final, get_args
from urllib.parse import parse_qsl, unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.grants.login import build
from proxy.grants.oauth2 import (
    ASSERTING,
    INTERACTIVE,
    REPLY,
    Client,
    ClientAuth,
    GrantName,
    OAuthDescription,
    OAuthError,
    error_of,
    verdict,
)
from proxy.grants.reply import BODY_LIMIT, Verdict, read
from proxy.grants.request import TokenReply
from proxy.redact import MASK, Secret
from tests.support.leaks import Canaries

URL: Final = "https://id.example.com/token"
ASSERTION: Final = Secret("eyJh.eyJp.c2ln")
#: Every character that form encoding changes, and some that it must not.
AWKWARD: Final = "a:b/c+d %e&f=g~h-i_j.k!é€"
AWKWARD_FORM: Final = "a%3Ab%2Fc%2Bd%20%25e%26f%3Dg~h-i_j.k%21%C3%A9%E2%82%AC"


def basic(client_id: str, secret: str, encoding: Any = "form") -> str:
    """What stands behind `Basic`, decoded."""
    fields, headers = Client(client_id, "basic", Secret(secret), encoding).proof(None)
    assert fields == {}
    value = headers["Authorization"]
    assert isinstance(value, Secret)
    scheme, _, encoded = value.reveal().partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("client_id", "secret", "encoding", "expected"),
    [
        ("id", "secret", "form", "id:secret"),
        ("id", "secret", "raw", "id:secret"),
        (AWKWARD, AWKWARD, "form", f"{AWKWARD_FORM}:{AWKWARD_FORM}"),
        ("id", AWKWARD, "raw", f"id:{AWKWARD}"),
        ("id", "", "form", "id:"),
        ("id", "\udcff\udc80", "raw", "id:\udcff\udc80"),
        ("id", "\udcff", "form", "id:%FF"),
    ],
    ids=["plain", "plain raw", "awkward", "awkward raw", "empty", "no text raw", "no text"],
)
def test_basic_encodes_identifier_and_secret_each_by_itself(
    client_id: str, secret: str, encoding: str, expected: str
) -> None:
    """RFC 6749 section 2.3.1; as they are for servers that do not decode; bytes that are no text as they came."""
    assert basic(client_id, secret, encoding) == expected


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_server_that_follows_the_standard_reads_back_any_identifier_and_secret(name: str, secret: str) -> None:
    """Split at the first colon, then decode each: whatever they hold, and whatever a server thinks of the plus."""
    parts = basic(name, secret).split(":")
    for decode in (unquote, unquote_plus):
        assert [decode(part) for part in parts] == [name, secret]


@pytest.mark.parametrize(
    ("client", "assertion", "expected"),
    [
        (Client(None, "basic", Secret("s")), None, {}),
        (Client(None, "none"), None, {}),
        (Client("id", "none"), None, {"client_id": "id"}),
        (Client("id", "tls"), None, {"client_id": "id"}),
        (Client("id", "basic", None), None, {"client_id": "id"}),
        (Client("id", "post", Secret("s")), None, {"client_id": "id", "client_secret": Secret("s")}),
        *(
            (
                Client("id", auth, Secret("s")),
                ASSERTION,
                {
                    "client_id": "id",
                    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    "client_assertion": ASSERTION,
                },
            )
            for auth in sorted(ASSERTING)
        ),
    ],
)
def test_every_other_way_to_authenticate_is_fields_of_the_form(
    client: Client, assertion: Secret | None, expected: dict[str, object]
) -> None:
    """One way at a time (RFC 6749 section 2.3): nothing of it stands in a header, and no secret beside a JWT."""
    assert client.proof(assertion) == (expected, {})


def test_every_way_to_authenticate_is_tested() -> None:
    """A new one has to come into the tables above."""
    assert set(get_args(ClientAuth)) == {"basic", "post", "none", "tls"} | ASSERTING


CODE: Final = {"code": "c-1", "redirect_uri": "http://127.0.0.1/cb", "code_verifier": "v-1"}


@pytest.mark.parametrize(
    ("grant", "own", "more", "expected"),
    [
        ("client_credentials", {}, {}, {"grant_type": "client_credentials"}),
        (
            "password",
            {"username": "ann", "password": Secret("p")},
            {},
            {"grant_type": "password", "username": "ann", "password": "p"},
        ),
        (
            "jwt_bearer",
            {},
            {"assertion": ASSERTION},
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "eyJh.eyJp.c2ln"},
        ),
        (
            "token_exchange",
            {"subject_token": Secret("st"), "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"},
            {},
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": "st",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            },
        ),
        ("authorization_code", {}, CODE, {"grant_type": "authorization_code", **CODE}),
        (
            "device_code",
            {},
            {"device_code": Secret("dc")},
            {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "dc"},
        ),
    ],
)
def test_each_grant_sends_its_own_fields_and_the_common_ones(
    grant: GrantName, own: dict[str, Any], more: dict[str, Any], expected: dict[str, str]
) -> None:
    """As a form, to the token URL; a field without a value is not sent."""
    description = OAuthDescription(
        grant=grant,
        client=Client("id", "post", Secret("s")),
        parameters=own,
        common={"scope": "read write", "audience": None, "resource": "https://api.example.com"},
        extra={"tenant": "t 1"},
    )
    request = build(
        description.request(URL, grant, more), access_token=None, refresh_token=None, boundary="b", bearer=False
    )
    assert (request.method, request.url) == ("POST", URL)
    assert dict(request.headers)["Content-Type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl((request.body or b"").decode(), strict_parsing=True)) == {
        **expected,
        # With these the person was asked for the scope already.
        **({} if grant in INTERACTIVE else {"scope": "read write"}),
        "resource": "https://api.example.com",
        "client_id": "id",
        "client_secret": "s",
        "tenant": "t 1",
    }


@pytest.mark.parametrize("grant", [grant for grant in get_args(GrantName) if grant != "refresh_token"])
def test_a_refresh_sends_neither_scope_nor_the_fields_of_the_first_grant(grant: GrantName) -> None:
    """The scope of the refresh token then stays as it is (RFC 6749 section 6); a password goes out once."""
    description = OAuthDescription(
        grant=grant,
        client=Client("id", "basic", Secret("s")),
        parameters={"username": "ann", "password": Secret("p")},
        common={"scope": "read"},
        extra={"tenant": "t"},
    )
    step = description.request(URL, "refresh_token", {"refresh_token": Secret("rt")})
    assert step.fields == {"grant_type": "refresh_token", "refresh_token": Secret("rt"), "tenant": "t"}
    assert set(step.headers) == {"Authorization"}


def test_the_grant_refresh_token_says_what_is_wished() -> None:
    """There was no login here that did; and what proves the client. `extra` wins over all."""
    client = Client("id", "private_key_jwt")
    description = OAuthDescription("refresh_token", client, common={"scope": "read"}, extra={"client_id": "x"})
    step = description.request(URL, "refresh_token", {"refresh_token": Secret("rt")}, assertion=ASSERTION)
    assert step.fields == {
        "grant_type": "refresh_token",
        "refresh_token": Secret("rt"),
        "scope": "read",
        "client_id": "x",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": ASSERTION,
    }


def test_no_request_shows_a_secret_when_it_is_printed(canaries: Canaries) -> None:
    """Neither a step nor who it is from."""
    canary = canaries.mint("password")
    client = Client("id", "post", Secret(canary))
    description = OAuthDescription("password", client, Secret(canary), {"password": Secret(canary)})
    step = description.request(URL, "password", {}, assertion=Secret(canary))
    assert canary not in f"{client!r}{description!r}{step!r}{client.proof(None)!r}"


def test_grants_that_need_a_person_are_known() -> None:
    """No request of theirs can be made without one."""
    assert {"authorization_code", "device_code"} == INTERACTIVE


def test_the_standard_reply_is_read_by_the_standard_rules() -> None:
    """RFC 6749 section 5.1, its own example."""
    body = (
        b'{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"example","expires_in":3600,'
        b'"refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA","example_parameter":"example_value"}'
    ).replace(b'"example",', b'"Bearer",')
    granted = read(TokenReply(200, (), body), REPLY, now_wall=0.0)
    assert (granted.token, granted.refresh_token) == (
        Secret("2YotnFZFEjr1zCsicMWpAA"),
        Secret("tGzv3JOkF0XG5Qx2TlKWIA"),
    )
    assert granted.lifetime == 3600.0


def reply(body: object, status: int = 400) -> TokenReply:
    """A reply; bytes as they are, everything else as JSON."""
    return TokenReply(status, (), body if isinstance(body, bytes) else json.dumps(body).encode())


ODD: Final[list[object]] = ["", None, False, 0, 7, [], ["why"], {}, {"code": "invalid_grant"}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": "invalid_grant"}, OAuthError("invalid_grant", "invalid_grant")),
        (
            {"error": "invalid_client", "error_description": "Unknown client."},
            OAuthError("invalid_client", "invalid_client", "Unknown client."),
        ),
        ({"error": "AADSTS50126"}, OAuthError("error", "AADSTS50126")),
        ({"error": "Invalid_Grant"}, OAuthError("error", "Invalid_Grant")),
        ({"error_description": "why"}, OAuthError("", "", "why")),
        (b"\xef\xbb\xbf" + b'{"error":"slow_down"}', OAuthError("slow_down", "slow_down")),
        *(({"error": odd}, OAuthError()) for odd in ODD),
        *(({"error_description": odd}, OAuthError()) for odd in ODD),
        *((document, OAuthError()) for document in ([], "invalid_grant", 7, None, ["error", "invalid_grant"])),
        *((body, OAuthError()) for body in (b"", b"<html>", b"\xff", b"error=invalid_grant", b"[" * 60_000)),
        (b'{"error":"invalid_grant","n":' + b"9" * 5000 + b"}", OAuthError()),
        (b'{"error":"invalid_grant"}' + b" " * BODY_LIMIT, OAuthError()),
    ],
)
def test_the_error_of_a_reply_is_its_member_error(body: object, expected: OAuthError) -> None:
    """A text of a JSON object that is not too large; anything else is none."""
    assert error_of(reply(body)) == expected


def test_the_words_of_a_server_are_made_fit_for_a_log() -> None:
    """Cut, without control characters and marks that turn the direction of writing (threat 79)."""
    error = error_of(reply({"error": "e\r\nEvil: 1\x1b[31m", "error_description": "no\u202e, " + "why " * 200}))
    assert error.code == "error"
    assert error.stated == "eEvil: 1[31m"
    assert error.description == ("no, " + "why " * 200)[:300]
    assert len(error_of(reply({"error": "an error " * 50})).stated) == 60


@pytest.mark.parametrize("kind", ["token", "uuid", "jwt", "key"])
@pytest.mark.parametrize("member", ["error", "error_description"])
@pytest.mark.parametrize("form", ["The token {} is over", "{}", "'{}'", "refresh_token={};", "\t{}\n"])
def test_what_looks_like_a_secret_is_masked_in_the_words_of_a_server(
    canaries: Canaries, kind: str, member: str, form: str
) -> None:
    """It may quote a token that nobody here has ever seen."""
    canary = canaries.mint(kind)
    error = error_of(reply({member: form.format(canary)}))
    shown = {"error": error.stated, "error_description": error.description}[member]
    assert shown == "".join(filter(str.isprintable, form.format(MASK)))
    assert canary not in str(error)


def test_a_secret_that_is_cut_by_the_limit_is_masked_before(canaries: Canaries) -> None:
    """Fifteen characters of it would look like a word."""
    shown = error_of(reply({"error_description": "why " * 72 + canaries.mint("token")})).description
    assert shown == "why " * 72 + MASK


@pytest.mark.parametrize(
    "words",
    [
        "AADSTS7000215: Invalid client secret provided.",
        "unsupported_grant_type is not allowed for this client",
        "see docs.example.com/oauth/errors.",
        "Token is expired. You can either do re-authorization or token refresh.",
    ],
)
def test_ordinary_words_stay_as_they_are(words: str) -> None:
    """Or nobody could tell what is wrong."""
    assert error_of(reply({"error_description": words})).description == words


def test_the_fields_of_an_error_are_those_that_were_said() -> None:
    """A log event has no empty fields; a sentence has the code alone."""
    assert OAuthError().fields == {}
    error = OAuthError("error", "own_code", "why")
    assert error.fields == {"oauth_error": "own_code", "oauth_error_description": "why"}
    assert (str(error), str(OAuthError())) == (", error", "")


REJECTING: Final = (
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
    *("invalid_scope", "invalid_target", "access_denied", "expired_token", "unsupported_response_type"),
    *("interaction_required", "login_required", "account_selection_required", "consent_required", "own_code"),
)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        *((400, code, "rejected") for code in REJECTING),
        *((200, code, "rejected") for code in REJECTING),
        *(
            (status, code, "transient")
            for status in (200, 400, 401)
            for code in ("temporarily_unavailable", "server_error", "slow_down", "authorization_pending")
        ),
        (200, "", "accepted"),
        (201, "", "accepted"),
        (204, "", "misconfigured"),
        (401, "", "rejected"),
        (403, "", "rejected"),
        (429, "invalid_grant", "transient"),
        (503, "invalid_grant", "transient"),
        (404, "invalid_client", "misconfigured"),
        (302, "", "misconfigured"),
    ],
)
def test_a_verdict_follows_the_error_and_else_the_status(status: int, error: str, expected: Verdict) -> None:
    """An outage is no reason to give a credential up, and 200 is no token where `error` stands beside it."""
    answer = reply({"error": error} if error else {}, status)
    assert verdict(answer, error_of(answer)) == expected


@pytest.mark.parametrize(
    ("secret", "description"),
    [
        ("hunter2", "wrong password 'hunter2'"),
        ("hunter2", "wrong password HUNTER2"),
        ("geheim<geheim>&x", "no: geheim&lt;geheim&gt;&amp;x"),
        ("geheim'geheim", "near 'geheim''geheim'"),
        ("geheim'geheim", "near geheim&#39;geheim"),
        ("geheim'geheim", "near geheim&#x27;geheim"),
        ('a"b"c-d', 'got "a\\"b\\"c-d"'),
        ("correct horse", "x " * 146 + "correct horse"),
    ],
)
def test_a_secret_that_a_server_quotes_is_not_shown(secret: str, description: str) -> None:
    """However it is escaped, and before the description is cut."""
    body = json.dumps({"error": "invalid_grant", "error_description": description}).encode()
    shown = error_of(TokenReply(400, (), body), [Secret(secret), Secret("abc")]).description
    assert MASK in shown or len(shown) == 300
    for fragment in (secret, secret[:4], secret.upper()):
        assert fragment not in shown
