"""Secrets at rest: XChaCha20-Poly1305 under a key of their own, inside the encrypted database.

The associated data binds a ciphertext to its service, name, version and key id, so that a row moved
elsewhere does not open (draft-irtf-cfrg-xchacha; libsodium).
"""

from __future__ import annotations

import hashlib

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from config_manager.config import strict_json
from config_manager.config.secret import Secret
from config_manager.config.world import Randomness
from config_manager.storage.state import SealedSecret


class SecretBox:
    """Seals and opens secrets with one key of 32 bytes."""

    def __init__(self, key: bytes, randomness: Randomness) -> None:
        self._key = key
        self._randomness = randomness
        self.key_id = hashlib.sha256(b"secrets key id" + key).hexdigest()[:16]

    def seal(self, service: str, name: str, version: int, value: Secret, at: str) -> SealedSecret:
        nonce = self._randomness.token(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES)
        ciphertext = crypto_aead_xchacha20poly1305_ietf_encrypt(
            value.reveal().encode(),  # this is where it becomes unreadable
            _bound_to(service, name, version, self.key_id),
            nonce,
            self._key,
        )
        return SealedSecret(service, name, version, self.key_id, nonce, ciphertext, at)

    def open(self, sealed: SealedSecret) -> Secret:
        """Raises nacl.exceptions.CryptoError where the row was altered, moved or is another key's."""
        if len(sealed.ciphertext) < crypto_aead_xchacha20poly1305_ietf_ABYTES:
            raise CryptoError("cut short")  # PyNaCl would raise ValueError
        data = crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed.ciphertext,
            _bound_to(sealed.service, sealed.name, sealed.version, sealed.key_id),
            sealed.nonce,
            self._key,
        )
        return Secret(data.decode())


def _bound_to(service: str, name: str, version: int, key_id: str) -> bytes:
    return strict_json.dumps(["secret", service, name, version, key_id])  # JSON: no ambiguity
