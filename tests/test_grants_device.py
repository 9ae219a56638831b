"""The device grant as data: the codes, and what each answer to a question means."""

import json
from typing import Any, Final

import pytest

from proxy.grants.device import (
    DeviceCodes,
    Fault,
    InvalidDeviceReply,
    Polling,
    Said,
    answered,
    read_codes,
)
from proxy.grants.request import TokenReply
from proxy.redact import Secret

PAGE: Final = "https://id.example.com/device"
CODES: Final = {
    "device_code": "device-code-0123456789",
    "user_code": "WDJB-MJHT",
    "verification_uri": PAGE,
    "expires_in": 1800,
    "interval": 5,
}


def _reply(document: Any, status: int = 200, **headers: str) -> TokenReply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return TokenReply(status, tuple((name.replace("_", "-"), value) for name, value in headers.items()), body)


def _codes(**changes: Any) -> TokenReply:
    return _reply({name: value for name, value in (CODES | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        (
            {"verification_uri_complete": PAGE + "?user_code=WDJB-MJHT"},
            {"page_with_code": PAGE + "?user_code=WDJB-MJHT"},
        ),
        ({"verification_uri": None, "verification_url": PAGE}, {}),
        ({"verification_uri": "http://127.0.0.1:8000/device"}, {"page": "http://127.0.0.1:8000/device"}),
        ({"verification_uri": "https://id.example.com"}, {"page": "https://id.example.com"}),
        ({"verification_uri": "https://[::1]:8443?a=b@c"}, {"page": "https://[::1]:8443?a=b@c"}),
        ({"verification_uri": PAGE + "/@me"}, {"page": PAGE + "/@me"}),
        ({"verification_uri_complete": "javascript:alert(1)"}, {"page_with_code": None}),
        ({"verification_uri_complete": "http://127.0.0.1:80@evil.example/"}, {"page_with_code": None}),
        ({"verification_uri_complete": 7}, {"page_with_code": None}),
        ({"interval": None}, {"interval": 5.0}),
        ({"interval": 0}, {"interval": 5.0}),
        ({"interval": "10"}, {"interval": 10.0}),
        ({"interval": 0.01}, {"interval": 1.0}),
        ({"interval": 1e9}, {"interval": 60.0}),
        ({"interval": True}, {"interval": 5.0}),
        ({"expires_in": None}, {"lifetime": 900.0}),
        ({"expires_in": -1}, {"lifetime": 900.0}),
        ({"expires_in": 1e9}, {"lifetime": 3600.0}),
        ({"user_code": "1234 5678"}, {"user_code": "1234 5678"}),
    ],
)
def test_codes_are_read_within_bounds(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is missing has the standard's value, what is absurd a sane one."""
    found = read_codes(_codes(**changes))
    standard = DeviceCodes(Secret("device-code-0123456789"), "WDJB-MJHT", PAGE, None, 1800.0, 5.0)
    assert {name: getattr(found, name) for name in DeviceCodes.__slots__} == {
        **{name: getattr(standard, name) for name in DeviceCodes.__slots__},
        **expected,
    }


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (_reply({"error": "invalid_client"}, 401), Fault.REFUSED),
        (_reply({"error": "invalid_scope"}), Fault.REFUSED),
        (_reply(b"", 500), Fault.REFUSED),
        (_reply(b"", 302), Fault.REFUSED),
        (_reply(b"<html>"), Fault.NOT_JSON),
        (_reply([CODES]), Fault.NOT_JSON),
        (_reply(b"[" * 100_000), Fault.NOT_JSON),
        (_reply(b" " * 65537), Fault.NOT_JSON),
        (_reply(b"\xff"), Fault.NOT_JSON),
        (_codes(device_code=None), Fault.NO_CODES),
        (_codes(device_code=""), Fault.NO_CODES),
        (_codes(device_code="a\nb"), Fault.NO_CODES),
        (_codes(user_code=None), Fault.NO_CODES),
        (_codes(user_code="\x1b[2Jx"), Fault.NO_CODES),
        (_codes(user_code="W" * 65), Fault.NO_CODES),
        (_codes(user_code=12345678), Fault.NO_CODES),
        (_codes(verification_uri=None), Fault.NO_PAGE),
        (_codes(verification_uri="http://id.example.com/device"), Fault.NO_PAGE),
        (_codes(verification_uri="http://localhost.example.com/"), Fault.NO_PAGE),
        (_codes(verification_uri="http://127.0.0.1:80@evil.example/"), Fault.NO_PAGE),
        (_codes(verification_uri="http://localhost:@evil.example/"), Fault.NO_PAGE),
        (_codes(verification_uri="http://127.0.0.1:80\\@evil.example/"), Fault.NO_PAGE),
        (_codes(verification_uri="https://id.example.com@evil.example/device"), Fault.NO_PAGE),
        (_codes(verification_uri="https://id.example.com\\@evil.example/device"), Fault.NO_PAGE),
        (_codes(verification_uri="file:///etc/passwd"), Fault.NO_PAGE),
        (_codes(verification_uri=PAGE + "\x1b]0;title\x07"), Fault.NO_PAGE),
        (_codes(verification_uri=PAGE + "x" * 2000), Fault.NO_PAGE),
    ],
)
def test_what_cannot_be_shown_to_a_person_is_refused(reply: TokenReply, fault: Fault) -> None:
    """A server does not write to a terminal what it likes, nor send a person anywhere."""
    with pytest.raises(InvalidDeviceReply) as refused:
        read_codes(reply)
    assert refused.value.fault is fault


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (_reply({"error": "invalid_client"}, 401), "The server gave no code for this device, invalid_client."),
        (_reply(b"", 503), "The server gave no code for this device, status 503."),
        (_reply(b"x"), "The answer with the code for this device is no JSON object, or larger than 64 KiB."),
    ],
)
def test_a_refusal_is_a_sentence(reply: TokenReply, sentence: str) -> None:
    """With the server's code, or else its status."""
    with pytest.raises(InvalidDeviceReply) as refused:
        read_codes(reply)
    assert str(refused.value) == sentence


def _said(error: str, status: int = 400, **more: Any) -> TokenReply:
    return _reply({"error": error, **more}, status)


@pytest.mark.parametrize(
    ("reply", "said", "word", "pause"),
    [
        (_reply({"access_token": "x"}), Said.GRANTED, "", 5.0),
        (_said("authorization_pending"), Said.WAIT, "", 5.0),
        (_said("authorization_pending", 200), Said.WAIT, "", 5.0),
        (_said("slow_down"), Said.WAIT, "", 10.0),
        (_said("slow_down", interval=12), Said.WAIT, "", 12.0),
        (_said("slow_down", interval=1), Said.WAIT, "", 10.0),
        (_said("slow_down", interval="x"), Said.WAIT, "", 10.0),
        (_said("slow_down", interval=1e6), Said.WAIT, "", 60.0),
        (_said("expired_token"), Said.EXPIRED, "", 5.0),
        (_said("expired_token", 200), Said.EXPIRED, "", 5.0),
        (_said("access_denied"), Said.DENIED, "", 5.0),
        (_said("access_denied", 403), Said.DENIED, "", 5.0),
        (_reply(b"", 500), Said.WAIT, "", 10.0),
        (_reply(b"", 429, Retry_After="30"), Said.WAIT, "", 30.0),
        (_reply(b"", 503, Retry_After="7"), Said.WAIT, "", 10.0),
        (_said("temporarily_unavailable", 400), Said.WAIT, "", 10.0),
        (_said("invalid_client", 401), Said.REFUSED, ", invalid_client", 5.0),
        (_said("invalid_grant"), Said.REFUSED, ", invalid_grant", 5.0),
        (_said("of our own"), Said.REFUSED, ", error", 5.0),
        (_reply(b"", 400), Said.REFUSED, ", status 400", 5.0),
        (_reply(b"", 302), Said.REFUSED, ", status 302", 5.0),
        (_reply(b"", 404), Said.REFUSED, ", status 404", 5.0),
    ],
)
def test_what_an_answer_to_a_question_means(reply: TokenReply, said: Said, word: str, pause: float) -> None:
    """RFC 8628 section 3.5; GitHub says some of it with status 200, and how long to wait."""
    found, told, polling = answered(Polling(5.0), reply, 0.0)
    assert (found, told, polling.pause) == (said, word, pause)


def test_failures_make_the_questions_more_seldom_and_an_answer_ends_that() -> None:
    """Doubled each time, up to a minute; a pause that the server asks for is kept."""
    polling, pauses = Polling(5.0), []
    for _ in range(6):
        polling = polling.failed()
        pauses.append(polling.pause)
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert polling.failed(120.0).pause == 120.0
    assert polling.failed(1e9).pause == 3600.0
    _, _, polling = answered(polling, _said("authorization_pending"), 0.0)
    assert polling.pause == 5.0


def test_slow_down_stays_in_force() -> None:
    """For this and all following questions."""
    polling = Polling(5.0)
    for expected in (10.0, 15.0, 20.0):
        _, _, polling = answered(polling, _said("slow_down"), 0.0)
        assert polling.pause == expected
    assert answered(polling, _said("authorization_pending"), 0.0)[2].pause == 20.0
