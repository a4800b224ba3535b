"""Public keys of low order, not canonical or on no curve are told from those that people make."""

from __future__ import annotations

import pytest
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey

from config_manager.config.public_keys import can_be_sealed_to, can_sign

P = 2**255 - 19
NEUTRAL = b"\x01" + bytes(31)
X25519_LOW = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]
"""RFC 7748, section 6.1, and its references: the u-coordinates of every point of low order."""
ED25519_LOW = [
    NEUTRAL,
    (P - 1).to_bytes(32, "little"),
    bytes(32),
    bytes(31) + b"\x80",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    (P + 1).to_bytes(32, "little"),  # the neutral element again, not in its canonical spelling
]


@pytest.mark.parametrize("high_bit", [0, 1 << 255])
@pytest.mark.parametrize("u", X25519_LOW)
def test_nothing_is_sealed_to_a_point_of_low_order(u: int, high_bit: int) -> None:
    public = (u | high_bit).to_bytes(32, "little")
    assert not can_be_sealed_to(public)
    with pytest.raises(CryptoError):  # libsodium is of the same mind, only later
        SealedBox(PublicKey(public)).encrypt(b"pin")


@pytest.mark.parametrize("public", ED25519_LOW, ids=bytes.hex)
def test_under_a_point_of_low_order_no_signature_counts(public: bytes) -> None:
    assert not can_sign(public)
    with pytest.raises(BadSignatureError):  # 8·S·B = 8·R + 8·k·A holds for any message
        VerifyKey(public).verify(b"anything", NEUTRAL + bytes(32))


@pytest.mark.parametrize("public", [b"", bytes(31), b"\x02" * 33, b"\xff" * 32])
def test_what_is_no_key_is_none(public: bytes) -> None:
    assert not can_sign(public)


def test_neither_is_a_key_with_a_part_of_low_order() -> None:
    from nacl.bindings import crypto_core_ed25519_add

    mixed = crypto_core_ed25519_add(SigningKey.generate().verify_key.encode(), ED25519_LOW[4])
    assert not can_sign(mixed)


def test_keys_that_people_make_are_taken() -> None:
    for _ in range(50):
        assert can_sign(SigningKey.generate().verify_key.encode())
        assert can_be_sealed_to(PrivateKey.generate().public_key.encode())
    assert not can_be_sealed_to(b"\x09" * 31)
