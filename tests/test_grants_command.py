"""What programs print that give out tokens: every form, good and bad, and that no message repeats it."""

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.grants.command import OUTPUT_LIMIT, BadOutput, Form, read
from proxy.grants.expiry import LONGEST_LIFETIME
from proxy.grants.reply import TOKEN_LIMIT
from proxy.grants.request import Granted
from proxy.redact import Secret

NOW: Final = 1_700_000_000.0
IN_AN_HOUR: Final = datetime.fromtimestamp(NOW + 3600, UTC).isoformat().replace("+00:00", "Z")
TOKEN: Final = "ya29.c.b0Aaekm1K-x_y~z+/=="
HOUR: Final = Granted(Secret(TOKEN), lifetime=3600.0, expires_at_wall=NOW + 3600)
ENDLESS: Final = Granted(Secret(TOKEN))


def printed(output: object) -> bytes:
    """Bytes as they are, text in UTF-8, everything else as JSON."""
    if isinstance(output, bytes):
        return output
    return (output if isinstance(output, str) else json.dumps(output)).encode()


def plugin(**status: object) -> dict[str, object]:
    """What kubectl's plugins print."""
    return {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}


GOOD: Final[list[tuple[Form, object, Granted]]] = [
    ("text", TOKEN, ENDLESS),
    ("text", f"{TOKEN}\n", ENDLESS),
    ("text", f"\n  {TOKEN}\r\n", ENDLESS),
    ("text", "a" * TOKEN_LIMIT, Granted(Secret("a" * TOKEN_LIMIT))),
    ("exec_credential", plugin(token=TOKEN), ENDLESS),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp=None), ENDLESS),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp=IN_AN_HOUR), HOUR),
    (
        "exec_credential",
        plugin(token=TOKEN, expirationTimestamp="9999-12-31T23:59:59Z"),
        Granted(Secret(TOKEN), lifetime=LONGEST_LIFETIME, expires_at_wall=253402300799.0),
    ),
    ("docker", {"ServerURL": "https://r.example.com", "Username": "<token>", "Secret": TOKEN}, ENDLESS),
    ("azure", {"accessToken": TOKEN, "expiresOn": "2023-11-14 23:13:20.000000", "tokenType": "Bearer"}, ENDLESS),
    ("azure", {"accessToken": TOKEN, "expires_on": int(NOW) + 3600}, HOUR),
    ("azure", {"accessToken": TOKEN, "expires_on": str(int(NOW) + 3600)}, HOUR),
    ("git", f"protocol=https\nhost=example.com\nusername=ann\npassword={TOKEN}\n", ENDLESS),
    ("git", f"password={TOKEN}\r\npassword_expiry_utc={int(NOW) + 3600}\r\n", HOUR),
    ("git", f"password={TOKEN}", ENDLESS),
    ("git", f"no pair\n=\npassword={TOKEN}\n\n", ENDLESS),
]


@pytest.mark.parametrize(("form", "output", "expected"), GOOD)
@pytest.mark.parametrize("told", [True, False], ids=["told", "found out"])
def test_a_token_is_read_in_every_form(form: Form, output: object, expected: Granted, *, told: bool) -> None:
    """Whether the form is named or found out by what was printed."""
    assert read(printed(output), form if told else "auto", now_wall=NOW) == expected


def test_a_bare_token_that_begins_like_json_has_to_be_named() -> None:
    """Nothing else tells it from a document."""
    assert read(b"{odd}", "text", now_wall=NOW).token == Secret("{odd}")
    with pytest.raises(BadOutput, match="no JSON"):
        read(b"{odd}", "auto", now_wall=NOW)


NO_TOKEN: Final = "it printed no token where one is expected"
NO_JSON: Final = "it printed no JSON"
NO_OBJECT: Final = "it printed JSON that is no object"
NO_CREDENTIAL: Final = "it printed no ExecCredential with a status"
NO_EXPIRY: Final = "it printed an expiry in no known form"
OVER: Final = "it printed a token that has expired already"
JSON_FORMS: Final[tuple[Form, ...]] = ("exec_credential", "docker", "azure")
NO_OBJECTS: Final[list[object]] = [[], '"text"', 7, None, True]

BAD: Final[list[tuple[Form, object, str]]] = [
    *((form, b"a" * (OUTPUT_LIMIT + 1), "it printed more than 64 KiB") for form in ("auto", "text", *JSON_FORMS)),
    *(
        ("text", output, NO_TOKEN)
        for output in (b"", b"\n", "two words", "two\nlines", "a\x00b", "tokén", b"\xff\xfe", "a\x1b[0m")
    ),
    ("text", "a" * (TOKEN_LIMIT + 1), NO_TOKEN),
    *(
        (form, output, NO_JSON)
        for form in JSON_FORMS
        for output in (b"", "plain", b"\xff", "{", '{"a":' + "[" * 60_000, '{"n":' + "9" * 5000 + "}")
    ),
    *((form, output, NO_OBJECT) for form in JSON_FORMS for output in NO_OBJECTS),
    ("exec_credential", {}, NO_CREDENTIAL),
    ("exec_credential", {"kind": "Other", "status": {"token": TOKEN}}, NO_CREDENTIAL),
    ("exec_credential", {"kind": "ExecCredential"}, NO_CREDENTIAL),
    ("exec_credential", {"kind": "ExecCredential", "status": TOKEN}, NO_CREDENTIAL),
    ("exec_credential", plugin(clientCertificateData="x"), NO_TOKEN),
    ("exec_credential", plugin(token=""), NO_TOKEN),
    ("exec_credential", plugin(token=7), NO_TOKEN),
    ("exec_credential", plugin(token=[TOKEN]), NO_TOKEN),
    ("exec_credential", plugin(token=f"{TOKEN}\n"), NO_TOKEN),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp="soon"), NO_EXPIRY),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp=""), NO_EXPIRY),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp=True), NO_EXPIRY),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp="2023-11-14T22:13:20Z"), OVER),
    ("exec_credential", plugin(token=TOKEN, expirationTimestamp="1999-01-01T00:00:00Z"), OVER),
    ("exec_credential", '{"kind":"ExecCredential","status":{"token":"a","expirationTimestamp":NaN}}', NO_EXPIRY),
    ("docker", {"Username": "ann"}, NO_TOKEN),
    ("docker", {"Secret": None}, NO_TOKEN),
    ("docker", {"Secret": "two words"}, NO_TOKEN),
    ("azure", {"accessToken": None}, NO_TOKEN),
    ("azure", {"accessToken": TOKEN, "expires_on": []}, NO_EXPIRY),
    ("azure", {"accessToken": TOKEN, "expires_on": 0}, OVER),
    ("git", b"", NO_TOKEN),
    ("git", "username=ann\n", NO_TOKEN),
    ("git", "password=\n", NO_TOKEN),
    ("git", "password=two words\n", NO_TOKEN),
    ("git", f"password={TOKEN}\npassword_expiry_utc=soon\n", NO_EXPIRY),
    ("git", f"password={TOKEN}\npassword_expiry_utc=1\n", OVER),
    ("auto", "{", NO_JSON),
    ("auto", {}, NO_CREDENTIAL),
    ("auto", {"Secret": 7}, NO_TOKEN),
    ("auto", {"accessToken": ""}, NO_TOKEN),
]


@pytest.mark.parametrize(("form", "output", "sentence"), BAD)
def test_what_is_no_token_in_that_form_is_refused(form: Form, output: object, sentence: str) -> None:
    """With a fixed part of a sentence each."""
    with pytest.raises(BadOutput) as caught:
        read(printed(output), form, now_wall=NOW)
    assert str(caught.value) == sentence
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("output", "form"),
    [
        ({"Secret": "d", "accessToken": "a"}, "docker"),
        ({"accessToken": "a", "kind": "ExecCredential"}, "azure"),
        ("password=g", "git"),
        ("username=u\npassword=g", "git"),
        ("a-password=g", "text"),
        ("[]", "text"),
    ],
)
def test_a_form_is_found_out_by_the_first_sign_that_fits(output: object, form: Form) -> None:
    """As if it had been named."""
    assert read(printed(output), "auto", now_wall=NOW) == read(printed(output), form, now_wall=NOW)


@pytest.mark.parametrize("form", ["auto", "text", "exec_credential", "docker", "git", "azure"])
@given(data=st.one_of(st.binary(), st.text().map(str.encode), st.from_regex(rb'\{"[a-z]+": ?[^}]*\}')))
def test_no_output_ends_in_anything_but_a_token_or_a_refusal(form: Any, data: bytes) -> None:
    """Whatever a program prints; what comes out as a token can be sent in a header."""
    try:
        token = read(data, form, now_wall=NOW).token.reveal()
    except BadOutput:
        return
    assert token
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
