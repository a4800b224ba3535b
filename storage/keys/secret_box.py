"""Secrets at rest: XChaCha20-Poly1305 under a key of their own, inside the encrypted database.

The associated data binds a ciphertext to its service, name, version and key id: a row that was moved elsewhere
does not open (draft-irtf-cfrg-xchacha; libsodium).
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
from config_manager.storage.decisions.secret_rotation import newest
from config_manager.storage.state import Committed, SealedSecret


def key_id_of(key: bytes) -> str:
    """A hash, which says nothing of the key, because that is random."""
    return hashlib.sha256(b"secrets key id" + key).hexdigest()[:16]


class SecretBox:
    """Seals and opens secrets with one key of 32 bytes."""

    def __init__(self, key: bytes, randomness: Randomness) -> None:
        self._key = key
        self._randomness = randomness
        self.key_id = key_id_of(key)

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
        """Raises nacl.exceptions.CryptoError if the row was altered or moved, or is another key's."""
        if len(sealed.ciphertext) < crypto_aead_xchacha20poly1305_ietf_ABYTES:
            raise CryptoError("cut short")  # PyNaCl would raise ValueError
        data = crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed.ciphertext,
            _bound_to(sealed.service, sealed.name, sealed.version, sealed.key_id),
            sealed.nonce,
            self._key,
        )
        return Secret(data.decode())


class SecretBoxes:
    """The keys that secrets may lie under: one, or two during a rotation."""

    def __init__(self, key: bytes, randomness: Randomness, *, successor: bytes | None) -> None:
        """key: seals unless the registry names another key that is here."""
        self._randomness = randomness
        self._boxes: dict[str, SecretBox] = {}
        self._own = self.add(key)
        if successor is not None:
            self.add(successor)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._boxes

    def add(self, key: bytes) -> str:
        """Open with this key, too, from now on; answers its id."""
        box = SecretBox(key, self._randomness)
        self._boxes[box.key_id] = box
        return box.key_id

    def keep_only(self, key_id: str) -> None:
        """Forget the others. Raises KeyError if this one is not here."""
        self._boxes = {key_id: self._boxes[key_id]}
        self._own = key_id

    def sealing(self, committed: Committed) -> SecretBox:
        """The key that seals now: from its commit on, the one that the newest rotation named."""
        rotation = newest(committed)
        if rotation is not None and rotation.new in self._boxes:
            return self._boxes[rotation.new]
        return self._boxes[self._own]

    def open(self, sealed: SealedSecret) -> Secret:
        """Raises nacl.exceptions.CryptoError as `SecretBox.open`, and if the key is not here."""
        box = self._boxes.get(sealed.key_id)
        if box is None:
            raise CryptoError("another key's")
        return box.open(sealed)


def _bound_to(service: str, name: str, version: int, key_id: str) -> bytes:
    return strict_json.dumps(["secret", service, name, version, key_id])  # JSON: no ambiguity
