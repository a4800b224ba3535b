"""Beacons and snapshots: none while they may contradict what was published."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from config_manager.actors.actor import Actor, Context, Handler
from config_manager.actors.beaconing import BeaconMaker, beaconing
from config_manager.actors.messages import Sign
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.views import CommittedView
from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from tests.kit.documents import BEACON_KEY, sign
from tests.kit.stores import empty


async def test_a_witness_that_is_seen_while_a_snapshot_is_signed_is_not_written_over(
    autojump_clock: MockClock,
) -> None:
    view = CommittedView(empty())
    outlet = Outlet(view)
    told: list[JsonObject | None] = []
    a_witness_comes = True

    @asynccontextmanager
    async def life() -> AsyncIterator[Handler]:
        async def handle(request: Sign, _context: Context) -> Envelope:
            if a_witness_comes:
                view.hold_publishing()
            return sign(request.payload_type, request.payload, BEACON_KEY)

        yield handle

    def keepalive(beacon: JsonObject | None) -> bytes:
        told.append(beacon)
        return b"{}"

    async with Actor("signing", life).running() as signer:
        maker = BeaconMaker(
            signer, boot_seq=lambda: 1, root_version=lambda: 1, heartbeat_s=10, world=World()
        )
        beacons = beaconing(maker, view, [outlet], keepalive, heartbeat_s=10)
        async with Actor("beaconing", beacons).running():
            await trio.sleep(1)
            assert (outlet.retained, told) == ({}, [None])
            a_witness_comes = False
            view.publishable = True
            view.wake()
            await trio.sleep(2)
            assert wire.SNAPSHOT_TOPIC in outlet.retained, "as soon as the suspicion is lifted"
            assert told == [None]
            await trio.sleep(8)
            assert told[1] is not None


async def test_a_start_that_counts_as_a_later_one_is_announced_at_once(
    autojump_clock: MockClock,
) -> None:
    view, boot_seq = CommittedView(empty()), 1
    outlet = Outlet(view)

    @asynccontextmanager
    async def life() -> AsyncIterator[Handler]:
        async def handle(request: Sign, _context: Context) -> Envelope:
            return sign(request.payload_type, request.payload, BEACON_KEY)

        yield handle

    def announced() -> tuple[int, int]:
        beacon = strict_json.loads_object(outlet.retained[wire.SNAPSHOT_TOPIC])["beacon"]
        return Beacon.parse(wire.envelope_from_object(beacon).payload).order

    async with Actor("signing", life).running() as signer:
        maker = BeaconMaker(
            signer,
            boot_seq=lambda: boot_seq,
            root_version=lambda: 1,
            heartbeat_s=600,
            world=World(),
        )
        beacons = beaconing(maker, view, [outlet], lambda _: b"{}", heartbeat_s=600)
        async with Actor("beaconing", beacons).running():
            await trio.sleep(2)
            first = announced()
            view.wake()
            await trio.sleep(2)
            assert announced() == first, "nothing is new"
            boot_seq = 9
            view.wake()
            await trio.sleep(2)
            assert (first[0], announced()[0]) == (1, 9)
            assert announced() > first
