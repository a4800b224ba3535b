"""What an instance sends to enrol, and the proof that it holds the keys it names."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from config_manager.config import strict_json, wire


@dataclass(frozen=True, slots=True)
class Enrolment:
    """token_sha256: of the one-time token's text, in hex. sign_public, seal_public: raw public keys,
    Ed25519 and X25519."""

    token_sha256: str
    service: str
    instance: str
    sign_public: bytes
    seal_public: bytes

    def _signed(self) -> bytes:
        statement = {
            "token_sha256": self.token_sha256,
            "service": self.service,
            "instance": self.instance,
            "sign_public": base64.b64encode(self.sign_public).decode(),
            "seal_public": base64.b64encode(self.seal_public).decode(),
        }
        return wire.signed_bytes(wire.ENROLMENT, strict_json.dumps(statement))

    def prove(self, sign_key: bytes) -> bytes:
        """The signature, by the Ed25519 seed of `sign_public`."""
        return SigningKey(sign_key).sign(self._signed()).signature

    def is_proved_by(self, proof: bytes) -> bool:
        try:
            VerifyKey(self.sign_public).verify(self._signed(), proof)
        except (BadSignatureError, ValueError):
            return False
        return True
