"""Addresses that no upstream may have: those of metadata services, and those of the link alone (threat 71)."""

import ipaddress
from typing import Final

#: The metadata services of clouds: Google's, Azure's and Amazon's, Amazon's for containers, Azure's wire server,
#: Alibaba's.
_METADATA: Final = frozenset(
    {
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200"),
        *("fd00:ec2::254", "fd00:ec2::23", "metadata.google.internal", "metadata"),
    }
)


def is_metadata(host: str) -> bool:
    """Does a metadata service answer there, which gives the machine's identity to whoever asks (WIRE 3.13)?"""
    return host in _METADATA


def is_off_limits(host: str) -> bool:
    """Is this name or address (in its usual form, without brackets) a metadata service's, or only of this link?"""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return is_metadata(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_link_local or is_metadata(str(mapped or address))
