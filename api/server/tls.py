"""The certificate that REST shows: read at the start, and again when its files change."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import structlog
import trio

from config_manager.config.errors import KeyFileUnsafe, SettingsInvalid
from config_manager.config.tls import load_chain

_LOOK_EVERY_S = 1.0

_State = tuple[tuple[int, int, int], ...]


class Certificate:
    """A PEM certificate chain and its key. The next connection uses a renewed one. One that does not load is
    logged once, and the one before stays."""

    def __init__(self, cert_file: Path, key_file: Path | None) -> None:
        """Raises SettingsInvalid, or KeyFileUnsafe if everybody can read the key."""
        self._cert_file = cert_file
        self._key_file = key_file or cert_file
        self._looked_at = trio.current_time()
        try:
            self._state = self._look()
            self._context = self._load()
        except OSError as error:  # ssl.SSLError is one
            raise SettingsInvalid(
                f"CONFIG_MANAGER_TLS_CERT_FILE, _TLS_KEY_FILE: {_plainly(error)}"
            ) from None
        # a group may: that is how containers and systemd hand files over
        if self._key_file.stat().st_mode & stat.S_IRWXO:
            raise KeyFileUnsafe(
                f"everybody can read {self._key_file.name}: run chmod 600 on it, and change the key"
            )

    def context(self) -> ssl.SSLContext:
        """For the next connection. Looks at the files at most once a second."""
        now = trio.current_time()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._reload()
        return self._context

    def _reload(self) -> None:
        log = structlog.get_logger()
        try:
            state = self._look()
            if state == self._state:
                return
            self._state = state
            self._context = self._load()
        except OSError as error:
            log.error("certificate not reloaded", actor="rest", error=_plainly(error))
        else:
            log.info("certificate reloaded", actor="rest")

    def _look(self) -> _State:
        found = (self._cert_file.stat(), self._key_file.stat())
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        load_chain(context, self._cert_file, self._key_file)
        return context


def _plainly(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
