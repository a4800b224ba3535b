"""More timelines: what a start finds, what waits, keys that are revoked, beacons that lag."""

from __future__ import annotations

from functools import cache
from typing import Any

from config_manager.config import roots, wire
from tests.config.vector_documents import (
    AFTER_OLD_KEY,
    ROOT,
    SEALED_TOPIC,
    keyid,
    make_sealed,
    public,
    sign,
)
from tests.config.vector_stories import (
    FRESH,
    Message,
    alone,
    applied,
    on_topic,
    refused,
    revision_of,
    stale,
    step,
    story,
    with_snapshot,
)

ANOTHER_BEACON = roots.rotated(
    ROOT, "beacon", keyid("beacon"), public("beacon-2"),
    at="2026-01-02T03:04:10.000Z", old_until=None,
)  # fmt: skip
_SEVEN, _EIGHT = revision_of(7), revision_of(8)
_OTHERWISE = revision_of(7, config={"n": "another"})


def sealed(revision: int, by: str = "config", **secrets: tuple[int, str]) -> Message:
    made = make_sealed(revision, secrets)
    message = sign(wire.SEALED, made.to_bytes(), by).to_bytes().decode()
    return {"topic": SEALED_TOPIC, "message": message}


@cache
def messages() -> dict[str, Message]:
    """Where a name says no time, a beacon was issued so many seconds after the timelines begin as its number is above 10."""
    root = sign(wire.ROOT, ANOTHER_BEACON.to_bytes(), "root").to_bytes().decode()
    return {
        "revision 6, signed by config-2": on_topic(revision_of(6), "config-2"),
        "revision 9, signed by config-2": on_topic(revision_of(9), "config-2"),
        "another revision 7": on_topic(_OTHERWISE),
        "revision 8, with a secret": on_topic(revision_of(8, secrets={"api_key": 3})),
        "sealed 7": sealed(7, api_key=(2, "sk-example")),
        "sealed 8": sealed(8, api_key=(3, "sk-newer")),
        "sealed: empty": {"topic": SEALED_TOPIC, "message": ""},
        "another snapshot 7, beacon 21": with_snapshot(_OTHERWISE, 21, 11),
        "beacon 43 of the other snapshot 7": alone(_OTHERWISE, 43, 33),
        "snapshot 7, beacon 31": with_snapshot(_SEVEN, 31, 21),
        "snapshot 8, beacon 41": with_snapshot(_EIGHT, 41, 31),
        "snapshot 7, beacon 11, valid for 60 s": with_snapshot(_SEVEN, 11, 1, valid_s=60),
        "beacon 12, issued at 11 s": alone(_SEVEN, 12, 11),
        "beacon 13, issued at 21 s": alone(_SEVEN, 13, 21),
        "beacon 16, issued at 50 s": alone(_SEVEN, 16, 50),
        "snapshot 7, beacon 2^53 - 1, issued at 1 s, valid for 60 s": with_snapshot(
            _SEVEN, 2**53 - 1, 1, valid_s=60
        ),
        "snapshot 7, beacon 1, signed by beacon-2, issued at 2 s": with_snapshot(
            _SEVEN, 1, 2, by="beacon-2"
        ),
        "beacon 1 of snapshot 7, signed by beacon-2, valid for 60 s": alone(
            _SEVEN, 1, 3, by="beacon-2", valid_s=60
        ),
        "snapshot 7, beacon 11, valid for 10 s": with_snapshot(_SEVEN, 11, 1, valid_s=10),
        "snapshot 9, beacon 31": with_snapshot(revision_of(9), 31, 21),
        "root 2, with another key for beacons": {"topic": wire.root_topic(2), "message": root},
    }


def timelines() -> list[dict[str, Any]]:
    first = step(1, "snapshot 7, beacon 11", says=[FRESH], freshness="fresh")
    nothing = {"kept": None}
    revoked = "stale (signer-revoked)"
    return [
        story("a start: the signer of what was kept is revoked, and the snapshot is the floor",
              step(1, says=[stale("signer-revoked")], freshness=revoked),
              step(2, "snapshot 7, beacon 11", freshness=revoked),
              step(3, "revision 6, signed by config-2", says=[refused("rolled-back")],
                   freshness=revoked),
              step(4, "revision 7, signed by config-2", says=[FRESH], freshness="fresh"),
              trusted="root-4"),
        story("a start: the key of what was kept is past its date",
              step(1, says=[stale("signer-revoked")], freshness=revoked),
              step(2, "snapshot 7, beacon 11", freshness=revoked),
              step(3, "revision 7", says=[refused("unknown-key")], freshness=revoked),
              step(4, "revision 7, signed by config-2", says=[FRESH], freshness="fresh"),
              trusted="root-2", begins=AFTER_OLD_KEY),
        story("the first start: other content than the snapshot names",
              step(1, "another revision 7", freshness="unknown"),
              step(2, "snapshot 7, beacon 11", says=[refused("equivocation")],
                   freshness="unknown"),
              step(4, "revision 7", says=[applied(7), FRESH], freshness="fresh"), **nothing),
        story("the first start: the highest of what came waits for the snapshot",
              step(1, "revision 6", freshness="unknown"),
              step(2, "revision 8", freshness="unknown"),
              step(3, "revision 7", says=[refused("rolled-back")], freshness="unknown"),
              step(4, "snapshot 8, beacon 21", says=[applied(8), FRESH], freshness="fresh"),
              **nothing),
        story("the first start: a snapshot without the service is no floor, and ends the wait",
              step(1, "revision 7", freshness="unknown"),
              step(2, "snapshot without the service, beacon 11", says=[applied(7)],
                   freshness="unknown"), **nothing),
        story("the signers of a duplicate vouch for the mark",
              step(1, "revision 8", says=[applied(8)], freshness="unknown"),
              step(2, "revision 8, signed by config-2", freshness="unknown"),
              step(3, "root 4", freshness="unknown", trusts=4),
              step(4, "revision 7, signed by config-2", says=[refused("rolled-back")],
                   freshness="unknown"),
              trusted="root-3", kept="revision 7, signed by config-2"),
        story("refused by the service: not offered again before the next start",
              step(1, "revision 8", service_refuses=True, says=[refused("callback")],
                   freshness="unknown"),
              step(2, "revision 8", freshness="unknown")),
        story("of several that wait for their root, the highest",
              step(0.5, "revision 8, signed by config-2", freshness="unknown"),
              step(0.625, "revision 9, signed by config-2", freshness="unknown"),
              step(0.75, "root 2", says=[applied(9)], freshness="unknown", trusts=2),
              step(3, freshness="unknown")),
        story("a configuration waits for its secrets; an empty message takes none away",
              step(1, "sealed 7", freshness="unknown"),
              step(2, "revision 8, with a secret", freshness="unknown"),
              step(3, "sealed: empty", freshness="unknown"),
              step(4, "sealed 8", says=[applied(8)], freshness="unknown")),
        story("withheld: the snapshot lists the revision with another digest", first,
              step(12, "another snapshot 7, beacon 21", freshness="fresh"),
              step(34, "beacon 43 of the other snapshot 7", freshness="fresh"),
              step(44, says=[stale("withheld")], freshness="stale (withheld)")),
        story("withheld: the 30 s begin anew if the snapshot fitted in between", first,
              step(12, "snapshot 8, beacon 21", freshness="fresh"),
              step(22, "snapshot 7, beacon 31", freshness="fresh"),
              step(32, "snapshot 8, beacon 41", freshness="fresh"),
              step(44, "snapshot 8, beacon 53", freshness="fresh"),
              step(61, freshness="fresh"),
              step(63, says=[stale("withheld")], freshness="stale (withheld)")),
        story("a beacon that is valid for 60 s",
              step(1, "snapshot 7, beacon 11, valid for 60 s", says=[FRESH], freshness="fresh"),
              step(60, freshness="fresh"),
              step(62, says=[stale("no-beacon")], freshness="stale (no-beacon)")),
        story("beacons that were recorded, given out slowly: the one that lags is not heard", first,
              step(28, "beacon 12, issued at 11 s", freshness="fresh"),
              step(55, "beacon 13, issued at 21 s", freshness="fresh"),
              step(57, freshness="fresh"),
              step(59, says=[stale("no-beacon")], freshness="stale (no-beacon)"),
              step(62, "beacon 16, issued at 50 s", says=[FRESH], freshness="fresh")),
        story("a beacon that is valid for 10 s: 30 s",
              step(1, "snapshot 7, beacon 11, valid for 10 s", says=[FRESH], freshness="fresh"),
              step(30, freshness="fresh"),
              step(32, says=[stale("no-beacon")], freshness="stale (no-beacon)")),
        story("the beacon's key is revoked: its mark goes with it, and it is heard no more",
              step(10, "snapshot 7, beacon 2^53 - 1, issued at 1 s, valid for 60 s", says=[FRESH],
                   freshness="fresh"),
              step(12, "root 2, with another key for beacons", freshness="fresh", trusts=2),
              step(13, "beacon 21 of snapshot 7", says=[refused("unknown-key")],
                   freshness="fresh"),
              step(39, freshness="fresh"),
              step(41, says=[stale("no-beacon")], freshness="stale (no-beacon)"),
              # it would lag behind the beacon before; but that is none any more
              step(42, "snapshot 7, beacon 1, signed by beacon-2, issued at 2 s", says=[FRESH],
                   freshness="fresh")),
        story("the beacon's key is revoked: its snapshot has to come anew", first,
              step(2, "root 2, with another key for beacons", freshness="fresh", trusts=2),
              step(3, "beacon 1 of snapshot 7, signed by beacon-2, valid for 60 s",
                   freshness="fresh"),
              step(35, says=[stale("withheld")], freshness="stale (withheld)")),
        story("a mark that falls makes the snapshot the floor",
              step(1, "snapshot 8, beacon 21", freshness="unknown"),
              step(2, "root 4", says=[stale("signer-revoked")], freshness=revoked, trusts=4),
              step(3, "revision 6, signed by config-2", says=[refused("rolled-back")],
                   freshness=revoked), trusted="root-3"),
        story("the first start: no floor once one was taken",
              step(1, "snapshot 7, beacon 11", freshness="unknown"),
              step(2, "revision 7", says=[applied(7), FRESH], freshness="fresh"),
              step(3, "snapshot 9, beacon 31", freshness="fresh"),
              step(4, "revision 8", says=[applied(8)], freshness="fresh"), **nothing),
        story("an ordinary start has no floor",
              step(1, "snapshot 9, beacon 31", freshness="unknown"),
              step(2, "revision 8", says=[applied(8)], freshness="unknown")),
    ]  # fmt: skip
