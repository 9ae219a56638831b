"""Addresses that no upstream may have: those of metadata services, and those of the link alone (threat 71)."""

import ipaddress
from collections.abc import Iterator
from typing import Final

#: The metadata services of clouds: Google's, Azure's and Amazon's, Amazon's for containers, Azure's wire server,
#: Alibaba's.
_METADATA: Final = frozenset(
    {
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe"),
        *("metadata.google.internal", "metadata"),
    }
)

#: Where an IPv4 address may stand at the end: compatible ones, and the prefixes of NAT64.
_WITH_IPV4_AT_THE_END: Final = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))
#: The prefix of NAT64 that networks divide as they like (RFC 8215).
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


def is_metadata(host: str) -> bool:
    """Does a metadata service answer there, which gives the machine's identity to whoever asks (WIRE 3.13)?"""
    return host in _METADATA


def is_off_limits(host: str) -> bool:
    """Is this name or address (in its usual form, without brackets) a metadata service's, or only of this link?"""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return is_metadata(host)
    forms = [address, *_embedded(address)]
    return any(each.is_link_local or is_metadata(str(each)) for each in forms)


def _embedded(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What an IPv6 address may lead to: mapped, compatible, 6to4, NAT64 (RFC 4291, 3056, 6052, 8215)."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    for each in (address.ipv4_mapped, address.sixtofour):
        if each is not None:
            yield each
    if any(address in network for network in _WITH_IPV4_AT_THE_END):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:
        # Behind a prefix of 48, 56 or 64 bits it is written around the ninth octet (RFC 6052 section 2.2).
        octets = address.packed[:8] + address.packed[9:]
        for at in (6, 7, 8):
            yield ipaddress.IPv4Address(octets[at : at + 4])
