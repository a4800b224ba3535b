"""Which hosts are this machine. A request to one of them stays here: it goes through no proxy,
which would mean itself by that name, and would be told the token."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Only this machine reaches it."""
    address = _address(host)
    # a name, and any name but this one may lead anywhere
    return host == "localhost" if address is None else address.is_loopback


def is_this_machine(host: str) -> bool:
    """A client that connects to it reaches this machine: loopback, or what stands for every address of it."""
    address = _address(host)
    return is_loopback(host) or (address is not None and address.is_unspecified)


def connectable(host: str) -> str:
    """Where to ask what listens on this host: loopback, if that is every address."""
    address = _address(host)
    if address is None or not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004  IPv4


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
