"""Which hosts are this machine. A request to one of them must not go through a proxy, to which the name
means itself and which would see the token."""

from __future__ import annotations

from config_manager.config.reverse_proxies import address_of


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    address = address_of(host)
    # any other name may lead anywhere
    return host == "localhost" if address is None else address.is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a client that connects to it reaches this machine: loopback, or a wildcard such as 0.0.0.0."""
    address = address_of(host)
    return is_loopback(host) or (address is not None and address.is_unspecified)


def connectable(host: str) -> str:
    """The host to connect to for a server that listens on this one: loopback for a wildcard."""
    address = address_of(host)
    if address is None or not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004  IPv4
