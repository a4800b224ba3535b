"""`python -m config_manager.api.commands.demo`: a tour of the real thing that ends by itself.

Server, broker and two services run as processes of their own in a temporary directory. They are gone at the
end, whatever happens. Exit 1, with the reason, if a step fails.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from config_manager.api.commands.remote import Server
from config_manager.config.colours import wants_colours
from config_manager.config.errors import ConfigManagerError

_STEP_S = 15.0
"""How long a step may take before the tour gives up; the whole takes about 15 s."""

_COMMAND = (sys.executable, "-m", "config_manager.api.main")


class TourFailed(Exception):
    pass


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Child:
    """A process whose JSON lines are kept."""

    def __init__(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        self._news = threading.Condition()
        self._popen = subprocess.Popen(  # noqa: S603  our own command
            [*_COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")},
                **(env or {}),
            },
            start_new_session=True,  # a Ctrl-C is the tour's, which then ends them in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def _read(self) -> None:
        for line in self._popen.stdout or ():
            with self._news:
                self.text.append(line.rstrip())
                if line.startswith("{"):
                    with suppress(ValueError):
                        self.lines.append(json.loads(line))
                self._news.notify_all()

    def line(self, what: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + _STEP_S
        with self._news:
            while True:
                for line in self.lines:
                    if wanted(line):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or (
                    not self._news.wait(min(left, 1.0)) and not self._reader.is_alive()
                ):
                    tail = "\n  ".join(self.text[-8:])
                    raise TourFailed(f"{self.name} did not say: {what}\n  {tail}")

    def wait(self) -> int:
        try:
            return self._popen.wait(_STEP_S)
        except subprocess.TimeoutExpired:
            raise TourFailed(f"{self.name} did not end") from None

    def stop(self) -> None:
        """In order if it can, else by force, with what it started."""
        if self._popen.poll() is None:
            below = _children(self.pid)
            self._popen.terminate()
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                for pid in (self.pid, *below):
                    _kill(pid)
                self._popen.wait(5)
        self._reader.join(2)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class _Tour:
    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._data = directory / "data"
        self._states = {name: directory / name for name in ("stt-worker", "tts-worker")}
        self._token = secrets.token_hex(16)
        self._colour = wants_colours(sys.stdout)
        self._number = 0
        self._mqtt_url = ""

    def step(self, title: str) -> None:
        self._number += 1
        text = f"{self._number}. {title}"
        _say("\n" + (f"\033[1;36m{text}\033[0m" if self._colour else text))

    def child(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> _Child:
        child = _Child(name, *arguments, env=env)
        self._stack.callback(child.stop)
        return child

    def put(self, service: str, body: dict[str, Any], **headers: str) -> Any:
        try:
            path = ("api", "v1", "config", service)
            return self._rest.ask("PUT", *path, body=body, headers=headers).value
        except ConfigManagerError as error:
            raise TourFailed(f"PUT {service}: {error.detail}") from None

    def follow(self, service: str) -> _Child:
        state = str(self._states[service])
        return self.child(
            service,
            *("client", "run", "--state", state, "--service", service),
            *("--mqtt-url", self._mqtt_url),
        )

    def applied(self, child: _Child, key: str, value: Any) -> dict[str, Any]:
        line = child.line(
            f"applied with {key} = {value}",
            lambda it: it.get("event") == "applied" and it.get("config", {}).get(key) == value,
        )
        _say(f"   {child.name:<11} applied revision {line['revision']}: {key} = {value!r}")
        return line

    def run(self) -> None:
        self.step("The server starts, with a database, keys and a broker of its own")
        server = self.child(
            "server",
            *("serve", "--data-dir", str(self._data), "--bind", "127.0.0.1:0"),
            env={
                "CONFIG_MANAGER_MQTT_URL": "auto:",
                "CONFIG_MANAGER_LOG_FORMAT": "json",
                "CONFIG_MANAGER_BOOTSTRAP_TOKEN": self._token,
            },
        )
        ready = server.line("ready", lambda it: it["event"] == "ready")
        self._rest, self._mqtt_url = Server(ready["url"], self._token), ready["mqtt_url"]
        _say(f"   REST at {self._rest.url}, MQTT at {self._mqtt_url}")

        self.step("Two services pin the trust root and follow their configuration")
        for name, state in self._states.items():
            root = str(self._data / "trust" / "root.json")
            pinned = self.child(
                name, "client", "trust", "init", "--state", str(state), "--root", root
            )
            if pinned.wait() != 0:
                raise TourFailed(f"{name} could not pin the root: {' '.join(pinned.text)}")
        stt, tts = (self.follow(name) for name in self._states)
        self.put("tts-worker", {"volume_percent": 80})
        self.applied(tts, "volume_percent", 80)

        self.step("A change by REST reaches a service that verifies it and goes on")
        name = f"demo-{secrets.token_hex(4)}"
        body = {"whisper_model": "small.en"}
        self.put("stt-worker", body, **{"X-Request-ID": name})
        _say(f"   PUT /api/v1/config/stt-worker {json.dumps(body)}   X-Request-ID: {name}")
        self.applied(stt, "whisper_model", "small.en")

        self.step(f"Its trace: every line that carries {name}")
        server.line(
            "confirmed",
            lambda it: it.get("correlation_id") == name and "confirm" in str(it["event"]),
        )
        self.trace(name, server, stt)

        self.step("The broker is killed; a change is made; the broker comes back")
        brokers = _children(server.pid)
        if not brokers:
            raise TourFailed("the server has no broker process below it")
        for pid in brokers:
            _kill(pid)
        _say(f"   killed the broker (process {', '.join(map(str, brokers))})")
        answer = self.put("tts-worker", {"volume_percent": 55})
        _say(f"   meanwhile REST goes on: revision {answer['revision']} is on disk")
        self.applied(tts, "volume_percent", 55)

        self.step("Server and broker stop; a service restarts from its last-known-good copy")
        tts.stop()
        stt.stop()
        server.stop()
        _say("   nothing is left to connect to")
        self.applied(self.follow("tts-worker"), "volume_percent", 55)

    def trace(self, name: str, *children: _Child) -> None:
        found = [
            (str(line["timestamp"]), child.name, line)
            for child in children
            for line in list(child.lines)
            if line.get("correlation_id") == name and "timestamp" in line
        ]
        for at, who, line in sorted(found, key=lambda it: it[0]):
            clock = at[11:23]
            actor = line.get("actor", "client")
            revision = f"revision {line['revision']}" if "revision" in line else ""
            _say(
                f"   {clock:<12}  {who:<10}  {actor:<12}  {line['event']:<12}  {revision}".rstrip()
            )


def main() -> int:
    began = time.monotonic()
    _say("config-manager: a tour on this machine; everything in it is temporary")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="config-manager-demo-") as name,
            ExitStack() as stack,
        ):
            _Tour(Path(name), stack).run()
    except TourFailed as reason:
        _say(f"\nThe tour ended early: {reason}")
        return 1
    except KeyboardInterrupt:
        _say("\nStopped; everything it started is gone.")
        return 130
    _say(f"\nThat was all, in {time.monotonic() - began:.0f} s; everything it started is gone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
