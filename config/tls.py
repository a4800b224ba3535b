"""Certificates and keys in files, as both sides load them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import ssl


def load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Raises OSError (ssl.SSLError is one), also for a key with a passphrase: OpenSSL would ask for it on the
    terminal, where nobody may be."""

    def refuse() -> NoReturn:
        raise OSError(
            "the key wants a passphrase, and nobody is there to type it; give one without"
        )

    context.load_cert_chain(cert, key, refuse)


def close_what_fails(context: ssl.SSLContext) -> None:
    """Sockets of this context are closed when their handshake fails. paho leaves that to the garbage collector,
    and a peer could make handshakes fail faster than it runs."""
    import ssl

    class ClosedIfItFails(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
            except BaseException:
                self.close()
                raise

    context.sslsocket_class = ClosedIfItFails
