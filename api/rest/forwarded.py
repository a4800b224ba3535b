"""What reverse proxies say of a request: who calls, and where the caller finds us. No I/O.

Headers are believed only from proxies that CONFIG_MANAGER_TRUSTED_PROXIES names. `Forwarded` (RFC 7239) never
is: a proxy that does not write it passes on what a caller wrote there. The same goes for `X-Forwarded-Host`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from config_manager.config.reverse_proxies import (
    NO_PROXIES,
    Address,
    BaseUrl,
    TrustedProxies,
    address_of,
    is_authority,
    parse_prefix,
)

Headers = Sequence[tuple[bytes, bytes]]
"""Lower-case names, as they came."""

MOST_HOPS = 32
"""Entries of X-Forwarded-For that are read, from its right end."""
MOST_TOLD = 16
"""Peers whose X-Forwarded-For was ignored that are told of: anybody may send one."""
_FOR, _PROTO, _PREFIX = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-prefix"
_NO_HOST = "127.0.0.1:8081"
"""Of a caller that does not say how it calls us (HTTP/1.0): the default bind."""


def caller_of(peer: str | None, headers: Headers, trusted: TrustedProxies) -> str | None:
    """The caller's address. peer: at the other end of the connection.

    If the peer is a trusted proxy: the rightmost entry of X-Forwarded-For that is not one, because each proxy
    appends the address that called it. What is left of that entry was written by anybody. Several headers are one
    list (RFC 9110, 5.3). If an entry is no address (`unknown`), the proxy that wrote it is the caller, as nothing
    better is known. If all entries are trusted proxies, it is the first of them.
    """
    if peer is None or not (trusted.networks or ":" in peer):
        return peer  # of every request where no proxy is named: 3 µs
    address = address_of(peer)
    if address is None:
        return peer
    if address in trusted:
        for entry in _entries(headers):
            hop = _hop(entry)
            if hop is None:
                break
            address = hop
            if address not in trusted:
                break
    return str(address)


def _entries(headers: Headers) -> Iterator[str]:
    """The newest entries of X-Forwarded-For, rightmost first; empty ones don't count (RFC 9110, 5.6.1)."""
    left = MOST_HOPS
    for name, value in reversed(headers):
        if name != _FOR:
            continue
        for entry in reversed(value.rsplit(b",", left)[-left:]):
            left -= 1
            if entry := entry.strip(b" \t"):
                yield entry.decode("latin-1")
        if left <= 0:
            return


def _hop(entry: str) -> Address | None:
    """`192.0.2.1`, `2001:db8::1`, or one with a port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        is_whole = bracket and (port == "" or (port[0] == ":" and _is_port(port[1:])))
        return address_of(host) if is_whole else None
    host, _, port = entry.partition(":")
    return address_of(host) if _is_port(port) else address_of(entry)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit()


def base_url_of(scheme: str, headers: Headers, *, is_proxied: bool) -> BaseUrl:
    """Where the caller finds us: the scheme of the connection and the `Host`.

    is_proxied: the peer is a trusted proxy. Then X-Forwarded-Proto is the scheme, and X-Forwarded-Prefix the prefix.
    A header that stands there twice, or does not parse, is not believed.
    """
    host = _said(headers, b"host") or ""
    prefix = ""
    if is_proxied:
        proto = (_said(headers, _PROTO) or "").lower()
        scheme = proto if proto in ("http", "https") else scheme
        prefix = parse_prefix(_said(headers, _PREFIX) or "") or ""
    return BaseUrl(scheme, host if is_authority(host) else _NO_HOST, prefix)


def _said(headers: Headers, name: bytes) -> str | None:
    """What the header says, if it stands there once."""
    values = [value for key, value in headers if key == name]
    return values[0].decode("latin-1").strip() if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class ReverseProxies:
    """What the settings say of proxies, and what came from others.

    public_url: where callers find us, whatever a request says. told: peers that are no trusted proxies and sent an
    X-Forwarded-For.
    """

    trusted: TrustedProxies = NO_PROXIES
    public_url: BaseUrl | None = None
    told: set[str] = field(default_factory=set[str])

    def base_url(self, peer: str | None, scheme: str, headers: Headers) -> BaseUrl:
        """Where the caller finds us. scheme: of the connection."""
        if self.public_url is not None:
            return self.public_url
        is_proxied = peer is not None and address_of(peer) in self.trusted
        return base_url_of(scheme, headers, is_proxied=is_proxied)

    def is_news(self, peer: str, headers: Headers) -> bool:
        """Whether the peer sends an X-Forwarded-For that is ignored, and it is its first one."""
        if not any(name == _FOR for name, _ in headers) or address_of(peer) in self.trusted:
            return False
        if peer in self.told or len(self.told) >= MOST_TOLD:
            return False
        self.told.add(peer)
        return True
