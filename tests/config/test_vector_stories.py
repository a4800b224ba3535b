"""The vectors that take time or several messages, against the client's own rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from config_manager.api.conformance.vectors import chain, message_of
from config_manager.client.commands.running import to_line
from config_manager.client.drivers.follower import Anything
from config_manager.client.drivers.opening import read_layers
from config_manager.client.rules.events import News
from config_manager.client.rules.identity import Identity
from config_manager.client.rules.instance import InstanceRules
from config_manager.client.rules.kept import Kept, left_by
from config_manager.client.rules.pace import Pace
from config_manager.client.rules.root_chain import RootChain
from config_manager.client.rules.subscriber import Subscriber
from config_manager.client.rules.todo import Call, Do, Tell, TrialPolicy
from config_manager.client.state.cache import Cache
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.root import KeyRole
from config_manager.config.names import InstanceName, ServiceName
from config_manager.config.world import World, rfc3339
from tests.config.test_vectors import DOCUMENTS, VECTORS, by_name, seconds
from tests.kit import clients

MESSAGES: dict[str, dict[str, str]] = VECTORS["timeline_messages"]


@by_name(VECTORS["beacon_cases"])
def test_a_beacon_is_judged_as_the_page_says(case: dict[str, Any]) -> None:
    before = tuple(case["highest"]) if case["highest"] is not None else None
    kept = Kept(None, None, beacon_order=before)
    it = Subscriber(VECTORS["service"], VECTORS["instance"], RootChain(chain(case["under"])), kept)
    it.receive(case["topic"], message_of(case), seconds(case["now"]), 0.0)
    it.tick(1.0)
    assert list(it.refusals.elements()) == ([] if case["reason"] is None else [case["reason"]])
    assert (it.freshness.beacon_order != before) is case["rises"]


@by_name(VECTORS["marks"])
def test_a_newer_root_leaves_of_a_mark_what_the_page_says(case: dict[str, Any]) -> None:
    by_key = {key: tuple(mark) for key, mark in case["by_key"].items()}
    role = KeyRole(tuple(case["listed"]), case["threshold"])
    _, left = left_by(by_key, tuple(case["highest"]), role)
    assert left == (None if case["left"] is None else tuple(case["left"]))


@by_name(VECTORS["replay"])
def test_a_replay_is_noticed_as_the_page_says(case: dict[str, Any]) -> None:
    pace, beacon = Pace(), Beacon.parse(DOCUMENTS["beacon"]["payload"].encode())
    assert beacon.valid_s == 30
    counted = []
    for at, boot_seq, seq, issued_at, _ in case["heard"]:
        made = replace(beacon, boot_seq=boot_seq, seq=seq, issued_at=rfc3339(issued_at))
        pace.heard(made, at)
        counted.append(pace.keeps_up)
    assert counted == [heard[-1] for heard in case["heard"]]


class Told:
    """A client of one timeline, which hears its messages and a tick every second."""

    def __init__(self, story: dict[str, Any]) -> None:
        self.said: list[dict[str, Any]] = []
        self._begins = seconds(story["begins"])
        self._now = 0.0
        self._refuses = False
        clock = clients.SetClock(self._begins)
        instance = InstanceName(story["instance"])
        identity = Identity(
            Path("state"), instance, tuple(chain(story["trusted"])),
            b"s" * 32, bytes.fromhex(VECTORS["seal"]["private_hex"]), b"f" * 32,
        )  # fmt: skip
        world = World(clock=clock, disk=clients.MemoryDisk())
        cache = Cache(
            identity.state_dir, story["service"], identity.file_key, identity.roots, world
        )
        if (kept := story["kept"]) is not None:
            cache.keep(clients.make_kept(0, MESSAGES[kept]["message"].encode()))
        self.rules: InstanceRules[Anything] = InstanceRules(
            ServiceName(story["service"]),
            instance,
            identity,
            read_layers(Anything, "", environment={}),
            cache.load(),
            policy=TrialPolicy(bake_s=0),
            boot_seq=1,
            asks=True,
            world=world,
        )
        self._do(self.rules.start(0.0))
        self.said.clear()  # it runs what was kept

    def hears(self, step: dict[str, Any]) -> None:
        while self._now < step["at"]:
            self._now = min(self._now + 1, step["at"])
            self._do(self.rules.tick(self._now, self._begins + self._now))
        self._refuses = step.get("service_refuses", False)
        if "gives" in step:
            given = MESSAGES[step["gives"]]
            wall, message = self._begins + self._now, given["message"].encode()
            self._do(self.rules.receive(given["topic"], message, wall, self._now))

    def _do(self, todo: list[Do[Any]]) -> None:
        for do in todo:
            if isinstance(do, Tell) and isinstance(do.event, News):
                self.said.append(to_line("", do.event))
            elif isinstance(do, Call):
                answer = ValueError("no") if self._refuses else None
                self._do(self.rules.called(answer, self._now))


@by_name(VECTORS["timelines"])
def test_a_timeline_goes_as_the_page_says(case: dict[str, Any]) -> None:
    told = Told(case)
    for step in case["steps"]:
        told.hears(step)
        said = [
            {name: line[name] for name in ("event", "reason", "revision") if name in line}
            for line in told.said
        ]
        assert said == step["says"], step
        assert told.rules.freshness == step["freshness"], step
        if "trusts" in step:
            assert told.rules.subscriber.root.version == step["trusts"], step
        told.said.clear()


def test_every_message_of_the_timelines_is_used() -> None:
    given = {step.get("gives") for story in VECTORS["timelines"] for step in story["steps"]}
    kept = {story["kept"] for story in VECTORS["timelines"]}
    assert MESSAGES.keys() <= given | kept
