"""Where the server itself sends a POST to: webhooks, and the collector of traces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from config_manager.config.reverse_proxies import is_authority
from config_manager.config.this_machine import is_loopback

MAX_URL_CHARACTERS = 2048
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """`str()` shows neither path nor query: with many receivers they are the password.

    path: with its query, begins with a slash. authority: host and port as the URL has them, for `Host`.
    """

    tls: bool
    host: str
    port: int
    authority: str
    path: str

    def __str__(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.authority}"

    def below(self, path: str) -> HttpTarget:
        """The target whose path is this one's and `path`, which begins with a slash."""
        return replace(self, path=self.path.rstrip("/") + path)


def parse_http_target(text: str, *, plain: bool = False) -> HttpTarget:
    """`https://host[:port][/path][?query]`, or `http://` if the host is this machine's loopback.

    plain: `http://` to any host, where everybody on the way reads and changes what is sent. Raises ValueError, whose
    message does not show the URL.
    """
    scheme = "http[s]" if plain else "https"
    expected = f"expected {scheme}://host[:port][/path], such as https://example.org"
    if len(text) > MAX_URL_CHARACTERS:
        raise ValueError(f"a URL has {MAX_URL_CHARACTERS} characters at most")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{expected}; percent-encode everything else than printable ASCII")
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError(expected) from None
    if url.scheme not in _PORTS:
        raise ValueError(expected)
    if "@" in url.netloc:
        raise ValueError("a URL with user and password is not taken: it is shown to administrators")
    if "#" in text:
        raise ValueError("a URL with a # is not taken: what follows it is never sent")
    if not is_authority(url.netloc) or not url.hostname:
        raise ValueError(expected)
    tls = url.scheme == "https"
    if not tls and not plain and not is_loopback(url.hostname):
        raise ValueError(
            "http:// is taken to this machine's loopback only: everybody on the way could read and change what "
            'is sent; use https://, or say "plain": true (--plain) if nobody else is on the way'
        )
    query = f"?{url.query}" if url.query else ""
    port = url.port or _PORTS[url.scheme]
    return HttpTarget(tls, url.hostname, port, url.netloc, (url.path or "/") + query)
