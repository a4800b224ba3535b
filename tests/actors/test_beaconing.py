"""Beacons and snapshots: none while they may contradict what was published."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from config_manager.actors.actor import Actor, Context, Handler
from config_manager.actors.beaconing import BeaconMaker, beaconing
from config_manager.actors.messages import Sign
from config_manager.actors.outlet import Outlet
from config_manager.actors.views import CommittedView
from config_manager.config import wire
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from tests.config.makers import BEACON_KEY, sign
from tests.storage.makers import empty


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
