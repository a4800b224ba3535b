"""The attack list: what a thief, a stranger, a neighbour or a hostile broker could send, and why it is refused.

Each message is meant for a client that runs the publisher's newest revision and trusts root 1 alone. A
forged root takes the publisher's own configuration key away: a client that believed it would refuse the
next honest configuration.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass

from config_manager.api.conformance.publisher import Publisher, changed, signatures_of
from config_manager.client.testing.signed_documents import key_id
from config_manager.config import strict_json, wire

FARTHEST = strict_json.MAX_INTEGER
_TOO_LARGE = 300_000


@dataclass(frozen=True)
class Attack:
    """reason: of its refusal. topic: the configuration's own if None."""

    name: str
    reason: str
    message: Callable[[Publisher], bytes]
    topic: str | None = None


# ── messages ───────────────────────────────────────────────────────────────────────────────────


def _next(p: Publisher) -> int:
    return p.revision + 1


def _claimed(p: Publisher) -> bytes:
    """Signed by a stranger under the right key's id."""
    theirs = p.update(_next(p), p.stranger)
    signature = {**signatures_of(theirs)[0], "keyid": key_id(p.config_key)}
    return changed(theirs, signatures=[signature])


def _swapped(p: Publisher) -> bytes:
    other = json.loads(p.update(p.revision + 2))
    return changed(p.update(_next(p)), payload=other["payload"])


def _cut_signature(p: Publisher) -> bytes:
    message = p.update(_next(p))
    signature = signatures_of(message)[0]
    short = base64.b64encode(base64.b64decode(signature["sig"])[:-1]).decode()
    return changed(message, signatures=[{**signature, "sig": short}])


def _relabelled(p: Publisher) -> bytes:
    """Signed as a sealed document, said to be a configuration."""
    signed = p.signed(p.payload(_next(p)), kind=wire.SEALED)
    return changed(signed.to_bytes(), payloadType=wire.CONFIG_UPDATE)


def _five_signatures(p: Publisher) -> bytes:
    message = p.update(_next(p))
    return changed(message, signatures=signatures_of(message) * 5)


def _spelt(p: Publisher, before: str, after: str) -> bytes:
    """Signed by the right key, in a spelling that readers take differently."""
    text = p.payload(_next(p)).decode()
    assert before in text
    return p.signed(text.replace(before, after, 1).encode()).to_bytes()


def _in_config(member: str) -> Callable[[Publisher], bytes]:
    return lambda p: _spelt(p, '"config":{', '"config":{' + member + ",")


def _of_another_snapshot(p: Publisher) -> bytes:
    other = json.loads(p.snapshot(revision=FARTHEST))
    return changed(p.snapshot(), beacon=other["beacon"])


def _one_key_twice(p: Publisher) -> bytes:
    message = p.update(_next(p), p.config_key)
    return changed(message, signatures=signatures_of(message) * 2)


def _one_key_under_two_names(p: Publisher) -> bytes:
    message = p.update(_next(p), p.config_key)
    signature = signatures_of(message)[0]
    other = {**signature, "keyid": key_id(p.new_config_key)}
    return changed(message, signatures=[signature, other])


# ── by what they try ───────────────────────────────────────────────────────────────────────────

_SIGNERS = (
    Attack("unsigned", "malformed", lambda p: changed(p.update(_next(p)), signatures=None)),
    Attack(
        "an empty list of signatures",
        "malformed",
        lambda p: changed(p.update(_next(p)), signatures=[]),
    ),
    Attack("a stranger's key", "unknown-key", lambda p: p.update(_next(p), p.stranger)),
    Attack("a stranger's signature under the right key's id", "bad-signature", _claimed),
    Attack(
        "the beacon's key on a configuration",
        "unknown-key",
        lambda p: p.update(_next(p), p.beacon_key),
    ),
    Attack(
        "the root's key on a configuration",
        "unknown-key",
        lambda p: p.update(_next(p), p.root_key),
    ),
    Attack("a key past its not_after", "unknown-key", lambda p: p.update(_next(p), p.retired)),
    Attack("content swapped under a signature", "bad-signature", _swapped),
    Attack("a signature a byte short", "bad-signature", _cut_signature),
    Attack("five signatures of one key", "malformed", _five_signatures),
)

_CONTENTS = (
    Attack(
        "a snapshot's type",
        "wrong-type",
        lambda p: p.signed(p.payload(_next(p)), kind=wire.SNAPSHOT).to_bytes(),
    ),
    Attack("a genuine snapshot in a configuration's place", "wrong-type", lambda p: p.snapshot()),
    Attack("a genuine root in a configuration's place", "wrong-type", lambda p: p.root()),
    Attack("another type's signature under a configuration's label", "bad-signature", _relabelled),
    Attack("no type at all", "malformed", lambda p: changed(p.update(_next(p)), payloadType=7)),
    Attack(
        "another service's message",
        "wrong-service",
        lambda p: p.update(_next(p), service="router", topic=wire.config_topic("router")),
    ),
    Attack(
        "another topic's message",
        "wrong-topic",
        lambda p: p.update(_next(p), topic=wire.config_topic("router")),
    ),
    Attack(
        "a field that must be known and is not",
        "unsupported-critical",
        lambda p: p.odd({"critical": ["only_at_night"], "only_at_night": True}),
    ),
    Attack("no configuration inside", "malformed", lambda p: p.odd({"config": None})),
)

_ORDER = (
    Attack("a rollback", "rolled-back", lambda p: p.update(4)),
    Attack("a replay of yesterday's", "rolled-back", lambda p: p.update(p.revision - 1)),
    Attack(
        "an older epoch with a higher revision",
        "rolled-back",
        lambda p: p.update(p.revision + 50, epoch_seq=0),
    ),
    Attack(
        "an equal revision with other content",
        "equivocation",
        lambda p: p.update(p.revision, config={"evil": True}),
    ),
    Attack(
        "an equal revision that deletes",
        "equivocation",
        lambda p: p.update(p.revision, deleted=True, config={}),
    ),
)

_NUMBERS = (
    Attack("2^53 as the revision", "malformed", lambda p: p.odd({"revision": 2**53})),
    Attack("2^63 as the revision", "malformed", lambda p: p.odd({"revision": 2**63})),
    Attack("2^53 as the epoch", "malformed", lambda p: p.odd({"epoch_seq": 2**53})),
    Attack("a negative revision", "malformed", lambda p: p.odd({"revision": -1})),
    Attack("true as the revision", "malformed", lambda p: p.odd({"revision": True})),
    Attack("text as the revision", "malformed", lambda p: p.odd({"revision": "99"})),
    Attack(
        "a revision of a hundred thousand digits",
        "malformed",
        lambda p: p.signed(b'{"revision":' + b"9" * 100_000 + b"}").to_bytes(),
    ),
)

_BYTES = (
    Attack(
        "too large",
        "too-large",
        lambda p: p.update(_next(p), config={"x": "y" * _TOO_LARGE}),
    ),
    Attack("empty", "malformed", lambda _: b""),
    Attack("not JSON", "malformed", lambda _: b"whisper_model=base.en"),
    Attack("not UTF-8", "malformed", lambda _: b'{"payloadType":"\xff"}'),
    Attack("100,000 levels deep", "malformed", lambda _: b'{"a":' + b"[" * 100_000),
    Attack(
        "200 levels deep, and signed",
        "malformed",
        _in_config('"deep":' + "[" * 200 + "]" * 200),
    ),
    Attack("a list", "malformed", lambda _: b"[]"),
    Attack("the envelope cut in half", "malformed", lambda p: p.update(_next(p))[:150]),
    Attack("broken base64", "malformed", lambda p: changed(p.update(_next(p)), payload="%")),
    Attack(
        "the same member twice",
        "malformed",
        lambda p: _spelt(p, '"config":', '"config":{"evil":true},"config":'),
    ),
    Attack("NaN", "malformed", _in_config('"x":NaN')),
    Attack("a lone surrogate", "malformed", _in_config('"x":"\\ud800"')),
)

_BEACONS = (
    Attack(
        "a beacon by the configuration's key",
        "unknown-key",
        lambda p: p.keepalive(by=p.config_key),
        wire.KEEPALIVE_TOPIC,
    ),
    Attack(
        "a beacon by a stranger",
        "unknown-key",
        lambda p: p.keepalive(by=p.stranger),
        wire.KEEPALIVE_TOPIC,
    ),
    Attack("a keepalive that is no JSON", "malformed", lambda _: b"alive!", wire.KEEPALIVE_TOPIC),
    Attack(
        "a keepalive too large",
        "too-large",
        lambda _: b" " * _TOO_LARGE,
        wire.KEEPALIVE_TOPIC,
    ),
    Attack(
        "a snapshot with another snapshot's beacon",
        "malformed",
        _of_another_snapshot,
        wire.SNAPSHOT_TOPIC,
    ),
    Attack(
        "a snapshot without a beacon",
        "malformed",
        lambda p: changed(p.snapshot(), beacon=None),
        wire.SNAPSHOT_TOPIC,
    ),
)

_ROOTS = (
    Attack(
        "a root by a stranger",
        "unknown-key",
        lambda p: p.root(2, p.stranger, root=(p.stranger,), config=(p.stranger,)),
        wire.root_topic(2),
    ),
    Attack(
        "a root by the configuration's key",
        "unknown-key",
        lambda p: p.root(2, p.config_key, config=(p.stranger,)),
        wire.root_topic(2),
    ),
    Attack(
        "a root whose new root key did not sign",
        "unknown-key",
        lambda p: p.root(2, root=(p.stranger,), config=(p.stranger,)),
        wire.root_topic(2),
    ),
    Attack(
        "a root on another version's topic",
        "wrong-topic",
        lambda p: p.root(3, config=(p.stranger,)),
        wire.root_topic(2),
    ),
    Attack(
        "a topic that is no version",
        "wrong-topic",
        lambda p: p.root(2, config=(p.stranger,)),
        wire.root_topic(2) + "x",
    ),
    Attack(
        "a fork of the pinned root",
        "equivocation",
        lambda p: p.root(1, config=(p.stranger,)),
        wire.root_topic(1),
    ),
    Attack("an empty root", "malformed", lambda _: b"", wire.root_topic(2)),
    Attack("a root too large", "too-large", lambda _: b" " * _TOO_LARGE, wire.root_topic(2)),
)

THRESHOLDS = (
    Attack("one of two", "unknown-key", lambda p: p.update(_next(p), p.config_key)),
    Attack("one key twice", "unknown-key", _one_key_twice),
    Attack("one key under two names", "bad-signature", _one_key_under_two_names),
    Attack(
        "one of two and a stranger",
        "unknown-key",
        lambda p: p.update(_next(p), p.config_key, p.stranger),
    ),
    Attack(
        "one of two and the root's",
        "unknown-key",
        lambda p: p.update(_next(p), p.config_key, p.root_key),
    ),
)
"""For a publisher of which two of two configuration keys have to sign (`publisher.BothSign`)."""

ATTACKS: dict[str, tuple[Attack, ...]] = {
    "signers": _SIGNERS,
    "contents": _CONTENTS,
    "order": _ORDER,
    "numbers": _NUMBERS,
    "bytes": _BYTES,
    "beacons": _BEACONS,
    "roots": _ROOTS,
    "thresholds": THRESHOLDS,
}
"""By group."""
