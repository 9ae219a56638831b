"""The device grant: a person logs in on another screen, and the program asks from time to time (RFC 8628)."""

import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from proxy.errors import BearerProxyError
from proxy.grants import expiry
from proxy.grants.oauth2 import error_of, verdict
from proxy.grants.reply import BODY_LIMIT, retry_after
from proxy.grants.request import TokenReply
from proxy.redact import Secret

#: Seconds between two questions where the server names none (section 3.2), and what `slow_down` adds (section 3.5).
INTERVAL: Final = 5.0
SLOWER: Final = 5.0
#: Nobody is to be asked more often than this, nor left waiting for longer.
_INTERVAL_LEAST, _INTERVAL_MOST = 1.0, 60.0
#: A code that says nothing of its end is good as long as GitHub's; nobody waits for longer than an hour.
_LIFETIME, _LIFETIME_MOST = 900.0, 3600.0

#: What goes to a terminal is plain ASCII: a server must not write there what it likes.
_USER_CODE: Final = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
#: Nothing stands in front of the host that is not the host: `http://127.0.0.1:80@elsewhere/` is elsewhere.
_URI: Final = re.compile(
    r"https://(?:(?![/?#@\\])[!-~]){1,255}(?:[/?#][!-~]{0,2000})?"
    r"|http://(?:localhost|127\.0\.0\.1)(?::[0-9]{1,5})?(?:/[!-~]{0,2000})?"
)
_DEVICE_CODE: Final = re.compile(r"[ -~]{1,4096}")


class Fault(Enum):
    """All that can be wrong with an answer to the request for codes, as complete sentences."""

    REFUSED = "The server gave no code for this device"
    NOT_JSON = "The answer with the code for this device is no JSON object, or larger than 64 KiB."
    NO_CODES = "The answer with the code for this device has no device_code, or no user_code that can be shown."
    NO_PAGE = "The answer with the code for this device names no page (verification_uri) that is https."


class InvalidDeviceReply(BearerProxyError):  # noqa: N818  the name says what happened, as in errors.py
    """There is nothing that a person could be shown."""

    def __init__(self, fault: Fault, said: str = "") -> None:
        super().__init__(f"{fault.value}{said}." if fault is Fault.REFUSED else fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """What the person is shown, and what we ask with. `page_with_code` is the same page with the code filled in."""

    device_code: Secret
    user_code: str
    page: str
    page_with_code: str | None
    lifetime: float
    interval: float


class Said(Enum):
    """What an answer to one question means."""

    GRANTED = "granted"
    WAIT = "wait"
    EXPIRED = "The code has expired before anybody entered it: begin again."
    DENIED = "The person at the other screen did not agree."
    REFUSED = "The server refused the token request"


@dataclass(frozen=True, slots=True)
class Polling:
    """How often is asked: every `interval` seconds, and after `failures` in a row more seldom."""

    interval: float
    failures: int = 0
    at_least: float = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next question; failures double it (RFC 8628 section 3.5)."""
        return max(min(self.interval * 2.0 ** min(self.failures, 8), _INTERVAL_MOST), self.interval, self.at_least)

    def failed(self, at_least: float | None = None) -> "Polling":
        """After a question that got no answer, or none that means anything; the server may ask for a pause."""
        return replace(self, failures=self.failures + 1, at_least=min(at_least or 0.0, _LIFETIME_MOST))


def read_codes(reply: TokenReply) -> DeviceCodes:
    """The codes in an answer of the device authorization endpoint. Raises `InvalidDeviceReply`."""
    error = error_of(reply)
    if verdict(reply, error) != "accepted":
        raise InvalidDeviceReply(Fault.REFUSED, str(error) or f", status {reply.status}")
    document = _document(reply)
    if document is None:
        raise InvalidDeviceReply(Fault.NOT_JSON)
    device_code = _text(_DEVICE_CODE, document.get("device_code"))
    user_code = _text(_USER_CODE, document.get("user_code"))
    if device_code is None or user_code is None:
        raise InvalidDeviceReply(Fault.NO_CODES)
    # Google's name for it is older than the standard.
    page = _text(_URI, document.get("verification_uri", document.get("verification_url")))
    if page is None:
        raise InvalidDeviceReply(Fault.NO_PAGE)
    return DeviceCodes(
        Secret(device_code),
        user_code,
        page,
        _text(_URI, document.get("verification_uri_complete")),
        min(_positive(document.get("expires_in")) or _LIFETIME, _LIFETIME_MOST),
        _bounded(_positive(document.get("interval")) or INTERVAL),
    )


def answered(polling: Polling, reply: TokenReply, now_wall: float) -> tuple[Said, str, Polling]:
    """What a reply to one question means, the server's word for it, and how to go on.

    1. A token. 2. Not yet. 3. Not yet, and more seldom from now on; GitHub says how seldom.
    4. Over: the code has expired, or the person said no. 5. The server cannot answer now.
    6. Everything else is refused for good.
    """
    error = error_of(reply)
    meaning = verdict(reply, error)
    if meaning == "accepted":
        return Said.GRANTED, "", polling
    if error.code == "authorization_pending":
        return Said.WAIT, "", Polling(polling.interval)
    if error.code == "slow_down":
        named = _positive((_document(reply) or {}).get("interval")) or 0.0
        return Said.WAIT, "", Polling(_bounded(max(polling.interval + SLOWER, named)))
    if error.code in {"expired_token", "access_denied"}:
        return Said.EXPIRED if error.code == "expired_token" else Said.DENIED, "", polling
    if meaning == "transient":
        return Said.WAIT, "", polling.failed(retry_after(reply.headers, now_wall))
    return Said.REFUSED, str(error) or f", status {reply.status}", polling


def _document(reply: TokenReply) -> dict[str, Any] | None:
    if len(reply.body) > BODY_LIMIT:
        return None
    try:
        found = json.loads(reply.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _positive(value: object) -> float | None:
    found = expiry.number(value)
    return found if found is not None and found > 0 else None


def _bounded(interval: float) -> float:
    return min(max(interval, _INTERVAL_LEAST), _INTERVAL_MOST)
