"""A publisher without a server: keys made here, and every document that a server would sign.

Also what a thief of one of its keys signs, and what a broker makes of its messages.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from nacl.signing import SigningKey

from config_manager.config import wire
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope
from config_manager.config.world import rfc3339
from tests.kit.documents import key_id, make_beacon, make_root, make_snapshot, make_update, sign

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

    def root(self, version: int = 1, *signers: SigningKey, **fields: Any) -> bytes:
        """A version of the trust root; by the root key where nobody else is named."""
        document = make_root(
            version,
            **{
                "root": (self.root_key,),
                "config": self.config_keys,
                "beacon": self.beacon_keys,
                "not_after": self.not_after,
                "thresholds": self.thresholds,
                **fields,
            },
        )
        return sign(wire.ROOT, document.to_bytes(), *(signers or (self.root_key,))).to_bytes()

    def payload(
        self, revision: int, *, raw: Mapping[str, Any] | None = None, **fields: Any
    ) -> bytes:
        """A configuration, unsigned. raw: members as no writer of ours would spell them."""
        given = {"service": self.service, "topic": self.topic, "config": {"n": revision}, **fields}
        made = make_update(revision, **given).to_bytes()
        return json.dumps({**json.loads(made), **raw}).encode() if raw is not None else made

    def signed(
        self, payload: bytes, *signers: SigningKey, kind: str = wire.CONFIG_UPDATE
    ) -> Envelope:
        return sign(kind, payload, *(signers or (self.config_key,)))

    def update(self, revision: int, *signers: SigningKey, **fields: Any) -> bytes:
        return self.signed(self.payload(revision, **fields), *signers).to_bytes()

    def odd(self, raw: Mapping[str, Any], revision: int | None = None) -> bytes:
        """A configuration that the right key signed although it should not have."""
        return self.update(self.revision + 1 if revision is None else revision, raw=raw)

    def snapshot(
        self, *, beacon_by: SigningKey | None = None, revision: int | None = None, **beacon: Any
    ) -> bytes:
        """The retained snapshot of `revision`, with its beacon inside."""
        envelope = self._snapshot(self.revision if revision is None else revision)
        vouched = self._beacon(envelope, beacon_by, **beacon)
        return json.dumps({**envelope.to_object(), "beacon": vouched}).encode()

    def keepalive(
        self, *, by: SigningKey | None = None, revision: int | None = None, **beacon: Any
    ) -> bytes:
        snapshot = self._snapshot(self.revision if revision is None else revision)
        vouched = self._beacon(snapshot, by, **beacon)
        return json.dumps({"type": "health.keepalive", "data": {"beacon": vouched}}).encode()

    def _snapshot(self, revision: int) -> Envelope:
        services = {self.service: (revision, wire.digest(self.payload(revision)))}
        return make_snapshot(services, revision, self.beacon_key)

    def _beacon(self, snapshot: Envelope, by: SigningKey | None, **fields: Any) -> JsonObject:
        self._seq += 1
        given = {
            "seq": self._seq,
            "revision": self.revision,
            "issued_at": rfc3339(self._clock()),
            **fields,
        }
        return make_beacon(snapshot, key=by or self.beacon_key, **given)


def changed(message: bytes, **members: Any) -> bytes:
    """The envelope with members that nobody signed for; None takes one away."""
    value = {**json.loads(message), **members}
    return json.dumps({k: v for k, v in value.items() if v is not None}).encode()


def signatures_of(*messages: bytes) -> list[Any]:
    """All their signatures, one after the other."""
    return [one for message in messages for one in json.loads(message)["signatures"]]
