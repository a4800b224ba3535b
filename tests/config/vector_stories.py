"""Vectors of what takes time or several messages: beacons, marks by key, replays, freshness."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.world import parse_rfc3339, rfc3339
from tests.config.vector_documents import (
    AFTER_ROTATION,
    BEACON,
    EPOCH,
    INSTANCE,
    NOW,
    SERVICE,
    TOPIC,
    UPDATE,
    document,
    envelope,
    sign,
)

Message = dict[str, str]

# ── single beacons ─────────────────────────────────────────────────────────────────────────────


def _keepalive(beacon: Any) -> str:
    frame = {
        "id": "1", "type": "health.keepalive", "ts": NOW, "source": "config-manager",
        "data": {"ok": True} if beacon is None else {"ok": True, "beacon": beacon},
    }  # fmt: skip
    return strict_json.dumps(frame).decode()


def _beacon(*by: str, **fields: Any) -> Any:
    return sign(wire.BEACON, replace(BEACON, **fields).to_bytes(), *by or ("beacon",)).to_object()


def _odd_beacon(**changes: Any) -> Any:
    value = json.loads(BEACON.to_bytes()) | changes
    left = {key: one for key, one in value.items() if one is not ...}
    return sign(wire.BEACON, strict_json.dumps(left), "beacon").to_object()


def beacon_cases() -> list[dict[str, Any]]:
    """highest: the order of the highest beacon before; rises: whether this one is higher, and counts."""

    def case(name: str, message: str, *, reason: str | None = None, **how: Any) -> dict[str, Any]:
        usual = {"topic": wire.KEEPALIVE_TOPIC, "under": "root", "now": NOW, "highest": [3, 11]}
        return {
            "name": name, **usual, "rises": reason is None, **how, "message": message,
            "reason": reason,
        }  # fmt: skip

    flipped = _beacon()
    flipped["payload"] = flipped["payload"][:7] + "A" + flipped["payload"][8:]
    snapshot = envelope("snapshot").to_object()

    def retained(**members: Any) -> str:
        return strict_json.dumps({**snapshot, **members}).decode()

    on_snapshot = {"topic": wire.SNAPSHOT_TOPIC}
    good = _keepalive(_beacon())
    return [
        case("the next one", good),
        case("the first ever", good, highest=None),
        case("the same one again", good, highest=[3, 12], rises=False),
        case("an older one", good, highest=[3, 13], rises=False),
        case("of an earlier start, whatever its number", _keepalive(_beacon(boot_seq=2, seq=999)),
             rises=False),
        case("the first of a later start", _keepalive(_beacon(boot_seq=4, seq=1))),
        case("a keepalive without a beacon: nothing is proved, nothing refused", _keepalive(None),
             rises=False),
        case("signed by the configuration's key", _keepalive(_beacon("config")),
             reason="unknown-key"),
        case("one bit of the payload", _keepalive(flipped), reason="bad-signature"),
        case("another kind of document", _keepalive(snapshot), reason="wrong-type"),
        case("no envelope", _keepalive("hello"), reason="malformed"),
        case("not JSON", "{", reason="malformed"),
        case("without valid_s", _keepalive(_odd_beacon(valid_s=...)), reason="malformed"),
        case("a number of 2^53", _keepalive(_odd_beacon(seq=2**53)), reason="malformed"),
        case("critical names what we do not know", _keepalive(_odd_beacon(critical=["quorum"])),
             reason="unsupported-critical"),
        case("256 KiB and a byte", good, reason="too-large",
             padded_to=wire.MAX_ENVELOPE_BYTES + 1),
        case("in a snapshot's message", retained(beacon=_beacon()), **on_snapshot),
        case("a snapshot's message without beacon", retained(), reason="malformed", **on_snapshot),
        case("beside another snapshot than it names", retained(beacon=_beacon(snapshot="0" * 64)),
             reason="malformed", **on_snapshot),
    ]  # fmt: skip


# ── marks by key ───────────────────────────────────────────────────────────────────────────────


def marks() -> list[dict[str, Any]]:
    """What a newer root leaves of a mark. The marks are (boot_seq, seq) or (epoch_seq, revision)."""
    end = 2**53 - 1

    def case(
        name: str,
        by_key: Mapping[str, tuple[int, int]],
        listed: list[str],
        left: tuple[int, int] | None,
        threshold: int = 1,
    ) -> dict[str, Any]:
        return {
            "name": name, "by_key": by_key, "highest": max(by_key.values()), "listed": listed,
            "threshold": threshold, "left": left,
        }  # fmt: skip

    return [
        case("nobody left", {"a": (1, 7)}, ["a"], (1, 7)),
        case("a thief's mark goes with the key that he stole", {"a": (1, end), "b": (1, 9)},
             ["b", "c"], (1, 9)),
        case("only the key that left had signed", {"a": (1, end)}, ["b"], None),
        case("the highest that one key of today reached", {"a": (2, 1), "b": (1, 9), "c": (1, 8)},
             ["b", "c"], (1, 9)),
        case("the highest that two keys of today reached", {"a": (2, 1), "b": (1, 9), "c": (1, 8)},
             ["b", "c"], (1, 8), threshold=2),
        case("too few keys of today had signed", {"a": (2, 1), "b": (1, 9)},
             ["b", "c"], None, threshold=2),
        case("nobody of those who signed left: the mark stands, whatever the threshold",
             {"b": (1, 9)}, ["b", "c"], (1, 9), threshold=2),
    ]  # fmt: skip


# ── replays ────────────────────────────────────────────────────────────────────────────────────


def replay() -> list[dict[str, Any]]:
    """heard: [when it came, in monotonic seconds; boot_seq; seq; issued_at, in seconds after some
    moment; whether it counts]. valid_s is 30 throughout."""

    def case(name: str, *heard: tuple[float, int, int, float, bool]) -> dict[str, Any]:
        return {"name": name, "heard": heard}

    return [
        case("at the speed at which they were made",
             (0, 1, 1, 0, True), (10, 1, 2, 10, True), (20, 1, 3, 20, True)),
        case("at half that speed: 10 s behind with each",
             *((20 * n, 1, 1 + n, 10 * n, n < 4) for n in range(6))),
        case("behind, and caught up",
             (0, 1, 1, 0, True), (45, 1, 2, 10, False), (50, 1, 6, 50, True)),
        case("ahead by a day, which is no credit",
             (0, 1, 1, 0, True), (10, 1, 2, 86410, True), (45, 1, 3, 86415, True),
             (80, 1, 4, 86425, False)),
        case("the publisher's clock stands: its heartbeats count",
             (0, 1, 1, 0, True), (10, 1, 2, 0, True), (60, 1, 7, 0, True), (100, 1, 8, 0, True)),
        case("the publisher's clock stands, and too few heartbeats came",
             (0, 1, 1, 0, True), (10, 1, 2, 0, True), (60, 1, 3, 0, False)),
        case("a restart forgives, three times an hour",
             (0, 1, 1, 0, True),
             (100, 2, 1, 1, True), (200, 3, 1, 2, True), (300, 4, 1, 3, True),
             (400, 5, 1, 4, False), (3701, 6, 1, 5, True)),
        case("a clock set back while as many heartbeats came as the time took",
             (0, 1, 1, 1000, True), (10, 1, 2, 1010, True), (60, 1, 7, 1015, True)),
        case("beacons of a busy minute, given out slowly: forgiven three times",
             *((10 * n, 1, 1 + n, n, n < 16) for n in range(18))),
        case("only the lag that has an excuse is forgiven",
             (0, 1, 1, 0, True), (40, 1, 2, 1, False), (60, 2, 1, 2, False)),
    ]  # fmt: skip


# ── timelines ──────────────────────────────────────────────────────────────────────────────────


def _update(revision: int, **fields: Any) -> ConfigUpdate:
    values = {"revision": revision, "secrets": {}, "defaulted": (), "config": {"n": revision}}
    return replace(UPDATE, **{**values, **fields})


_GONE = _update(8, deleted=True, config={})
_EXPIRES = _update(8, not_after="2026-01-02T03:05:00.000Z")
_THIEF = _update(2**53 - 1)


def _on_topic(update: ConfigUpdate, *by: str) -> Message:
    made = sign(wire.CONFIG_UPDATE, update.to_bytes(), *by or ("config",))
    return {"topic": TOPIC, "message": made.to_bytes().decode()}


def _snapshot(held: ConfigUpdate | None) -> wire.Envelope:
    listed = {} if held is None else {SERVICE: (held.revision, wire.digest(held.to_bytes()))}
    snapshot = Snapshot(EPOCH, 1, held.revision if held is not None else 0, listed)
    return sign(wire.SNAPSHOT, snapshot.to_bytes(), "beacon")


def _pulse(held: ConfigUpdate | None, seq: int, at: float, root_version: int = 1) -> Any:
    issued_at = rfc3339(parse_rfc3339(NOW) + at)
    revision = held.revision if held is not None else 0
    beacon = Beacon(
        EPOCH, 1, revision, _snapshot(held).digest, root_version, "0" * 64, 3, seq, issued_at, 30
    )
    return sign(wire.BEACON, beacon.to_bytes(), "beacon").to_object()


def _with_snapshot(held: ConfigUpdate | None, seq: int, at: float, **of_beacon: Any) -> Message:
    value = {**_snapshot(held).to_object(), "beacon": _pulse(held, seq, at, **of_beacon)}
    return {"topic": wire.SNAPSHOT_TOPIC, "message": strict_json.dumps(value).decode()}


def _alone(held: ConfigUpdate | None, seq: int, at: float, **of_beacon: Any) -> Message:
    return {
        "topic": wire.KEEPALIVE_TOPIC,
        "message": _keepalive(_pulse(held, seq, at, **of_beacon)),
    }


def _root(name: str) -> Message:
    made = document(name)
    return {"topic": made["topic"], "message": made["envelope"]}


@cache
def timeline_messages() -> dict[str, Message]:
    """ "snapshot 7, beacon 12" names revision 7 of the service; a beacon's number is its seq, and it was
    issued so many seconds after the timelines begin as its number is above 10."""
    seven, eight = _update(7), _update(8)
    return {
        "revision 6": _on_topic(_update(6)),
        "revision 7": _on_topic(seven),
        "revision 8": _on_topic(eight),
        "revision 8, deleted": _on_topic(_GONE),
        "revision 8, with an end": _on_topic(_EXPIRES),
        "revision 7, signed by config-2": _on_topic(seven, "config-2"),
        "revision 8, signed by config-2": _on_topic(eight, "config-2"),
        "revision 2^53 - 1": _on_topic(_THIEF),
        "snapshot 7, beacon 11": _with_snapshot(seven, 11, 1),
        "snapshot 8, beacon 21": _with_snapshot(eight, 21, 11),
        "snapshot 8, beacon 53": _with_snapshot(eight, 53, 43),
        "snapshot 8 deleted, beacon 21": _with_snapshot(_GONE, 21, 11),
        "snapshot without the service, beacon 11": _with_snapshot(None, 11, 1),
        "snapshot without the service, beacon 21": _with_snapshot(None, 21, 11),
        "beacon 21 of snapshot 7": _alone(seven, 21, 11),
        "beacon 60 of snapshot 7": _alone(seven, 60, 50),
        "beacon 43 of snapshot 8": _alone(eight, 43, 33),
        "beacon 43 of snapshot 8 deleted": _alone(_GONE, 43, 33),
        "beacon 43 of the snapshot without the service": _alone(None, 43, 33),
        "snapshot 7, beacon 11, of root 2": _with_snapshot(seven, 11, 1, root_version=2),
        "beacon 31 of snapshot 7, of root 2": _alone(seven, 31, 21, root_version=2),
        "root 2": _root("root-2"),
        "root 3": _root("root-3"),
        "root 4": _root("root-4"),
    }


def _step(at: float, gives: str | None = None, **what: Any) -> dict[str, Any]:
    given = {} if gives is None else {"gives": gives}
    return {"at": at, **given, "says": [], **what}


def _applied(revision: int) -> dict[str, Any]:
    return {"event": "applied", "revision": revision}


def _refused(reason: str) -> dict[str, str]:
    return {"event": "refused", "reason": reason}


def _stale(reason: str) -> dict[str, str]:
    return {"event": "stale", "reason": reason}


_FRESH = {"event": "fresh"}
_DELETED = {"event": "deleted", "revision": 8}


def timelines() -> list[dict[str, Any]]:
    """kept: what it ran before it was started again; None: this is its first start. trusted: the newest
    root that it kept, with those before it."""

    def story(name: str, *steps: dict[str, Any], **how: Any) -> dict[str, Any]:
        usual = {
            "service": SERVICE, "instance": INSTANCE, "trusted": "root", "kept": "revision 7",
            "begins": NOW,
        }  # fmt: skip
        return {"name": name, **usual, **how, "steps": steps}

    first = _step(1, "snapshot 7, beacon 11", says=[_FRESH], freshness="fresh")
    return [
        story("fresh, no beacon for 30 s, and fresh again",
              _step(0, freshness="unknown"), first,
              _step(11.5, "beacon 21 of snapshot 7", freshness="fresh"),
              _step(40, freshness="fresh"),
              _step(43, says=[_stale("no-beacon")], freshness="stale (no-beacon)"),
              _step(50.5, "beacon 60 of snapshot 7", says=[_FRESH], freshness="fresh")),
        story("no beacon ever: 30 s after a start with something kept",
              _step(28, freshness="unknown"),
              _step(32, says=[_stale("no-beacon")], freshness="stale (no-beacon)")),
        story("a beacon that does not rise proves nothing", _step(
                  1, "beacon 21 of snapshot 7", freshness="unknown"),
              _step(20, "snapshot 7, beacon 11", says=[_FRESH], freshness="fresh"),
              _step(28, "beacon 21 of snapshot 7", freshness="fresh"),
              _step(33, says=[_stale("no-beacon")], freshness="stale (no-beacon)")),
        story("deleted: the snapshot names the tombstone, which was seen", first,
              _step(12, "revision 8, deleted", says=[_DELETED], freshness="fresh"),
              _step(12.5, "snapshot 8 deleted, beacon 21", freshness="fresh"),
              _step(34, "beacon 43 of snapshot 8 deleted", freshness="fresh"),
              _step(60, freshness="fresh")),
        story("deleted: the snapshot no longer lists the service", first,
              _step(12, "revision 8, deleted", says=[_DELETED], freshness="fresh"),
              _step(12.5, "snapshot without the service, beacon 21", freshness="fresh"),
              _step(34, "beacon 43 of the snapshot without the service", freshness="fresh"),
              _step(60, freshness="fresh")),
        story("an older snapshot comes again, and does not count", first,
              _step(12, "revision 8", says=[_applied(8)], freshness="fresh"),
              _step(12.5, "snapshot 8, beacon 21", freshness="fresh"),
              _step(13, "snapshot 7, beacon 11", freshness="fresh"),
              _step(34, "beacon 43 of snapshot 8", freshness="fresh"),
              _step(60, freshness="fresh")),
        story("refused by the service: the snapshot names what it refused", first,
              _step(12, "revision 8", service_refuses=True,
                    says=[_refused("callback")], freshness="fresh"),
              _step(12.5, "snapshot 8, beacon 21", freshness="fresh"),
              _step(34, "beacon 43 of snapshot 8", freshness="fresh"),
              _step(60, freshness="fresh")),
        story("withheld: the snapshot names what never came", first,
              _step(12, "snapshot 8, beacon 21", freshness="fresh"),
              _step(34, "beacon 43 of snapshot 8", freshness="fresh"),
              _step(40, freshness="fresh"),
              _step(44, "snapshot 8, beacon 53", says=[_stale("withheld")],
                    freshness="stale (withheld)"),
              _step(45, "revision 8", says=[_applied(8), _FRESH], freshness="fresh")),
        story("withheld: the snapshot that the beacons name never came", first,
              _step(11.5, "beacon 21 of snapshot 7", freshness="fresh"),
              _step(34, "beacon 43 of snapshot 8", freshness="fresh"),
              _step(60, freshness="fresh"),
              # the beacon is 31 s old as well: that it is silent comes first
              _step(66, says=[_stale("no-beacon")], freshness="stale (no-beacon)")),
        story("withheld: the snapshot no longer lists the service", first,
              _step(12, "snapshot without the service, beacon 21", freshness="fresh"),
              _step(34, "beacon 43 of the snapshot without the service", freshness="fresh"),
              _step(44, says=[_stale("withheld")], freshness="stale (withheld)")),
        story("root-withheld, until the root comes",
              _step(1, "snapshot 7, beacon 11, of root 2", freshness="unknown"),
              _step(22, "beacon 31 of snapshot 7, of root 2", freshness="unknown"),
              _step(33, says=[_stale("root-withheld")], freshness="stale (root-withheld)"),
              _step(34, "root 2", says=[_FRESH], freshness="fresh", trusts=2)),
        story("signer-revoked, until it comes signed by another", first,
              _step(2, "root 2", freshness="fresh", trusts=2),
              _step(3, "root 3", freshness="fresh", trusts=3),
              _step(4, "root 4", says=[_stale("signer-revoked")],
                    freshness="stale (signer-revoked)", trusts=4),
              _step(5, "revision 7, signed by config-2", says=[_FRESH], freshness="fresh")),
        story("expired comes before every other reason", first,
              _step(12, "revision 8, with an end", says=[_applied(8)], freshness="fresh"),
              _step(33, says=[_stale("no-beacon")], freshness="stale (no-beacon)"),
              _step(52, says=[_stale("expired")], freshness="stale (expired)")),
        story("a clock that stands in 1970 is said, and is no reason to be stale", first | {
                  "freshness": "clock-unknown"}, begins="1970-01-01T00:01:00.000Z"),
        story("the first start: the snapshot is the floor",
              _step(0, freshness="unknown"),
              _step(1, "revision 6", freshness="unknown"),
              _step(2, "snapshot 7, beacon 11", says=[_refused("rolled-back")],
                    freshness="unknown"),
              _step(3, "revision 7", says=[_applied(7), _FRESH], freshness="fresh"), kept=None),
        story("the first start: what came waits for the snapshot",
              _step(0, freshness="unknown"),
              _step(1, "revision 7", freshness="unknown"),
              _step(2, "snapshot 7, beacon 11", says=[_applied(7), _FRESH], freshness="fresh"),
              kept=None),
        story("the first start: without a snapshot it waits for 15 s",
              _step(0, freshness="unknown"),
              _step(1, "revision 7", freshness="unknown"),
              _step(14, freshness="unknown"),
              _step(16, says=[_applied(7), _stale("no-beacon")], freshness="stale (no-beacon)"),
              kept=None),
        story("the first start: the publisher holds nothing for the service",
              _step(0, freshness="unknown"),
              _step(1, "snapshot without the service, beacon 11", freshness="unknown"),
              _step(12, "snapshot without the service, beacon 21", freshness="unknown"),
              _step(34, "beacon 43 of the snapshot without the service", freshness="unknown"),
              kept=None),
        story("signed by a key whose root follows within half a second",
              _step(0, freshness="unknown"),
              _step(0.5, "revision 8, signed by config-2", freshness="unknown"),
              _step(0.75, "root 2", says=[_applied(8)], freshness="unknown", trusts=2)),
        story("signed by a key whose root follows later: refused, and judged again",
              _step(0, freshness="unknown"),
              _step(0.5, "revision 8, signed by config-2", freshness="unknown"),
              _step(3, says=[_refused("unknown-key")], freshness="unknown"),
              _step(4, "root 2", says=[_applied(8)], freshness="unknown", trusts=2)),
        story("a thief's mark goes with the key that he stole",
              _step(1, "revision 2^53 - 1", service_refuses=True, says=[_refused("callback")],
                    freshness="unknown", trusts=2),
              _step(3, "revision 8, signed by config-2", says=[_refused("rolled-back")],
                    freshness="unknown"),
              _step(4, "root 3", freshness="unknown", trusts=3),
              _step(5, "root 4", says=[_applied(8)], freshness="unknown", trusts=4),
              trusted="root-2", kept="revision 7, signed by config-2", begins=AFTER_ROTATION),
        story("roots in any order",
              _step(0, freshness="unknown"),
              _step(1, "root 4", freshness="unknown", trusts=1),
              _step(2, "root 3", freshness="unknown", trusts=1),
              _step(3, "root 2", says=[_stale("signer-revoked")],
                    freshness="stale (signer-revoked)", trusts=4)),
    ]  # fmt: skip
