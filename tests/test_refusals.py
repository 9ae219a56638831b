"""When an answer refuses the token: the default, its negatives, `expired` rules, and the challenge parser."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.globs import glob_expression
from proxy.refusals import ExpiredRule, Refusal, RefusalRules, bearer_error, glob, is_plain_json
from tests.support.sections import section

DEFAULT = RefusalRules(frozenset({401, 403}))


def _challenge(value: str) -> tuple[bytes, bytes]:
    return b"WWW-Authenticate", value.encode("latin-1")


@pytest.mark.threat(99, 109)
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (401, [], Refusal("401", explicit=True)),
        (403, [], Refusal("403", explicit=False)),
        (200, [], None),
        (429, [], None),
        (503, [(b"Retry-After", b"1")], None),
        (401, [_challenge('Bearer error="invalid_token"')], Refusal("401 invalid_token", explicit=True)),
        (403, [_challenge('Bearer error="invalid_token"')], Refusal("403 invalid_token", explicit=True)),
        (401, [_challenge('Bearer error="invalid_request"')], Refusal("401", explicit=True)),
        (403, [_challenge('Bearer error="insufficient_scope"')], None),
        (401, [_challenge('Bearer error="insufficient_scope"')], None),
        (401, [_challenge('Bearer error="insufficient_claims", claims="eyJ"')], None),
        (403, [(b"retry-after", b"30")], None),
        (403, [(b"X-RateLimit-Remaining", b" 0 ")], None),
        (403, [(b"X-RateLimit-Remaining", b"10")], Refusal("403", explicit=False)),
        (401, [(b"Retry-After", b"30")], Refusal("401", explicit=True)),
        (401, [_challenge("Basic"), _challenge("Bearer error=insufficient_scope")], None),
    ],
)
def test_099_by_default_a_status_refuses_unless_the_answer_says_otherwise(
    status: int, headers: list[tuple[bytes, bytes]], expected: Refusal | None
) -> None:
    """A missing scope, missing claims and a rate limit (109) are not cured by a newer token."""
    assert DEFAULT.judge(status, section(headers).values, None) == expected
    assert DEFAULT.concerns(status) is (status in {401, 403})
    assert not DEFAULT.needs_body(status)


def _rule(
    *statuses: int,
    headers: dict[str, str] | None = None,
    body: dict[str, Any] | None = None,
    unless: dict[str, str] | None = None,
) -> ExpiredRule:
    return ExpiredRule(
        frozenset(statuses) or None,
        {name: glob(pattern) for name, pattern in (headers or {}).items()},
        body or {},
        {name: glob(pattern) for name, pattern in (unless or {}).items()},
    )


VANILLA = _rule(headers={"x-www-authenticate": '*error="invalid_token"*'})
SIGNED = (b"X-WWW-Authenticate", b'Bearer error="INVALID_TOKEN", error_description="x"')
BODY = _rule(403, body={"/error/code": "expired", "/ok": False}, unless={"x-ratelimit-remaining": "0"})


@pytest.mark.parametrize(
    ("rules", "status", "headers", "body", "refuses"),
    [
        ((VANILLA,), 200, [SIGNED], None, True),
        ((VANILLA,), 403, [SIGNED], None, True),
        ((VANILLA,), 401, [], None, False),
        ((VANILLA,), 200, [(b"X-WWW-Authenticate", b"Bearer")], None, False),
        ((VANILLA, _rule(401)), 401, [], None, True),
        ((VANILLA, _rule(401)), 403, [], None, False),
        ((BODY,), 403, [], {"error": {"code": "expired"}, "ok": False}, True),
        ((BODY,), 401, [], {"error": {"code": "expired"}, "ok": False}, False),
        ((BODY,), 403, [], {"error": {"code": "expired"}, "ok": True}, False),
        ((BODY,), 403, [], {"error": {"code": "expired"}, "ok": 0}, False),
        ((BODY,), 403, [], {"error": {"code": "expired"}}, False),
        ((BODY,), 403, [(b"X-RateLimit-Remaining", b"0")], {"error": {"code": "expired"}, "ok": False}, False),
        ((BODY,), 403, [], None, False),
        ((_rule(403, body={"/gone": None}),), 403, [], {"gone": None}, True),
        ((_rule(403, body={"/gone": None}),), 403, [], {}, False),
        ((_rule(401, headers={"a": "x*", "b": "y"}),), 401, [(b"A", b"xx"), (b"B", b"y")], None, True),
        ((_rule(401, headers={"a": "x*", "b": "y"}),), 401, [(b"A", b"xx")], None, False),
        ((_rule(401, headers={"a": "x"}),), 401, [(b"A", b"z"), (b"A", b"x")], None, True),
        ((), 401, [], None, False),
    ],
)
def test_expired_rules_replace_the_default(
    *,
    rules: tuple[ExpiredRule, ...],
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: object,
    refuses: bool,
) -> None:
    """OR between rules, AND inside one; `unless` wins; a rule about a body holds only for a body that was held."""
    held = None if body is None else json.dumps(body).encode()
    found = RefusalRules(frozenset({401, 403}), rules).judge(status, section(headers).values, held)
    assert found == (Refusal(str(status), explicit=True) if refuses else None)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xfa", b"[" * 100_000, b"9" * 5000, b'"text"'])
def test_056_a_body_that_is_no_json_refuses_nothing(body: bytes) -> None:
    """Nor does one that is nested too deep or holds a number of thousands of digits."""
    assert RefusalRules(frozenset(), (BODY,)).judge(403, {}, body) is None


def test_only_answers_that_a_rule_is_about_are_looked_at() -> None:
    """The cheap questions: most answers end with them."""
    rules = RefusalRules(frozenset({401}), (BODY, _rule(401)))
    assert [rules.concerns(status) for status in (200, 401, 403)] == [False, True, True]
    assert [rules.needs_body(status) for status in (200, 401, 403)] == [False, False, True]
    anything = RefusalRules(frozenset({401}), (VANILLA,))
    assert (anything.concerns(200), anything.needs_body(200)) == (True, False)


@pytest.mark.threat(65)
@pytest.mark.parametrize(
    ("content_type", "coding", "expected"),
    [
        ("application/json", None, True),
        ("Application/JSON; charset=utf-8", "identity", True),
        ("application/problem+json", None, True),
        ("application/json", "gzip", False),
        ("text/html", None, False),
        (None, None, False),
    ],
)
def test_only_plain_json_is_looked_into(content_type: str | None, coding: str | None, *, expected: bool) -> None:
    """Nothing is decompressed to find out (65)."""
    given_ = {b"Content-Type": content_type, b"Content-Encoding": coding}
    fields = section([(name, value.encode()) for name, value in given_.items() if value]).values
    assert is_plain_json(fields) is expected


@pytest.mark.threat(100)
@pytest.mark.parametrize(
    ("challenges", "expected"),
    [
        (['Bearer error="invalid_token"'], "invalid_token"),
        (["bEaReR realm=x,error=invalid_token"], "invalid_token"),
        (['Bearer realm="a, error=\\"fake\\"", error="invalid_token"'], "invalid_token"),
        (['Bearer realm="say error=fake"'], None),
        (['Bearer error = "invalid_token"'], "invalid_token"),
        (['Bearer scope="a b" error="invalid_token"'], "invalid_token"),
        (['Bearer error_description="The token, it expired", error="invalid_token"'], "invalid_token"),
        (['Bearer error_description=The token expired, error="invalid_token"'], "invalid_token"),
        (['Basic realm="x", Bearer error="invalid_token"'], "invalid_token"),
        (["Negotiate YWJjZA==, Bearer error=invalid_token"], "invalid_token"),
        (["Negotiate", "Bearer error=invalid_token"], "invalid_token"),
        (["Basic, Bearer, Digest"], None),
        (['Bearer realm="x", Digest error="insufficient_scope"'], None),
        (['Digest error="insufficient_scope", Bearer error="invalid_token"'], "invalid_token"),
        (['Basic realm="the bearer realm", error="insufficient_scope"'], None),
        (['X-Bearer error="insufficient_scope"'], None),
        (['Bearer-Like error="insufficient_scope"'], None),
        (['Bearer xerror="a", my-error="b"'], None),
        (['Bearer ERROR="invalid_token"'], "invalid_token"),
        (['Bearer error="invalid_token'], None),
        (['Bearer realm="unclosed, error=invalid_token'], None),
        (["Bearer error="], None),
        (['Bearer error=""'], ""),
        (['Bearer error="one", error="two"'], "one"),
        ([",,, Bearer error=invalid_token"], "invalid_token"),
        (["Bearer\terror=invalid_token"], "invalid_token"),
        (["error=invalid_token"], None),
        (["", ",", "=", '"', '\\"', "Bearer"], None),
        ([], None),
    ],
)
def test_100_the_error_of_the_first_bearer_challenge(challenges: list[str], expected: str | None) -> None:
    """Several schemes, odd case, quoted commas; what cannot be read is an answer without a reason."""
    assert bearer_error(challenges) == expected


@pytest.mark.threat(100)
@given(st.lists(st.text(alphabet='Bearer eo="\\,;\t\x00é', max_size=60), max_size=3))
def test_100_any_challenge_is_read_without_an_error(challenges: list[str]) -> None:
    """And what is found was there."""
    found = bearer_error(challenges)
    assert found is None or any(found in challenge for challenge in challenges)


_word = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
_free = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


@pytest.mark.threat(100)
@given(st.lists(st.tuples(st.sampled_from(["realm", "scope", "error_uri"]), _free), max_size=4), _word, st.data())
def test_100_no_text_in_quotes_hides_the_error_or_pretends_to_be_it(
    others: list[tuple[str, str]], error: str, data: st.DataObject
) -> None:
    """Whatever stands in the other parameters, and wherever the error stands among them."""
    parameters = [f"{name}={_quoted(text)}" for name, text in others]
    at = data.draw(st.integers(0, len(parameters)))
    assert bearer_error(["Bearer " + ", ".join(parameters)]) is None
    assert bearer_error(["Bearer " + ", ".join([*parameters[:at], f'error="{error}"', *parameters[at:]])]) == error


@given(st.text(alphabet="ab*.\n", max_size=8), st.text(alphabet="abB.\n", max_size=12))
def test_a_glob_matches_as_its_naive_reading_does(pattern: str, text: str) -> None:
    """Only `*` is special, the whole value counts, case does not."""
    naive = ".*".join(map(re.escape, pattern.split("*")))
    assert bool(glob(pattern).fullmatch(text)) == bool(re.fullmatch(naive, text, re.IGNORECASE | re.DOTALL))


@pytest.mark.threat(118)
def test_118_a_glob_tries_no_place_twice() -> None:
    """Twenty stars against a long run of the same letter: the naive expression would outlive the test run."""
    assert glob("*a" * 20 + "*b").fullmatch("a" * 5000) is None
    assert glob_expression("a*b*c") == "a(?>.*?b).*c"


@pytest.mark.threat(118)
@pytest.mark.parametrize(
    "piece", ["Bearer ", ",", "a", "a=", '"', '\\"', 'a="\\"', "=", " ", "error ", 'a="', ", a"]
)
@pytest.mark.unmeasured
def test_118_no_challenge_takes_more_than_linear_time(piece: str) -> None:
    """A quadratic search would need hours for these megabytes, and would be seen as a test that hangs."""
    long = piece * (2**20 // len(piece))
    assert bearer_error([long]) is None
    assert bearer_error([f"Bearer {long}, error=invalid_token"]) in {None, "invalid_token"}
