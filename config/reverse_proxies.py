"""The settings about reverse proxies: which are believed, and where callers find the server behind them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST_ADDRESS = 45
_LONGEST_PREFIX = 256
_MAPPED_BITS = 96
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~+,=:@-]+)+")
_AUTHORITY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)


@lru_cache(1024)
def address_of(text: str) -> Address | None:
    """The address that the text is, and None if it is none. An IPv4 address within IPv6 (`::ffff:192.0.2.1`,
    RFC 4291, 2.5.5.2) is the IPv4 address: a socket for both kinds shows it so. An address with a zone
    (`fe80::1%eth0`) is none, because the zone may be any text."""
    if len(text) > _LONGEST_ADDRESS or "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose word about the caller is believed: `address in proxies`."""

    networks: tuple[Network, ...] = ()

    def __contains__(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self.networks)


NO_PROXIES = TrustedProxies()


def parse_trusted_proxies(text: str) -> TrustedProxies:
    """Addresses or networks with commas (`192.0.2.7, 10.0.0.0/8, fd00::/8`); raises ValueError."""
    networks = tuple(_network(one.strip()) for one in text.split(",") if one.strip())
    of_4 = [one for one in networks if isinstance(one, ipaddress.IPv4Network)]
    of_6 = [one for one in networks if isinstance(one, ipaddress.IPv6Network)]
    together: list[Network] = [
        *ipaddress.collapse_addresses(of_4),
        *ipaddress.collapse_addresses(of_6),
    ]
    if any(one.prefixlen == 0 for one in together):
        raise ValueError(f"{text} is everybody: then any caller could say to be another one")
    return TrustedProxies(networks)


def _network(text: str) -> Network:
    address = address_of(text)
    if address is not None:
        return ipaddress.ip_network(address)
    try:
        network = None if "%" in text else ipaddress.ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None:
        raise ValueError(
            f"{text!r} is neither an address nor a network; expected such as 127.0.0.1, 10.0.0.0/8"
        )
    host, _, _ = text.partition("/")
    if ipaddress.ip_address(host) != network.network_address:
        raise ValueError(f"{text}: the network that it is in is {network}; say that, or {host}")
    within = getattr(network.network_address, "ipv4_mapped", None)
    if within is not None:  # as an address of it is
        network = ipaddress.ip_network((int(within), network.prefixlen - _MAPPED_BITS))
    return network


class BaseUrl(NamedTuple):
    """What the paths of the API are appended to: `https://example.org/config`.

    scheme: `http` or `https`. authority: host, with a port if it has one. prefix: empty, or a path that
    begins with a slash and does not end with one.
    """

    scheme: str
    authority: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


def parse_public_url(text: str) -> BaseUrl:
    """`https://host[:port][/prefix]`; raises ValueError."""
    expected = "expected https://host[:port][/prefix], such as https://example.org/config"
    if not text.isascii() or not text.isprintable():
        raise ValueError(expected)
    url = urlsplit(text)
    prefix = parse_prefix(url.path)
    if url.scheme != "https" or url.query or url.fragment or text.endswith(("?", "#")):
        raise ValueError(expected)
    if prefix is None or not is_authority(url.netloc):
        raise ValueError(expected)
    return BaseUrl(url.scheme, url.netloc.lower(), prefix)


def parse_prefix(path: str) -> str | None:
    """A path prefix without the slash at its end; None if it is none. Two slashes at its beginning would make it
    another host, and dots another path. What a shell acts upon is not taken: /docs shows a command with the prefix."""
    path = path.removesuffix("/")
    if not path:
        return ""
    if len(path) > _LONGEST_PREFIX or not _PREFIX.fullmatch(path):
        return None
    return None if {".", ".."} & set(path.split("/")) else path


def is_authority(text: str) -> bool:
    """Whether it is a host, with a port or without, and nothing else (RFC 3986, 3.2, without user information)."""
    found = _AUTHORITY.fullmatch(text)
    if found is None or int(found["port"] or 1) >= 2**16:
        return False
    return found["v6"] is None or (":" in found["v6"] and address_of(found["v6"]) is not None)
