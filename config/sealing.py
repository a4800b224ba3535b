"""Secrets on their way to one instance: libsodium's sealed box (X25519, XSalsa20-Poly1305).

A sealed box has no associated data. So what a value is for is sealed with it and compared when it is
opened: nobody can put one secret's ciphertext in another's place.
"""

from __future__ import annotations

from typing import Any

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from config_manager.config import strict_json
from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.errors import KeyUnusable
from config_manager.config.secret import Secret


class NotSealedForThis(ValueError):
    """A ciphertext that does not open with this key, or was sealed for something else."""


def seal(value: Secret, *, sealed: Sealed, name: str, version: int, public: bytes) -> SealedValue:
    """public: the instance's X25519 key, 32 raw bytes. Randomised: never the same bytes twice.

    Raises KeyUnusable.
    """
    inside = {**_bound_to(sealed, name, version), "value": value.reveal()}
    try:
        return SealedValue(version, SealedBox(PublicKey(public)).encrypt(strict_json.dumps(inside)))
    except (CryptoError, TypeError, ValueError):
        raise KeyUnusable(
            f"nothing can be sealed to the key of {sealed.service}/{sealed.instance}; revoke it "
            "(config-manager devices revoke), and enrol it with new keys"
        ) from None


def open_sealed(sealed: Sealed, name: str, private: bytes) -> Secret:
    """One secret of a document whose signature was checked. private: the instance's X25519 key.

    Raises KeyError if it has no secret of this name, and NotSealedForThis.
    """
    held = sealed.secrets[name]
    try:
        data = SealedBox(PrivateKey(private)).decrypt(held.ciphertext)
        inside = strict_json.loads_object(data)
    except (CryptoError, ValueError, TypeError):
        raise NotSealedForThis(f"{name} does not open with this instance's key") from None
    value = inside.pop("value", None)
    if inside != _bound_to(sealed, name, held.version) or not isinstance(value, str):
        raise NotSealedForThis(f"{name} was sealed for something else")
    return Secret(value)


def _bound_to(sealed: Sealed, name: str, version: int) -> dict[str, Any]:
    return {
        "service": sealed.service,
        "instance": sealed.instance,
        "name": name,
        "version": version,
        "epoch_seq": sealed.epoch_seq,
        "revision": sealed.revision,
    }
