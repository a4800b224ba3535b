"""What a fake publisher signs: with keys of its own, and as a server does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nacl.signing import SigningKey

from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import KeyRole, Root, RootKey
from config_manager.config.documents.sealed import Sealed
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.names import ServiceName
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope, Signature

_EPOCH = "00000000-0000-4000-8000-000000000000"
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
        public = {role: key.verify_key.encode() for role, key in self._keys.items()}
        keys = {wire.keyid(key): RootKey(key) for key in public.values()}
        roles = {role: KeyRole((wire.keyid(key),), 1) for role, key in public.items()}
        root = Root(1, "2026-01-01T00:00:00.000Z", keys, roles)
        return self._sign("root", wire.ROOT, root.to_bytes())

    def update(
        self, values: JsonObject, secrets: Secrets, issued_at: str, *, deleted: bool
    ) -> Envelope:
        """The next revision. Raises ValueError if it is larger than a server takes."""
        revision = self.revision + 1
        update = ConfigUpdate(
            service=self._service,
            topic=wire.config_topic(self._service),
            config_epoch=_EPOCH,
            epoch_seq=1,
            revision=revision,
            previous=self._newest[1] if self._newest else None,
            issued_at=issued_at,
            config=values,
            defaulted=(),
            secrets={name: version for name, (version, _) in secrets.items()},
            deleted=deleted,
            correlation_id=f"test-{revision}",
        )
        envelope = self._sign("config", wire.CONFIG_UPDATE, update.to_bytes(), f"test-{revision}")
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
        return self._sign("config", wire.SEALED, sealed.to_bytes())

    def snapshot(self) -> Envelope:
        services: dict[str, tuple[int, str]] = (
            {self._service: self._newest} if self._newest is not None else {}
        )
        snapshot = Snapshot(_EPOCH, 1, self.revision, services)
        return self._sign("beacon", wire.SNAPSHOT, snapshot.to_bytes())

    def beacon(self) -> Envelope:
        self._beacons += 1
        beacon = Beacon(
            config_epoch=_EPOCH,
            epoch_seq=1,
            revision=self.revision,
            snapshot=self.snapshot().digest,
            root_version=1,
            audit_head="0" * 64,
            # each as of a new start whose clock stands: a test's time may leap between two beats,
            # and neither of them is a replay
            boot_seq=self._beacons,
            seq=1,
            issued_at=self._began_at,
            valid_s=30,
        )
        return self._sign("beacon", wire.BEACON, beacon.to_bytes())

    def _sign(
        self, role: str, kind: str, payload: bytes, correlation_id: str | None = None
    ) -> Envelope:
        key = self._keys[role]
        signature = Signature(
            wire.keyid(key.verify_key.encode()),
            key.sign(wire.signed_bytes(kind, payload)).signature,
        )
        return Envelope(kind, payload, (signature,), correlation_id)


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
