"""What names call a secret in a body that is kept: masked, in whatever form it comes."""

import json

import pytest

from proxy.admin.bodies import part
from proxy.admin.members import without_members
from proxy.redact import Redactor

SECRET = "zz-secret-4711"
KEPT = "kept-as-it-is"
ONE = json.dumps({"password": f'{SECRET}"\\', "page": KEPT})
PARTS = (
    f'--B\r\nContent-Disposition: form-data; name="password"\r\n\r\n{SECRET}\r\n--x{SECRET}\r\n'
    f'--B\r\nContent-Disposition: form-data; name="page"\r\n\r\n{KEPT}\r\n--B--\r\n'
)
XML = (
    f'<a><w:Password t="{KEPT}">{SECRET}</w:Password><token><![CDATA[{SECRET}]]></token><u apiKey="{SECRET}"/></a>'
)
BODIES = {
    "json": ("application/json", ONE),
    "json in json": ("application/json", json.dumps({"body": ONE})),
    "json in json in json": ("application/json", json.dumps({"body": json.dumps({"body": ONE})})),
    "an escaped name": ("application/json", f'{{"pass\\u0077ord": "{SECRET}", "page": "{KEPT}"}}'),
    "an object": ("application/json", json.dumps({"credentials": {"user": "me", "v": [SECRET]}, "page": KEPT})),
    "a list with brackets": ("application/json", json.dumps({"tokens": ["a]b", [SECRET]], "page": KEPT})),
    "an object in json in json": (
        "",
        json.dumps({"a": json.dumps({"token": {"v": "}", "w": SECRET}}), "page": KEPT}),
    ),
    "another word": ("application/x-www-form-urlencoded", f"page={KEPT}&user=a&pass={SECRET}"),
    "a list": ("application/json", json.dumps({"tokens": [SECRET, SECRET], "page": KEPT})),
    "cut": ("application/json", f'{{"page": "{KEPT}", "access_token": "{SECRET}'),
    "a form": ("application/x-www-form-urlencoded", f"page={KEPT}&pass%77ord={SECRET}"),
    "json in a form": (
        "application/x-www-form-urlencoded",
        f"page={KEPT}&data=%7B%22password%22%3A%22{SECRET}%22%7D",
    ),
    "parts": ('multipart/form-data; boundary="B"', PARTS),
    "parts without a boundary": ("multipart/form-data", PARTS),
    "xml": ("text/xml", XML),
    "xml of no type": ("", XML),
}


@pytest.mark.threat(82)
@pytest.mark.parametrize(("content_type", "text"), BODIES.values(), ids=BODIES)
def test_082_what_names_call_a_secret_is_masked_in_whatever_form(content_type: str, text: str) -> None:
    """And the rest stays as it is."""
    masked = without_members(text, content_type.encode())
    assert SECRET not in masked
    assert KEPT in masked
    assert "***" in masked


@pytest.mark.threat(82)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/xml", f"<u>José</u><password>{SECRET}</password>"),
        ("application/json", f'{{"u": "José", "api_key": "{SECRET}"}}'),
        ("application/x-www-form-urlencoded", f"u=José&otp={SECRET}"),
    ],
)
def test_082_bytes_that_are_no_text_are_looked_through_as_well(content_type: str, text: str, encoding: str) -> None:
    """Nothing of them is kept, since it would be shown as it came."""
    shown = part(text.encode(encoding), Redactor(), cut=False, content_type=content_type.encode())
    assert (shown["text"], shown["base64"]) == (None, None)
    assert shown["note"] == "not kept: these bytes hold something that is masked"


@pytest.mark.parametrize("text", [ONE, json.dumps({"body": ONE, "page": [1, {"token": SECRET}]})])
def test_what_is_masked_is_still_json(text: str) -> None:
    """The page indents it."""
    assert json.loads(without_members(text, b"application/json")).keys() == json.loads(text).keys()


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "application/x-www-form-urlencoded"])
def test_what_holds_no_secret_stays_byte_for_byte(content_type: str) -> None:
    """Also where it is nearly something else."""
    text = 'page=1&size="a\\"&<b class="x">y</b>\\\\"{"a": "b"}&=&'
    assert without_members(text, content_type.encode()) == text
