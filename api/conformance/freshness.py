"""Freshness, in real time, beside the timelines of docs/vectors.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from config_manager.api.conformance.attacks import FARTHEST
from config_manager.api.conformance.cases import Unmet
from config_manager.api.conformance.publisher import Publisher
from config_manager.api.conformance.rig import Rig
from config_manager.api.conformance.stories import Scene, alone
from config_manager.config import wire
from config_manager.config.world import rfc3339

_NOT_BEFORE_S = 29.0
"""By the time since the last proof was sent; the client heard it later, and we hear the client later."""
_WITHIN_S = 60.0
_BEAT_S = 5.0

Beat = Callable[[Publisher], bytes]
"""The message of the next keepalive."""


async def _fresh(rig: Rig) -> None:
    await rig.begin()
    await rig.line("fresh")


async def _beating(rig: Rig, beat: Beat, every_s: float) -> None:
    while True:
        await rig.send(beat(rig.publisher), wire.KEEPALIVE_TOPIC)
        await trio.sleep(every_s)


async def _says_stale(rig: Rig, beat: Beat | None, every_s: float, within_s: float) -> bool:
    """Whether it does in time, while the publisher's keepalives are these."""
    rig.since()
    async with trio.open_nursery() as nursery:
        if beat is not None:
            nursery.start_soon(_beating, rig, beat, every_s)
        says = await rig.until(
            lambda: any(line.get("event") == "stale" for line in rig.said), within_s
        )
        nursery.cancel_scope.cancel()
    return says


async def _is_stale(
    rig: Rig,
    reason: str,
    beat: Beat | None = None,
    *,
    every_s: float = _BEAT_S,
    within_s: float = _WITHIN_S,
) -> None:
    """Said for that reason and no other, after half a minute."""
    began = trio.current_time()
    said = await _says_stale(rig, beat, every_s, within_s)
    took = trio.current_time() - began
    if not said:
        raise Unmet(f"{rig.got} in {took:.0f} s")
    if took < _NOT_BEFORE_S:
        raise Unmet(f"{rig.got} after {took:.0f} s already")
    if any(one.get("event") == "stale" and one.get("reason") != reason for one in rig.said):
        raise Unmet(rig.got)


async def _recovers(rig: Rig) -> None:
    """The publisher is heard again, and has a change."""
    rig.since()
    await rig.goes_on()
    await rig.send(rig.publisher.snapshot(), wire.SNAPSHOT_TOPIC, retain=True)
    await rig.line("fresh")


# ── stories ────────────────────────────────────────────────────────────────────────────────────


async def _an_earlier_start(rig: Rig) -> None:
    await _is_stale(rig, "no-beacon", lambda p: p.keepalive(boot_seq=0, seq=FARTHEST))
    await _recovers(rig)


async def _slow_replay(rig: Rig) -> None:
    """Recorded a second apart, given out 20 s apart: the second counts still, the third is 38 s behind."""
    began = rig.publisher.now()
    recorded_at = iter(rfc3339(began + n) for n in range(1, 100))
    await _is_stale(
        rig,
        "no-beacon",
        lambda p: p.keepalive(issued_at=next(recorded_at)),
        every_s=20.0,
        within_s=20.0 + _WITHIN_S,
    )
    await _recovers(rig)


async def _expired(rig: Rig) -> None:
    p = rig.publisher
    await rig.publish(p.revision + 1, not_after=rfc3339(p.now() + 3))
    await rig.applied(p.revision)
    await rig.line("stale", reason="expired")
    await rig.goes_on()


async def _an_honest_publisher(rig: Rig) -> None:
    if await _says_stale(rig, lambda p: p.keepalive(), _BEAT_S, 40.0) or rig.has_ended:
        raise Unmet(rig.got)


_story = partial(alone, begin=_fresh)

FRESHNESS: tuple[Scene, ...] = (
    _story("an honest publisher", "fresh for 40 s", _an_honest_publisher),
    _story("beacons replayed too slowly", "stale (no-beacon) after 30 s", _slow_replay),
    _story("beacons of an earlier start", "stale (no-beacon) after 30 s", _an_earlier_start),
    _story("a configuration past its not_after", "applied, stale (expired)", _expired),
)
"""What docs/vectors.json does not tell, because it depends on today's date, or goes on for long."""
