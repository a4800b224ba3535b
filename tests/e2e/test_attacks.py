"""The attack list, against the real command on a real broker: refused by its name, and on it goes.

`config-manager conformance` plays it; here stands what the kit does not ask of every client: a detail that names the
case, and what is on our client's disk afterwards. What needs time to pass is told to the same rules in virtual time;
a broker that freezes is also frozen for real.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from config_manager.api.conformance.attacks import ATTACKS, FARTHEST
from config_manager.api.conformance.groups import chosen
from config_manager.api.conformance.publisher import Publisher
from config_manager.client.commands.running import to_line
from config_manager.client.rules.events import Event, News
from config_manager.client.rules.root_chain import RootChain, pin
from config_manager.client.state.identity import load_identity, trust_init
from config_manager.client.testing.signed_documents import key_id
from config_manager.config import wire
from config_manager.config.world import parse_rfc3339, rfc3339
from tests.kit.clients import Taker
from tests.kit.conformance import Kit
from tests.kit.processes import COMMAND, MOSQUITTO, Broker, Process, Processes, workshop

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

SOON_S = 10.0


# ── a broker that freezes: stopped before the first test, asked about in the last ──────────────


class Frozen(NamedTuple):
    process: Process
    broker: Broker
    publisher: Publisher
    state: Path


@pytest.fixture(scope="module")
def shop_of_attacks() -> Iterator[tuple[Processes, Path]]:
    with workshop() as both:
        yield both


def sends(broker: Broker, *messages: tuple[str, bytes]) -> None:
    """Retained."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.connect("127.0.0.1", broker.port, keepalive=60)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1, retain=True).wait_for_publish(SOON_S)
    client.disconnect()
    client.loop_stop()


@pytest.fixture(scope="module", autouse=True)
def frozen(shop_of_attacks: tuple[Processes, Path]) -> Iterator[Frozen]:
    """The half minute passes while the other tests run."""
    processes, directory = shop_of_attacks
    broker = processes.broker(directory / "frozen-broker")
    publisher, state = Publisher("frozen"), directory / "frozen"
    (directory / "root.json").write_bytes(publisher.root())
    trust_init(state, directory / "root.json")
    publisher.revision = 5
    snapshot = (wire.SNAPSHOT_TOPIC, publisher.snapshot())
    sends(broker, (publisher.topic, publisher.update(5)), snapshot)
    process = processes.follow(state, "frozen", broker.url)
    process.event("applied", revision=5)
    process.event("fresh")
    assert broker.process is not None
    broker.process.popen.send_signal(signal.SIGSTOP)
    yield Frozen(process, broker, publisher, state)
    broker.process.popen.send_signal(signal.SIGCONT)


# ── what is refused at once ────────────────────────────────────────────────────────────────────

DETAILS = {
    "unsigned": ("signatures",),
    "an empty list of signatures": ("signatures",),
    "a stranger's key": ("0 of 1 needed config keys .* is not listed",),
    "a stranger's signature under the right key's id": ("did not sign these bytes",),
    "the beacon's key on a configuration": ("is the beacon key there",),
    "the root's key on a configuration": ("is the root key there",),
    "a key past its not_after": ("past its not_after, 2020",),
    "content swapped under a signature": ("did not sign these bytes",),
    "a signature a byte short": ("did not sign",),
    "five signatures of one key": ("1 to 4",),
    "a snapshot's type": ("snapshot",),
    "a genuine snapshot in a configuration's place": ("snapshot",),
    "a genuine root in a configuration's place": ("root",),
    "another type's signature under a configuration's label": ("did not sign",),
    "no type at all": ("payloadType",),
    "another service's message": ("signed for 'router'",),
    "another topic's message": ("signed for 'system/config/router'",),
    "a field that must be known and is not": ("'only_at_night'",),
    "a rollback": ("revision 4 of epoch 1 after",),
    "a replay of yesterday's": ("was seen",),
    "an older epoch with a higher revision": ("of epoch 0 after",),
    "an equal revision with other content": ("seen with other content",),
    "an equal revision that deletes": ("other content",),
    "2^53 as the revision": ("revision: .*2\\^53",),
    "2^63 as the revision": ("2\\^53",),
    "2^53 as the epoch": ("epoch_seq",),
    "a negative revision": ("revision",),
    "true as the revision": ("revision",),
    "text as the revision": ("revision",),
    "a revision of a hundred thousand digits": ("2\\^53",),
    "too large": ("the limit is 262144",),
    "empty": ("a deletion is a signed tombstone",),
    "not JSON": ("not JSON",),
    "not UTF-8": ("not UTF-8",),
    "100,000 levels deep": ("deeper",),
    "200 levels deep, and signed": ("deeper",),
    "a list": ("object",),
    "the envelope cut in half": ("not JSON",),
    "broken base64": ("payload: not base64",),
    "the same member twice": ("twice",),
    "NaN": ("NaN",),
    "a lone surrogate": ("surrogate",),
    "no configuration inside": ("config",),
    "a beacon by the configuration's key": ("is the config key there",),
    "a beacon by a stranger": ("needed beacon keys",),
    "a keepalive that is no JSON": ("keepalive",),
    "a keepalive too large": ("keepalive",),
    "a snapshot with another snapshot's beacon": ("names another snapshot",),
    "a snapshot without a beacon": ("object",),
    "a root by a stranger": ("needed root keys of root 1",),
    "a root by the configuration's key": ("is the config key there",),
    "a root whose new root key did not sign": ("needed root keys of root 2",),
    "a root on another version's topic": ("root 3 came on 'system/trust/roots/2'",),
    "a topic that is no version": ("is no version",),
    "a fork of the pinned root": ("root 1 forks",),
    "an empty root": ("empty",),
    "a root too large": ("262144",),
    "one of two": ("1 of 2 needed",),
    "one key twice": ("1 of 2 .*counts once",),
    "one key under two names": ("did not sign these bytes",),
    "one of two and a stranger": ("1 of 2 .*is not listed",),
    "one of two and the root's": ("1 of 2 .*is the root key",),
    "a key that the newest root does not list": ("root 1 was the last to list .* revoked",),
    "a fork of a root that was taken": ("root 2 forks",),
    "a root that was taken, after kill -9": ("root 1 was the last to list",),
    "a stolen key's fast-forward ends with the key": (
        "after revision 90071992547409",
        "revision 49 of epoch 1 after revision 50",
    ),
    "away while three roots came, in any order": ("root 3 was the last to list",),
}
"""What our client says of each attack and in each story: regular expressions, each found in the detail of a
refusal."""

GROUPS = (*ATTACKS, "keys")


@pytest.fixture(scope="module")
def kit(
    shop_of_attacks: tuple[Processes, Path],
    frozen: Frozen,  # noqa: ARG001  first things first
) -> Kit:
    processes, directory = shop_of_attacks
    return Kit.play(processes, directory / "kept", *GROUPS)


@pytest.mark.parametrize(
    ("group", "name"), [(c.group, c.name) for g in chosen(GROUPS, ())[1:] for c in g.cases(0.0)]
)
def test_an_attack_is_refused_by_its_name_and_what_runs_goes_on(
    kit: Kit, group: str, name: str
) -> None:
    case = kit.case(group, name)
    assert case["passed"], case
    assert case["unsafe"] is None
    details = [line["detail"] for line in case["said"] if line["event"] == "refused"]
    if group in ATTACKS:
        assert len(details) == 1, details
        assert name in DETAILS
    for pattern in DETAILS.get(name, ()):
        assert any(re.search(pattern, detail) for detail in details), details


@pytest.mark.parametrize(("rig", "last"), [("signers", "roots"), ("thresholds", "thresholds")])
def test_after_all_of_them_it_still_runs_what_was_published_last(
    kit: Kit, rig: str, last: str
) -> None:
    """What nobody signed for is not to be found on its disk either, nor was a root believed."""
    (state,) = kit.states(rig)
    case = kit.cases(last)[-1]
    (applied,) = [line for line in case["said"] if line["event"] == "applied"]
    assert runs(state, applied["service"]) == applied["config"]
    assert load_identity(state).root.version == 1


def runs(state: Path, service: str) -> Any:
    """What a script would read: `client get`, without any network."""
    command = [COMMAND, "client", "get", "--state", str(state), "--service", service]
    done = subprocess.run(command, capture_output=True, check=True, timeout=20)
    return json.loads(done.stdout)


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
    process, broker, publisher, state = frozen
    process.event("stale", reason="no-beacon", within=45)
    assert process.alive
    assert runs(state, "frozen") == {"n": 5}
    assert [line["event"] for line in process.lines] == ["applied", "fresh", "stale"]
    assert broker.process is not None
    broker.process.popen.send_signal(signal.SIGCONT)
    publisher.revision = 6
    sends(
        broker, (publisher.topic, publisher.update(6)), (wire.SNAPSHOT_TOPIC, publisher.snapshot())
    )
    process.event("applied", revision=6, within=20)
    assert process.lines[-1]["event"] in ("applied", "fresh")
