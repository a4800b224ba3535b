"""Every bit of twenty messages, and thousands of made-up ones: nothing but what was signed ever runs.

`MUTANTS=100000` in the environment makes more of them, as the torture does.
"""

from __future__ import annotations

import base64
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from nacl.signing import SigningKey
from pydantic import BaseModel, ConfigDict

from config_manager.client.model.precedence import Layers
from config_manager.client.rules.instance import InstanceRules
from config_manager.client.rules.todo import Swap, TrialPolicy
from config_manager.config import wire
from config_manager.config.names import ServiceName
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World
from tests.kit import clients
from tests.kit import documents as m

MUTANTS = int(os.environ.get("MUTANTS", "4000"))
SEED = 20


class Message(NamedTuple):
    topic: str
    payload: bytes


class Model(BaseModel):
    """Takes much, so that little but the signature stands between a message and the service."""

    model_config = ConfigDict(extra="allow", frozen=True)
    whisper_model: str = "tiny"
    n: int = 0
    hosts: list[str] = []
    nested: dict[str, Any] = {}


def update(revision: int, **fields: Any) -> Message:
    return Message(m.TOPIC, m.update_bytes(revision, **fields))


def config(revision: int, **values: Any) -> Message:
    return update(revision, config=values)


def twice_signed() -> Message:
    value = json.loads(m.update_bytes(13))
    value["signatures"] *= 2
    return Message(m.TOPIC, json.dumps(value).encode())


def indented(message: Message) -> Message:
    return Message(message.topic, json.dumps(json.loads(message.payload), indent=1).encode())


def snapshot(seq: int, *services: int) -> Message:
    named = {m.SERVICE if at == 0 else f"s{at}": m.entry(r) for at, r in enumerate(services)}
    return Message(wire.SNAPSHOT_TOPIC, m.snapshot_bytes(named, seq))


def keepalive(seq: int, **fields: Any) -> Message:
    return Message(wire.KEEPALIVE_TOPIC, m.keepalive_bytes({m.SERVICE: m.entry(5)}, seq, **fields))


MESSAGES: tuple[Message, ...] = (
    update(5),  # what runs already
    update(6),
    update(2**52),
    update(1, epoch_seq=2),
    config(6),
    config(6, n=7),
    config(6, whisper_model="Grüße 🎤", hosts=["a", "b"]),
    config(6, nested={"a": {"b": [1, 2.5, None, True]}}, n=-1),
    config(6, n="not a number"),  # signed, but the model refuses it
    update(6, defaulted=("n",)),
    update(6, secrets={"token": 3}),
    update(6, previous="0" * 64),
    update(6, not_after="2020-01-01T00:00:00.000Z"),
    update(7, deleted=True, config={}),
    twice_signed(),
    indented(update(6)),
    snapshot(1, 5),
    snapshot(2, 6, 7, 8),
    keepalive(1),
    keepalive(1, boot_seq=7, valid_s=60),
)


class Target:
    """A service that runs revision 5 and takes whatever it may; made anew once anything moved it."""

    def __init__(self) -> None:
        self._kept = clients.make_kept(5)
        self._layers = Layers(Model)
        self.reasons: Counter[str] = Counter()
        self.accepted = 0
        self._renew()
        self.before = self._instance.effective.values

    def _renew(self) -> None:
        identity = clients.make_identity()
        self._instance = InstanceRules(
            ServiceName(m.SERVICE), identity.instance, identity, self._layers, self._kept,
            policy=TrialPolicy(bake_s=0.0), boot_seq=1, asks=False, world=World(clock=clients.SetClock()),
        )  # fmt: skip
        self._instance.start(0.0)
        self._instance.tick(0.0, m.NOW)
        self._mark = self._where()

    def _where(self) -> tuple[Any, ...]:
        subscriber = self._instance.subscriber
        freshness = subscriber.freshness
        kept = (subscriber._marks, subscriber.trial)
        return (*kept, freshness.beacon_order, freshness.snapshot is None)

    def takes(self, message: Message) -> Model:
        """What runs after it. Where anything came of it, the next message meets a fresh one."""
        todo = self._instance.receive(message.topic, message.payload, m.NOW + 1, 1.0)
        values = self._instance.effective.values
        assert [do.effective.values for do in todo if isinstance(do, Swap)] in ([], [values])
        if self._where() != self._mark:
            self.accepted += 1
            self.reasons += self._instance.subscriber.refusals
            self._renew()
        return values

    def count(self) -> Counter[str]:
        return self.reasons + self._instance.subscriber.refusals


@pytest.fixture(scope="module")
def target() -> Target:
    return Target()


def test_there_are_twenty_and_each_is_taken_as_it_was_meant(target: Target) -> None:
    assert len(MESSAGES) == 20
    took = [target.takes(message) for message in MESSAGES]
    assert [values.n for values in took] == [
        *(5, 6, 2**52, 1, 0, 7, 0, -1, 5, 0, 6, 6, 6, 5, 13, 6), *(5, 5, 5, 5),
    ]  # fmt: skip
    assert took[6].hosts == ["a", "b"]
    assert took[7].nested == {"a": {"b": [1, 2.5, None, True]}}


@pytest.mark.parametrize("number", range(len(MESSAGES)))
def test_no_single_bit_that_flips_changes_what_runs(number: int, target: Target) -> None:
    message = MESSAGES[number]
    allowed = (target.before, target.takes(message))
    data = bytearray(message.payload)
    refused_before = target.count().total()
    taken_before = target.accepted
    for at in range(len(data)):
        for bit in range(8):
            data[at] ^= 1 << bit
            assert target.takes(Message(message.topic, bytes(data))) in allowed
            data[at] ^= 1 << bit
    refused = target.count().total() - refused_before
    # what is left is outside the signature: people's correlation_id, white space, the frame around
    # a beacon, and where two signed, one of them
    assert refused > 0.75 * 8 * len(data)
    assert target.accepted - taken_before < 0.25 * 8 * len(data)


# ── made up ────────────────────────────────────────────────────────────────────────────────────

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**53, 2**63, 2**64, 1e308, 0.5, "", "x", "0" * 64, "é", "\0",
    "../../etc", "system/config/+", "#", m.SERVICE, m.TOPIC, "2020-01-01T00:00:00Z", [], {}, [[]],
    [None], {"": None}, {"a": {}}, [{"keyid": 1}], "A" * 5000, [0] * 500,
    [{"keyid": "0" * 64, "sig": ""}], wire.CONFIG_UPDATE, wire.BEACON, wire.SNAPSHOT,
)  # fmt: skip

KEYS = (m.ROOT_KEY, m.CONFIG_KEY, m.BEACON_KEY, m.STRANGER)
FIELDS = (
    "format", "service", "topic", "config_epoch", "epoch_seq", "revision", "previous", "issued_at",
    "not_after", "config", "defaulted", "secrets", "deleted", "correlation_id", "critical",
    "services", "snapshot", "boot_seq", "seq", "valid_s", "root_version", "n", "__proto__",
)  # fmt: skip
MEMBERS = (
    "payloadType",
    "payload",
    "signatures",
    "correlation_id",
    "beacon",
    "data",
    "keyid",
    "sig",
)


class Mutator:
    """Each method takes an envelope as parsed JSON and gives bytes; none of them signs with the
    key that the result would need."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ways: list[Callable[[dict[str, Any]], Any]] = [
            self.drop, self.set_odd, self.add, self.rename, self.duplicate, self.swap_member,
            self.spell_base64, self.break_signature, self.rename_key, self.many_signatures,
            self.change_payload, self.change_payload, self.sign_by_another, self.sign_by_another,
            self.claim_the_key, self.mix_payloads, self.cut, self.splice, self.wrap, self.encode,
        ]  # fmt: skip

    def messages(self, count: int) -> Iterator[Message]:
        for _ in range(count):
            message = self._random.choice(MESSAGES)
            value = json.loads(message.payload)
            mutant = value
            for _ in range(self._random.choice((1, 1, 1, 2, 3))):
                way = self._random.choice(self._ways)
                mutant = way(mutant if isinstance(mutant, dict) else value)
            data = mutant if isinstance(mutant, bytes) else self._dump(mutant)
            topic = message.topic
            if self._random.random() < 0.1:
                topic = self._random.choice(
                    [m.TOPIC, wire.SNAPSHOT_TOPIC, wire.KEEPALIVE_TOPIC, "system/config/tts",
                     "system/config/", "system/trust/roots/2", "", m.TOPIC + "/x"]
                )  # fmt: skip
            yield Message(topic, data)

    def _dump(self, value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=self._random.random() < 0.5).encode()

    def _envelopes(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """The envelope and those inside it."""
        inner: list[Any] = [value.get("beacon")]
        if isinstance(value.get("data"), dict):
            inner.append(value["data"].get("beacon"))
        return [one for one in (value, *inner) if isinstance(one, dict) and "payload" in one]

    def _pick(self, value: dict[str, Any]) -> dict[str, Any]:
        return self._random.choice(self._envelopes(value) or [value])

    def _signatures(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        found = self._pick(value).get("signatures")
        signatures = found if isinstance(found, list) else []
        return [one for one in signatures if isinstance(one, dict)]

    def _payload(self, envelope: dict[str, Any]) -> dict[str, Any]:
        try:
            value = json.loads(base64.b64decode(str(envelope.get("payload"))))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _changed(self, payload: dict[str, Any]) -> bytes:
        for _ in range(self._random.choice((1, 1, 2, 4))):
            name = self._random.choice((*FIELDS, *payload))
            if self._random.random() < 0.2:
                payload.pop(name, None)
            else:
                payload[name] = self._random.choice(ODD)
        return json.dumps(payload).encode()

    def _other(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._random.choice(MESSAGES).payload)
        return self._pick(value)

    # the envelope's members

    def drop(self, value: dict[str, Any]) -> Any:
        envelope = self._pick(value)
        if envelope:
            del envelope[self._random.choice(list(envelope))]
        return value

    def set_odd(self, value: dict[str, Any]) -> Any:
        self._pick(value)[self._random.choice(MEMBERS)] = self._random.choice(ODD)
        return value

    def add(self, value: dict[str, Any]) -> Any:
        self._pick(value)[self._random.choice(FIELDS)] = self._random.choice(ODD)
        return value

    def rename(self, value: dict[str, Any]) -> Any:
        envelope = self._pick(value)
        if envelope:
            envelope[self._random.choice(MEMBERS)] = envelope.pop(
                self._random.choice(list(envelope))
            )
        return value

    def duplicate(self, value: dict[str, Any]) -> Any:
        """The same member twice in the text: readers differ in which they take."""
        name = self._random.choice(MEMBERS)
        other = json.dumps({name: self._other().get(name, self._random.choice(ODD))})
        text = json.dumps(value)
        first, second = (other, text) if self._random.random() < 0.5 else (text, other)
        return f"{first[:-1]}, {second[1:]}".encode()

    def swap_member(self, value: dict[str, Any]) -> Any:
        name = self._random.choice(("payloadType", "payload", "signatures", "beacon"))
        other = self._other()
        if name in other:
            self._pick(value)[name] = other[name]
        return value

    def spell_base64(self, value: dict[str, Any]) -> Any:
        envelope = self._pick(value)
        text = str(envelope.get("payload"))
        at = self._random.randrange(len(text) + 1)
        envelope["payload"] = self._random.choice(
            [text.replace("+", "-").replace("/", "_"), text.rstrip("="), text + "=", text + "\n",
             text[:at] + " " + text[at:], text[:at] + "é" + text[at:], text[:at], text + text]
        )  # fmt: skip
        return value

    # signatures

    def break_signature(self, value: dict[str, Any]) -> Any:
        for signature in self._signatures(value):
            raw = base64.b64decode(str(signature.get("sig")) + "====")
            signature["sig"] = base64.b64encode(
                self._random.choice(
                    [raw[:-1], raw + b"\0", b"", bytes(64), raw[::-1], raw[32:] * 2]
                )
            ).decode()
        return value

    def rename_key(self, value: dict[str, Any]) -> Any:
        for signature in self._signatures(value):
            signature["keyid"] = self._random.choice(
                [*map(m.key_id, KEYS), "", "x", str(signature.get("keyid")).upper()]
            )
        return value

    def many_signatures(self, value: dict[str, Any]) -> Any:
        envelope = self._pick(value)
        if isinstance(envelope.get("signatures"), list):
            envelope["signatures"] = envelope["signatures"] * self._random.randrange(7)
        return value

    # payloads

    def change_payload(self, value: dict[str, Any]) -> Any:
        """Under the signature of what it was."""
        envelope = self._pick(value)
        changed = self._changed(self._payload(envelope))
        envelope["payload"] = base64.b64encode(changed).decode()
        return value

    def _wrong_key(self, kind: Any) -> SigningKey:
        right = {wire.CONFIG_UPDATE: m.CONFIG_KEY, wire.ROOT: m.ROOT_KEY}.get(kind, m.BEACON_KEY)
        return self._random.choice([key for key in KEYS if key is not right])

    def sign_by_another(self, value: dict[str, Any]) -> Any:
        """Well-formed, newer, and by a key that may sign other things, or nothing."""
        envelope = self._pick(value)
        payload = self._payload(envelope)
        for name, number in (("revision", 50), ("seq", 50)):
            if isinstance(payload.get(name), int):
                payload[name] = number
        if isinstance(payload.get("config"), dict):
            payload["config"]["n"] = 666
        kind = envelope.get("payloadType")
        kind = kind if isinstance(kind, str) else wire.CONFIG_UPDATE
        key = self._wrong_key(kind)
        envelope.update(m.sign(kind, json.dumps(payload).encode(), key).to_object())
        return value

    def claim_the_key(self, value: dict[str, Any]) -> Any:
        """By a stranger, under the right key's name."""
        value = self.sign_by_another(value)
        for signature in self._signatures(value):
            signature["keyid"] = m.key_id(self._random.choice((m.CONFIG_KEY, m.BEACON_KEY)))
        return value

    def mix_payloads(self, value: dict[str, Any]) -> Any:
        """One message's signature and type on another's content."""
        envelope, other = self._pick(value), self._other()
        for name in self._random.sample(("payloadType", "payload", "signatures"), 2):
            if name in other:
                envelope[name] = other[name]
        return value

    # bytes

    def cut(self, value: dict[str, Any]) -> Any:
        data = self._dump(value)
        return data[: self._random.randrange(len(data) + 1)]

    def splice(self, value: dict[str, Any]) -> Any:
        one, other = self._dump(value), self._random.choice(MESSAGES).payload
        at = self._random.randrange(len(one) + 1)
        end = self._random.choice((at, at + 1, at + 100))
        junk = self._random.choice(
            [
                other,
                b"\0",
                b"\xff",
                b"{",
                b"[" * 200,
                b'"',
                b",",
                b"\\u0000",
                b"\\ud800",
                b" ",
                b"1e999",
            ]
        )
        return one[:at] + junk + one[end:]

    def wrap(self, value: dict[str, Any]) -> Any:
        data = self._dump(value)
        return self._random.choice(
            [b"[" + data + b"]", b'{"data":' + data + b"}", data + data, b" " + data + b"\n",
             b"\xef\xbb\xbf" + data, data + b"\0", b'{"a":' * 40 + data + b"}" * 40,
             data + b" " * wire.MAX_ENVELOPE_BYTES]
        )  # fmt: skip

    def encode(self, value: dict[str, Any]) -> Any:
        text = json.dumps(value, indent=self._random.choice((None, 0, 4)))
        return text.encode(self._random.choice(("utf-16", "utf-32", "utf-8", "utf-8-sig", "cp500")))


@pytest.mark.mutants
def test_no_made_up_message_changes_what_runs(target: Target) -> None:
    allowed: list[Model] = []
    for message in MESSAGES:
        if (values := target.takes(message)) not in allowed:
            allowed.append(values)
    refused, taken = target.count().total(), target.accepted
    for mutant in Mutator(SEED).messages(MUTANTS):
        assert target.takes(mutant) in allowed, mutant
    refused, taken = target.count().total() - refused, target.accepted - taken
    # neither all junk that never reached a signature, nor all the same as before
    assert refused > 0.7 * MUTANTS
    assert taken > 0.01 * MUTANTS
    assert {"bad-signature", "unknown-key", "malformed", "wrong-type", "too-large"} <= set(
        target.count()
    )


@pytest.mark.mutants
def test_a_subscriber_that_starts_with_nothing_believes_none_of_them_either() -> None:
    """No floor, no marks, no kept message: only signatures stand."""
    allowed = {wire.parse_envelope(one.payload).digest for one in MESSAGES if one.topic == m.TOPIC}
    for mutant in Mutator(SEED + 1).messages(MUTANTS // 4):
        subscriber = clients.Taker(m.SERVICE, "here", clients.make_chain(), None)
        subscriber.receive(mutant.topic, mutant.payload, m.NOW, 0.0)
        subscriber.tick(15.0, m.NOW + 15)
        if subscriber.kept is not None:
            assert subscriber.kept.seen is not None
            assert subscriber.kept.seen.digest in allowed, mutant


@pytest.mark.mutants
def test_even_nonsense_that_the_right_key_signed_raises_nothing(target: Target) -> None:
    """A publisher with a bug is refused like anybody else, or his values pass the model."""
    mutator = Mutator(SEED + 2)
    for _ in range(MUTANTS // 20):
        payload = mutator._changed(json.loads(m.make_update(6).to_bytes()))
        signed = m.sign(wire.CONFIG_UPDATE, payload, m.CONFIG_KEY).to_bytes()
        values = target.takes(Message(m.TOPIC, signed))
        assert Model.model_validate(values.model_dump()) == Model.model_validate(dict(values))
        beacon = json.loads(wire.parse_envelope(snapshot(3, 5).payload).payload)
        odd = m.sign(wire.SNAPSHOT, mutator._changed(beacon), m.BEACON_KEY)
        payload = mutator._changed(
            {"snapshot": odd.digest, "boot_seq": 1, "seq": 9, "valid_s": 30, "root_version": 1,
             "config_epoch": "x", "epoch_seq": 1, "revision": 9, "audit_head": "", "issued_at": ""}
        )  # fmt: skip
        vouched = m.sign(wire.BEACON, payload, m.BEACON_KEY).to_object()
        data = json.dumps({**odd.to_object(), "beacon": vouched}).encode()
        assert target.takes(Message(wire.SNAPSHOT_TOPIC, data)) == target.before


def test_what_the_right_key_signs_does_change_what_runs() -> None:
    """The test of the test: the same content unsigned is nothing, signed it runs."""
    envelope = Envelope(
        wire.CONFIG_UPDATE, m.make_update(6, config={"n": 666}).to_bytes(), (Signature("", b""),)
    )
    assert Target().takes(Message(m.TOPIC, envelope.to_bytes())).n == 5
    signed = m.sign(wire.CONFIG_UPDATE, envelope.payload, m.CONFIG_KEY)
    assert Target().takes(Message(m.TOPIC, signed.to_bytes())).n == 666
