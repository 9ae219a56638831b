"""What programs print that give out tokens, read as data.

Forms: bare text (`gcloud auth print-access-token`, `gh auth token`); kubectl's ExecCredential
(client.authentication.k8s.io); Docker's credential helpers; git's (git-credential); `az account get-access-token`.
Law: a message here is a fixed sentence, never a byte of what was printed.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from proxy.grants import expiry
from proxy.grants.reply import TOKEN_LIMIT
from proxy.grants.request import Granted
from proxy.redact import Secret

Form = Literal["auto", "text", "exec_credential", "docker", "git", "azure"]
#: More than that is no token.
OUTPUT_LIMIT: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[!-~]+")


class BadOutput(ValueError):  # noqa: N818  what happened, as in errors.py
    """The output is not of the form that was expected; the text says what is missing."""


def read(output: bytes, form: Form, *, now_wall: float) -> Granted:
    """The token in what a program printed; `now_wall` is the epoch time at which it was started.

    `auto` knows the JSON forms by their members, git's by its lines; anything else is bare text.
    Raises `BadOutput`.
    """
    if len(output) > OUTPUT_LIMIT:
        raise BadOutput("it printed more than 64 KiB")
    text = output.decode("utf-8", "replace")
    if form == "auto":
        form = _form(text)
    if form == "text":
        return Granted(_token(text.strip()))
    if form == "git":
        return _git(text, now_wall)
    return _READERS[form](_document(text), now_wall)


def _form(text: str) -> Form:
    if text.lstrip().startswith("{"):
        members = _document(text).keys()
        if "Secret" in members:
            return "docker"
        return "azure" if "accessToken" in members else "exec_credential"
    return "git" if re.search(r"^password=", text, re.MULTILINE) else "text"


def _document(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadOutput("it printed no JSON") from None
    if not isinstance(found, dict):
        raise BadOutput("it printed JSON that is no object")
    return found


def _token(found: object) -> Secret:
    if not isinstance(found, str) or len(found) > TOKEN_LIMIT or not _TOKEN.fullmatch(found):
        raise BadOutput("it printed no token where one is expected")
    return Secret(found)


def _granted(token: object, expires_at_wall: float | None, now_wall: float) -> Granted:
    if expires_at_wall is None:
        return Granted(_token(token))
    if expires_at_wall <= now_wall:
        raise BadOutput("it printed a token that has expired already")
    lifetime = min(expires_at_wall - now_wall, expiry.LONGEST_LIFETIME)
    return Granted(_token(token), lifetime=lifetime, expires_at_wall=expires_at_wall)


def _exec_credential(document: Mapping[str, Any], now_wall: float) -> Granted:
    status = document.get("status")
    if document.get("kind") != "ExecCredential" or not isinstance(status, dict):
        raise BadOutput("it printed no ExecCredential with a status")
    return _granted(status.get("token"), _instant(status.get("expirationTimestamp")), now_wall)


def _docker(document: Mapping[str, Any], now_wall: float) -> Granted:
    return _granted(document.get("Secret"), None, now_wall)


def _azure(document: Mapping[str, Any], now_wall: float) -> Granted:
    # `expiresOn` is local time without a zone: of no use.
    return _granted(document.get("accessToken"), _instant(document.get("expires_on")), now_wall)


def _git(text: str, now_wall: float) -> Granted:
    """Git's format: `name=value` lines (git-credential(1), "INPUT/OUTPUT FORMAT")."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return _granted(values.get("password"), _instant(values.get("password_expiry_utc")), now_wall)


def _instant(found: object) -> float | None:
    if found is None:
        return None
    instant = expiry.instant(found)
    if instant is None:
        raise BadOutput("it printed an expiry in no known form")
    return instant


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], float], Granted]]] = {
    "exec_credential": _exec_credential,
    "docker": _docker,
    "azure": _azure,
}
