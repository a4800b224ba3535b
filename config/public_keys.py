"""Checks of public keys that others send: can only the holder of the private key use this one?

A few points of each curve are of low order. Anybody could open what is sealed to such an X25519 key, and
a careless verifier takes any signature under such an Ed25519 key. libsodium refuses them only when they
are used, so they are refused when they arrive.
"""

from __future__ import annotations

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_scalarmult
from nacl.exceptions import CryptoError

KEY_BYTES = 32
_ANY_SCALAR = b"\x01" * KEY_BYTES


def can_sign(public: bytes) -> bool:
    """Whether this is an Ed25519 public key of 32 bytes: canonical, on the curve, in the main subgroup
    and not of low order."""
    return len(public) == KEY_BYTES and crypto_core_ed25519_is_valid_point(public)


def can_be_sealed_to(public: bytes) -> bool:
    """Whether this is an X25519 public key of 32 bytes, and not of low order."""
    if len(public) != KEY_BYTES:
        return False
    try:
        crypto_scalarmult(_ANY_SCALAR, public)
    except CryptoError:  # the shared secret would be zero for everybody
        return False
    return True
