"""The attack list, against the real command on a real Mosquitto: refused by its name, and on it goes.

Every test sends what a thief, a stranger, a neighbour or a hostile broker could, and asserts the
contract's reason, a detail that names the case, that nothing of it ran, and that the next honest
configuration does. What needs time to pass is told to the same rules in virtual time; a broker that
freezes is also frozen for real.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest
from nacl.signing import SigningKey
from paho.mqtt.enums import CallbackAPIVersion
from tests.kit.publisher import LONG_AGO, Publisher, changed, signatures_of

from config_manager.client.commands.running import to_line
from config_manager.client.rules.events import Event, News
from config_manager.client.rules.root_chain import RootChain, pin
from config_manager.client.state.identity import load_identity, trust_init
from config_manager.config import wire
from config_manager.config.world import parse_rfc3339, rfc3339
from tests.kit.clients import Taker
from tests.kit.documents import key_id
from tests.kit.processes import COMMAND, MOSQUITTO, Broker, Process, Processes, workshop

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

SOON_S = 5.0
FARTHEST = 2**53 - 1


# ── the parts ──────────────────────────────────────────────────────────────────────────────────


class Wire:
    """A broker's clients can all write: whoever holds this is the attacker, or the publisher."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.connect("127.0.0.1", broker.port, keepalive=60)
        self._client.loop_start()

    def sends(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(SOON_S)

    def sends_at_once(self, *messages: tuple[str, bytes]) -> None:
        """One right after the other, whatever this machine is busy with."""
        sent = [self._client.publish(topic, payload, qos=1) for topic, payload in messages]
        for one in sent:
            one.wait_for_publish(SOON_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Victim:
    """`config-manager client run` in a state directory of its own, and who publishes for it."""

    def __init__(
        self, processes: Processes, broker: Wire, directory: Path, publisher: Publisher
    ) -> None:
        directory.mkdir()
        (directory / "root.json").write_bytes(publisher.root())
        self.state = directory / "state"
        trust_init(self.state, directory / "root.json")
        self.publisher = publisher
        self.wire = broker
        self._processes = processes
        self.starts()
        self.publishes(5)
        self.wire.sends(wire.SNAPSHOT_TOPIC, publisher.snapshot(), retain=True)
        self.applied(5)
        self.line("fresh")
        self._mark()

    def starts(self) -> None:
        self.process: Process = self._processes.follow(
            self.state, self.publisher.service, self.wire.broker.url
        )
        self._known: set[int] = set()

    def _mark(self) -> None:
        """What it has said so far is known."""
        self._known = set(map(id, self.process.lines))

    def stops(self) -> None:
        assert self.process.terminate() == 0

    def publishes(self, revision: int, *signers: SigningKey) -> None:
        """The honest one, retained."""
        self.publisher.revision = revision
        self.wire.sends(
            self.publisher.topic, self.publisher.update(revision, *signers), retain=True
        )

    def gets(self, payload: bytes, topic: str | None = None) -> None:
        self._mark()
        self.wire.sends(topic or self.publisher.topic, payload)

    def line(self, event: str, *, within: float = SOON_S, **fields: Any) -> dict[str, Any]:
        """The first such line since the last attack."""
        wanted = {"event": event, **fields}
        return self.process.line(
            lambda line: (
                id(line) not in self._known and all(line.get(k) == v for k, v in wanted.items())
            ),
            within=within,
            what=f"{wanted}",
        )

    def applied(self, revision: int, **fields: Any) -> dict[str, Any]:
        return self.line("applied", revision=revision, **fields)

    def refuses(self, reason: str, detail: str) -> None:
        line = self.line("refused")
        assert line["reason"] == reason, line
        assert re.search(detail, line["detail"]), line

    def goes_on(self, *signers: SigningKey) -> None:
        """Nothing of it ran, and the next honest configuration does."""
        revision = self.publisher.revision + 1
        self.publishes(revision, *signers)
        self.applied(revision, config={"n": revision})
        since = [line for line in self.process.lines if id(line) not in self._known]
        assert [line["revision"] for line in since if line["event"] == "applied"] == [revision]

    def runs(self) -> Any:
        """What a script would read: `client get`, without any network."""
        command = [COMMAND, "client", "get", "--state", str(self.state)]
        done = subprocess.run(
            [*command, "--service", self.publisher.service],
            capture_output=True, check=True, timeout=20,
        )  # fmt: skip
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shop_of_attacks() -> Iterator[tuple[Processes, Path]]:
    with workshop() as both:
        yield both


class Frozen(NamedTuple):
    victim: Victim
    broker: Broker


@pytest.fixture(scope="module", autouse=True)
def frozen(shop_of_attacks: tuple[Processes, Path]) -> Iterator[Frozen]:
    """Stopped before the first test, asked about in the last: the half minute passes meanwhile."""
    processes, directory = shop_of_attacks
    broker = processes.broker(directory / "frozen-broker")
    connection = Wire(broker)
    victim = Victim(processes, connection, directory / "frozen", Publisher("frozen"))
    connection.close()
    assert broker.process is not None
    broker.process.popen.send_signal(signal.SIGSTOP)
    yield Frozen(victim, broker)
    broker.process.popen.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def attacked(
    shop_of_attacks: tuple[Processes, Path],
    frozen: Frozen,  # noqa: ARG001  first things first
) -> Iterator[Callable[[str, Publisher], Victim]]:
    """Makes victims, each with a broker of its own: what is retained for one is not another's."""
    processes, directory = shop_of_attacks
    connections: list[Wire] = []

    def make(name: str, publisher: Publisher) -> Victim:
        connections.append(Wire(processes.broker(directory / f"{name}-broker")))
        return Victim(processes, connections[-1], directory / name, publisher)

    yield make
    for connection in connections:
        connection.close()


Make = Callable[[str, Publisher], Victim]


@pytest.fixture(scope="module")
def victim(attacked: Make) -> Victim:
    """One for all attacks that must leave no trace: each finds it as the one before left it."""
    return attacked("victim", Publisher("stt-worker"))


# ── configurations ─────────────────────────────────────────────────────────────────────────────


def unsigned(p: Publisher) -> bytes:
    return changed(p.update(p.revision + 1), signatures=None)


def claimed(p: Publisher) -> bytes:
    """By a stranger, who writes the right key's id beside it."""
    theirs = p.update(p.revision + 1, p.stranger)
    signature = {**signatures_of(theirs)[0], "keyid": key_id(p.config_key)}
    return changed(theirs, signatures=[signature])


def swapped(p: Publisher) -> bytes:
    other = json.loads(p.update(p.revision + 2))
    return changed(p.update(p.revision + 1), payload=other["payload"])


def cut_signature(p: Publisher) -> bytes:
    message = p.update(p.revision + 1)
    signature = signatures_of(message)[0]
    short = base64.b64encode(base64.b64decode(signature["sig"])[:-1]).decode()
    return changed(message, signatures=[{**signature, "sig": short}])


def relabelled(p: Publisher) -> bytes:
    """Signed as a sealed document, said to be a configuration."""
    payload = p.payload(p.revision + 1)
    return changed(p.signed(payload, kind=wire.SEALED).to_bytes(), payloadType=wire.CONFIG_UPDATE)


def five_signatures(p: Publisher) -> bytes:
    message = p.update(p.revision + 1)
    return changed(message, signatures=signatures_of(message) * 5)


def raw_payload(p: Publisher, before: str, after: str) -> bytes:
    """Signed by the right key, in a spelling that readers take differently."""
    text = p.payload(p.revision + 1).decode()
    assert before in text
    return p.signed(text.replace(before, after, 1).encode()).to_bytes()


def nested(p: Publisher) -> bytes:
    return raw_payload(p, '"config":{', '"config":{"deep":' + "[" * 200 + "]" * 200 + ",")


class Attack(NamedTuple):
    reason: str
    detail: str
    message: Callable[[Publisher], bytes]
    topic: str | None = None


ATTACKS: dict[str, Attack] = {
    # who signed
    "unsigned": Attack("malformed", "signatures", unsigned),
    "an empty list of signatures": Attack(
        "malformed", "signatures", lambda p: changed(p.update(p.revision + 1), signatures=[])
    ),
    "a stranger's key": Attack(
        "unknown-key", "0 of 1 needed config keys .* is not listed", lambda p: p.update(
            p.revision + 1, p.stranger)
    ),
    "a stranger's signature under the right key's id": Attack(
        "bad-signature", "did not sign these bytes", claimed
    ),
    "the beacon's key on a configuration": Attack(
        "unknown-key", "is the beacon key there", lambda p: p.update(p.revision + 1, p.beacon_key)
    ),
    "the root's key on a configuration": Attack(
        "unknown-key", "is the root key there", lambda p: p.update(p.revision + 1, p.root_key)
    ),
    "a key past its not_after": Attack(
        "unknown-key", f"past its not_after, {LONG_AGO}", lambda p: p.update(
            p.revision + 1, p.retired)
    ),
    "content swapped under a signature": Attack(
        "bad-signature", "did not sign these bytes", swapped
    ),
    "a signature a byte short": Attack("bad-signature", "did not sign", cut_signature),
    "five signatures of one key": Attack("malformed", "1 to 4", five_signatures),
    # what was signed
    "a snapshot's type": Attack("wrong-type", "snapshot", lambda p: p.signed(
        p.payload(p.revision + 1), kind=wire.SNAPSHOT).to_bytes()
    ),
    "a genuine snapshot in a configuration's place": Attack(
        "wrong-type", "snapshot", lambda p: p.snapshot()
    ),
    "a genuine root in a configuration's place": Attack("wrong-type", "root", lambda p: p.root()),
    "another type's signature under a configuration's label": Attack(
        "bad-signature", "did not sign", relabelled
    ),
    "no type at all": Attack(
        "malformed", "payloadType", lambda p: changed(p.update(p.revision + 1), payloadType=7)
    ),
    "another service's message": Attack(
        "wrong-service", "signed for 'router'", lambda p: p.update(
            p.revision + 1, service="router", topic="system/config/router")
    ),
    "another topic's message": Attack(
        "wrong-topic", "signed for 'system/config/router'", lambda p: p.update(
            p.revision + 1, topic="system/config/router")
    ),
    "a field that must be known and is not": Attack(
        "unsupported-critical", "'only_at_night'", lambda p: p.odd(
            {"critical": ["only_at_night"], "only_at_night": True})
    ),
    # never back
    "a rollback": Attack(
        "rolled-back", "revision 4 of epoch 1 after", lambda p: p.update(4)
    ),
    "a replay of yesterday's": Attack(
        "rolled-back", "was seen", lambda p: p.update(p.revision - 1)
    ),
    "an older epoch with a higher revision": Attack(
        "rolled-back", "of epoch 0 after", lambda p: p.update(p.revision + 50, epoch_seq=0)
    ),
    "an equal revision with other content": Attack(
        "equivocation", "seen with other content", lambda p: p.update(
            p.revision, config={"evil": True})
    ),
    "an equal revision that deletes": Attack(
        "equivocation", "other content", lambda p: p.update(p.revision, deleted=True, config={})
    ),
    # numbers
    "2^53 as the revision": Attack("malformed", r"revision: .*2\^53", lambda p: p.odd(
        {"revision": 2**53})),
    "2^63 as the revision": Attack("malformed", r"2\^53", lambda p: p.odd({"revision": 2**63})),
    "2^53 as the epoch": Attack("malformed", "epoch_seq", lambda p: p.odd({"epoch_seq": 2**53})),
    "a negative revision": Attack("malformed", "revision", lambda p: p.odd({"revision": -1})),
    "true as the revision": Attack("malformed", "revision", lambda p: p.odd({"revision": True})),
    "text as the revision": Attack("malformed", "revision", lambda p: p.odd({"revision": "99"})),
    "a revision of a million digits": Attack(
        "malformed", r"2\^53", lambda p: p.signed(
            b'{"revision":' + b"9" * 100_000 + b"}").to_bytes()
    ),
    # bytes
    "too large": Attack(
        "too-large", "the limit is 262144", lambda p: p.update(
            p.revision + 1, config={"x": "y" * 300_000})
    ),
    "empty": Attack("malformed", "a deletion is a signed tombstone", lambda _: b""),
    "not JSON": Attack("malformed", "not JSON", lambda _: b"whisper_model=base.en"),
    "not UTF-8": Attack("malformed", "not UTF-8", lambda _: b'{"payloadType":"\xff"}'),
    "100,000 levels deep": Attack("malformed", "deeper", lambda _: b'{"a":' + b"[" * 100_000),
    "200 levels deep, and signed": Attack("malformed", "deeper", nested),
    "a list": Attack("malformed", "object", lambda _: b"[]"),
    "the envelope cut in half": Attack(
        "malformed", "not JSON", lambda p: p.update(p.revision + 1)[:150]
    ),
    "broken base64": Attack(
        "malformed", "payload: not base64", lambda p: changed(p.update(p.revision + 1), payload="%")
    ),
    "the same member twice": Attack("malformed", "twice", lambda p: raw_payload(
        p, '"config":', '"config":{"evil":true},"config":')
    ),
    "NaN": Attack("malformed", "NaN", lambda p: raw_payload(p, '"config":{', '"config":{"x":NaN,')),
    "a lone surrogate": Attack("malformed", "surrogate", lambda p: raw_payload(
        p, '"config":{', '"config":{"x":"\\ud800",')
    ),
    "no configuration inside": Attack("malformed", "config", lambda p: p.odd({"config": None})),
    # the proofs of life
    "a beacon by the configuration's key": Attack(
        "unknown-key", "is the config key there",
        lambda p: p.keepalive(by=p.config_key), wire.KEEPALIVE_TOPIC,
    ),
    "a beacon by a stranger": Attack(
        "unknown-key", "needed beacon keys", lambda p: p.keepalive(by=p.stranger),
        wire.KEEPALIVE_TOPIC,
    ),
    "a keepalive that is no JSON": Attack(
        "malformed", "keepalive", lambda _: b"alive!", wire.KEEPALIVE_TOPIC
    ),
    "a keepalive too large": Attack(
        "too-large", "keepalive", lambda _: b" " * 300_000, wire.KEEPALIVE_TOPIC
    ),
    "a snapshot with another snapshot's beacon": Attack(
        "malformed", "names another snapshot", lambda p: changed(
            p.snapshot(), beacon=json.loads(p.snapshot(revision=FARTHEST))["beacon"]),
        wire.SNAPSHOT_TOPIC,
    ),
    "a snapshot without a beacon": Attack(
        "malformed", "object", lambda p: changed(p.snapshot(), beacon=None), wire.SNAPSHOT_TOPIC
    ),
    # roots
    "a root by a stranger": Attack(
        "unknown-key", "needed root keys of root 1", lambda p: p.root(
            2, p.stranger, root=(p.stranger,)), wire.root_topic(2),
    ),
    "a root by the configuration's key": Attack(
        "unknown-key", "is the config key there", lambda p: p.root(2, p.config_key),
        wire.root_topic(2),
    ),
    "a root whose new root key did not sign": Attack(
        "unknown-key", "needed root keys of root 2", lambda p: p.root(2, root=(p.stranger,)),
        wire.root_topic(2),
    ),
    "a root on another version's topic": Attack(
        "wrong-topic", "root 3 came on 'system/trust/roots/2'", lambda p: p.root(3),
        wire.root_topic(2),
    ),
    "a topic that is no version": Attack(
        "wrong-topic", "is no version", lambda p: p.root(2), wire.root_topic(2) + "x"
    ),
    "a fork of the pinned root": Attack(
        "equivocation", "root 1 forks", lambda p: p.root(1, config=(p.stranger,)),
        wire.root_topic(1),
    ),
    "an empty root": Attack("malformed", "empty", lambda _: b"", wire.root_topic(2)),
    "a root too large": Attack("too-large", "262144", lambda _: b" " * 300_000, wire.root_topic(2)),
}  # fmt: skip


@pytest.mark.parametrize("story", ATTACKS)
def test_an_attack_is_refused_by_its_name_and_what_runs_goes_on(victim: Victim, story: str) -> None:
    attack = ATTACKS[story]
    victim.gets(attack.message(victim.publisher), attack.topic)
    victim.refuses(attack.reason, attack.detail)
    victim.goes_on()


def test_after_all_of_them_it_still_runs_what_was_published_last(victim: Victim) -> None:
    """What nobody signed for is not to be found on its disk either, nor was a root believed."""
    assert victim.runs() == {"n": victim.publisher.revision}
    assert load_identity(victim.state).root.version == 1


# ── thresholds ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def two_needed(attacked: Make) -> Victim:
    """Two of two configuration keys have to sign."""
    publisher = Publisher("two-needed")
    publisher.config_keys = (publisher.config_key, publisher.new_config_key)
    publisher.thresholds = {"config": 2}
    return attacked("two-needed", _BothSign(publisher))


class _BothSign(Publisher):
    """Where nobody is named, everybody signs."""

    def __init__(self, like: Publisher) -> None:
        self.__dict__.update(like.__dict__)

    def signed(
        self, payload: bytes, *signers: SigningKey, kind: str = wire.CONFIG_UPDATE
    ) -> wire.Envelope:
        return super().signed(payload, *(signers or self.config_keys), kind=kind)


def one_key_twice(p: Publisher) -> bytes:
    message = p.update(p.revision + 1, p.config_key)
    return changed(message, signatures=signatures_of(message) * 2)


def one_key_under_two_names(p: Publisher) -> bytes:
    message = p.update(p.revision + 1, p.config_key)
    signature = signatures_of(message)[0]
    return changed(
        message, signatures=[signature, {**signature, "keyid": key_id(p.new_config_key)}]
    )


THRESHOLDS: dict[str, Attack] = {
    "one of two": Attack(
        "unknown-key", "1 of 2 needed", lambda p: p.update(p.revision + 1, p.config_key)
    ),
    "one key twice": Attack("unknown-key", "1 of 2 .*counts once", one_key_twice),
    "one key under two names": Attack(
        "bad-signature", "did not sign these bytes", one_key_under_two_names
    ),
    "one of two and a stranger": Attack(
        "unknown-key", "1 of 2 .*is not listed", lambda p: p.update(
            p.revision + 1, p.config_key, p.stranger)
    ),
    "one of two and the root's": Attack(
        "unknown-key", "1 of 2 .*is the root key", lambda p: p.update(
            p.revision + 1, p.config_key, p.root_key)
    ),
}  # fmt: skip


@pytest.mark.parametrize("story", THRESHOLDS)
def test_a_threshold_counts_distinct_keys(two_needed: Victim, story: str) -> None:
    attack = THRESHOLDS[story]
    two_needed.gets(attack.message(two_needed.publisher))
    two_needed.refuses(attack.reason, attack.detail)
    two_needed.goes_on()


# ── keys that come and go ──────────────────────────────────────────────────────────────────────


def test_a_revoked_key_is_refused_and_what_it_signed_goes_on_until_it_is_signed_anew(
    attacked: Make,
) -> None:
    it = attacked("revoked", Publisher("revoked"))
    p = it.publisher
    rotated, revoked = (p.new_config_key, p.config_key), (p.new_config_key,)
    overtaking = (p.topic, p.update(6, p.new_config_key))
    it.wire.sends_at_once(overtaking, (wire.root_topic(2), p.root(2, config=rotated)))
    it.applied(6)
    assert not [line for line in it.process.lines if line["event"] == "refused"]
    it.gets(p.root(3, config=revoked), wire.root_topic(3))
    p.revision = 6
    it.gets(p.update(7))
    it.refuses("unknown-key", "root 2 was the last to list .* revoked")
    it.goes_on(p.new_config_key)
    it.gets(p.root(2, config=(p.stranger,)), wire.root_topic(2))
    it.refuses("equivocation", "root 2 forks")
    it.goes_on(p.new_config_key)
    assert load_identity(it.state).root.version == 3


def test_what_runs_and_was_signed_by_a_revoked_key_says_so_also_after_a_restart(
    attacked: Make,
) -> None:
    it = attacked("signer-revoked", Publisher("signer-revoked"))
    p = it.publisher
    it.gets(p.root(2, config=(p.new_config_key,)), wire.root_topic(2))
    it.line("stale", reason="signer-revoked")
    it.stops()
    assert it.runs() == {"n": 5}
    it.starts()
    started = it.applied(5, source="last-known-good")
    assert started["signer_revoked"] is True
    it.line("stale", reason="signer-revoked")
    it.publishes(5, p.new_config_key)
    it.gets(p.snapshot(), wire.SNAPSHOT_TOPIC)
    it.line("fresh")


def test_a_stolen_keys_fast_forward_ends_with_the_key(attacked: Make) -> None:
    it = attacked("fast-forward", Publisher("fast-forward"))
    p = it.publisher
    it.gets(p.update(FARTHEST - 1, config={"evil": True}))
    it.applied(FARTHEST - 1)
    it.gets(p.update(50))
    it.refuses("rolled-back", "after revision 90071992547409")
    it.gets(p.root(2, config=(p.new_config_key,)), wire.root_topic(2))
    it.line("stale", reason="signer-revoked")
    it.publishes(50, p.new_config_key)
    it.applied(50, config={"n": 50})
    it.gets(p.update(49, p.new_config_key))
    it.refuses("rolled-back", "revision 49 of epoch 1 after revision 50")
    it.goes_on(p.new_config_key)


def test_offline_across_three_roots_it_catches_up(attacked: Make) -> None:
    it = attacked("away", Publisher("away"))
    p = it.publisher
    it.stops()
    second_root, third_config = SigningKey.generate(), SigningKey.generate()
    roots = {
        4: p.root(4, second_root, root=(second_root,), config=(third_config,)),
        3: p.root(3, p.root_key, second_root, root=(second_root,), config=(p.new_config_key,)),
        2: p.root(2, config=(p.new_config_key, p.config_key)),
    }
    for version, data in roots.items():
        it.wire.sends(wire.root_topic(version), data, retain=True)
    it.publishes(6, third_config)
    it.starts()
    it.applied(5, source="last-known-good")
    it.applied(6, source="broker")
    assert not [line for line in it.process.lines if line["event"] == "refused"]
    assert load_identity(it.state).root.version == 4
    it.gets(p.update(7, p.new_config_key))
    it.refuses("unknown-key", "root 3 was the last to list")


# ── after a restart ────────────────────────────────────────────────────────────────────────────


def test_a_restart_forgets_no_mark(attacked: Make) -> None:
    it = attacked("restarted", Publisher("restarted"))
    p = it.publisher
    it.goes_on()
    it.stops()
    it.wire.sends(p.topic, p.update(5), retain=True)
    it.starts()
    it.applied(6, source="last-known-good")
    it.refuses("rolled-back", "revision 5 of epoch 1 after revision 6")
    it.gets(p.update(6, config={"evil": True}))
    it.refuses("equivocation", "revision 6 of epoch 1 was seen with other content")
    it.gets(p.update(60, epoch_seq=0))
    it.refuses("rolled-back", "epoch 0")
    it.goes_on()


def test_a_first_start_takes_nothing_older_than_the_snapshot_names(
    attacked: Make, shop_of_attacks: tuple[Processes, Path]
) -> None:
    processes, directory = shop_of_attacks
    it = attacked("first", Publisher("first"))
    it.wire.sends(it.publisher.topic, it.publisher.update(4), retain=True)
    later = directory / "later"
    trust_init(later, directory / "first" / "root.json")
    process = processes.follow(later, "first", it.wire.broker.url)
    refused = process.event("refused", within=SOON_S)
    assert (refused["reason"], "the signed snapshot names 5" in refused["detail"]) == (
        "rolled-back",
        True,
    )
    it.publishes(5)
    assert process.event("applied", within=SOON_S)["revision"] == 5


# ── what needs time to pass: the same rules, in virtual time ───────────────────────────────────


class Later:
    """A service that runs revision 5 and is fresh; lines as the command prints them."""

    def __init__(self, **root: Any) -> None:
        self.wall = parse_rfc3339("2026-03-01T00:00:00Z")
        self.now = 0.0
        self.publisher = Publisher(clock=lambda: self.wall + self.now)
        chain = RootChain([pin(self.publisher.root(**root))])
        self._subscriber = Taker(self.publisher.service, "here", chain, None)
        self._subscriber.tick(0.0, self.wall)
        self.publisher.revision = 5
        self.gets(self.publisher.update(5))
        said = self.gets(self.publisher.snapshot(), wire.SNAPSHOT_TOPIC)
        assert [line["event"] for line in said] == ["applied", "fresh"]

    def gets(self, payload: bytes, topic: str | None = None) -> list[dict[str, Any]]:
        """Now, and until its refusal would have been said."""
        before = self._subscriber.receive(
            topic or self.publisher.topic, payload, self.wall + self.now, self.now
        )
        return self._lines(before) + self.lives(0.5)

    def lives(self, seconds: float) -> list[dict[str, Any]]:
        self.now += seconds
        return self._lines(self._subscriber.tick(self.now, self.wall + self.now))

    def hears_beacons(self, seconds: float, **fields: Any) -> list[dict[str, Any]]:
        said = []
        for _ in range(int(seconds / 10)):
            said += self.lives(9.5)
            said += self.gets(self.publisher.keepalive(**fields), wire.KEEPALIVE_TOPIC)
        return said

    def _lines(self, events: list[Event]) -> list[dict[str, Any]]:
        return [
            to_line(self.publisher.service, event) for event in events if isinstance(event, News)
        ]

    def goes_on(self) -> None:
        self.publisher.revision += 1
        (line, *_) = self.gets(self.publisher.update(self.publisher.revision))
        assert (line["event"], line["revision"]) == ("applied", self.publisher.revision)


def stale(reason: str) -> list[dict[str, Any]]:
    return [{"event": "stale", "reason": reason}]


def test_a_frozen_broker_makes_it_stale_after_30_s() -> None:
    it = Later()
    assert it.lives(29) == []
    assert it.lives(1) == stale("no-beacon")
    it.goes_on()


def test_a_replayed_beacon_keeps_nothing_fresh() -> None:
    it = Later()
    recorded = it.publisher.keepalive()
    it.gets(recorded, wire.KEEPALIVE_TOPIC)
    said = []
    for _ in range(5):
        said += it.lives(9.5) + it.gets(recorded, wire.KEEPALIVE_TOPIC)
    assert said == stale("no-beacon")
    assert it.gets(it.publisher.keepalive(), wire.KEEPALIVE_TOPIC) == [{"event": "fresh"}]


def test_beacons_replayed_at_a_crawl_keep_nothing_fresh() -> None:
    it = Later()
    minute = [rfc3339(it.wall + 10 * n) for n in range(1, 7)]
    recorded = [it.publisher.keepalive(issued_at=at) for at in minute]
    said: list[dict[str, Any]] = []
    for beacon in recorded:
        said += it.lives(25) + it.gets(beacon, wire.KEEPALIVE_TOPIC)
    assert said == stale("no-beacon")
    assert it.gets(it.publisher.keepalive(), wire.KEEPALIVE_TOPIC) == [{"event": "fresh"}]
    it.goes_on()


def test_a_beacon_of_an_earlier_boot_keeps_nothing_fresh() -> None:
    it = Later()
    assert it.hears_beacons(50, boot_seq=0, seq=FARTHEST) == stale("no-beacon")
    it.goes_on()


def test_a_withheld_configuration_is_noticed() -> None:
    it = Later()
    it.gets(it.publisher.snapshot(revision=6), wire.SNAPSHOT_TOPIC)
    assert it.hears_beacons(40, revision=6) == stale("withheld")
    it.goes_on()


def test_a_withheld_snapshot_is_noticed() -> None:
    it = Later()
    assert it.hears_beacons(40, revision=6) == stale("withheld")
    it.goes_on()


def test_a_withheld_root_is_noticed() -> None:
    it = Later()
    assert it.hears_beacons(40, root_version=2) == stale("root-withheld")
    assert it.gets(it.publisher.root(2), wire.root_topic(2)) == [{"event": "fresh"}]
    it.goes_on()


def test_a_root_held_back_is_not_made_up_for_by_the_one_after_it() -> None:
    it = Later()
    assert it.gets(it.publisher.root(3), wire.root_topic(3)) == []
    assert it.hears_beacons(40, root_version=3) == stale("root-withheld")
    assert it.gets(it.publisher.root(2), wire.root_topic(2)) == [{"event": "fresh"}]


def test_a_key_that_passes_its_not_after_while_the_service_runs_is_refused() -> None:
    it = Later()
    p = it.publisher
    dated = rfc3339(it.wall + 60)
    root = p.root(2, not_after={**p.not_after, key_id(p.config_key): dated})
    assert it.gets(root, wire.root_topic(2)) == []
    it.goes_on()
    it.hears_beacons(60)
    (line, *_) = it.gets(p.update(p.revision + 1))
    assert (line["event"], line["reason"]) == ("refused", "unknown-key")
    assert f"past its not_after, {dated}" in line["detail"]


def test_a_root_key_past_its_not_after_signs_no_root() -> None:
    it = Later()
    dated = {key_id(it.publisher.root_key): rfc3339(it.wall + 60)}
    assert it.gets(it.publisher.root(2, not_after=dated), wire.root_topic(2)) == []
    it.hears_beacons(60)
    (line, *_) = it.gets(it.publisher.root(3), wire.root_topic(3))
    assert (line["event"], line["reason"]) == ("refused", "unknown-key")
    assert "past its not_after" in line["detail"]


def test_an_expired_configuration_goes_on_and_says_so() -> None:
    it = Later()
    p = it.publisher
    said = it.gets(p.update(6, not_after=rfc3339(it.wall + 20)))
    assert [line["event"] for line in said] == ["applied"]
    p.revision = 6
    assert it.lives(15) == []
    assert it.lives(5) == stale("expired")
    it.goes_on()


# ── last, because it takes half a minute: what the first fixture froze ─────────────────────────


def test_a_broker_that_froze_for_real_makes_it_stale_and_what_runs_goes_on(frozen: Frozen) -> None:
    it = frozen.victim
    it.line("stale", reason="no-beacon", within=45)
    assert it.process.alive
    assert it.runs() == {"n": 5}
    assert [line["event"] for line in it.process.lines] == ["applied", "fresh", "stale"]
    assert frozen.broker.process is not None
    frozen.broker.process.popen.send_signal(signal.SIGCONT)
    again = Wire(frozen.broker)
    it.wire = again
    again.sends(wire.SNAPSHOT_TOPIC, it.publisher.snapshot(), retain=True)
    it.line("fresh", within=20)
    it.goes_on()
    again.close()
