"""The answers that the proxy makes itself: problem documents (RFC 9457) with Proxy-Status (RFC 9209).

Law: only fixed sentences, never a byte of a request (threat 80).
"""

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from proxy.errors import ProxyError

#: A browser that shows one as a page loads nothing for it, not even an icon of our own origin (threat 9).
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
#: The standard phrases; an upstream's own are not passed on (threat 70).
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The status line of an answer, without its end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status


def problem(error: ProxyError, request_id: str) -> tuple[list[bytes], bytes]:
    """The field lines and the body of the answer for `error`."""
    body = json.dumps(
        {
            "title": error.title,
            "status": error.status,
            "code": error.code,
            "detail": error.detail,
            "request_id": request_id,
        }
    ).encode()
    proxy_status = f'bearer-proxy; details="{error.code}"'
    if error.proxy_error is not None:
        proxy_status = f'bearer-proxy; error={error.proxy_error}; details="{error.code}"'
    fields = [
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        ("Date", formatdate(usegmt=True)),
        ("Proxy-Status", proxy_status),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", _POLICY),
        *error.headers(),
    ]
    return [f"{name}: {value}".encode("ascii") for name, value in fields], body
