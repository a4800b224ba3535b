"""One story at each broker that can be had here; docs/brokers.md says how it went.

Each step is a row of `STEPS`, in order: the docs name them, and a test holds the docs to this list.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.kit.brokers import BROKERS, NatsOverWebSocket, RealBroker
from tests.kit.processes import TOKEN, Process, Processes, Server, eventually, workshop
from tests.kit.secure_broker import ca_file, issue

SERVICE = "door"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "brokers.md"
FRESH_FOR_S = 35.0
"""Longer than a client waits for a message that the snapshot names, or for a beacon."""


class Story:
    """A server on this broker, and instances of one service."""

    def __init__(self, processes: Processes, directory: Path, broker: RealBroker) -> None:
        self.processes, self.directory, self.broker = processes, directory, broker
        self.server: Server = processes.server(
            directory / "data", broker.url("config-manager"), start=False
        ).start(within=30)
        self.first_root = directory / "root.json"
        self.first_root.write_bytes((directory / "data" / "trust" / "root.json").read_bytes())
        self.steady: Process  # from the first step to the last
        self.late: Process
        self.began = 0.0
        self.pad = 100

    def follow(self, name: str, *more: str) -> Process:
        """An instance that was pinned to the first root; from the second call on, a restart."""
        state = self.directory / name
        if not state.exists():
            self.processes.pin(state, self.first_root)
        url = self.broker.url(SERVICE)
        return self.processes.follow(state, SERVICE, url, "--instance", name, *more)

    def put(self) -> int:
        """Another value; its revision, once this broker gave it back."""
        self.pad += 1
        values = {"pad": self.pad}
        answer = self.server.put(SERVICE, values, params={"wait": "confirmed", "timeout": "20"})
        assert answer.json()["propagation"] == "confirmed", answer.text
        return int(answer.json()["revision"])

    def command(self, *words: str) -> dict[str, Any]:
        ended, told = self.processes.run(
            *(*words, "--url", self.server.url, "--json"),
            env={
                "CONFIG_MANAGER_TOKEN": TOKEN,
                "CONFIG_MANAGER_MQTT_URL": self.broker.url("config-manager"),
            },
            within=90,
        )
        assert ended == 0, told.text
        answer: dict[str, Any] = json.loads(told.text[0])
        return answer

    def shown(self, name: str, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            found = self.server.get("/api/v1/status").json()["instances"]
            return next((one for one in found if one["instance"] == name and fits(one)), None)

        return eventually(probe, within=20, what=f"{name} in the status")


def a_change_is_applied_within_a_second_and_its_receipt_comes_back(story: Story) -> None:
    story.put()
    story.steady = story.follow("steady")
    story.steady.event("applied", within=20)
    began = time.monotonic()
    story.steady.event("applied", revision=story.put(), within=10)
    took = time.monotonic() - began
    print(f"{story.broker.name}: applied {took:.3f} s after the PUT was sent")
    story.shown("steady", lambda i: i["in_sync"])
    story.steady.event("fresh", within=20)
    story.began = time.monotonic()


def an_instance_that_comes_later_is_given_it(story: Story) -> None:
    revision = story.server.get(f"/api/v1/config/{SERVICE}").json()["revision"]
    story.late = story.follow("late")
    story.late.event("applied", revision=revision, within=20)
    story.shown("late", lambda i: i["in_sync"])


def an_instance_that_dies_is_gone_and_is_back_after_a_restart(story: Story) -> None:
    story.late.kill()
    story.shown("late", lambda i: i["gone"])
    story.late = story.follow("late")
    story.late.event("applied", source="last-known-good", within=20)
    story.shown("late", lambda i: i["in_sync"] and not i["gone"])


def an_enrolled_instance_is_given_its_secret(story: Story) -> None:
    body = {"service": SERVICE, "name": "pin", "value": "hunter2"}
    assert story.server.http.post("/api/v1/secrets", json=body).status_code == 201
    token = story.directory / "token"
    token.write_text(story.command("devices", "token", "--service", SERVICE)["token"])
    state = story.directory / "trusted"
    story.processes.pin(state, story.first_root)
    code, told = story.processes.run(
        *("client", "enroll", "--state", str(state), "--service", SERVICE, "--instance", "trusted"),
        *("--url", story.server.url, "--token-file", str(token)),
    )
    assert code == 0, told.text
    shell = 'echo "{\\"pin\\": \\"$DOOR_PIN\\"}"; exec sleep 600'
    trusted = story.follow("trusted", "--secrets", "--", "sh", "-c", shell)
    trusted.line(lambda line: line.get("pin") == "hunter2", within=20, what="its secret")


def the_server_is_restarted(story: Story) -> None:
    story.server.stop()
    story.server.start(within=30)
    story.steady.event("applied", revision=story.put(), within=20)
    story.shown("steady", lambda i: i["in_sync"])


def a_key_is_exchanged_and_who_missed_it_gets_there(story: Story) -> None:
    story.late.terminate()
    for role in ("config", "beacon", "config"):
        story.command("trust", "rotate", role, "--overlap", "0")
    revision = story.put()
    story.steady.event("applied", revision=revision, within=20)
    story.late = story.follow("late")
    newcomer = story.follow("newcomer")
    for instance in (story.late, newcomer):
        instance.event("applied", revision=revision, within=20)
        instance.event("fresh", within=20)
    newcomer.terminate()


def what_runs_stays_fresh_for_35_s(story: Story) -> None:
    """But for the moment in which what runs was signed by a key that is revoked."""

    def is_stale(line: dict[str, Any]) -> bool:
        return bool(line["event"] == "stale" and line["reason"] != "signer-revoked")

    left = story.began + FRESH_FOR_S - time.monotonic()
    with pytest.raises(AssertionError, match="not within"):
        story.steady.line(is_stale, within=max(left, 0.1))


def doctor_says_what_the_page_says(story: Story) -> None:
    found = [one for one in story.command("doctor")["findings"] if one["level"] != "ok"]
    assert {(one["level"], one["check"]) for one in found} == story.broker.doctor, found


def a_deletion_arrives(story: Story) -> None:
    assert story.server.http.delete(f"/api/v1/config/{SERVICE}").status_code == 200
    story.steady.event("deleted", within=10)


def a_broker_that_comes_back_empty_is_filled_again(story: Story) -> None:
    story.put()
    story.broker.kill()
    story.broker.forget()
    revision = int(story.server.put(SERVICE, {"pad": 500}).json()["revision"])
    story.broker.start()
    story.steady.event("applied", revision=revision, within=60)
    story.follow("last").event("applied", revision=revision, within=20)
    story.server.wait_outbox_empty()
    for name in ("steady", "late", "last"):
        story.shown(name, lambda i: i["in_sync"])


STEPS: tuple[Callable[[Story], None], ...] = (
    a_change_is_applied_within_a_second_and_its_receipt_comes_back,
    an_instance_that_comes_later_is_given_it,
    an_instance_that_dies_is_gone_and_is_back_after_a_restart,
    an_enrolled_instance_is_given_its_secret,
    the_server_is_restarted,
    a_key_is_exchanged_and_who_missed_it_gets_there,
    what_runs_stays_fresh_for_35_s,
    doctor_says_what_the_page_says,
    a_deletion_arrives,
    a_broker_that_comes_back_empty_is_filled_again,
)


@pytest.mark.torture
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", BROKERS, ids=lambda kind: kind.__name__)
def test_a_broker_carries_all_that_there_is(kind: type[RealBroker]) -> None:
    if (program := kind.missing()) is not None:
        pytest.skip(f"{program} is not installed")
    with workshop() as (processes, directory):
        broker = kind(processes, directory / "broker")
        broker.start()
        story = Story(processes, directory, broker)
        for step in STEPS:
            step(story)
        said = [line for line in story.server.process.lines if line.get("level") == "error"]
        assert not said


UNDER_ASYNCIO = """
import asyncio, sys
from pydantic import BaseModel
from config_manager.client import open_config

class Door(BaseModel):
    note: str = ""

async def main():
    async with open_config(Door, service="door", state_dir=sys.argv[1], mqtt_url=sys.argv[2],
                           instance="attic") as config:
        print('{"length": %d}' % len(config.current.note), flush=True)
        async for change in config.changes():
            print('{"length": %d}' % len(change.new.note), flush=True)

asyncio.run(main())
"""


class NatsOverTls(NatsOverWebSocket):
    scheme = "wss"

    def prepare(self) -> None:
        authority = trustme.CA()
        self._ca = ca_file(authority, self.directory)
        self._cert = issue(authority, self.directory / "broker.pem", "127.0.0.1")
        super().prepare()

    def url(self, user: str) -> str:
        return f"{super().url(user)}?ca={self._ca}"

    def listeners(self) -> str:
        tls = f'tls {{ cert_file: "{self._cert}", key_file: "{self._cert}" }}'
        return super().listeners().replace("no_tls: true", tls)


@pytest.mark.torture
@pytest.mark.timeout(120)
def test_through_a_web_socket_under_tls_everyone_gets_what_is_large() -> None:
    """And goes on once the broker was killed in the middle."""
    if (program := NatsOverTls.missing()) is not None:
        pytest.skip(f"{program} is not installed")
    with workshop() as (processes, directory):
        broker = NatsOverTls(processes, directory / "broker")
        broker.start()
        story = Story(processes, directory, broker)
        processes.pin(directory / "attic", story.first_root)
        attic = processes.start(
            [sys.executable, "-c", UNDER_ASYNCIO, str(directory / "attic"), broker.url(SERVICE)]
        )
        cellar = story.follow("cellar")
        for length in (180_000, 180_001):
            revision = story.server.put(SERVICE, {"note": "x" * length}).json()["revision"]
            attic.line({"length": length}.__eq__, within=30)
            cellar.event("applied", revision=revision, within=20)
            for name in ("attic", "cellar"):
                story.shown(name, lambda i: i["in_sync"])
            broker.kill()
            broker.start()
        said = story.server.health()["broker"]
        assert [url.partition("?")[0] for url in said] == [broker.url("").partition("?")[0]]


def test_the_page_has_a_row_for_each_of_these_brokers_and_a_line_for_each_step() -> None:
    text = PAGE.read_text().partition("## What was tried")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!broker|-)(.+?) \|", text, re.MULTILINE)
    assert rows == [kind.name for kind in BROKERS]
    steps = re.findall(r"^\d+\. (.+?)\.$", text, re.MULTILINE)
    assert steps == [" ".join(step.__name__.split("_")).capitalize() for step in STEPS]
