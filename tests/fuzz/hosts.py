"""Host, and who asks: a request is admitted only where a naive reading of its head gives one of our names.

An input is a field section: what stands behind `Host: `, and whatever lines follow.
"""

from typing import Final

from proxy.errors import ProxyError
from proxy.guard import OWN_NAMES, Guard, Head
from proxy.http1.request import RequestSection
from proxy.http1.section import Malformed

WORDS: Final = (
    *(b"localhost", b"127.0.0.1", b"[::1]", b"proxy.internal", b":8080", b"LOCALHOST", b".", b"@", b"evil.example"),
    *(b"\r\nOrigin: ", b"\r\nSec-Fetch-Site: ", b"\r\nSec-Fetch-Mode: ", b"\r\nHost: ", b"http://", b"https://"),
    *(b"http://app.example", b"null", b"same-origin", b"none", b"cross-site", b"same-site", b"navigate", b"\r\n"),
)
NAMES: Final = OWN_NAMES | {"proxy.internal"}
ALLOWED: Final = "http://app.example"
GUARD: Final = Guard(hosts=["Proxy.internal"], origins=[ALLOWED])


def check(data: bytes) -> None:
    """Raise AssertionError where somebody is admitted, or refused, against the naive reading."""
    raw = b"Host: " + data
    try:
        admission = GUARD.admit(Head("GET", b"/x", RequestSection(raw, 1), port=8080))
    except (Malformed, ProxyError):
        admitted = None
    else:
        admitted = admission.visitor
    fields = _fields(raw)
    hosts = [value for name, value in fields if name == "host"]
    if admitted is None:
        # What is nothing but a good Host is not refused.
        assert b"\r\n" in data or not _is_ours(hosts[0]), "refused"
        return
    assert len(hosts) == 1, "several hosts"
    assert _is_ours(hosts[0]), "not our name"
    assert admitted.host == hosts[0].lower().removesuffix(
        "".join(hosts[0].rpartition(":")[1:]) if _port(hosts[0]) else ""
    )
    assert admitted.own_origin.decode() == f"http://{hosts[0].lower()}"
    origins = [value.lower() for name, value in fields if name == "origin"]
    sites = {value.lower() for name, value in fields if name == "sec-fetch-site"}
    assert not any(value.lower() == "navigate" for name, value in fields if name == "sec-fetch-mode"), "navigation"
    if origins == [ALLOWED]:
        return
    assert origins in ([], [f"http://{hosts[0].lower()}"]), "a foreign origin"
    assert sites <= {"same-origin"}, "a foreign site"
    is_browser = bool(sites) or any(value.startswith("Mozilla/") for name, value in fields if name == "user-agent")
    is_page = bool(sites) or (bool(origins) and is_browser)
    assert (_port(hosts[0]) or "80").lstrip("0") != "8080" or not is_page, "a page of ours"


def _fields(raw: bytes) -> list[tuple[str, str]]:
    pairs = (line.split(":", 1) for line in raw.decode("latin-1").split("\r\n"))
    return [(pair[0].lower(), pair[1].strip(" \t")) for pair in pairs if len(pair) == 2]


def _port(host: str) -> str:
    """The digits behind the last colon that is not within brackets."""
    tail = host.rpartition("]")[2] if host.startswith("[") else host
    return tail.rpartition(":")[2] if ":" in tail else ""


def _is_ours(host: str) -> bool:
    port = _port(host)
    name = host[: len(host) - len(port) - 1] if port else host
    return name.lower() in NAMES and (not port or (len(port) <= 5 and set(port) <= set("0123456789")))
