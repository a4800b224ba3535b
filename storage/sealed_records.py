"""Records sealed one behind the other, so that one more is written without the others. Pure.

    config-manager records v1\\n ‖ id (16) ‖ record ‖ record ‖ …
    record = length (u32) ‖ check (8) ‖ nonce (24) ‖ XChaCha20-Poly1305, whose tag (16) is its end

A record's associated data is the purpose and the 16 bytes before it: the tag of the record there, or the file's
random id. So a record opens in one place alone: not moved or repeated, not behind a gap, not in another file.
`check` is a keyed hash of the length in this place. Without it a damaged length could not be told from a record
that a power cut left half.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from config_manager.config.sealed_file import derive_key

MAGIC = b"config-manager records v1\n"
PLACE_BYTES = crypto_aead_xchacha20poly1305_ietf_ABYTES
"""How many bytes before a record say where it stands. A file's id is as long as a tag."""
NONCE_BYTES = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_LENGTH_BYTES = 4
_CHECK_BYTES = 8
_HEAD_BYTES = _LENGTH_BYTES + _CHECK_BYTES
_SEALING_BYTES = NONCE_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES


class Damaged(ValueError):
    """A record that does not verify where it stands: altered, moved, or sealed under another key."""


class Torn(ValueError):
    """The last record is not whole: a power cut came while it was written."""


@dataclass(frozen=True, slots=True)
class OpenedRecord:
    """One record's content. end: where in the file the record ends."""

    content: bytes
    end: int


class Seals:
    """Seals and opens the records of one purpose."""

    def __init__(self, master: bytes, purpose: str) -> None:
        self._key = derive_key(master, purpose)
        self._check_key = derive_key(self._key, "lengths of records")
        self._purpose = MAGIC + purpose.encode()

    def seal(self, content: bytes, place: bytes, nonce: bytes) -> bytes:
        """A record to append. place: the last 16 bytes of what it is appended to; nonce: 24 random ones."""
        length = (len(content) + _SEALING_BYTES).to_bytes(_LENGTH_BYTES)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
            content, self._purpose + place, nonce, self._key
        )
        return length + self._check(length, place) + nonce + sealed

    def opened(self, raw: bytes) -> Iterator[OpenedRecord]:
        """The records of a file, one by one. Raises Torn or Damaged if they end before the file does."""
        at = len(MAGIC) + PLACE_BYTES
        if not raw.startswith(MAGIC) or len(raw) < at:
            raise Damaged("no file of records")
        while at < len(raw):
            place = raw[at - PLACE_BYTES : at]
            body = at + _HEAD_BYTES
            length, check = raw[at : at + _LENGTH_BYTES], raw[at + _LENGTH_BYTES : body]
            # some file systems leave zeros for what they had no time to write
            if body > len(raw) or (not any(check) and not any(raw[at:])):
                raise Torn(f"the record at byte {at} was not written whole")
            if not hmac.compare_digest(check, self._check(length, place)):
                raise Damaged(f"the record at byte {at} does not verify")
            end = body + int.from_bytes(length)
            if end > len(raw):
                raise Torn(f"the record at byte {at} was not written whole")
            try:
                content = crypto_aead_xchacha20poly1305_ietf_decrypt(
                    raw[body + NONCE_BYTES : end],
                    self._purpose + place,
                    raw[body : body + NONCE_BYTES],
                    self._key,
                )
            except CryptoError:
                raise Damaged(f"the record at byte {at} does not verify") from None
            yield OpenedRecord(content, end)
            at = end

    def _check(self, length: bytes, place: bytes) -> bytes:
        return hashlib.blake2b(
            length + place, key=self._check_key, digest_size=_CHECK_BYTES
        ).digest()
