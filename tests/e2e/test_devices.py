"""Enrolment and sealed delivery on real processes: who receives secrets, and who does not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from config_manager.client.rules.identity import Identity
from config_manager.client.state.identity import load_identity
from config_manager.config import trust, wire
from config_manager.config.documents.sealed import Sealed
from config_manager.config.sealing import open_sealed
from tests.kit.processes import (
    COMMAND,
    MOSQUITTO,
    Processes,
    Server,
    eventually,
    listening,
    retained,
)
from tests.kit.shell import InProcess, in_process

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

SERVICE = "door"


def set_secret(server: Server, name: str, value: str) -> None:
    body = {"service": SERVICE, "name": name, "value": value}
    assert server.http.post("/api/v1/secrets", json=body).status_code == 201


def enrol(
    processes: Processes, server: Server, state: Path, token: str | None = None, code: int = 0
) -> Identity:
    if not state.exists():
        processes.pin(state, server.data_dir / "trust" / "root.json")
    if token is None:
        token = InProcess(server).ok("devices", "token", "--service", SERVICE)["token"]
    file = state.with_suffix(".token")
    file.write_text(token + "\n")
    ended = in_process(
        *("client", "enroll", "--state", str(state), "--service", SERVICE),
        *("--url", server.url, "--token-file", str(file)),
    )
    assert ended.code == code, ended
    return load_identity(state)


def delivered(server: Server, port: int, identity: Identity, within: float = 10) -> Sealed:
    data = retained(port, wire.sealed_topic(SERVICE, identity.instance), within=within)
    envelope = trust.open_envelope(data)
    payload = trust.verify(envelope, wire.SEALED, "config", server.root(), time.time())
    return Sealed.parse(payload)


def opened(sealed: Sealed, identity: Identity) -> dict[str, str]:
    return {name: open_sealed(sealed, name, identity.seal_key).reveal() for name in sealed.secrets}


def test_secrets_come_sealed_to_who_enrolled_and_to_nobody_else(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put(SERVICE, {"open": True})
    set_secret(server, "pin", "hunter2-marked")
    server.wait_outbox_empty()
    before = retained(broker.port, wire.config_topic(SERVICE))
    with listening(broker.port, "system/#") as listener:
        ada = enrol(processes, server, directory / "ada")
        sealed = delivered(server, broker.port, ada)
        assert opened(sealed, ada) == {"pin": "hunter2-marked"}
        bob = enrol(processes, server, directory / "bob")
        theirs = delivered(server, broker.port, bob)
        assert opened(theirs, bob) == {"pin": "hunter2-marked"}
        for value in theirs.secrets.values():
            with pytest.raises(CryptoError):
                SealedBox(PrivateKey(ada.seal_key)).decrypt(value.ciphertext)
        assert retained(broker.port, wire.config_topic(SERVICE)) == before

        set_secret(server, "pin", "changed-marked")
        eventually(
            lambda: opened(delivered(server, broker.port, ada), ada) == {"pin": "changed-marked"},
            within=10,
            what="the new value is delivered",
        )
        everything = b"".join(payload for _, payload, _ in listener.messages)
    assert b"marked" not in everything
    assert "marked" not in "\n".join(server.process.text)


def test_the_same_sealed_bytes_after_a_crash_and_refilled_where_a_broker_lost_them(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    set_secret(server, "pin", "hunter2")
    ada = enrol(processes, server, directory / "ada")
    before = delivered(server, broker.port, ada)
    server.kill()
    broker.kill()
    broker.forget()
    broker.start()
    server.start()
    assert delivered(server, broker.port, ada) == before
    with listening(broker.port, "system/#") as listener:
        topic = wire.sealed_topic(SERVICE, ada.instance)
        good = listener.message(topic)
        listener.publish(topic, b"garbled")
        listener.message(topic, lambda m: m == b"garbled")
        eventually(lambda: listener.newest()[topic] == good, within=10, what="it is repaired")


def test_a_revoked_instance_gets_nothing_more_and_what_it_knew_is_marked(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    set_secret(server, "pin", "hunter2")
    ada = enrol(processes, server, directory / "ada")
    delivered(server, broker.port, ada)
    with listening(broker.port, "system/config-sealed/#") as listener:
        topic = wire.sealed_topic(SERVICE, ada.instance)
        listener.message(topic)
        told = InProcess(server).ok("devices", "revoke", SERVICE, ada.instance)
        assert told["secrets"] == ["pin"]
        listener.message(topic, lambda m: m == b"")
        [secret] = server.get("/api/v1/secrets").json()["secrets"]
        assert ada.instance in secret["rotate"]["why"]
        set_secret(server, "pin", "changed")
        [secret] = server.get("/api/v1/secrets").json()["secrets"]
        assert secret["rotate"] is None
        server.wait_outbox_empty()
        assert listener.newest()[topic] == b""
    [device] = server.get("/api/v1/devices").json()["devices"]
    assert device["revoked_at"]
    enrol(processes, server, directory / "ada")  # with a new token it may come back
    assert opened(delivered(server, broker.port, ada), ada) == {"pin": "changed"}


def test_a_token_is_good_once_and_a_wrong_one_is_refused(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    made = server.http.post("/api/v1/devices/tokens", json={"service": SERVICE}).json()
    enrol(processes, server, directory / "ada", made["token"])
    enrol(processes, server, directory / "bob", made["token"], code=5)
    enrol(processes, server, directory / "eve", "not-a-token", code=5)
    names = [one["instance"] for one in server.get("/api/v1/devices").json()["devices"]]
    assert names == [load_identity(directory / "ada").instance]


def test_status_tells_the_enrolled_from_who_only_says_so(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put(SERVICE, {"open": True})
    ada = enrol(processes, server, directory / "ada")
    processes.follow(directory / "ada", SERVICE, broker.url).event("applied", within=20)
    processes.pin(directory / "eve", server.data_dir / "trust" / "root.json")

    def instances() -> dict[str, Any]:
        found = server.get("/api/v1/status").json()["instances"]
        return {one["instance"]: one for one in found}

    eventually(
        lambda: instances().get(ada.instance, {}).get("in_sync"), within=10, what="ada's receipt"
    )
    assert instances()[ada.instance]["enrolled"] is True
    before = server.get("/api/v1/status").json()["refused"]
    # eve speaks in ada's name, with a key of her own
    processes.start(
        [COMMAND, "client", "run", "--state", str(directory / "eve"), "--service", SERVICE,
         "--mqtt-url", broker.url, "--instance", str(ada.instance)]
    ).event("applied", within=20)  # fmt: skip
    eventually(
        lambda: server.get("/api/v1/status").json()["refused"] > before,
        within=10,
        what="her receipt is refused",
    )
    assert instances()[ada.instance]["enrolled"] is True


def test_a_program_gets_its_secrets_where_it_asked_for_them_and_starts_with_them_offline(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put(SERVICE, {"open": True})
    set_secret(server, "pin", "first-marked")
    state, template, target = (directory / name for name in ("ada", "template", "target"))
    template.write_text("pin = ${pin}\n")
    ada = enrol(processes, server, state)

    def run() -> Any:
        return processes.start(
            [COMMAND, "client", "run", "--state", str(state), "--service", SERVICE,
             "--mqtt-url", broker.url, "--render", f"{template}:{target}", "--secrets",
             "--on-change", "HUP", "--", "sh", "-c", "trap : HUP; while :; do sleep 0.1; done"]
        )  # fmt: skip

    def rendered() -> str:
        return target.read_text() if target.exists() else ""

    wrapped = run()
    eventually(lambda: rendered() == "pin = first-marked\n", within=20, what="it has its secret")
    assert target.stat().st_mode & 0o777 == 0o600
    set_secret(server, "pin", "second-marked")
    eventually(lambda: rendered() == "pin = second-marked\n", within=10, what="the new value")
    follower = processes.follow(state, SERVICE, "none:", "--instance", str(ada.instance))
    follower.event("applied", within=20)
    code, told = processes.run("client", "get", "--state", str(state), "--service", SERVICE)
    assert code == 0
    said = "\n".join([*follower.text, *told.text, *wrapped.text, *server.process.text])
    assert "marked" not in said
    follower.terminate()
    wrapped.terminate()
    server.kill()
    broker.kill()
    target.unlink()
    run()
    eventually(lambda: rendered() == "pin = second-marked\n", within=20, what="offline, too")
    kept = b"".join(file.read_bytes() for file in state.rglob("*") if file.is_file())
    assert b"marked" not in kept
