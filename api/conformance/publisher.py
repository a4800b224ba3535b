"""A publisher without a server: keys made here, and every document that a server would sign.

Also what a thief of one of its keys signs, and what a broker makes of its messages.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from nacl.signing import SigningKey

from config_manager.client.testing.signed_documents import (
    keepalive_message,
    key_id,
    make_beacon,
    make_root,
    make_snapshot,
    make_update,
    sign,
    snapshot_message,
)
from config_manager.config import strict_json, wire
from config_manager.config.wire import Envelope
from config_manager.config.world import rfc3339

LONG_AGO = "2020-01-01T00:00:00.000Z"


class Publisher:
    """One service's. `revision` is the newest honest one. clock: Unix seconds, of its beacons."""

    def __init__(
        self, service: str = "stt-worker", *, clock: Callable[[], float] = time.time
    ) -> None:
        self.service = service
        self._clock = clock
        self.topic = wire.config_topic(service)
        self.root_key, self.config_key, self.beacon_key, self.stranger, self.retired = (
            SigningKey.generate() for _ in range(5)
        )
        self.new_config_key = SigningKey.generate()
        self.config_keys: tuple[SigningKey, ...] = (self.config_key, self.retired)
        self.beacon_keys: tuple[SigningKey, ...] = (self.beacon_key,)
        self.not_after: dict[str, str] = {key_id(self.retired): LONG_AGO}
        self.thresholds: dict[str, int] = {}
        self.revision = 0
        self._seq = 0

    def now(self) -> float:
        """Unix seconds, by the clock of its beacons."""
        return self._clock()

    def root(
        self,
        version: int = 1,
        *signers: SigningKey,
        root: tuple[SigningKey, ...] | None = None,
        config: tuple[SigningKey, ...] | None = None,
        not_after: Mapping[str, str] | None = None,
    ) -> bytes:
        """A version of the trust root; signed by the root key if no signer is given."""
        roles = {
            "root": root or (self.root_key,),
            "config": config or self.config_keys,
            "beacon": self.beacon_keys,
        }
        document = make_root(
            version, roles, thresholds=self.thresholds, not_after=not_after or self.not_after
        )
        return sign(wire.ROOT, document.to_bytes(), *(signers or (self.root_key,))).to_bytes()

    def payload(
        self, revision: int, *, raw: Mapping[str, Any] | None = None, **fields: Any
    ) -> bytes:
        """A configuration, unsigned. raw: members as no writer of ours would spell them."""
        given = {"topic": self.topic, **fields}
        made = make_update(given.pop("service", self.service), revision, **given).to_bytes()
        return json.dumps({**json.loads(made), **raw}).encode() if raw is not None else made

    def signed(
        self, payload: bytes, *signers: SigningKey, kind: str = wire.CONFIG_UPDATE
    ) -> Envelope:
        """Signed by the configuration key if no signer is given."""
        return sign(kind, payload, *(signers or (self.config_key,)))

    def update(self, revision: int, *signers: SigningKey, **fields: Any) -> bytes:
        return self.signed(self.payload(revision, **fields), *signers).to_bytes()

    def odd(self, raw: Mapping[str, Any]) -> bytes:
        """The next configuration, which the right key signed although it should not have."""
        return self.update(self.revision + 1, raw=raw)

    def snapshot(
        self,
        *,
        beacon_by: SigningKey | None = None,
        revision: int | None = None,
        names: bytes | None = None,
        **beacon: Any,
    ) -> bytes:
        """The retained snapshot of `revision`, with its beacon inside. names: as in `keepalive`."""
        envelope = self._snapshot(revision, names)
        return snapshot_message(envelope, self._beacon(envelope, beacon_by, **beacon))

    def keepalive(
        self,
        *,
        by: SigningKey | None = None,
        revision: int | None = None,
        names: bytes | None = None,
        **beacon: Any,
    ) -> bytes:
        """revision: that of the snapshot which its beacon names, else the newest. names: the payload
        that this snapshot names, else a configuration as `payload` makes it."""
        return keepalive_message(self._beacon(self._snapshot(revision, names), by, **beacon))

    def empty_snapshot(self, **beacon: Any) -> bytes:
        """Of a publisher that has no configuration for the service: no floor for a first start."""
        envelope = make_snapshot({}, self.revision, self.beacon_key)
        return snapshot_message(envelope, self._beacon(envelope, None, **beacon))

    def _snapshot(self, revision: int | None, names: bytes | None) -> Envelope:
        number = self.revision if revision is None else revision
        digest = wire.digest(names or self.payload(number))
        return make_snapshot({self.service: (number, digest)}, number, self.beacon_key)

    def _beacon(self, snapshot: Envelope, by: SigningKey | None, **fields: Any) -> Envelope:
        self._seq += 1
        given: dict[str, Any] = {
            "seq": self._seq,
            "revision": self.revision,
            "issued_at": rfc3339(self.now()),
            **fields,
        }
        return make_beacon(snapshot, given.pop("seq"), key=by or self.beacon_key, **given)


class BothSign(Publisher):
    """Both configuration keys have to sign. Both do if no signer is given."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.config_keys = (self.config_key, self.new_config_key)
        self.thresholds = {"config": 2}

    def signed(
        self, payload: bytes, *signers: SigningKey, kind: str = wire.CONFIG_UPDATE
    ) -> Envelope:
        return super().signed(payload, *(signers or self.config_keys), kind=kind)


def changed(message: bytes, **members: Any) -> bytes:
    """The envelope with other members, unsigned; None takes one away."""
    value = {**json.loads(message), **members}
    return json.dumps({k: v for k, v in value.items() if v is not None}).encode()


def signatures_of(*messages: bytes) -> list[strict_json.JsonObject]:
    """All their signatures, one after the other."""
    return [one for message in messages for one in json.loads(message)["signatures"]]
