"""The trust root as a chain: keys rotated, revoked and taken offline, on real processes."""

from __future__ import annotations

import base64
import json
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config_manager.config import trust, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.root import Root
from config_manager.config.wire import Envelope
from tests.kit.processes import (
    MOSQUITTO,
    Listener,
    Processes,
    Server,
    eventually,
    listening,
    retained,
)
from tests.kit.shell import InProcess

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def command(server: Server, *words: str, code: int = 0) -> dict[str, Any]:
    ended = InProcess(server).run("trust", *words, "--json")
    assert ended.code == code, ended
    answer: dict[str, Any] = json.loads(ended.out) if code == 0 else {"said": ended.said}
    return answer


def walked(listener: Listener, newest: int) -> Root:
    """The chain as a client walks it, from what the broker holds."""
    root: Root | None = None
    for version in range(1, newest + 1):
        data = listener.message(wire.root_topic(version), within=10)
        root = trust.judge_root(data, root, time.time())
    assert root is not None
    return root


def beacon_of(snapshot: bytes, root: Root) -> Beacon:
    return trust.judge_beacon(json.loads(snapshot)["beacon"], root, time.time())


def wrote(answers: list[int], enough: int) -> bool:
    return len(answers) > enough


def signer_of(envelope: bytes) -> str:
    return wire.parse_envelope(envelope).signatures[0].keyid


def test_under_a_hundred_writes_a_second_every_message_verifies_under_what_was_announced_before_it(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    stop = threading.Event()
    answers: list[int] = []

    def write() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            answers.append(server.put("door", {"number": number}).status_code)

    server.put("door", {"number": 0})
    processes.pin(directory / "instance", server.data_dir / "trust" / "root.json")
    instance = processes.follow(directory / "instance", "door", broker.url)
    instance.event("applied", within=20)
    with listening(broker.port, "system/#") as listener:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for role, overlap in (
                ("config", "1h"),
                ("beacon", "1h"),
                ("config", "0"),
                ("root", "1h"),
            ):
                command(server, "rotate", role, "--overlap", overlap)
                enough = len(answers) + 20
                eventually(partial(wrote, answers, enough), within=20, what="writing went on")
        finally:
            stop.set()
            writer.join()
        server.wait_outbox_empty()
        assert set(answers) <= {200, 201}
        root: Root | None = None
        updates = 0
        for topic, payload, _ in list(listener.messages):
            if topic.startswith("system/trust/roots/"):
                if root is None or topic == wire.root_topic(root.version + 1):
                    root = trust.judge_root(payload, root, time.time())
            elif topic == wire.config_topic("door"):
                assert root is not None
                envelope = trust.open_envelope(payload)
                trust.verify(envelope, wire.CONFIG_UPDATE, "config", root, time.time())
                updates += 1
            elif topic == wire.SNAPSHOT_TOPIC:
                assert root is not None
                trust.judge_snapshot(payload, root, time.time())
        assert root is not None
        assert root.version == 5
        newest = server.get("/api/v1/config/door").json()["revision"]
        instance.event("applied", revision=newest, within=10)
        assert not [line for line in instance.lines if line.get("event") == "refused"]
        assert updates > 30


def test_what_a_revoked_key_signed_is_signed_again_and_its_version_is_named_by_the_beacon(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    names = ["one", "two", "three"]
    for name in names:
        server.put(name, {"x": 1})
    server.wait_outbox_empty()
    digests = {
        name: wire.parse_envelope(retained(broker.port, wire.config_topic(name))).digest
        for name in names
    }
    leaked = signer_of(retained(broker.port, wire.config_topic("one")))

    change = command(server, "revoke", leaked[:16], "--reason", "it leaked")
    assert (change["version"], change["adopted"]) == (2, True)
    with listening(broker.port, "system/#") as listener:
        root = walked(listener, 2)
        assert leaked not in root.keys
        for name in names:
            message = listener.message(
                wire.config_topic(name), lambda m: signer_of(m) != leaked, within=10
            )
            envelope = trust.open_envelope(message)
            trust.verify(envelope, wire.CONFIG_UPDATE, "config", root, time.time())
            assert envelope.digest == digests[name], "signed again, not changed"
        listener.message(
            wire.SNAPSHOT_TOPIC,
            lambda m: beacon_of(m, root).root_version == 2,
            within=5,
        )
    server.stop()
    server.start()
    assert server.get("/api/v1/trust/root").content == server.get("/api/v1/trust/roots/2").content
    assert (server.data_dir / "trust/root.json").read_bytes() == server.get(
        "/api/v1/trust/root"
    ).content
    server.put("one", {"x": 2})
    server.wait_outbox_empty()
    assert signer_of(retained(broker.port, wire.config_topic("one"))) != leaked


def test_two_of_three_signers_with_the_root_key_offline_by_the_commands_alone(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    stick = directory / "stick"
    stick.mkdir()
    for name in ("ada", "bob"):
        code, told = processes.run("trust", "make-key", "--out", str(stick / f"{name}.key"))
        assert code == 0, told.text
    command(server, "add-signer", "--public", str(stick / "ada.key.pub"))
    code, told = processes.run(
        "trust", "export-root", "--data-dir", str(server.data_dir), "--to", str(directory / "safe")
    )
    assert code == 0, told.text
    assert not list((server.data_dir / "keys").glob("root*"))

    waits = command(
        server, "add-signer", "--public", str(stick / "bob.key.pub"), "--threshold", "2"
    )
    assert waits["adopted"] is False
    assert [one["missing"] for one in waits["pending"]["needs"]] == [1, 2]
    assert server.get("/api/v1/trust/roots/3").status_code == 404

    def sign(key: Path, given: Path, out: Path) -> None:
        code, told = processes.run(
            *("trust", "sign", "--key", str(key), "--in", str(given), "--out", str(out), "--yes")
        )
        assert code == 0, told.text

    server.stop()  # what waits survives a restart
    server.start()
    to_sign, by_root, by_bob = (directory / f"{name}.json" for name in ("next", "one", "two"))
    command(server, "pending", "--out", str(to_sign))
    sign(directory / "safe/root.key", to_sign, by_root)
    half = command(server, "apply", str(by_root))
    assert half["adopted"] is False
    sign(stick / "bob.key", to_sign, by_bob)  # each signer on his own, from the same file
    done = command(server, "apply", str(by_bob))
    assert (done["version"], done["adopted"]) == (3, True)

    rotated = command(server, "rotate", "config")
    assert [one["missing"] for one in rotated["pending"]["needs"]] == [2, 2]
    command(server, "pending", "--out", str(to_sign))
    sign(stick / "ada.key", to_sign, by_root)
    sign(stick / "bob.key", by_root, by_bob)  # or handed on from one to the next
    assert command(server, "apply", str(by_bob))["version"] == 4
    with listening(broker.port, "system/#") as listener:
        root = walked(listener, 4)
    assert root.roles["root"].threshold == 2
    server.put("door", {})
    server.wait_outbox_empty()
    assert (
        signer_of(retained(broker.port, wire.config_topic("door")))
        == root.roles["config"].keyids[0]
    )


def test_what_nobody_may_bring_is_refused_and_the_root_stays(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    current = server.get("/api/v1/trust/root").json()
    payload = json.loads(base64.b64decode(current["payload"]))
    for name, version in (("old", 1), ("jump", 3), ("unsigned", 2)):
        forged = Envelope(wire.ROOT, json.dumps({**payload, "version": version}).encode(), ())
        file = directory / f"{name}.json"
        value = forged.to_object() | {"signatures": current["signatures"]}
        file.write_text(json.dumps(value))
        command(server, "apply", str(file), code=7)
    assert server.get("/api/v1/trust/root").json() == current
    command(server, "revoke", "0" * 16, code=6)
    root_key = payload["roles"]["root"]["keyids"][0]
    assert "add-signer" in str(command(server, "revoke", root_key, code=7))


@pytest.mark.parametrize("step", ["roots/2.json written", "root.json of another publisher"])
def test_a_death_between_two_files_is_caught_up_and_an_exchanged_root_is_refused(
    shop: tuple[Processes, Path], step: str
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    current = server.data_dir / "trust/root.json"
    before = current.read_bytes()
    command(server, "rotate", "config")
    server.kill()
    if step == "roots/2.json written":
        current.write_bytes(before)
        server.start()
        assert server.get("/api/v1/trust/root").content != before
        assert current.read_bytes() == server.get("/api/v1/trust/root").content
        return
    other = processes.server(directory / "other", "none:")
    current.write_bytes((other.data_dir / "trust/root.json").read_bytes())
    assert server.launch().wait() == 5


def test_every_change_is_in_the_audit_with_who_and_why(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    command(server, "rotate", "beacon", "--reason", "every spring")
    said = [line for line in server.process.lines if line.get("action") == "trust.rotate"]
    assert len(said) == 1
    assert said[0]["by"] == "bootstrap"
    adopted = server.process.event("root adopted", version=2)
    assert adopted["correlation_id"] == said[0]["correlation_id"]
