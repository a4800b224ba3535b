"""Public keys that somebody sends us: is it one that only the holder of a private key can use?

A few points of each curve are of low order: what is sealed to such an X25519 key anybody could open,
and a careless verifier takes any signature under such an Ed25519 key. libsodium refuses to work with
them, but only once they are used; so they are refused where they come in.
"""

from __future__ import annotations

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_scalarmult
from nacl.exceptions import CryptoError

KEY_BYTES = 32
_ANY_SCALAR = b"\x01" * KEY_BYTES


def can_sign(public: bytes) -> bool:
    """Whether these are 32 bytes of an Ed25519 public key: canonical, on the curve, in the main
    subgroup and not of low order."""
    return len(public) == KEY_BYTES and crypto_core_ed25519_is_valid_point(public)


def can_be_sealed_to(public: bytes) -> bool:
    """Whether these are 32 bytes of an X25519 public key that is not of low order."""
    if len(public) != KEY_BYTES:
        return False
    try:
        crypto_scalarmult(_ANY_SCALAR, public)
    except CryptoError:  # the shared secret would be zero, whoever computes it
        return False
    return True
