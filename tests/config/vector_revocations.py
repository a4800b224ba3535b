"""More timelines: what a revocation leaves of what runs, is held, waits, or vouches."""

from __future__ import annotations

from functools import cache
from typing import Any

from config_manager.config import roots, wire
from config_manager.config.documents.root import Root
from tests.config.vector_documents import ROOT, ROOT_3, keyid, public, sign
from tests.config.vector_starts import sealed
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

_ANOTHER_4 = roots.revoked(ROOT_3, keyid("config-2"), None, at="2026-01-07T00:00:00.000Z")
_TWO_BEACONS = roots.rotated(
    ROOT, "beacon", keyid("beacon"), public("beacon-2"),
    at="2026-01-05T00:00:00.000Z", old_until="2026-02-04T00:00:00.000Z",
)  # fmt: skip
_SECOND_BEACON = roots.revoked(_TWO_BEACONS, keyid("beacon"), None, at="2026-01-06T00:00:00.000Z")
_SEVEN = revision_of(7)
_OTHERWISE = revision_of(7, config={"n": "another"})
_WITH_SECRET = revision_of(8, secrets={"api_key": 3})


def _published(root: Root, *by: str) -> Message:
    made = sign(wire.ROOT, root.to_bytes(), *by)
    return {"topic": wire.root_topic(root.version), "message": made.to_bytes().decode()}


@cache
def messages() -> dict[str, Message]:
    """A beacon's times are as in the other stories."""
    return {
        "revision 8, with a secret, signed by config-2": on_topic(_WITH_SECRET, "config-2"),
        "sealed 8, signed by config-2": sealed(8, "config-2", api_key=(3, "sk-newer")),
        "another revision 7, signed by config-2": on_topic(_OTHERWISE, "config-2"),
        "root 4, without config-2": _published(_ANOTHER_4, "root", "root-2"),
        "root 2, with two keys for beacons": _published(_TWO_BEACONS, "root"),
        "root 3, without the first key for beacons": _published(_SECOND_BEACON, "root"),
        "snapshot 7, beacon 11, both signed by beacon-2": with_snapshot(
            _SEVEN, 11, 1, by="beacon-2"
        ),
        "beacon 41 of snapshot 7, signed by beacon-2": alone(_SEVEN, 41, 31, by="beacon-2"),
    }


def timelines() -> list[dict[str, Any]]:
    revoked = "stale (signer-revoked)"
    both = {"trusted": "root-3", "kept": "revision 7, signed by config-2"}
    gone = step(3, "root 4", says=[stale("signer-revoked")], freshness=revoked, trusts=4)
    return [
        story("a start: the signer of what was kept is revoked, and something newer is applied",
              step(1, says=[stale("signer-revoked")], freshness=revoked),
              step(2, "revision 8, signed by config-2", says=[applied(8)], freshness=revoked),
              step(3, "snapshot 8, beacon 21", says=[FRESH], freshness="fresh"),
              trusted="root-4"),
        story("a mark that falls to what runs: the snapshot no longer fits",
              step(1, "revision 8", service_refuses=True, says=[refused("callback")],
                   freshness="unknown"),
              step(2, "snapshot 8, beacon 21", says=[FRESH], freshness="fresh"),
              step(3, "root 4", freshness="fresh", trusts=4),
              step(24, "beacon 43 of snapshot 8", freshness="fresh"),
              step(31, freshness="fresh"),
              step(34, says=[stale("withheld")], freshness="stale (withheld)"), **both),
        story("what runs is signed anew, but is below the mark",
              step(1, "revision 8, signed by config-2", service_refuses=True,
                   says=[refused("callback")], freshness="unknown"),
              gone,
              step(4, "revision 7, signed by config-2", says=[refused("rolled-back")],
                   freshness=revoked),
              trusted="root-3"),
        story("a mark that falls: the snapshot is the floor for a duplicate, too",
              step(1, "revision 8", says=[applied(8)], freshness="unknown"),
              step(2, "snapshot 8, beacon 21", says=[FRESH], freshness="fresh"),
              gone,
              step(4, "revision 7, signed by config-2", says=[refused("rolled-back")],
                   freshness=revoked), **both),
        story("the first start: what is held is forgotten with its signer",
              step(1, "revision 8", freshness="unknown"),
              step(2, "root 4", freshness="unknown", trusts=1),
              step(3, "root 3", freshness="unknown", trusts=1),
              step(4, "root 2", freshness="unknown", trusts=4),
              step(14, freshness="unknown"),
              step(16, says=[stale("no-beacon")], freshness="stale (no-beacon)"),
              step(17, "revision 7, signed by config-2", says=[applied(7)],
                   freshness="stale (no-beacon)"),
              kept=None),
        story("the first start: who signs again what is held vouches for it, too",
              step(1, "revision 7", freshness="unknown"),
              step(2, "root 2", freshness="unknown", trusts=2),
              step(3, "root 3", freshness="unknown", trusts=3),
              step(4, "revision 7, signed by config-2", freshness="unknown"),
              step(5, "root 4, without config-2", freshness="unknown", trusts=4),
              step(14, freshness="unknown"),
              step(16, says=[applied(7), stale("no-beacon")], freshness="stale (no-beacon)"),
              kept=None),
        story("of two that wait for their root, the floor refuses one: the other is taken",
              step(1, "snapshot 7, beacon 11", freshness="unknown"),
              step(1.5, "another revision 7, signed by config-2", freshness="unknown"),
              step(1.625, "revision 7, signed by config-2", freshness="unknown"),
              step(1.75, "root 2", says=[applied(7), FRESH], freshness="fresh", trusts=2),
              step(3, says=[refused("unknown-key")], freshness="fresh"), kept=None),
        story("secrets that only a revoked key vouched for are not taken for what comes then",
              step(1, "sealed 8", freshness="unknown"),
              step(2, "root 4", freshness="unknown", trusts=4),
              step(3, "revision 8, with a secret, signed by config-2", freshness="unknown"),
              step(4, "sealed 8, signed by config-2", says=[applied(8)], freshness="unknown"),
              **both),
        story("what waits for its secrets is forgotten with its signer",
              step(1, "sealed 7", freshness="unknown"),
              step(2, "revision 8, with a secret", freshness="unknown"),
              step(3, "root 4", freshness="unknown", trusts=4),
              step(4, "sealed 8, signed by config-2", freshness="unknown"),
              step(5, "revision 8, with a secret, signed by config-2", says=[applied(8)],
                   freshness="unknown"), **both),
        story("never enrolled: it does not wait, and is offered again once its secrets are here",
              step(1, "revision 8, with a secret", says=[applied(8)], freshness="unknown"),
              step(2, "sealed 7", freshness="unknown"),
              step(3, "sealed 8", says=[applied(8)], freshness="unknown")),
        story("a configuration and its secrets wait for their root: applied once",
              step(0.5, "revision 8, with a secret, signed by config-2", freshness="unknown"),
              step(0.625, "sealed 8, signed by config-2", says=[refused("unknown-key")],
                   freshness="unknown"),
              step(0.75, "root 2", says=[applied(8)], freshness="unknown", trusts=2)),
        story("its root follows within half a second, and does not help: the first reason is said",
              step(0.5, "revision 6, signed by config-2", freshness="unknown"),
              step(0.75, "root 2", freshness="unknown", trusts=2),
              step(3, says=[refused("unknown-key")], freshness="unknown")),
        story("roots in any order: what a later one revokes is not taken in between",
              step(0.5, "root 4, without config-2", freshness="unknown", trusts=1),
              step(1, "root 3", freshness="unknown", trusts=1),
              step(2, "revision 8, signed by config-2", freshness="unknown"),
              step(2.25, "root 2", freshness="unknown", trusts=4),
              step(5, says=[refused("unknown-key")], freshness="unknown")),
        story("who signs the current snapshot again vouches for it; a beacon that does not rise"
              " raises its keys' marks",
              step(1, "snapshot 7, beacon 11", says=[FRESH], freshness="fresh"),
              step(2, "root 2, with two keys for beacons", freshness="fresh", trusts=2),
              step(3, "snapshot 7, beacon 11, both signed by beacon-2", freshness="fresh"),
              step(4, "root 3, without the first key for beacons", freshness="fresh", trusts=3),
              step(5, "beacon 1 of snapshot 7, signed by beacon-2, valid for 60 s",
                   freshness="fresh"),
              step(29, freshness="fresh"),
              step(32, says=[stale("no-beacon")], freshness="stale (no-beacon)"),
              step(33, "beacon 41 of snapshot 7, signed by beacon-2", says=[FRESH],
                   freshness="fresh")),
    ]  # fmt: skip
