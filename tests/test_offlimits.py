"""Metadata services and addresses of the link are nobody's upstream: by name, number or resolver (threat 71)."""

import asyncio
import socket
from typing import Any

import pytest

from proxy.errors import UpstreamOffLimits
from proxy.offlimits import is_metadata, is_off_limits
from proxy.routes import Origin
from proxy.upstream import dial


@pytest.mark.threat(71)
@pytest.mark.parametrize(
    ("host", "metadata"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", False),
        ("fd00:ec2::254", True),
        ("metadata.google.internal", True),
        ("169.254.1.2", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:169.254.1.2", False),
        ("::169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
        # RFC 6052 section 2.2 with prefixes of 96, 48, 56 and 64 bits.
        ("64:ff9b:1::a9fe:a9fe", False),
        ("64:ff9b:1:abcd::a9fe:a9fe", False),
        ("64:ff9b:1:ffff:1:2:a9fe:a9fe", False),
        ("64:ff9b:1:a9fe:a9:fe00::", False),
        ("64:ff9b:1:1a9:fe:a9fe::", False),
        ("64:ff9b:1:1234:a9:fea9:fe00:0", False),
        ("64:ff9b:1:6464:64:c800::", False),
        ("fd20:ce::254", True),
    ],
)
def test_071_what_is_off_limits(host: str, *, metadata: bool) -> None:
    """A metadata service gives away the machine; on the link anybody may answer."""
    assert is_off_limits(host)
    assert is_metadata(host) is metadata


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "api.example.com", "8.8.8.8"),
        *("64:ff9b:1::808:808", "64:ff9b:1:808:8:800::", "64:ff9b:2:a9fe:a9:fe00::", "64:ff9b:2::a9fe:a9fe"),
    ],
)
def test_other_addresses_are_not(host: str) -> None:
    """Private ones are what many upstreams have."""
    assert not is_off_limits(host)


@pytest.mark.patches
@pytest.mark.threat(71)
async def test_071_a_name_that_leads_only_there_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the resolver says today; of several addresses one that is allowed is called."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = [(socket.AF_INET, ("169.254.169.254", port)), (socket.AF_INET6, ("fe80::1", port, 0, 2))]

    async def resolved(_host: str, _port: int) -> list[Any]:
        return found

    monkeypatch.setattr(dial, "resolve", resolved)
    dialer = dial.Dialer(Origin("http", "api.example.com", port))
    with pytest.raises(UpstreamOffLimits):
        await dialer.connect(asyncio.Protocol())
    found.append((socket.AF_INET, ("127.0.0.1", port)))
    await dialer.connect(asyncio.Protocol())
    server.close()
    await server.wait_closed()
