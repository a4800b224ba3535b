"""Where brokers are: `--mqtt-url`, of the server and of the client.

A URL can name the authority that signed the broker's certificate, and the certificate that we show:
`mqtts://host:8883?ca=/etc/mqtt/ca.pem&cert=/etc/mqtt/me.pem&key=/etc/mqtt/me.key`. `ws://` and `wss://` are MQTT
inside a WebSocket (OASIS MQTT 5, 6), for networks that let nothing but HTTP through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from config_manager.config.errors import SettingsInvalid
from config_manager.config.tls import close_what_fails, load_chain

if TYPE_CHECKING:
    import ssl

_MAX_PORT = 65535
_FILES = ("ca", "cert", "key")
_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_PATH = "/mqtt"
"""Of a WebSocket, if the URL names none: what most brokers listen on."""
_PATHS = re.compile(r"/[\w.~%/+=:-]*", re.ASCII)
"""No @: the path may be what follows a / in a password, and a path is shown."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to log in; `str()` never shows user or password.

    ca: the authority that signed the broker's certificate, instead of the system's. cert, key: ours
    (PEM; the key may be in the certificate's file). path: of a WebSocket; None is MQTT on TCP.
    """

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path or ''}"

    @property
    def scheme(self) -> str:
        return ("mqtt" if self.path is None else "ws") + ("s" if self.tls else "")

    @property
    def netloc(self) -> str:
        """Host and port, as a URL has them."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """None without TLS. Reads the files each time, so that a new connection uses exchanged ones.
        Raises OSError, which names the file."""
        if not self.tls:
            return None
        import ssl

        context, files = ssl.create_default_context(), f"ca={self.ca}"
        try:
            if self.ca is not None:
                context = ssl.create_default_context(cafile=self.ca)
            files = f"cert={self.cert}" + (f" key={self.key}" if self.key is not None else "")
            if self.cert is not None:
                load_chain(context, self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise OSError(f"{files}: {error.strerror or error}") from error
        close_what_fails(context)
        return context

    def check_files(self) -> None:
        """Raises SettingsInvalid if the URL's files don't load. For a start, when somebody can repair that;
        later a connection is tried again."""
        try:
            self.tls_context()
        except OSError as error:
            raise SettingsInvalid(f"CONFIG_MANAGER_MQTT_URL: {self}: {error}") from None


@dataclass(frozen=True, slots=True)
class Auto:
    """A broker of our own on loopback. port: None takes 1883 if it is free."""

    port: int | None


@dataclass(frozen=True, slots=True)
class Nothing:
    """Publish nowhere."""


def parse_mqtt_urls(text: str) -> tuple[BrokerAddress | Auto | Nothing, ...]:
    """`mqtt://[user[:password]@]host:port`, `mqtts://…`, `ws://…[/PATH]`, `wss://…[/PATH]`, `auto:[PORT]`, `none:`,
    comma-separated.

    Raises SettingsInvalid, whose message never holds user or password.
    """
    # the password may be what broke the URL, and then nobody can tell where it ends
    hint = "; percent-encode # / , ? [ ] % in user and password" if "@" in text else ""
    return tuple(_parse_mqtt_url(part.strip(), hint) for part in text.split(","))


def _parse_mqtt_url(text: str, hint: str) -> BrokerAddress | Auto | Nothing:
    problem = SettingsInvalid(
        "CONFIG_MANAGER_MQTT_URL: expected mqtt://[user[:password]@]host:port, mqtts://…, "
        f"ws://…[/PATH], wss://…[/PATH], auto:[PORT] or none:, comma-separated{hint}"
    )
    scheme, separator, rest = text.partition(":")
    if not separator:
        raise problem
    if scheme == "none" and not rest:
        return Nothing()
    if scheme == "auto":
        if rest and not (re.fullmatch(r"[0-9]{1,5}", rest) and 0 < int(rest) <= _MAX_PORT):
            raise problem
        return Auto(int(rest) if rest else None)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise problem from None
    if scheme not in _PORTS or not url.hostname or port == 0:
        raise problem
    if any(c.isspace() for c in text) or url.fragment:
        raise problem
    path = (url.path or _PATH) if scheme in ("ws", "wss") else None
    if url.path not in ("", "/") and not (path and _PATHS.fullmatch(path)):
        raise problem
    tls = scheme in ("mqtts", "wss")
    _check_host(url, problem)
    files = _files(url.query, hint, tls=tls)
    return BrokerAddress(
        url.hostname,
        port or _PORTS[scheme],
        tls,
        unquote(url.username) if url.username else None,
        unquote(url.password) if url.password else None,
        path=path,
        **files,
    )


def _check_host(url: SplitResult, problem: SettingsInvalid) -> None:
    host = url.hostname or ""
    try:
        host.encode("idna")  # as looking up the name does
    except UnicodeError:
        if "@" in url.query:  # the host may be part of a password
            raise problem from None
        raise SettingsInvalid(
            f"CONFIG_MANAGER_MQTT_URL: {url.scheme}://{host}: "
            "each part of a host's name, between its dots, has 1 to 63 characters"
        ) from None


def _files(query: str, hint: str, *, tls: bool) -> dict[str, Path]:
    problem = SettingsInvalid(
        "CONFIG_MANAGER_MQTT_URL: after the ? only these are known, once each, with mqtts:// or wss://: "
        f"?ca=FILE&cert=FILE&key=FILE{hint}"
    )
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, strict_parsing=True, max_num_fields=len(_FILES))
    except ValueError:
        raise problem from None
    files = {name: Path(value) for name, value in pairs}
    if not tls or len(files) != len(pairs) or not files.keys() <= set(_FILES):
        raise problem
    if "key" in files and "cert" not in files:
        raise SettingsInvalid("CONFIG_MANAGER_MQTT_URL: a key= needs the cert= it belongs to")
    for name, path in files.items():
        if not path.is_file():
            raise SettingsInvalid(f"CONFIG_MANAGER_MQTT_URL: {name}={path}: there is no such file")
    return files
