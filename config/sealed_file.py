"""A small file that a thief can't read and nobody can forge: the clients' last-known-good files, and the
server's before 0.3.0.

XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha, by libsodium) under a key derived for one purpose, with the
purpose as associated data. Written atomically. Two generations are kept, and a reader takes the newest
that verifies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from config_manager.config.world import World

T = TypeVar("T")

_MAGIC = b"config-manager sealed v1\n"
_NONCE_BYTES = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_SHORTEST = _NONCE_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES


class SealBroken(Exception):
    """Neither generation of the file verifies under this key: altered, damaged or somebody else's."""


def derive_key(master: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose (keyed BLAKE2b as a KDF, RFC 7693)."""
    return hashlib.blake2b(purpose.encode(), key=master, digest_size=32).digest()


def newest_of(
    path: Path, previous: Path, world: World, opened: Callable[[bytes, bool], T | None]
) -> tuple[T, str | None]:
    """The content of the newest of two generations that verifies, and why it is not the newest of all (None
    if it is).

    opened: from a file's bytes, and whether it is the newest, to its content; None if it does not verify.
    Raises SealBroken, or OSError if there is no file.
    """
    why: str | None = None
    missing: OSError | None = None
    broken = False
    for file in (path, previous):
        try:
            raw = world.disk.read(file)
        except OSError as error:
            missing = missing or error
            why = why or _unread(error)
            continue
        if (content := opened(raw, file == path)) is not None:
            return content, why
        broken = True
        why = why or "the newest kept file does not verify"
    if broken or missing is None:
        raise SealBroken(f"{path.name} does not verify: altered, damaged, or another key")
    raise missing


def _unread(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):  # after a power cut between the two writes
        return "the newest kept file is missing"
    return f"the newest kept file can't be read ({error.strerror or error})"


class SealedFile:
    """One sealed file and the generation before it (`NAME.previous`)."""

    def __init__(self, path: Path, master: bytes, purpose: str, world: World) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self._key = derive_key(master, purpose)
        self._purpose = _MAGIC + purpose.encode()
        self._world = world
        self.newest_unread: str | None = None
        """Why the last `read` took the generation before; None if it took the newest."""

    def write(self, data: bytes) -> None:
        """Durable on return. Raises OSError; then the older generation is still there."""
        nonce = self._world.randomness.token(_NONCE_BYTES)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(data, self._purpose, nonce, self._key)
        disk = self._world.disk
        if disk.exists(self.path):
            newest = disk.read(self.path)
            if self.opened(newest) is not None:  # a damaged one must not replace the good one
                # durable with the write below; after a power cut in between it is the only one to read
                disk.rename(self.path, self.previous)
        disk.write_atomic(self.path, _MAGIC + nonce + sealed)

    def read(self) -> bytes:
        """The newest generation that verifies. Raises SealBroken, or OSError if there is none."""
        data, self.newest_unread = newest_of(
            self.path, self.previous, self._world, lambda raw, _: self.opened(raw)
        )
        return data

    def opened(self, raw: bytes) -> bytes | None:
        """The content of a file of these bytes; None if it does not verify."""
        body = raw.removeprefix(_MAGIC)
        if body is raw or len(body) < _SHORTEST:  # PyNaCl raises ValueError below it
            return None
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                body[_NONCE_BYTES:], self._purpose, body[:_NONCE_BYTES], self._key
            )
        except CryptoError:
            return None
