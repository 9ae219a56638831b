"""Switches the guard off in this process, so that a test can show that nothing else kept a request out."""

import pytest

from proxy.guard import Guard, Head


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every Host is ours, every origin may call, and every answer may be shown as a page."""

    def check_host(_guard: Guard, head: Head) -> tuple[str, bytes]:
        return "localhost", b"http://" + head.section.values[b"host"][0]

    def check_origin(_guard: Guard, head: Head, _own_origin: bytes, **_: bool) -> bytes | None:
        return next(iter(head.section.values.get(b"origin", ())), None)

    monkeypatch.setattr(Guard, "_check_host", check_host)
    monkeypatch.setattr(Guard, "_check_origin", check_origin)
    monkeypatch.setattr(Guard, "allows_origin", lambda _guard, _origin: True)
    monkeypatch.setattr("proxy.guard._is_navigation", lambda _fields: False)
