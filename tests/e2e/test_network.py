"""TLS for REST and MQTT, the ACL template on a real Mosquitto, and what doctor finds there."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.kit.earlier import SERVICE_PROGRAM, python
from tests.kit.processes import (
    COMMAND,
    MOSQUITTO,
    TOKEN,
    Processes,
    Server,
    answers,
    eventually,
    free_port,
)
from tests.kit.secure_broker import SecureBroker, ca_file, issue

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def lock(path: Path) -> Path:
    """The same certificate, its key under a passphrase."""
    key, cert = path.read_bytes(), path.read_bytes().partition(b"-----BEGIN CERT")
    locked = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase")
    )
    path.write_bytes(locked + cert[1] + cert[2])
    return path


# ── REST ───────────────────────────────────────────────────────────────────────────────────────


def serial_shown(url: str, context: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection is shown."""
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.get(url + "/health")
        assert answer.status_code == 200
        stream: Any = answer.extensions["network_stream"]
        return str(stream.get_extra_info("ssl_object").getpeercert()["serialNumber"])


def test_rest_over_tls_takes_a_renewed_certificate_without_a_restart(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> None:
    processes, directory = shop
    cert = issue(authority, directory / "server.pem", "127.0.0.1")
    server = processes.server(
        directory / "data", "none:", "--tls-cert-file", str(cert), start=False
    )
    url = server.launch().event("ready", within=15)["url"]
    assert url.startswith("https://")
    trusting = ssl.create_default_context(cafile=ca_file(authority, directory))
    before = serial_shown(url, trusting)

    issue(authority, cert, "127.0.0.1")
    eventually(
        lambda: serial_shown(url, trusting) != before, within=10, what="the new one is shown"
    )
    server.process.event("certificate reloaded")

    shown = serial_shown(url, trusting)
    cert.write_text("half a certificate")
    eventually(
        lambda: (
            serial_shown(url, trusting) == shown
            and any(
                line.get("event") == "certificate not reloaded" for line in server.process.lines
            )
        ),
        within=10,
        what="one that does not load is said, and the one before stays",
    )
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/health", trust_env=False)  # whose authority is unknown
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http") + "/health", trust_env=False)
    assert serial_shown(url, trusting) == shown


def test_who_never_finishes_the_handshake_costs_the_others_nothing(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> None:
    processes, directory = shop
    cert = issue(authority, directory / "server.pem", "127.0.0.1")
    server = processes.server(
        directory / "data", "none:", "--tls-cert-file", str(cert), start=False
    )
    url = server.launch().event("ready", within=15)["url"]
    host, _, port = url.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=ca_file(authority, directory))
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    for one in silent[:10]:
        one.sendall(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello begins, and no more
    silent[0].close()
    try:
        for _ in range(5):
            serial_shown(url, context)
    finally:
        for one in silent:
            one.close()


def test_operator_commands_speak_https_to_an_authority_of_their_own(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> None:
    processes, directory = shop
    cert = issue(authority, directory / "server.pem", "127.0.0.1")
    server = processes.server(
        directory / "data", "none:", "--tls-cert-file", str(cert), start=False
    )
    url = server.launch().event("ready", within=15)["url"]
    token = {"CONFIG_MANAGER_TOKEN": TOKEN}
    ca = str(ca_file(authority, directory))
    code, told = processes.run("status", "--url", url, "--ca-file", ca, env=token)
    assert code == 0, told.text
    code, told = processes.run("status", "--url", url, env=token)
    assert code != 0
    assert "certificate" in " ".join(told.text).lower()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bind", "0.0.0.0:0"], "--allow-plain-http"),
        (["--tls-key-file", "key.pem"], "CONFIG_MANAGER_TLS_CERT_FILE"),
        (["--tls-cert-file", "not-there.pem"], "not-there.pem"),
    ],
)
def test_what_would_not_be_safe_does_not_start(
    shop: tuple[Processes, Path], flags: list[str], words: str
) -> None:
    processes, directory = shop
    code, told = processes.run(
        "serve", "--data-dir", str(directory / "data"), "--mqtt-url", "none:", *flags
    )
    assert code == 2, told.text
    assert words in "\n".join(told.text)


def test_a_key_that_everybody_reads_does_not_start(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> None:
    processes, directory = shop
    cert = issue(authority, directory / "server.pem", "127.0.0.1")
    cert.chmod(0o644)
    code, told = processes.run(
        *("serve", "--data-dir", str(directory / "data"), "--mqtt-url", "none:"),
        *("--tls-cert-file", str(cert)),
    )
    assert code == 3, told.text


def test_plain_http_elsewhere_is_served_where_somebody_says_so(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(
        directory / "data", "none:", "--bind", "0.0.0.0:0", "--allow-plain-http"
    )
    port = server.url.rpartition(":")[2]
    assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200


# ── MQTT ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def secure(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> Iterator[tuple[Processes, Path, SecureBroker]]:
    processes, directory = shop
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    yield processes, directory, SecureBroker(processes, directory, authority)


def followed(processes: Processes, state: Path, server: Server, url: str, service: str) -> Any:
    processes.pin(state, server.data_dir / "trust" / "root.json")
    # in the environment, as the option's help advises: a password in argv is for everybody to see
    return processes.start(
        [COMMAND, "client", "run", "--state", str(state), "--service", service],
        env={"CONFIG_MANAGER_MQTT_URL": url},
    )


def heard_by(broker: SecureBroker, user: str, topic: str, *until: str) -> list[str]:
    """The topics of the messages that it gets."""
    return subprocess.run(
        ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "--cafile", str(broker.ca),
         "-u", user, "-P", f"{user}-password", "-t", topic, "-F", "%t", *until],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip


def test_under_the_acl_template_each_service_reads_its_own_and_reports(
    secure: tuple[Processes, Path, SecureBroker],
) -> None:
    processes, directory, broker = secure
    server = processes.server(directory / "data", broker.url("config-manager"))
    server.put("stt-worker", {"whisper_model": "base.en"})
    server.wait_outbox_empty()
    assert "password" not in json.dumps([server.health(), *server.process.lines])
    mine = followed(processes, directory / "mine", server, broker.url("stt-worker"), "stt-worker")
    applied = mine.event("applied", within=20)
    assert applied["config"]["whisper_model"] == "base.en"

    def reported() -> bool:
        found = server.get("/api/v1/status").json()["instances"]
        return any(one["service"] == "stt-worker" and one["in_sync"] for one in found)

    eventually(reported, within=10, what="its receipt came through the ACL")
    kept = directory / "in-python"
    processes.pin(kept, server.data_dir / "trust" / "root.json")
    url = broker.url("stt-worker")
    processes.start(python(None, SERVICE_PROGRAM, str(kept), "stt-worker", url, "0"))
    (schema,) = heard_by(broker, "config-manager", "system/config-schema/#", "-C", "1", "-W", "15")
    assert schema.startswith("system/config-schema/stt-worker/"), "published through the ACL"
    heard = heard_by(broker, "tts-worker", "system/#", "-W", "2")
    assert set(heard) <= {
        "system/config-snapshot/config-manager",
        "system/health/config-manager",
        "system/keepalive/config-manager",
        "system/trust/roots/1",
    }
    assert "system/trust/roots/1" in heard


def test_a_client_certificate_in_place_of_a_password(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> None:
    processes, directory = shop
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = SecureBroker(processes, directory, authority)
    port = free_port()
    conf = directory / "with-certificates.conf"
    conf.write_text(
        broker.conf.read_text()
        .replace(f"listener {broker.port}", f"listener {port}")
        .replace("#require_certificate", "require_certificate")
        .replace("#use_identity_as_username", "use_identity_as_username")
        .replace("persistence true", "persistence false")
    )
    processes.start([MOSQUITTO, "-c", str(conf)])
    eventually(lambda: answers(port), within=5, what="mosquitto listens")
    own = issue(authority, directory / "config-manager.pem", "config-manager")
    base = f"mqtts://127.0.0.1:{port}?ca={broker.ca}"
    server = processes.server(directory / "data", f"{base}&cert={own}")
    server.put("stt-worker", {})
    server.wait_outbox_empty()
    theirs = issue(authority, directory / "stt-worker.pem", "stt-worker")
    mine = followed(processes, directory / "mine", server, f"{base}&cert={theirs}", "stt-worker")
    mine.event("applied", within=20)


def test_a_file_that_does_not_load_while_a_broker_comes_back_is_said_and_tried_again(
    secure: tuple[Processes, Path, SecureBroker],
) -> None:
    processes, directory, broker = secure
    plain, ours = processes.broker(directory / "plain"), directory / "ours.pem"
    ours.write_bytes(broker.ca.read_bytes())
    url = broker.url("config-manager").replace(str(broker.ca), str(ours))
    server = processes.server(directory / "data", f"{plain.url},{url}")

    def both_are_connected() -> bool:
        return set(server.health()["broker"].values()) == {"connected"}

    eventually(both_are_connected, within=10, what="both are connected")
    ours.write_bytes(b"")
    broker.kill()
    broker.start()
    eventually(
        lambda: f"ca={ours}: " in " ".join(server.health()["reasons"]),
        within=20,
        what="the file is named",
    )
    assert server.health()["broker"][plain.url] == "connected"
    ours.write_bytes(broker.ca.read_bytes())
    eventually(both_are_connected, within=30, what="both are connected again")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mqtts://127.0.0.1:1?ca={empty}", "ca={empty}: "),
        ("mqtts://127.0.0.1:1?cert={locked}", "wants a passphrase"),
        ("mqtt://good,mqtt://me:hunter2@broker..local:1883", "mqtt://broker..local"),
    ],
)
def test_a_broker_that_can_never_be_reached_so_stops_the_start(
    shop: tuple[Processes, Path], authority: trustme.CA, url: str, words: str
) -> None:
    processes, directory = shop
    files = {"empty": directory / "empty.pem", "locked": directory / "locked.pem"}
    files["empty"].touch()
    lock(issue(authority, files["locked"], "127.0.0.1"))
    code, told = processes.run(
        "serve", "--data-dir", str(directory / "data"), "--mqtt-url", url.format(**files)
    )
    text = "\n".join(told.text)
    assert code == 2, text
    assert "CONFIG_MANAGER_MQTT_URL: " in text
    assert words.format(**files) in text
    assert "hunter2" not in text


def test_rest_does_not_wait_for_a_passphrase(
    shop: tuple[Processes, Path], authority: trustme.CA
) -> None:
    processes, directory = shop
    cert = lock(issue(authority, directory / "server.pem", "127.0.0.1"))
    code, told = processes.run(
        *("serve", "--data-dir", str(directory / "data"), "--mqtt-url", "none:"),
        *("--tls-cert-file", str(cert)),
    )
    assert code == 2, told.text
    assert "wants a passphrase" in "\n".join(told.text)


# ── doctor ─────────────────────────────────────────────────────────────────────────────────────


def examined(
    processes: Processes, server: Server, *more: str, env: dict[str, str] | None = None
) -> tuple[int, dict[str, list[dict[str, str]]]]:
    given = {"CONFIG_MANAGER_TOKEN": TOKEN, **(env or {})}
    code, told = processes.run("doctor", "--url", server.url, "--json", *more, env=given, within=60)
    found: dict[str, list[dict[str, str]]] = {}
    for one in json.loads(told.text[0])["findings"]:
        found.setdefault(one["check"], []).append(one)
    return code, found


def test_doctor_finds_nothing_wrong_with_the_broker_that_the_templates_make(
    secure: tuple[Processes, Path, SecureBroker],
) -> None:
    processes, directory, broker = secure
    server = processes.server(directory / "data", broker.url("config-manager"))
    server.put("tts-worker", {})
    server.wait_outbox_empty()
    code, found = examined(
        processes,
        server,
        *("--mosquitto-conf", str(broker.conf)),
        env={
            "CONFIG_MANAGER_MQTT_URL": broker.url("config-manager"),
            "CONFIG_MANAGER_SERVICE_MQTT_URL": broker.url("stt-worker"),
        },
    )
    assert code == 0
    assert {one["level"] for each in found.values() for one in each} == {"ok"}, found
    assert {"anonymous", "ACL", "broker limits", "persistence", "access"} <= found.keys()


def test_doctor_finds_what_is_wrong_with_an_open_stock_broker(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    conf = directory / "stock.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    processes.start([MOSQUITTO, "-c", str(conf)])
    eventually(lambda: answers(port), within=5, what="mosquitto listens")
    url = f"mqtt://127.0.0.1:{port}"
    server = processes.server(directory / "data", url)
    server.put("tts-worker", {})
    server.wait_outbox_empty()
    code, found = examined(
        processes,
        server,
        *("--mqtt-url", url, "--service-url", url.replace("//", "//stt-worker:x@")),
        *("--mosquitto-conf", str(conf), "--data-dir", str(server.data_dir)),
    )
    assert code == 0, "all of it can be lived with"
    warned = {
        name for name, each in found.items() if any(one["level"] == "warning" for one in each)
    }
    assert warned >= {
        "anonymous writes", "missing ACL", "retained messages", "persistence",
        "max_queued_messages", "access", "keys beside the data",
    }  # fmt: skip
    assert "another service's schemas" in json.dumps(found["missing ACL"])
    assert "of 1100 came at QoS 1" in found["retained messages"][0]["detail"]
    assert all(one["remedy"] for each in found.values() for one in each if one["level"] != "ok")


def test_doctor_fails_where_nothing_answers(shop: tuple[Processes, Path]) -> None:
    processes, _ = shop
    code, told = processes.run(
        "doctor", "--url", f"http://127.0.0.1:{free_port()}", "--mqtt-url",
        f"mqtt://127.0.0.1:{free_port()}", within=30,
    )  # fmt: skip
    assert code == 5
    assert sum(line.startswith("✗") for line in told.text) == 2, told.text
