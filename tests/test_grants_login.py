"""The requests of a login: what goes on the wire for each encoding, and what is refused."""

import email
import json
from dataclasses import replace
from email import policy
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.grants.login import (
    Encoding,
    LoginDescription,
    ResponseRules,
    Step,
    Value,
    build,
    references,
)
from proxy.grants.request import TokenRequest
from proxy.redact import Secret

URL = "https://api.example.com/auth/login"
PASSWORD = "correct horse & battery=ståple"


def made(step: Step, *, bearer: bool = False) -> TokenRequest:
    """The request of `step` after a step that gave the tokens `at-1` and `rt-1`."""
    return build(step, access_token=Secret("at-1"), refresh_token=Secret("rt-1"), boundary="B0", bearer=bearer)


def header(request: TokenRequest, name: str) -> str | None:
    """The one value of a header, None if it is not sent."""
    values = [value for field, value in request.headers if field.lower() == name.lower()]
    assert len(values) <= 1, f"{name} is sent {len(values)} times"
    return values[0] if values else None


LOGIN = Step(
    URL, fields={"username": "u@example.com", "password": Secret(PASSWORD), "account_id": 4711, "note": None}
)


@pytest.mark.parametrize(
    ("encoding", "url", "content_type", "body"),
    [
        (
            "form",
            URL,
            "application/x-www-form-urlencoded",
            b"username=u%40example.com&password=correct+horse+%26+battery%3Dst%C3%A5ple&account_id=4711",
        ),
        (
            "json",
            URL,
            "application/json",
            '{"username":"u@example.com","password":"correct horse & battery=ståple","account_id":4711}'.encode(),
        ),
        (
            "query",
            f"{URL}?username=u%40example.com&password=correct%20horse%20%26%20battery%3Dst%C3%A5ple&account_id=4711",
            None,
            b"",
        ),
        (
            "multipart",
            URL,
            "multipart/form-data; boundary=B0",
            (
                '--B0\r\nContent-Disposition: form-data; name="username"\r\n\r\nu@example.com\r\n'
                '--B0\r\nContent-Disposition: form-data; name="password"\r\n\r\ncorrect horse & battery=ståple\r\n'
                '--B0\r\nContent-Disposition: form-data; name="account_id"\r\n\r\n4711\r\n'
                "--B0--\r\n"
            ).encode(),
        ),
    ],
)
def test_each_encoding_is_sent_as_its_specification_says(
    encoding: Encoding, url: str, content_type: str | None, body: bytes
) -> None:
    """Fields without a value are left out, numbers stay numbers in JSON, and the length is always known."""
    request = made(replace(LOGIN, encoding=encoding))
    assert (request.method, request.url, request.body) == ("POST", url, body)
    assert header(request, "Content-Type") == content_type
    assert header(request, "Content-Length") == str(len(body))
    assert header(request, "Accept") == "application/json"
    assert header(request, "Accept-Encoding") == "identity"
    assert header(request, "Authorization") is None


@pytest.mark.parametrize("encoding", ["form", "json", "multipart", "query"])
def test_get_has_its_fields_in_the_query_and_no_body(encoding: Encoding) -> None:
    """A query that the URL has already is kept."""
    request = made(Step(f"{URL}?v=2", method="GET", encoding=encoding, fields={"a": "b c"}))
    assert (request.url, request.body) == (f"{URL}?v=2&a=b%20c", None)
    assert header(request, "Content-Length") is None
    assert header(request, "Content-Type") is None


def test_a_get_without_fields_leaves_the_url_alone() -> None:
    """No question mark is added."""
    assert made(Step(URL, method="GET")).url == URL


@pytest.mark.parametrize(
    ("value", "form", "in_json"),
    [
        (True, "true", True),
        (False, "false", False),
        (7, "7", 7),
        (1.5, "1.5", 1.5),
        ("", "", ""),
        ("$access_token", "at-1", "at-1"),
        ("$refresh_token", "rt-1", "rt-1"),
        ("x$refresh_token", "x$refresh_token", "x$refresh_token"),
        (Secret("$refresh_token"), "$refresh_token", "$refresh_token"),
    ],
)
def test_values_keep_their_type_and_only_a_whole_placeholder_is_filled(
    value: Value, form: str, in_json: object
) -> None:
    """A secret that looks like a placeholder is still the secret."""
    step = Step(URL, fields={"f": value})
    assert dict(parse_qsl(str(made(step).body or b"", "ascii"), keep_blank_values=True)) == {"f": form}
    sent = json.loads(made(replace(step, encoding="json")).body or b"")
    assert sent == {"f": in_json}
    assert type(sent["f"]) is type(in_json)


def test_headers_take_secrets_and_tokens() -> None:
    """A private token may stand in a header; a header without a value is not sent."""
    step = Step(URL, headers={"X-Private": Secret("guid-1"), "X-Old": "$access_token", "X-No": None, "X-N": 5})
    request = made(step)
    assert [header(request, name) for name in ("X-Private", "X-Old", "X-No", "X-N")] == [
        "guid-1",
        "at-1",
        None,
        "5",
    ]


@pytest.mark.parametrize(
    ("headers", "bearer", "expected"),
    [
        ({}, False, None),
        ({}, True, "Bearer at-1"),
        ({"authorization": Secret("Custom x")}, True, "Custom x"),
        ({"authorization": Secret("Custom x")}, False, "Custom x"),
    ],
)
def test_a_later_step_is_authorized_by_the_token_before_unless_it_says_otherwise(
    *, headers: dict[str, Value], bearer: bool, expected: str | None
) -> None:
    """The header is never sent twice, whatever its case."""
    assert header(made(Step(URL, headers=headers), bearer=bearer), "Authorization") == expected


@pytest.mark.parametrize(("name", "default"), [("accept", "application/json"), ("user-agent", "bearer-proxy")])
def test_a_step_may_say_what_it_accepts_and_who_it_is(name: str, default: str) -> None:
    """Some vendors demand their own media type or a unique agent."""
    assert header(made(Step(URL)), name) == default
    assert header(made(Step(URL, headers={name: "own/1"})), name) == "own/1"


def test_a_content_type_may_be_set_except_for_multipart() -> None:
    """There it carries the boundary."""
    own = Step(URL, encoding="json", headers={"content-type": "application/x-amz-json-1.1"})
    assert header(made(own), "Content-Type") == "application/x-amz-json-1.1"
    assert header(made(replace(own, encoding="multipart")), "Content-Type") == "multipart/form-data; boundary=B0"


CANARY = "kanarie-9f31"


@pytest.mark.parametrize(
    "step",
    [
        Step(URL, headers={"X-A": Secret(f"{CANARY}\r\nX-B: c")}),
        Step(URL, headers={"X-A": Secret(f"{CANARY}\n")}),
        Step(URL, headers={"X-A": Secret(f"{CANARY}\x00")}),
        Step(URL, headers={"X-A": Secret(f"{CANARY}é")}),
        Step(URL, headers={"X-A": Secret(f" {CANARY}")}),
        Step(URL, headers={"X A": Secret(CANARY)}),
        Step(URL, headers={"": Secret(CANARY)}),
        Step(URL, headers={"X-A:": Secret(CANARY)}),
        Step(URL, headers={"Content-Length": 0}),
        Step(URL, headers={"transfer-encoding": "chunked"}),
        Step(URL, headers={"Host": "other.example.com"}),
        Step(URL, headers={"Accept-Encoding": "gzip"}),
        Step(URL, encoding="multipart", fields={'a"; filename="b': Secret(CANARY)}),
        Step(URL, encoding="multipart", fields={"a\r\nX-B": Secret(CANARY)}),
        Step(URL, encoding="multipart", fields={"": Secret(CANARY)}),
        Step(URL, encoding="multipart", fields={"a": Secret(f"{CANARY}\r\n--B0\r\n")}),
        Step(URL, encoding="multipart", fields={"a": Secret(f"{CANARY}\ud800")}),
        Step(URL, encoding="form", fields={"a": Secret(f"{CANARY}\ud800")}),
        Step(URL, encoding="query", fields={"a": Secret(f"{CANARY}\ud800")}),
        Step(URL, encoding="json", fields={"a": Secret(f"{CANARY}\ud800")}),
        Step(URL, encoding="json", fields={"a": float("nan"), "b": Secret(CANARY)}),
    ],
)
def test_what_cannot_be_sent_safely_is_refused_without_showing_it(step: Step) -> None:
    """Nothing that is configured can begin a header or a part of its own (threat 50)."""
    with pytest.raises(ConfigError) as caught:
        made(step)
    assert len(caught.value.problems) == 1
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("placeholder", ["$access_token", "$refresh_token"])
def test_a_placeholder_without_a_token_is_refused(placeholder: str) -> None:
    """An empty value would reach the vendor as a wrong one."""
    with pytest.raises(ConfigError, match="no step before gives one"):
        build(Step(URL, fields={"f": placeholder}), access_token=None, refresh_token=None, boundary="B0")


def test_references_names_the_tokens_that_a_step_stands_on() -> None:
    """In fields and headers, as whole values only."""
    assert references(Step(URL, fields={"a": "$refresh_token"}, headers={"b": "$access_token"})) == {
        "$access_token",
        "$refresh_token",
    }
    assert (
        references(Step(URL, fields={"a": "x$refresh_token", "b": Secret("$access_token"), "c": 1})) == frozenset()
    )


def test_a_request_shows_no_secret() -> None:
    """Neither it nor its step prints what it holds."""
    step = Step(URL, fields={"p": Secret(CANARY)}, headers={"X": Secret(CANARY)})
    assert CANARY not in f"{step!r} {made(step)!r}"


BASE = LoginDescription(
    login=Step(URL, fields={"u": "a", "p": Secret("one")}, headers={"X": Secret("two")}),
    response=ResponseRules(),
    refresh=Step("https://api.example.com/auth/refresh", fields={"r": "$refresh_token"}),
    then=(Step("https://api.example.com/masquerade", fields={"account": 1}),),
)


TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@given(st.dictionaries(TEXT.filter(bool), TEXT, max_size=5))
def test_form_query_and_json_carry_any_text_unchanged(fields: dict[str, str]) -> None:
    """Decoded by the standard library, what arrives is what was configured."""
    fields = {name: value for name, value in fields.items() if value not in {"$access_token", "$refresh_token"}}
    step = Step(URL, fields=fields)
    form = made(step).body or b""
    assert dict(parse_qsl(form.decode("ascii"), keep_blank_values=True)) == fields
    url = made(replace(step, encoding="query")).url
    assert url.isascii()
    assert dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)) == fields
    # There a name that begins with a slash is a pointer into the document.
    named = {name: value for name, value in fields.items() if not name.startswith("/")}
    assert json.loads(made(replace(step, fields=named, encoding="json")).body or b"") == named


@given(st.dictionaries(st.text('ab;=-_ \r\n"\\é', max_size=6), st.text("aB0-\r\n:é", max_size=30), max_size=4))
def test_multipart_is_read_back_as_exactly_the_fields_or_refused(fields: dict[str, str]) -> None:
    """An independent parser finds one part a field, with nothing in its head but the disposition."""
    try:
        request = made(Step(URL, encoding="multipart", fields=fields))
    except ConfigError:
        return
    assert request.body is not None
    head, *rest = request.body.split(b"--B0")
    assert (head, rest[-1], len(rest)) == (b"", b"--\r\n", len(fields) + 1)
    for part, (name, value) in zip(rest[:-1], fields.items(), strict=True):
        top, _, content = part.partition(b"\r\n\r\n")
        message = email.message_from_bytes(top.removeprefix(b"\r\n") + b"\r\n\r\n", policy=policy.HTTP)
        assert message.keys() == ["Content-Disposition"]
        assert f'name="{name}"'.encode() in top
        assert content == value.encode() + b"\r\n"
