"""Chains of trust roots for the client's tests: versions with other keys, signed by whoever."""

from __future__ import annotations

from typing import Any

from nacl.signing import SigningKey

from config_manager.client.rules.root_chain import Link, pin
from config_manager.config import wire
from config_manager.config.documents.root import Root
from tests.kit import documents as makers

ROOT_KEY, CONFIG_KEY, BEACON_KEY, STRANGER = (
    makers.ROOT_KEY,
    makers.CONFIG_KEY,
    makers.BEACON_KEY,
    makers.STRANGER,
)
SECOND_ROOT, SECOND_CONFIG, SECOND_BEACON, THIRD_CONFIG = (
    SigningKey(bytes([n]) * 32) for n in range(5, 9)
)


def root(version: int, *signers: SigningKey, **fields: Any) -> bytes:
    """An envelope; by the first root's key where nobody else is named. fields: of `make_root`."""
    document = makers.make_root(version, **fields)
    return signed(document, *(signers or (ROOT_KEY,)))


def signed(document: Root, *signers: SigningKey) -> bytes:
    return makers.sign(wire.ROOT, document.to_bytes(), *signers).to_bytes()


def first() -> Link:
    return pin(root(1))


def topic(version: int) -> str:
    return wire.root_topic(version)
