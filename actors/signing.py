"""The only actor that holds the signing keys: bytes in, envelope out."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from nacl.signing import SigningKey

from config_manager.actors.actor import Context, Life, answering
from config_manager.actors.messages import Sign
from config_manager.config import wire
from config_manager.config.wire import Envelope, Signature


def sign(
    seed: bytes, payload_type: str, payload: bytes, correlation_id: str | None = None
) -> Envelope:
    """A DSSE envelope with one Ed25519 signature; the same every time (RFC 8032)."""
    key = SigningKey(seed)
    signature = key.sign(wire.signed_bytes(payload_type, payload)).signature
    key_id = wire.keyid(key.verify_key.encode())
    return Envelope(payload_type, payload, (Signature(key_id, signature),), correlation_id)


def signing(seed_of: Callable[[str], bytes]) -> Life:
    """seed_of: role → the 32-byte Ed25519 seed of the key that signs for it now."""

    async def handle(request: Sign, _context: Context) -> Envelope:
        envelope = sign(
            seed_of(request.role), request.payload_type, request.payload, request.correlation_id
        )
        if request.payload_type == wire.CONFIG_UPDATE:
            log = structlog.get_logger()
            log.info("signed", role=request.role, digest=envelope.digest)
        return envelope

    return answering(handle)
