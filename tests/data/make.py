"""Makes the folder of a version: `python tests/data/make.py [COMMIT]`, once, when it is released.

Everything in it is made by that version's own code, from the wheel that is built of the commit (HEAD):
its commands, its server and its clients, on a real Mosquitto. `tests/e2e/test_earlier_versions.py` opens
it with every later version. A folder that is there stays as it is: nobody can make the same again.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.kit.earlier import (  # noqa: E402
    CLIENT,
    DATA,
    EXPECTED,
    EXPORT,
    ON_TRIAL,
    RECOVERY_KEY,
    RETAINED,
    SERVER,
    SERVICE_PROGRAM,
    answer,
    command,
    python,
    unpack,
)
from tests.kit.processes import (  # noqa: E402
    TOKEN,
    Process,
    Processes,
    Server,
    eventually,
    listening,
    workshop,
)

INSTANCE = "hall"
DOOR, BELL = "door", "bell"
"""The service that the client follows, and the one whose client dies of its last revision."""


def main() -> None:
    commit = git("rev-parse", "--short=7", f"{sys.argv[1] if len(sys.argv) > 1 else 'HEAD'}^0")
    with workshop() as (_, directory):
        wheel = build(commit, directory / "source")
        name = wheel.name.split("-")[1]
        target = DATA / name
        if target.exists():
            sys.exit(f"{target} is there already, and is kept as it is")
        code = unpack(wheel, directory / "code")
        with Processes(command(code)) as processes:
            made = directory / name
            made.mkdir()
            expected = Story(processes, code, made).tell()
        shutil.copy(wheel, made)
        write_json(made / EXPECTED, {"version": name, "commit": commit, **expected})
        (made / "README.md").write_text(readme(name, commit, wheel.name))
        shutil.copytree(made, target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1000:.0f} kB; commit it (git add)")


def readme(name: str, commit: str, wheel: str) -> str:
    return f"""\
# What config-manager {name} left behind

Made by `python tests/data/make.py {commit}` from that commit's own code. Later versions must go on with it:
`tests/e2e/test_earlier_versions.py`. It is never made again.

| here | what |
|---|---|
| `{wheel}` | the code of {name}; the tests run it with their own packages |
| `{SERVER}/` | a data directory with its keys, cleanly stopped: configurations, a deleted one, epochs, secrets in several versions (their key rotated once), tokens, devices, two root versions, history, audit |
| `{CLIENT}/` | the state directory of the enrolled instance `{DOOR}/{INSTANCE}`, cleanly stopped, with its secret |
| `{ON_TRIAL}/` | one of `{BELL}`, killed within the bake time of its newest revision |
| `{RETAINED}` | what the broker had retained when all had stopped: a topic and its payload, in base64, a line |
| `{RECOVERY_KEY}` | opens `{SERVER}/recovery.sealed` |
| `{EXPORT}` | `audit export` |
| `{EXPECTED}` | what {name} itself answered before it stopped, and what it was given |

The keys, tokens and secret values are real and worth nothing: they were made for this folder and open
nothing else. A scanner that finds them is right, and may be told to skip `tests/data`. Nothing that is
tested expires. git keeps no modes: copy it by `tests/kit/earlier.py`, which makes it private again.
"""


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def build(commit: str, source: Path) -> Path:
    source.mkdir()
    archive = source / "archive.tar"
    git("archive", "--output", str(archive), commit)
    subprocess.run(["tar", "-xf", archive, "-C", source], check=True)
    try:
        new_enough = int(version("setuptools").split(".")[0]) >= 77  # as in pyproject.toml
    except PackageNotFoundError:
        new_enough = False
    isolation = ["--no-isolation"] if new_enough else []
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", source / "dist", source],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": git("log", "-1", "--format=%ct", commit)},
    )
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


class Story:
    """A publisher's first weeks, in some seconds; what it leaves lies in `made`."""

    def __init__(self, processes: Processes, code: Path, made: Path) -> None:
        self.processes, self.code, self.made = processes, code, made
        self.state, self.on_trial = made / CLIENT, made / ON_TRIAL
        self.broker = processes.broker(made.parent / "broker")
        self.server: Server
        self.secrets: list[dict[str, Any]] = []
        self.expected: dict[str, Any] = {}

    def tell(self) -> dict[str, Any]:
        data = self.made / SERVER
        self.run(
            "init", "--data-dir", str(data), "--recovery-key-file", str(self.made / RECOVERY_KEY)
        )
        self.server = self.processes.server(data, self.broker.url)
        self.people()
        self.configurations()
        self.devices()
        client = self.processes.follow(self.state, DOOR, self.broker.url)
        client.event("fresh", within=30)
        self.keys_are_changed(client)
        self.a_service_dies()
        self.refusals()
        self.run("audit", "export", "--out", str(self.made / EXPORT), "--url", self.server.url)
        assert self.server.stop() == 0
        self.server.start()  # which also seals the keys that came since under the recovery key
        self.server.wait_outbox_empty()
        self.write_down(client)
        assert client.terminate() == 0
        assert self.server.stop() == 0
        self.keep_what_is_retained()
        return self.expected

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def people(self) -> None:
        tokens = {}
        for name, role, services in (
            ("ci", "write", ["d*", "router"]),
            ("reader", "read", ["*"]),
            ("gone", "admin", ["*"]),
        ):
            body = {"name": name, "role": role, "services": services}
            tokens[name] = self.post("/api/v1/tokens", body)["token"]
        self.ok(self.server.http.delete("/api/v1/tokens/gone"))
        self.expected["tokens"] = tokens

    def configurations(self) -> None:
        put = self.put
        put("stt-worker", {"whisper_model": "base.en", "vad_threshold": 0.4}, "the first one")
        put("stt-worker", {"whisper_model": "small", "vad_threshold": 0.4})
        self.ok(
            self.server.http.patch(
                "/api/v1/config/stt-worker",
                json={"vad_threshold": None, "vad_speech_pad_ms": 250},
                headers={"Content-Type": "application/merge-patch+json"},
            )
        )
        put("llm-worker", {"llm_provider": "ollama"})
        put("tts-worker", {})
        self.ok(self.server.http.delete("/api/v1/config/tts-worker"))  # back to the defaults
        put(DOOR, {"greeting": "come in", "open": True})
        put(
            DOOR,
            {
                "greeting": "gr\u00fc\u00df Gott \u2603",
                "nested": {"list": [1, 2.5, None, "x"], "big": 2**53 - 1},
            },
        )
        by_ci = {"Authorization": f"Bearer {self.expected['tokens']['ci']}"}
        self.ok(
            self.server.put(
                DOOR,
                {"greeting": "by ci", "null": None},
                headers={**by_ci, "Idempotency-Key": "once", "X-Request-ID": "a.persons_own-id"},
            )
        )
        put("gate", {"open": False}, "not for long")
        put("gate", {"open": True})
        self.ok(self.server.http.delete("/api/v1/config/gate", params={"reason": "it rusted"}))
        for number in (1, 2):
            services = {
                DOOR: {"greeting": f"epoch {number}", "open": True},
                "router": {},
                BELL: {"greeting": "ding"},
            }
            reason = f"season {number}"
            self.post("/api/v1/config/epoch", {"services": services, "reason": reason})
        for name in (1, 2):
            self.secret("llm-worker", "openai_api_key", f"no real key, version {name}")
            self.secret(DOOR, "pin", f"pin {name} \u00fc\n'quoted'")
        self.secret(DOOR, "code", "deleted later")
        self.ok(self.server.http.delete(f"/api/v1/secrets/{DOOR}/code"))
        self.secrets = [one for one in self.secrets if one["name"] != "code"]

    def devices(self) -> None:
        for state, instance in ((self.state, INSTANCE), (self.made.parent / "shed", "shed")):
            state.mkdir(mode=0o700)
            # not the name of the machine that this is made on
            (state / "instance").write_text(f"{instance}\n")
            self.processes.pin(state, self.server.data_dir / "trust" / "root.json")
            token = self.made.parent / "enrolment-token"
            token.write_text(self.post("/api/v1/devices/tokens", {"service": DOOR})["token"])
            self.run(
                *("client", "enroll", "--state", str(state), "--service", DOOR),
                *("--url", self.server.url, "--token-file", str(token)),
            )
        self.ok(self.server.http.delete(f"/api/v1/devices/{DOOR}/shed"))
        self.post("/api/v1/devices/tokens", {"service": DOOR})  # nobody comes with this one

    def keys_are_changed(self, client: Process) -> None:
        """The client is there meanwhile: it takes the new root, and its secret sealed anew."""
        self.post("/api/v1/trust/rotate", {"role": "config", "overlap": "0"})
        self.ok(
            self.server.http.post("/api/v1/secrets/rotate-key", params={"reason": "a new year"})
        )
        eventually(
            lambda: self.server.get("/api/v1/secrets/rotate-key").json()["state"] == "idle",
            within=20,
            what="the secrets key is rotated",
        )
        self.secret(DOOR, "pin", "the third pin")
        last = self.put(DOOR, {"greeting": "good evening", "open": False}, "the last one")
        client.event("applied", revision=last["revision"], within=20)

    def a_service_dies(self) -> None:
        """It proves itself with one revision, and is killed within the bake time of the next."""
        self.on_trial.mkdir(mode=0o700)
        (self.on_trial / "instance").write_text("bell\n")
        self.processes.pin(self.on_trial, self.server.data_dir / "trust" / "root.json")
        follower = self.processes.follow(self.on_trial, BELL, self.broker.url)
        follower.event("applied", within=30)
        assert follower.terminate() == 0
        service = self.processes.start(
            python(self.code, SERVICE_PROGRAM, str(self.on_trial), BELL, self.broker.url, "3600")
        )
        service.event("opened", greeting="ding", within=20)
        self.put(BELL, {"greeting": "what it dies of"})
        service.event("changed", greeting="what it dies of", within=20)
        service.kill()
        self.expected["on_trial"] = {"service": BELL, "proved": "ding", "tried": "what it dies of"}

    def refusals(self) -> None:
        for token in ("ci", "gone"):
            headers = {"Authorization": f"Bearer {self.expected['tokens'][token]}"}
            refused = self.server.put("stt-worker", {}, headers=headers)
            assert refused.status_code in (401, 403), refused.text

    # ── what is kept of it ─────────────────────────────────────────────────────────────────────

    def write_down(self, client: Process) -> None:
        paths = ["/api/v1/config", "/api/v1/secrets", "/api/v1/devices", "/api/v1/tokens"]
        paths += ["/api/v1/trust/pending", "/api/v1/secrets/rotate-key"]
        for service in (BELL, DOOR, "llm-worker", "router", "stt-worker", "gate"):
            paths.append(f"/api/v1/config/{service}")
        for service in (BELL, DOOR, "llm-worker", "router", "stt-worker", "gate", "tts-worker"):
            paths.append(f"/api/v1/config/{service}?view=stored")
            paths.append(f"/api/v1/config/{service}/history?limit=500")
        paths += sorted({f"/api/v1/secrets/{s['service']}/{s['name']}" for s in self.secrets})
        self.expected["answers"] = {path: answer(self.server, path) for path in paths}
        self.expected["roots"] = {
            path: self.server.get(path).text
            for path in ("/api/v1/trust/root", "/api/v1/trust/roots/1", "/api/v1/trust/roots/2")
        }
        self.expected["audit"] = self.server.get("/api/v1/audit", params={"limit": 1000}).json()
        self.expected["secrets"] = self.secrets
        revision = self.expected["answers"][f"/api/v1/config/{DOOR}"]["body"]["revision"]
        client.event("applied", revision=revision)
        self.expected["client"] = {
            "service": DOOR,
            "instance": INSTANCE,
            "revision": revision,
            "greeting": "good evening",
            "pin": "the third pin",
        }

    def keep_what_is_retained(self) -> None:
        end = "the-end"
        with listening(self.broker.port, "system/#", end) as listener:
            listener.publish(end, b"after everything that was retained")
            listener.message(end)
            retained = sorted((t, p) for t, p, r in listener.messages if r and t != end)
        with (self.made / RETAINED).open("w") as file:
            for topic, payload in retained:
                line = {"topic": topic, "payload": base64.b64encode(payload).decode()}
                file.write(json.dumps(line) + "\n")

    # ── by hand ────────────────────────────────────────────────────────────────────────────────

    def run(self, *arguments: str) -> None:
        code, process = self.processes.run(*arguments, env={"CONFIG_MANAGER_TOKEN": TOKEN})
        assert code == 0, process.text

    def put(self, service: str, values: dict[str, Any], reason: str | None = None) -> Any:
        params = {} if reason is None else {"reason": reason}
        return self.ok(self.server.put(service, values, params=params))

    def secret(self, service: str, name: str, value: str) -> None:
        body = {"service": service, "name": name, "value": value}
        version = self.post("/api/v1/secrets", body)["version"]
        self.secrets.append({**body, "version": version})

    def post(self, path: str, body: Any) -> Any:
        return self.ok(self.server.http.post(path, json=body))

    @staticmethod
    def ok(told: httpx.Response) -> Any:
        assert told.is_success, told.text
        return told.json()


if __name__ == "__main__":
    main()
