"""Certificates and keys in files, as both sides load them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import ssl


def load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Raises OSError (ssl.SSLError is one), also for a key that wants a passphrase: OpenSSL would ask for it
    on the terminal, and everything would wait for who is not there."""

    def refuse() -> NoReturn:
        raise OSError(
            "the key wants a passphrase, and nobody is there to type it; give one without"
        )

    context.load_cert_chain(cert, key, refuse)
