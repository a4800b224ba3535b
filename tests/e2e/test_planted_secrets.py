"""Secrets with a mark, planted wherever one can be, and then all that anybody could read is searched."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config_manager.storage.sql import database
from tests.kit.processes import COMMAND, MOSQUITTO, TOKEN, Processes, Server, eventually, listening

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{20,}={0,2}")
_CONTROL = "planted-control-in-a-plain-setting"
"""No secret: it must be found, or the search finds nothing at all."""


class Planted:
    """Each value, and where it was planted."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}

    def __call__(self, where: str) -> str:
        return self.known(f"planted{len(self.where):02d}x7Qz{len(where):03d}", where)

    def known(self, value: str, where: str) -> str:
        """One that was made by the system itself."""
        assert len(value) >= 15, where
        self.where[value] = where
        return value

    def found_in(self, hay: bytes) -> list[str]:
        layers = list(_layers(hay))
        return [
            f"{value} ({where})"
            for value, where in self.where.items()
            if any(form in layer for form in _forms(value) for layer in layers)
        ]


def _forms(value: str) -> tuple[bytes, ...]:
    text = value.encode()
    return (text, text.hex().encode(), text[::-1], json.dumps(value).encode()[1:-1])


def _layers(hay: bytes, depth: int = 3) -> Iterator[bytes]:
    """It, and whatever base64 is in it (envelopes carry base64 of JSON that carries base64)."""
    yield hay
    if depth:
        for part in _BASE64.findall(hay):
            for altchars in (None, b"-_"):
                with contextlib.suppress(binascii.Error):
                    yield from _layers(base64.b64decode(part, altchars), depth - 1)


def files(*roots: Path) -> dict[str, bytes]:
    return {
        f"file {path.relative_to(root.parent)}": path.read_bytes()
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(("value.", "token."))
    }


def rows(data: Path) -> dict[str, bytes]:
    """The database as who holds its key sees it."""
    connection = database.connect(
        data / "config.db", bytes.fromhex((data / "keys" / "db.key").read_text()), read_only=True
    )
    names = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    found = {
        f"table {name}": b"\n".join(
            value if isinstance(value, bytes) else str(value).encode()
            for row in connection.execute(f"SELECT * FROM {name}")
            for value in row
        )
        for name in names
    }
    connection.close()
    return found


class Day:
    """A server, its broker, an enrolled service, and everything that was said."""

    def __init__(self, processes: Processes, directory: Path, planted: Planted) -> None:
        self.processes, self.directory, self.planted = processes, directory, planted
        self.said: dict[str, bytes] = {}
        self.data = directory / "data"
        note = directory / "value.recovery"
        init = ("init", "--data-dir", str(self.data), "--recovery-key-file", str(note))
        code, told = processes.run(*init)
        assert code == 0, told.text
        self.said["init"] = "\n".join(told.text).encode()
        planted.known(note.read_text().strip(), "the recovery key")
        for key in sorted((self.data / "keys").iterdir()):
            if key.suffix == ".key":
                planted.known(key.read_text().strip(), f"keys/{key.name}")
        planted.known(TOKEN, "the bootstrap token")
        self.broker = processes.broker(directory / "broker")
        password = planted("the server's MQTT password")
        url = f"mqtt://server:{password}@127.0.0.1:{self.broker.port}"
        self.server: Server = processes.server(self.data, url, "--log-level", "debug")
        self.state = directory / "state"

    def ask(self, method: str, path: str, *codes: int, keep: bool = True, **options: Any) -> Any:
        answer = self.server.http.request(method, path, **options)
        assert answer.status_code in codes, (method, path, answer.status_code, answer.text)
        if keep:
            head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
            self.said[f"{len(self.said)} {method} {path} {answer.status_code}"] = (
                head.encode() + answer.content
            )
        return answer

    def command(self, *arguments: str, code: int = 0, keep: bool = True) -> list[str]:
        ended, told = self.processes.run(
            *arguments, env={"CONFIG_MANAGER_TOKEN": TOKEN, "CONFIG_MANAGER_URL": self.server.url}
        )
        assert ended == code, (arguments, told.text)
        if keep:
            self.said[f"{len(self.said)} {' '.join(arguments[:3])}"] = "\n".join(told.text).encode()
        return told.text

    def set(self, name: str, value: str, service: str = "door", **headers: str) -> None:
        body = {"service": service, "name": name, "value": value}
        self.ask("POST", "/api/v1/secrets", 201, json=body, headers=headers)


def plant(day: Day) -> None:
    planted, ask = day.planted, day.ask
    ask("PUT", "/api/v1/config/door", 201, json={"note": _CONTROL})
    for n in range(8):
        day.set(f"k{n}", planted("set over REST"))
    for n in range(4):
        day.set(f"k{n}", planted("a newer version"))
    day.set(
        "again", value := planted("set twice under one Idempotency-Key"), **{"Idempotency-Key": "1"}
    )
    day.set("again", value, **{"Idempotency-Key": "1"})
    for n in range(3):
        file = day.directory / f"value.{n}"
        file.write_text(planted("set from a file"))
        day.command("secret", "set", "door", f"file{n}", "--file", str(file))
    for n in range(3):
        day.set(f"gone{n}", planted("deleted afterwards"))
        ask("DELETE", f"/api/v1/secrets/door/gone{n}", 200, 204)
    for n in range(2):
        reveal = f"/api/v1/secrets/door/k{n}/reveal"
        shown = ask(
            "POST",
            reveal,
            200,
            keep=False,
            json={"reason": "a look"},
            headers={"Idempotency-Key": f"r{n}"},
        )
        assert shown.json()["value"] in planted.where
    plant_mistakes(day)
    for n in range(2):
        made = ask(
            "POST", "/api/v1/tokens", 201, keep=False, json={"name": f"t{n}", "role": "write"}
        )
        token = planted.known(made.json()["token"], "an operator's token")
        bearer = {"Authorization": f"Bearer {token}"}
        ask("PUT", "/api/v1/config/door", 200, json={"note": _CONTROL, "n": n}, headers=bearer)
    ask("DELETE", "/api/v1/tokens/t0", 200, 204)


def plant_mistakes(day: Day) -> None:
    """Values where they don't belong: refused, and not repeated."""
    planted, ask = day.planted, day.ask
    for method, path, wrap in (
        ("PUT", "/api/v1/config/llm-worker", lambda v: {"openai_api_key": v}),
        ("PATCH", "/api/v1/config/llm-worker", lambda v: {"openai_api_key": v}),
        ("PUT", "/api/v1/config/llm-worker?dry_run=true", lambda v: {"openai_api_key": [v]}),
        ("PUT", "/api/v1/config/tts-worker", lambda v: {"elevenlabs_api_key": v}),
        (
            "POST",
            "/api/v1/config/epoch",
            lambda v: {"services": {"llm-worker": {"openai_api_key": v}}},
        ),
        ("POST", "/api/v1/secrets", lambda v: {"service": "door", "name": "x", "value": [v]}),
        (
            "POST",
            "/api/v1/secrets",
            lambda v: {"service": "door", "name": "x", "value": v + "é" * 20_000},
        ),
        ("POST", "/api/v1/secrets", lambda v: {"service": "door", "name": "!", "value": v}),
        ("POST", "/api/v1/secrets", lambda v: {"service": "door", "name": "x", "valeu": v}),
        ("PUT", "/api/v1/secrets", lambda v: {"service": "door", "name": "x", "value": v}),
        ("POST", "/api/v1/devices/enroll", lambda v: {"token": v, "service": "door"}),
    ):
        value = planted(f"a mistake: {method} {path}")
        content = json.dumps(wrap(value)).encode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        ask(
            method,
            path,
            400,
            401,
            403,
            404,
            405,
            409,
            413,
            422,
            content=content,
            headers={"Content-Type": kind},
        )
    broken = b'{"service": "door", "name": "x", "value": "' + planted("in broken JSON").encode()
    ask(
        "POST", "/api/v1/secrets", 400, content=broken, headers={"Content-Type": "application/json"}
    )
    for scheme in ("Bearer", "Basic", "Token"):
        wrong = f"{scheme} {planted(f'a wrong token, {scheme}')}"
        ask("GET", "/api/v1/config/door", 401, headers={"Authorization": wrong})
    ask("GET", f"/api/v1/config/door?token={planted('a token in the query')}", 200, 400, 422)
    for word in ("secret", "config"):
        file = day.directory / f"token.{word}"
        file.write_text(planted(f"a wrong token of the {word} command"))
        command = ("secret", "list") if word == "secret" else ("get", "door")
        day.command(*command, "--token-file", str(file), code=5)


def deliver(day: Day) -> None:
    """An enrolled service runs with its secrets, gets a newer one, and starts again from its cache."""
    planted, processes = day.planted, day.processes
    processes.pin(day.state, day.data / "trust" / "root.json")
    made = day.ask("POST", "/api/v1/devices/tokens", 201, keep=False, json={"service": "door"})
    token = planted.known(made.json()["token"], "an enrolment token")
    unused = day.ask("POST", "/api/v1/devices/tokens", 201, keep=False, json={"service": "door"})
    planted.known(unused.json()["token"], "an enrolment token that nobody used")
    file = day.directory / "token.enrol"
    file.write_text(token)
    client = (
        "client",
        "enroll",
        "--state",
        str(day.state),
        "--service",
        "door",
        "--url",
        day.server.url,
    )
    day.command(*client, "--token-file", str(file))
    for key in (day.state / "keys").iterdir():
        planted.known(key.read_text().strip(), f"the instance's {key.name}")
    password = planted("the client's MQTT password")
    url = f"mqtt://door:{password}@127.0.0.1:{day.broker.port}"
    run = [COMMAND, "client", "run", "--state", str(day.state), "--service", "door"]
    follower = processes.start([*run, "--mqtt-url", url])
    follower.event("applied", within=20)
    day.set("k0", planted("a newer version, delivered"))
    revision = day.server.get("/api/v1/config/door").json()["revision"]
    follower.event("applied", within=20, revision=revision)
    day.command("client", "get", "--state", str(day.state), "--service", "door")
    eventually(
        lambda: day.server.get("/api/v1/status").json()["instances"], within=10, what="its receipt"
    )
    follower.terminate()
    day.said["client run"] = "\n".join(follower.text).encode()


def look_around(day: Day) -> None:
    """What operators, auditors and the curious ask for."""
    for path in (
        *(
            "/health",
            "/openapi.json",
            "/docs",
            "/api/v1/config",
            "/api/v1/config/door",
            "/api/v1/status",
        ),
        *("/api/v1/config/door?view=stored", "/api/v1/config/door/history", "/api/v1/secrets"),
        *("/api/v1/config/llm-worker", "/api/v1/secrets/door/k0/versions", "/api/v1/tokens"),
        *(
            "/api/v1/devices",
            "/api/v1/audit?limit=1000",
            "/api/v1/audit/verify",
            "/api/v1/trust/root",
        ),
    ):
        day.ask("GET", path, 200, 404)
    for command in (
        *(("status",), ("get", "door"), ("history", "door"), ("secret", "list"), ("token", "list")),
        *(
            ("devices", "list"),
            ("diff", "door"),
            ("audit", "export", "--out", str(day.directory / "export")),
        ),
    ):
        day.command(*command)
    doctor = ("doctor", "--mqtt-url", day.server.mqtt_url, "--data-dir", str(day.data))
    _, told = day.processes.run(*doctor)  # it finds fault with this broker
    day.said["doctor"] = "\n".join(told.text).encode()


def test_fifty_planted_secrets_are_found_nowhere(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    planted = Planted()
    day = Day(processes, directory, planted)
    with listening(day.broker.port, "#") as listener:
        plant(day)
        deliver(day)
        look_around(day)
        day.server.wait_outbox_empty()
        assert day.server.stop() == 0
        messages = list(listener.messages)
    assert len(planted.where) >= 50

    hay = dict(day.said)
    hay["the server's log"] = "\n".join(day.server.process.text).encode()
    hay |= {
        f"message {n} on {topic}": topic.encode() + b" " + data
        for n, (topic, data, _) in enumerate(messages)
    }
    hay |= files(day.data, day.state, day.broker.directory)
    hay |= rows(day.data)
    hay["the audit's export"] = (directory / "export").read_bytes()
    backup = directory / "backup"
    shutil.copytree(day.data, backup, ignore=shutil.ignore_patterns("keys"))
    hay |= files(backup)

    control = Planted()
    control.known(_CONTROL, "control")
    places = [where for where, text in hay.items() if control.found_in(text)]
    for kind in ("message ", "table ", "file broker", "client run"):
        assert any(where.startswith(kind) for where in places), (kind, places)
    assert any("GET /api/v1/config/door" in where for where in places), places
    assert not [where for where in places if where.startswith(("file data", "file backup"))]

    found = {where: hits for where, text in hay.items() if (hits := planted.found_in(text))}
    own = {
        f"file {path.relative_to(directory)}"
        for folder in (day.data / "keys", day.state / "keys")
        for path in folder.iterdir()
        if path.suffix == ".key"
    }
    assert {where: hits for where, hits in found.items() if where not in own} == {}
    assert set(found) == own
