"""What a fake publisher signs: with keys of its own, and as a server does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nacl.signing import SigningKey

from config_manager.client.testing.signed_documents import (
    make_beacon,
    make_root,
    make_snapshot,
    make_update,
    sign,
)
from config_manager.config import strict_json, wire
from config_manager.config.documents.sealed import Sealed
from config_manager.config.names import ServiceName
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope

_ROLES = ("root", "config", "beacon")

Secrets = Mapping[str, tuple[int, Secret]]
"""name → version and value"""


class FakeDocuments:
    """The signed documents of one service's publisher, as of the newest update."""

    def __init__(self, service: ServiceName, issued_at: str) -> None:
        self._service = service
        self._began_at = issued_at
        self._keys = {role: SigningKey.generate() for role in _ROLES}
        self._beacons = 0
        self._newest: tuple[int, str] | None = None

    @property
    def revision(self) -> int:
        """Of the newest update; 0 before the first."""
        return self._newest[0] if self._newest is not None else 0

    def root(self) -> Envelope:
        root = make_root(1, {role: (key,) for role, key in self._keys.items()})
        return sign(wire.ROOT, root.to_bytes(), self._keys["root"])

    def update(
        self, values: JsonObject, secrets: Secrets, issued_at: str, *, deleted: bool
    ) -> Envelope:
        """The next revision. Raises ValueError if it is larger than a server takes."""
        revision = self.revision + 1
        update = make_update(
            self._service,
            revision,
            previous=self._newest[1] if self._newest else None,
            issued_at=issued_at,
            config=values,
            secrets={name: version for name, (version, _) in secrets.items()},
            deleted=deleted,
            correlation_id=f"test-{revision}",
        )
        envelope = sign(
            wire.CONFIG_UPDATE,
            update.to_bytes(),
            self._keys["config"],
            correlation_id=update.correlation_id,
        )
        if (size := len(envelope.to_bytes())) > wire.MAX_ENVELOPE_BYTES:
            raise ValueError(
                f"{size} bytes once it is signed: a server takes {wire.MAX_ENVELOPE_BYTES} at most"
            )
        self._newest = (revision, envelope.digest)
        return envelope

    def sealed(self, instance: str, public: bytes, secrets: Secrets) -> Envelope:
        """The newest revision's secrets for one instance. public: of the key that they are sealed to."""
        empty = Sealed(self._service, instance, 1, self.revision, {})
        values = {
            name: seal(value, sealed=empty, name=name, version=version, public=public)
            for name, (version, value) in secrets.items()
        }
        sealed = Sealed(self._service, instance, 1, self.revision, values)
        return sign(wire.SEALED, sealed.to_bytes(), self._keys["config"])

    def snapshot(self) -> Envelope:
        services: dict[str, tuple[int, str]] = (
            {self._service: self._newest} if self._newest is not None else {}
        )
        return make_snapshot(services, self.revision, self._keys["beacon"])

    def beacon(self) -> Envelope:
        self._beacons += 1
        return make_beacon(
            self.snapshot(),
            1,
            key=self._keys["beacon"],
            revision=self.revision,
            # each as of a new start whose clock stands: a test's time may leap between two beats,
            # and neither of them is a replay
            boot_seq=self._beacons,
            issued_at=self._began_at,
        )


def strict(values: Mapping[str, Any]) -> JsonObject:
    """As they come out of a server; raises ValueError, which names the key."""
    out: JsonObject = {}
    for key, value in values.items():
        try:
            out |= strict_json.loads_object(json.dumps({key: value}).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{key} can't be delivered, no server would take it: {error}"
            ) from None
    return out
