"""Secrets at rest: a ciphertext opens in its own place, under its own key, and nowhere else."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import CryptoError

from config_manager.config.secret import Secret
from config_manager.config.world import SystemRandomness
from config_manager.storage.keys.secret_box import SecretBox
from config_manager.storage.state import SealedSecret
from tests.kit.stores import STEADY, Counting

AT = "2027-01-15T08:00:00.000Z"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
BOX = SecretBox(KEY, Counting())
SEALED = BOX.seal("door", "pin", 3, Secret("1234"), AT)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@STEADY
@given(texts, texts, texts, st.integers(1, 2**53))
def test_what_is_sealed_opens_to_what_it_was(
    value: str, service: str, name: str, version: int
) -> None:
    box = SecretBox(KEY, SystemRandomness())
    sealed = box.seal(service, name, version, Secret(value), AT)
    assert box.open(sealed).reveal() == value
    assert (sealed.service, sealed.name, sealed.version, sealed.updated_at) == (
        service, name, version, AT,
    )  # fmt: skip


def test_another_box_with_the_key_opens_it() -> None:
    assert SecretBox(KEY, SystemRandomness()).open(SEALED).reveal() == "1234"


@pytest.mark.parametrize(
    "moved",
    [
        {"service": "window"},
        {"service": "doo"},
        {"service": "doorpin", "name": ""},
        {"name": "pins"},
        {"version": 2},
        {"version": 33},
        {"key_id": "0" * 16},
        {"service": "pin", "name": "door"},
        {"service": 'door","pin'},
    ],
)
def test_a_ciphertext_does_not_open_in_another_place(moved: dict[str, Any]) -> None:
    with pytest.raises(CryptoError):
        BOX.open(SEALED._replace(**moved))


def test_no_two_ciphertexts_can_be_exchanged() -> None:
    """Whoever can write the rows but has no key gains nothing from swapping them."""
    rows = [
        BOX.seal(service, name, version, Secret(f"{service} {name} {version}"), AT)
        for service in ("a", "b")
        for name in ("x", "y")
        for version in (1, 2)
    ]
    for one, other in permutations(rows, 2):
        with pytest.raises(CryptoError):
            BOX.open(one._replace(nonce=other.nonce, ciphertext=other.ciphertext))


def test_the_bounds_between_the_parts_of_a_place_can_not_be_shifted() -> None:
    for one, other in [(("ab", "c"), ("a", "bc")), (('a","b', "c"), ("a", 'b","c'))]:
        sealed = BOX.seal(*one, 1, Secret("v"), AT)
        with pytest.raises(CryptoError):
            BOX.open(sealed._replace(service=other[0], name=other[1]))


@STEADY
@given(st.data())
def test_an_altered_ciphertext_or_nonce_does_not_open(data: st.DataObject) -> None:
    nonce, ciphertext = bytearray(SEALED.nonce), bytearray(SEALED.ciphertext)
    altered = data.draw(st.sampled_from([nonce, ciphertext]))
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CryptoError):
        BOX.open(SEALED._replace(nonce=bytes(nonce), ciphertext=bytes(ciphertext)))


@pytest.mark.parametrize("nonce", [b"", SEALED.nonce[:-1], SEALED.nonce + b"\0"])
def test_a_nonce_of_another_length_does_not_open(nonce: bytes) -> None:
    with pytest.raises(CryptoError):
        BOX.open(SEALED._replace(nonce=nonce))


@pytest.mark.parametrize("length", [0, 1, 15, 16, len(SEALED.ciphertext) - 1])
def test_a_ciphertext_cut_short_does_not_open(length: int) -> None:
    with pytest.raises(CryptoError):
        BOX.open(SEALED._replace(ciphertext=SEALED.ciphertext[:length]))


def test_another_key_does_not_open_it_even_under_its_name() -> None:
    other = SecretBox(OTHER_KEY, Counting())
    assert other.key_id != BOX.key_id
    for sealed in (SEALED, SEALED._replace(key_id=other.key_id)):
        with pytest.raises(CryptoError):
            other.open(sealed)


def test_the_same_secret_twice_looks_different() -> None:
    box = SecretBox(KEY, SystemRandomness())
    one, other = (box.seal("door", "pin", 1, Secret("1234"), AT) for _ in range(2))
    assert one.nonce != other.nonce
    assert one.ciphertext != other.ciphertext
    assert len(one.nonce) == 24


def test_nothing_of_a_sealed_secret_shows_its_value_or_its_key() -> None:
    sealed: SealedSecret = BOX.seal("door", "pin", 1, Secret("conspicuous"), AT)
    assert b"conspicuous" not in sealed.ciphertext
    assert "conspicuous" not in repr(sealed) + repr(BOX.open(sealed))
    assert KEY.hex() not in BOX.key_id
    assert repr(KEY) not in repr(BOX)
