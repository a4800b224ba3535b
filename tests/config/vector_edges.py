"""More vectors of single messages: the edges of dates, sizes and fields, and what was moved."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from config_manager.config import strict_json, wire
from config_manager.config.documents.root import KeyRole
from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.trust import MAX_SNAPSHOT_BYTES
from tests.config.vector_documents import (
    AFTER_ROTATION,
    BEACON,
    NOW,
    OTHER_SEAL_KEY,
    ROOT,
    ROOT_2,
    SECRETS,
    SERVICE,
    SNAPSHOT,
    document,
    envelope,
    keyid,
    make_sealed,
    sealing,
    sign,
)
from tests.config.vector_strictness import PLAIN, enveloped, in_config, with_fields, with_text

Edge = tuple[str, str, str | None, dict[str, Any]]
"""Name, message, the refusal's reason (None: taken), what else the case says."""

END_OF_OLD_KEY = "2026-02-04T00:00:00.000Z"
AFTER_ITS_END = "2026-02-04T00:00:00.001Z"


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def update_edges() -> Iterator[Edge]:
    good = sign(wire.CONFIG_UPDATE, PLAIN.to_bytes(), "config").to_bytes().decode()
    old = sign(wire.CONFIG_UPDATE, replace(PLAIN, revision=9).to_bytes(), "config").to_bytes()
    two = {"under": "root-2"}
    yield "at the second of the key's not_after", old.decode(), None, {**two, "now": END_OF_OLD_KEY}
    yield (
        "a moment past the key's not_after", old.decode(), "unknown-key",
        {**two, "now": AFTER_ITS_END},
    )  # fmt: skip
    yield "by a key whose not_after is no time", good, "unknown-key", {"under": "root-dateless"}
    for name, message, reason in _json_edges(good):
        yield name, message, reason, {}
    odd_fields: dict[str, dict[str, Any]] = {
        "previous is a number": {"previous": 1},
        "config is a list": {"config": []},
        "config_epoch is a number": {"config_epoch": 1},
        "issued_at is a number": {"issued_at": 1},
        "not_after is a number": {"not_after": 1},
        "defaulted is null": {"defaulted": None},
        "a number in defaulted": {"defaulted": [1]},
        "a number in critical": {"critical": [1]},
        "content is a number": {"content": 7},
        "content of 41 characters": {"content": "7" * 41},
        "variants is an object": {"variants": {}},
        "9 variants": {"variants": [{"schemas": [], "config": {}, "defaulted": []}] * 9},
        "a variant whose config is a list": {"variants": [{"schemas": [], "config": []}]},
    }
    for name, fields in odd_fields.items():
        yield name, with_fields(**fields), "malformed", {}
    for odd in ("constructor", "n", "payload"):
        yield f"critical names {odd!r}", with_fields(critical=[odd]), "unsupported-critical", {}
    yield "not_after is text, but no time: taken", with_fields(not_after="soon"), None, {}


def _json_edges(good: str) -> Iterator[tuple[str, str, str | None]]:
    yield "text after the message's object", good + "x", "malformed"
    yield "text after the payload's object", with_text("}", "} x"), "malformed"
    yield "a comma before the payload's end", with_text("}", ",}"), "malformed"
    yield "a raw control character", in_config('"a\tb"'), "malformed"
    yield "a leading zero", in_config("01"), "malformed"
    yield "an integer of 400 digits", in_config("1" * 400), "malformed"
    yield "a revision of -0, which is 0", with_text('"revision":7', '"revision":-0'), None
    yield (
        "a message of 32 levels", enveloped(lambda made: made.update(note=_nested(31))), None,
    )  # fmt: skip
    yield (
        "a message of 33 levels", enveloped(lambda made: made.update(note=_nested(32))),
        "malformed",
    )  # fmt: skip
    yield (
        "base64 with four blanks",
        enveloped(lambda made: made.update(payload=made["payload"] + "    ")), "malformed",
    )  # fmt: skip
    yield "correlation_id is no text", enveloped(lambda made: made.update(correlation_id=7)), None


# ── roots ──────────────────────────────────────────────────────────────────────────────────────


def root_edges() -> Iterator[tuple[str, str, int, str, str | None, dict[str, Any]]]:
    """As the arguments of a root's case: name, trusted, version, message, reason, what else."""
    plain = json.loads(ROOT_2.to_bytes())
    good = document("root-2")["envelope"]
    first, config = keyid("root"), keyid("config")

    def odd(*by: str, **changes: Any) -> str:
        payload = strict_json.dumps(plain | changes)
        return sign(wire.ROOT, payload, *by or ("root",)).to_bytes().decode()

    def with_key(key: Any) -> str:
        return odd(keys={**plain["keys"], config: key})

    def with_role(name: str, role: Any) -> str:
        return odd(roles={**plain["roles"], name: role})

    known = plain["keys"][config]
    for name, key in {
        "a key that is no object": "ed25519",
        "a key without keytype": {**known, "keytype": None},
        "a key whose public is no base64": {**known, "public": "?"},
        "a key whose not_after is a number": {**known, "not_after": 1},
    }.items():
        yield name, "root", 2, with_key(key), "malformed", {}
    yield (
        "a key of a type that nobody knows yet, with members that nobody knows", "root", 2,
        with_key({"keytype": "ml-dsa-44", "public": 1, "not_after": 1}), None, {},
    )  # fmt: skip
    yield (
        "a key whose not_after is no time: the root is fine", "root", 2,
        with_key({**known, "not_after": "soon"}), None, {},
    )  # fmt: skip
    yield (
        "a threshold of 2 and one key, named twice", "root", 2,
        with_role("beacon", KeyRole((keyid("beacon"),) * 2, 2)), "malformed", {},
    )  # fmt: skip
    yield (
        "a role that nobody knows, with a threshold of 0", "root", 2,
        with_role("audit", KeyRole((config,), 0)), "malformed", {},
    )  # fmt: skip
    yield "signed by a stranger, and malformed", "root", 2, odd("config", keys=1), "unknown-key", {}
    yield "empty", "root", 2, "", "malformed", {}
    yield "ahead of its turn, and malformed", "root", 3, odd(version=3, keys=1), "malformed", {}
    yield "256 KiB", "root", 2, good, None, {"padded_to": wire.MAX_ENVELOPE_BYTES}
    dated = document("root-dated-2")["envelope"]
    end = "2026-02-01T00:00:00.000Z"
    yield "at the second of the root key's not_after", "root-dated", 2, dated, None, {"now": end}
    yield (
        "a moment past the root key's not_after", "root-dated", 2, dated, "unknown-key",
        {"now": "2026-02-01T00:00:00.001Z"},
    )  # fmt: skip
    yield from _forks(odd, first)


def _forks(odd: Any, first: str) -> Iterator[tuple[str, str, int, str, str | None, dict[str, Any]]]:
    twin = replace(ROOT, issued_at="2026-01-01T00:00:01.000Z").to_bytes()

    def by(*names: str, payload: bytes = twin, kind: str = wire.ROOT) -> str:
        return sign(kind, payload, *names).to_bytes().decode()

    yield "another root 1 than the pinned", "root-2", 1, by("root"), "equivocation", {"trusts": 2}
    yield "another root 1, signed by nobody", "root", 1, by("config"), "unknown-key", {}
    yield (
        "the pinned root, whoever signed it",
        "root",
        1,
        by("config", payload=ROOT.to_bytes()),
        None,
        {},
    )
    yield "the pinned root as another kind", "root", 1, by(
        "root", payload=ROOT.to_bytes(), kind=wire.BEACON), "wrong-type", {}  # fmt: skip
    yield (
        "root 2 on the topic of the pinned",
        "root-2",
        1,
        document("root-2")["envelope"],
        "wrong-topic",
        {},
    )
    stranger = replace(ROOT_2, roles={**ROOT_2.roles, "root": KeyRole((keyid("config-2"),), 1)})
    yield (
        "another root 2, signed by its own keys alone", "root-2", 2,
        by("config-2", payload=stranger.to_bytes()), "unknown-key", {},
    )  # fmt: skip
    assert first in ROOT.keys
    yield "another root 2, malformed", "root-2", 2, odd(keys=1), "malformed", {}


# ── secrets ────────────────────────────────────────────────────────────────────────────────────


def sealed_edges() -> Iterator[Edge]:
    outside = Sealed(SERVICE, "kitchen", 1, 7, {})

    def with_value(ciphertext: bytes, **fields: Any) -> str:
        made = replace(outside, secrets={"password": SealedValue(1, ciphertext)}, **fields)
        return sign(wire.SEALED, made.to_bytes(), "config").to_bytes().decode()

    def boxed(name: str = "password", **moved: Any) -> bytes:
        made = sealing(replace(outside, **moved), name, 1, "hunter2")
        return base64.b64decode(made["ciphertext"])

    def inside(**changes: Any) -> bytes:
        made = sealing(outside, "password", 1, "hunter2", changes=changes)
        return base64.b64decode(made["ciphertext"])

    def on_wire(sealed: Sealed, by: str = "config") -> str:
        return sign(wire.SEALED, sealed.to_bytes(), by).to_bytes().decode()

    for what, ciphertext in {
        "another service": boxed(service="router"),
        "another instance": boxed(instance="cellar"),
        "another epoch": boxed(epoch_seq=2),
        "another revision": boxed(revision=6),
        "another name": boxed("api_key"),
    }.items():
        yield f"a value that was sealed for {what}", with_value(ciphertext), "malformed", {}
    yield "a value with one more member inside", with_value(inside(note="x")), "malformed", {}
    yield "a value that is no text", with_value(inside(value=7)), "malformed", {}
    yield "a value of 47 bytes, too short to open", with_value(bytes(47)), "malformed", {}
    yield (
        "for another service",
        with_value(boxed(service="router"), service="router"),
        "wrong-service",
        {},
    )
    yield (
        "for another service, and it does not open",
        on_wire(replace(make_sealed(to=OTHER_SEAL_KEY), service="router")), "wrong-service", {},
    )  # fmt: skip
    yield "an older epoch, whatever its revision", on_wire(
        replace(outside, epoch_seq=0, revision=99)), "rolled-back", {}  # fmt: skip
    good = envelope("sealed").to_bytes().decode()
    most = wire.MAX_ENVELOPE_BYTES
    yield "256 KiB", good, None, {"padded_to": most}
    yield "256 KiB and a byte", good, "too-large", {"padded_to": most + 1}
    mark = {"epoch_seq": 1, "revision": 2**53 - 1}
    thief = {"kept": mark, "before": "stolen-sealed", "now": AFTER_ROTATION}
    nine = on_wire(make_sealed(9, SECRETS), "config-2")
    yield (
        "behind a thief's mark, while his key is listed",
        nine,
        "rolled-back",
        {**thief, "under": "root-2"},
    )
    yield "a thief's mark goes with the key that he stole", nine, None, {**thief, "under": "root-4"}


# ── beacons ────────────────────────────────────────────────────────────────────────────────────


def beacon_edges() -> Iterator[Edge]:
    """As beacon cases; what does not rise says so."""
    beacon = envelope("beacon").to_object()
    snapshot = envelope("snapshot").to_object()
    on_snapshot: dict[str, Any] = {"topic": wire.SNAPSHOT_TOPIC}
    nothing = {"rises": False}

    def frame(**members: Any) -> str:
        return strict_json.dumps({"type": "health.keepalive", "ts": NOW, **members}).decode()

    def retained(by: str = "beacon", beacon_by: str = "beacon", **services: Any) -> str:
        value = json.loads(SNAPSHOT.to_bytes())
        value["services"] |= services
        made = sign(wire.SNAPSHOT, strict_json.dumps(value), by)
        pulse = sign(wire.BEACON, replace(BEACON, snapshot=made.digest).to_bytes(), beacon_by)
        return strict_json.dumps({**made.to_object(), "beacon": pulse.to_object()}).decode()

    yield "a keepalive whose beacon is null", frame(data={"beacon": None}), None, nothing
    yield "a keepalive without data", frame(), None, nothing
    yield "a keepalive whose data is a list", frame(data=[beacon]), None, nothing
    whole = strict_json.dumps({**snapshot, "beacon": beacon}).decode()
    yield (
        "a snapshot's message of 4 MiB",
        whole,
        None,
        {**on_snapshot, "padded_to": MAX_SNAPSHOT_BYTES},
    )
    yield (
        "a snapshot's message of 4 MiB and a byte", whole, "too-large",
        {**on_snapshot, "padded_to": MAX_SNAPSHOT_BYTES + 1},
    )  # fmt: skip
    yield (
        "a good beacon beside a snapshot by nobody",
        retained("instance"),
        "unknown-key",
        on_snapshot,
    )
    yield (
        "a snapshot beside a beacon by nobody",
        retained("beacon", "instance"),
        "unknown-key",
        on_snapshot,
    )
    yield "a service with three values", retained(router=[1, "0" * 64, 1]), "malformed", on_snapshot
    yield (
        "a service whose revision is text",
        retained(router=["1", "0" * 64]),
        "malformed",
        on_snapshot,
    )
    yield "a service whose digest has no form", retained(router=[1, "new"]), None, on_snapshot
