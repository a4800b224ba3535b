"""Proof of life: the signed snapshot of what every service should hold, and the beacon naming it.

Both are made after changes, at most once a second, and with each heartbeat. The keepalive carries the beacon
as well. Neither is made while our data may contradict what was published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from config_manager.actors.actor import Actor, Context, Life, follower
from config_manager.actors.messages import Sign
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.views import CommittedView
from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope
from config_manager.config.world import World, rfc3339
from config_manager.storage.state import Committed

_MIN_INTERVAL_S = 1.0
_MIN_VALID_S = 30
_MISSED_HEARTBEATS = 3


class BeaconMaker:
    """Makes beacons that rise for as long as the process lives, across its actor's crashes."""

    def __init__(
        self,
        signing: Actor,
        *,
        boot_seq: Callable[[], int],
        root_version: Callable[[], int | None],
        heartbeat_s: float,
        world: World,
    ) -> None:
        """boot_seq: of this start. root_version: of the root that counts now; None while it is changing."""
        self._signing = signing
        self.boot_seq = boot_seq
        self.root_version = root_version
        self._valid_s = max(_MIN_VALID_S, round(_MISSED_HEARTBEATS * heartbeat_s))
        self._world = world
        self._seq = 0

    async def make(self, committed: Committed, root_version: int) -> tuple[bytes, JsonObject]:
        """The retained snapshot's bytes, and the beacon's envelope as an object."""
        boot_seq = self.boot_seq()
        context = Context(f"beacon-{boot_seq}-{self._seq + 1}")
        snapshot = Snapshot(
            committed.epoch.id,
            committed.epoch.seq,
            committed.revision,
            {name: (s.revision, s.digest) for name, s in committed.services.items()},
        )
        signed = await self._sign(wire.SNAPSHOT, snapshot.to_bytes(), context)
        self._seq += 1
        beacon = Beacon(
            config_epoch=committed.epoch.id,
            epoch_seq=committed.epoch.seq,
            revision=committed.revision,
            snapshot=signed.digest,
            root_version=root_version,
            audit_head=committed.audit_head,
            boot_seq=boot_seq,
            seq=self._seq,
            issued_at=rfc3339(self._world.clock.now()),
            valid_s=self._valid_s,
        )
        beacon_object = (await self._sign(wire.BEACON, beacon.to_bytes(), context)).to_object()
        retained = strict_json.dumps({**signed.to_object(), "beacon": beacon_object})
        return retained, beacon_object

    async def _sign(self, payload_type: str, payload: bytes, context: Context) -> Envelope:
        return await self._signing.ask(Sign("beacon", payload_type, payload), context)


def beaconing(
    maker: BeaconMaker,
    view: CommittedView,
    outlets: Sequence[Outlet],
    keepalive: Callable[[JsonObject | None], bytes],
    *,
    heartbeat_s: float,
) -> Life:
    """keepalive: frames a beacon, or None if none may be made, as the keepalive message."""

    async def beat() -> None:
        next_heartbeat = trio.current_time()
        announced: tuple[Committed | None, int, int, bool] = (None, 0, 0, False)
        while True:
            committed, root, boot_seq = view.committed, maker.root_version(), maker.boot_seq()
            about = (root, boot_seq, view.publishable)
            due = trio.current_time() >= next_heartbeat
            if root is None:
                await view.changed()
            elif due or committed is not announced[0] or about != announced[1:]:
                beacon = await _announce(maker, view, outlets, committed, root)
                announced = (committed, root, boot_seq, beacon is not None)
                if due:
                    for outlet in outlets:
                        outlet.send(wire.KEEPALIVE_TOPIC, keepalive(beacon))
                    next_heartbeat = trio.current_time() + heartbeat_s
                await trio.sleep(min(_MIN_INTERVAL_S, heartbeat_s))
            else:
                with trio.move_on_at(next_heartbeat):
                    await view.changed()

    return follower(beat)


async def _announce(
    maker: BeaconMaker,
    view: CommittedView,
    outlets: Sequence[Outlet],
    committed: Committed,
    root: int,
) -> JsonObject | None:
    """The beacon, once its snapshot is with the outlets; None if none may be made."""
    if not view.publishable:
        return None
    snapshot, beacon = await maker.make(committed, root)
    if not view.publishable:  # a witness was seen meanwhile: it must not be written over
        return None
    for outlet in outlets:
        outlet.set_retained(wire.SNAPSHOT_TOPIC, snapshot)
    return beacon
