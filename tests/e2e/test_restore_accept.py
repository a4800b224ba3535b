"""`restore --accept`: a data directory that others contradict becomes the truth, and services follow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from config_manager.client.rules.identity import Identity
from config_manager.client.state.identity import load_identity
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt, Running
from tests.kit.asgi import Caller, on_disk
from tests.kit.documents import sign
from tests.kit.dying import accept, dies
from tests.kit.earlier import (
    BOTH_ENDS,
    CLIENT,
    SERVER,
    SERVICE_PROGRAM,
    VERSIONS,
    Earlier,
    command,
    python,
    unpack,
)
from tests.kit.file_systems import file_system, fill
from tests.kit.kept import (
    Kept,
    contents,
    edit,
    forget_cache,
    is_suspected,
    keep,
    next_beacon,
    ours,
    retained_by,
)
from tests.kit.long import LONG, few_in_the_suite
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Broker,
    Processes,
    Server,
    eventually,
    free_port,
    listening,
    revision_in,
)
from tests.kit.shell import Ended, in_process

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

FIRST = VERSIONS[0]


def run(data: Path, mqtt_url: str, *more: str, code: int = 0) -> Ended:
    where = ("--data-dir", str(data), "--mqtt-url", mqtt_url)
    ended = in_process("restore", "--accept", *where, *more)
    assert ended.code == code, ended
    return ended


def restore(data: Path, *more: str, mqtt_url: str = "none:", code: int = 0) -> str:
    """What the command says to people."""
    return run(data, mqtt_url, *more, code=code).said


def restored(data: Path, mqtt_url: str = "none:", *more: str) -> Any:
    """What it says to programs."""
    (answer,) = run(data, mqtt_url, "--json", *more).lines
    return answer


def is_normal(server: Server) -> None:
    health = server.health()
    assert (health["ok"], health["mode"], health["reasons"]) == (True, "normal", [])
    assert server.get("/api/v1/audit/verify").json()["ok"] is True


# ── two timelines ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Timelines:
    """old: at app {"n": 1} and the pin "first". new: it went on to {"n": 3} and another pin, which the
    enrolled instance `ada` ran; its broker is both's. eve: a token that may read."""

    old: Kept
    new: Kept
    state: Path
    revision: int

    @property
    def ada(self) -> Identity:
        return load_identity(self.state)


def enrol(processes: Processes, server: Server, state: Path) -> None:
    processes.pin(state, server.data_dir / "trust" / "root.json")
    ended, told = processes.run(
        *("devices", "token", "--service", "door", "--url", server.url, "--json"),
        env={"CONFIG_MANAGER_TOKEN": TOKEN},
    )
    assert ended == 0, told.text
    file = state.with_suffix(".token")
    file.write_text(json.loads(told.text[0])["token"])
    ended, told = processes.run(
        *("client", "enroll", "--state", str(state), "--service", "door", "--url", server.url),
        *("--token-file", str(file)),
    )
    assert ended == 0, told.text


def set_pin(server: Server, value: str) -> Any:
    body = {"service": "door", "name": "pin", "value": value}
    told = server.http.post("/api/v1/secrets", json=body)
    assert told.status_code == 201, told.text
    return told.json()


def door(processes: Processes, state: Path, mqtt_url: str) -> Any:
    """A service in Python, with its secret."""
    return processes.start(python(None, SERVICE_PROGRAM, str(state), "door", mqtt_url, "0"))


@pytest.fixture(scope="module")
def timelines(module_shop: tuple[Processes, Path]) -> Timelines:
    processes, directory = module_shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "first", broker.url)
    server.put("app", {"n": 1})
    server.put("door", {"greeting": "hello"})
    server.http.post("/api/v1/tokens", json={"name": "eve", "role": "read"})
    set_pin(server, "first")
    enrol(processes, server, directory / "state")
    old = keep(server, broker, directory / "old")
    server.start()
    for n in (2, 3):
        server.put("app", {"n": n})
    revision = set_pin(server, "lost")["revision"]
    client = door(processes, directory / "state", broker.url)
    client.line(lambda line: line.get("pin") == "lost", within=15)
    eventually(
        lambda: any(
            (one["running"] or {}).get("revision") == revision
            for one in server.get("/api/v1/status").json()["instances"]
        ),
        within=10,
        what="its receipt",
    )
    assert client.terminate() == 0
    new = keep(server, broker, directory / "new")
    return Timelines(replace(old, retained=new.retained), new, directory / "state", revision)


@pytest.fixture
def broker(timelines: Timelines, shop: tuple[Processes, Path]) -> Broker:
    """One that retains what the newer timeline had published."""
    return timelines.new.broker(shop[0], shop[1] / "broker")


@pytest.fixture
def old(timelines: Timelines, shop: tuple[Processes, Path]) -> Path:
    return timelines.old.copy(shop[1] / "data")


def follow(processes: Processes, data: Path, state: Path, broker: Broker) -> Any:
    """A client that runs what the broker retains of app."""
    processes.pin(state, data / "trust" / "root.json")
    client = processes.follow(state, "app", broker.url)
    client.event("applied", config={"n": 3})
    return client


def test_after_an_older_copy_was_put_back_services_go_from_the_newer_to_what_was_accepted(
    timelines: Timelines, old: Path, broker: Broker, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    client = follow(processes, old, directory / "follower", broker)
    server = processes.server(old, broker.url)
    is_suspected(server)
    assert server.stop() == 0
    assert ours(retained_by(broker)) == ours(timelines.new.retained)

    told = restored(old, broker.url, "--reason", "the disk died")
    assert told["services"] == 2
    assert (told["revision"], told["epoch_seq"]) == (timelines.revision + 1, 2)
    assert (told["revision_before"], told["epoch_seq_before"]) == (3, 1)
    assert (told["put_back"], told["dropped"], told["as_it_lies"]) == ([], [], False)
    assert told["unreachable"] == {}
    with listening(broker.port) as listener:
        server.start()
        is_normal(server)
        applied = client.event("applied", epoch_seq=2)
        assert (applied["config"], applied["revision"]) == ({"n": 1}, told["revision"])
        beacon = next_beacon(listener, timelines.new.beacon().boot_seq + 1)
        assert beacon.order > timelines.new.beacon().order
    entry = server.get("/api/v1/config/app/history").json()["entries"][0]
    assert (entry["action"], entry["reason"], entry["by"]) == (
        "restore",
        "the disk died",
        "restore",
    )
    assert server.put("app", {"n": 4}).json()["revision"] == told["revision"] + 1
    client.event("applied", config={"n": 4})
    assert [line for line in client.lines if line["event"] in ("refused", "stale")] == []
    server.wait_outbox_empty()
    assert server.stop() == 0
    server.start()
    is_normal(server)


def test_a_device_gets_the_secret_of_what_was_accepted_and_each_one_after_it(
    timelines: Timelines, old: Path, broker: Broker, shop: tuple[Processes, Path]
) -> None:
    """A version is never used for two values: the timeline that is gone had a second one, too."""
    processes, directory = shop
    state = directory / "state"
    shutil.copytree(timelines.state, state)
    client = door(processes, state, broker.url)
    client.event("opened", pin="lost")
    restore(old, mqtt_url=broker.url)
    server = processes.server(old, broker.url)
    client.event("changed", pin="first", within=15)
    assert set_pin(server, "a newer one")["version"] > 2
    client.event("changed", pin="a newer one", within=15)
    assert client.terminate() == 0


@pytest.mark.parametrize(
    "newer", [("instance.json",), ("config.lkg",), ("instance.json", "config.lkg")]
)
def test_an_older_database_beside_newer_witnesses_is_accepted_above_them(
    timelines: Timelines, old: Path, shop: tuple[Processes, Path], newer: tuple[str, ...]
) -> None:
    processes, _ = shop
    for name in newer:
        shutil.copyfile(timelines.new.data / name, old / name)
    server = processes.server(old, "none:")
    is_suspected(server)
    assert server.stop() == 0
    told = restored(old)
    assert (told["revision"], told["epoch_seq"]) == (timelines.revision + 1, 2)
    server.start()
    is_normal(server)
    assert server.get("/api/v1/config/app").json()["config"] == {"n": 1}


def test_the_old_copy_that_is_started_afterwards_is_outdone_and_publishes_nothing(
    timelines: Timelines, old: Path, broker: Broker, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    twin = timelines.old.copy(directory / "twin")
    newer = timelines.new.copy(directory / "newer")
    restore(old, mqtt_url=broker.url)
    server = processes.server(old, broker.url)
    accepted = keep(server, broker, directory / "accepted")
    for copy in (twin, newer):
        other = processes.server(copy, broker.url)
        is_suspected(other)
        assert other.put("app", {"n": 9}).status_code == 503
        assert other.stop() == 0
        assert ours(retained_by(broker)) == ours(accepted.retained)
    server.start()
    is_normal(server)


# ── what was not audited ───────────────────────────────────────────────────────────────────────


FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "a payload": (
        """UPDATE outbox SET payload = CAST(replace(payload, '"n":3', '"n":666') AS BLOB)"""  # noqa: ISC004
        """ WHERE service = 'app'""",
        {"put_back": ["not-audited: app"]},
    ),
    "stored values": (
        """UPDATE configurations SET stored = '{"n":666}', effective = '{"n":666}' WHERE service = 'app'""",
        {"put_back": ["not-audited: app"]},
    ),
    "history": (
        "UPDATE history SET by = 'mallory', changes = '[]' WHERE service = 'app' AND revision = 1",
        {"put_back": ["not-audited: history app"]},
    ),
    "a token made admin": (
        """UPDATE registry SET value = replace(value, '"read"', '"admin"') WHERE key = 'eve'""",
        {"dropped": ["not-audited: registry token/eve"]},
    ),
    "a row of the audit": (
        "UPDATE audit SET body = CAST(CAST(body AS TEXT) || ' ' AS BLOB) WHERE seq = 3",
        {"as_it_lies": True},
    ),
}


@pytest.mark.parametrize("with_cache", [True, False], ids=["cache kept", "no cache"])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_nobody_wrote_is_put_back_or_gone_and_services_follow(
    timelines: Timelines,
    broker: Broker,
    shop: tuple[Processes, Path],
    name: str,
    with_cache: bool,
) -> None:
    processes, directory = shop
    statement, says = FOREIGN[name]
    data = timelines.new.copy(directory / "data")
    edit(data, statement)
    if not with_cache:
        forget_cache(data)
    told = restored(data, broker.url)
    assert {key: told[key] for key in says} == says
    assert (told["revision"], told["epoch_seq"]) == (timelines.revision + 1, 2)
    server = processes.server(data, broker.url)
    is_normal(server)
    assert server.get("/api/v1/config/app").json()["config"] == {"n": 3}
    names = [one["name"] for one in server.get("/api/v1/tokens").json()["tokens"]]
    assert ("eve" in names) == (name != "a token made admin")
    [entry] = [
        one
        for one in server.get("/api/v1/config/app/history").json()["entries"]
        if one["revision"] == 1
    ]
    assert (entry["by"], [change["key"] for change in entry["changes"]]) == ("bootstrap", ["n"])
    with listening(broker.port, "system/config/app") as listener:
        listener.message("system/config/app", lambda data: revision_in(data) == told["revision"])


def test_people_read_what_was_done_and_who_may_enter_where_the_audit_can_not_tell(
    timelines: Timelines, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    data = timelines.new.copy(directory / "data")
    edit(data, FOREIGN["a row of the audit"][0], FOREIGN["a token made admin"][0])
    by_cache = restore(Path(shutil.copytree(data, directory / "cached")))
    assert "what the last-known-good cache holds is accepted" in by_cache
    assert "token eve (read: *)" in by_cache, "as the cache has it"
    forget_cache(data)
    would = restore(data, "--dry-run")
    done = restore(data)
    for said in (would, done):
        assert "everything is accepted as it lies" in said
        assert "token eve (admin: *)" in said
        assert "token bootstrap (admin: *)" in said
        assert f"device door/{timelines.ada.instance}" in said
    assert "2 services would get revision" in would
    assert "2 services got revision" in done
    assert f"start it: config-manager serve --data-dir {data}" in done
    data = timelines.new.copy(directory / "other")
    edit(data, FOREIGN["a payload"][0], FOREIGN["a token made admin"][0])
    said = restore(data)
    assert "not-audited: app: put back as the audit says" in said
    assert "not-audited: registry token/eve: let go" in said


# ── a lost witness ─────────────────────────────────────────────────────────────────────────────


def test_after_a_witness_was_lost_and_nobody_knew_the_number_a_client_of_then_is_fresh_again(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    data = FIRST.copy(SERVER, directory / "data")
    (data / "instance.json").unlink()
    serve = ("serve", "--data-dir", str(data), "--bind", "127.0.0.1:0", "--mqtt-url", "none:")
    assert processes.run(*serve)[0] == 3
    told = restored(data)
    assert told["as_it_lies"] is False
    broker = processes.broker(directory / "broker")
    FIRST.fill(broker.port)
    server = processes.server(data, broker.url)
    is_normal(server)
    state, client = FIRST.copy(CLIENT, directory / "state"), FIRST.expected["client"]
    follower = processes.follow(state, client["service"], broker.url)
    follower.event("applied", epoch_seq=told["epoch_seq"], revision=told["revision"], within=15)
    follower.event("fresh", within=15)
    assert [line for line in follower.lines if line["event"] in ("refused", "stale")] == []


# ── what brokers know ──────────────────────────────────────────────────────────────────────────


def receipt(
    timelines: Timelines, revision: int, *, instance: str | None = None, epoch_seq: int = 1
) -> tuple[str, bytes]:
    """What ada says it runs, or somebody whom nobody enrolled."""
    ada = timelines.ada
    topic = wire.status_topic("door", ada.instance)
    said = Receipt.parse(wire.parse_envelope(timelines.new.retained[topic]).payload)
    running = Running(epoch_seq, revision, "0" * 64)
    key = SigningKey(ada.sign_key if instance is None else b"m" * 32)
    made = replace(
        said,
        instance=instance or ada.instance,
        boot_seq=said.boot_seq + 1,
        running=running,
        gone=False,
    )
    envelope = sign(wire.RECEIPT, made.to_bytes(), key)
    return wire.status_topic("door", made.instance), envelope.to_bytes()


def tell(broker: Broker, *messages: tuple[str, bytes]) -> None:
    with listening(broker.port) as listener:
        for topic, payload in messages:
            listener.publish(topic, payload)
        for topic, payload in messages:
            listener.message(topic, payload.__eq__)


def test_a_higher_revision_that_an_enrolled_instance_says_it_runs_counts(
    timelines: Timelines, old: Path, broker: Broker, shop: tuple[Processes, Path]
) -> None:
    tell(broker, receipt(timelines, 4_000, epoch_seq=5))
    told = restored(old, broker.url)
    assert (told["revision"], told["epoch_seq"]) == (4_001, 6)


@pytest.mark.parametrize(
    ("revision", "instance"),
    few_in_the_suite(
        product((2**53 - 1, 2**53 - 2), ("mallory", None)),
        [(2**53 - 1, "mallory"), (2**53 - 2, None)],
    ),
)
def test_an_absurd_claim_does_not_use_the_numbers_up(
    timelines: Timelines,
    old: Path,
    broker: Broker,
    shop: tuple[Processes, Path],
    revision: int,
    instance: str | None,
) -> None:
    tell(
        broker,
        receipt(timelines, revision, instance=instance),
        receipt(timelines, 7, instance="trudy", epoch_seq=revision),
    )
    told = restored(old, broker.url)
    assert timelines.revision < told["revision"] < 2**52
    assert told["epoch_seq"] == 2
    server = shop[0].server(old, broker.url)
    assert server.put("app", {"n": 5}).status_code == 200


def test_a_broker_that_is_away_is_said_and_the_rest_is_done_and_it_can_be_repeated(
    timelines: Timelines, old: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    away = f"mqtt://127.0.0.1:{free_port()}"
    told = run(old, away, "--json")
    assert told.err.startswith(f"warning: {away} could not be asked")
    (said,) = told.lines
    assert (set(said["unreachable"]), said["revision"]) == ({away}, 4)
    broker = timelines.new.broker(processes, directory / "broker")
    people = restore(old, mqtt_url=f"{away},{broker.url}")
    assert f"warning: {away} could not be asked" in people
    assert f"warning: {broker.url}" not in people
    server = processes.server(old, broker.url)
    is_normal(server)
    assert server.get("/api/v1/config/app").json()["revision"] > timelines.revision


def test_a_password_of_a_broker_is_never_printed(old: Path, shop: tuple[Processes, Path]) -> None:
    """Nor logged: by a process of its own."""
    url = f"mqtt://me:conspicuous@127.0.0.1:{free_port()}"
    command = ("restore", "--accept", "--data-dir", str(old), "--mqtt-url", url)
    for more in ((), ("--json",)):
        code, told = shop[0].run(*command, *more)
        assert (code, "conspicuous" in "\n".join(told.text)) == (0, False)


# ── roots ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def rotated(timelines: Timelines, module_shop: tuple[Processes, Path]) -> Kept:
    """The newer timeline, after its config key was exchanged twice."""
    processes, directory = module_shop
    broker = timelines.new.broker(processes, directory / "rotated-broker")
    server = processes.server(timelines.new.copy(directory / "rotated"), broker.url)
    for _ in range(2):
        body = {"role": "config", "overlap": "0"}
        assert server.http.post("/api/v1/trust/rotate", json=body).status_code == 200
    server.put("app", {"n": 4})
    return keep(server, broker, directory / "after-rotating")


def test_a_newer_root_on_a_broker_is_adopted_where_its_keys_are_here(
    rotated: Kept, old: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    broker = rotated.broker(processes, directory / "broker")
    for key in (rotated.data / "keys").glob("config-*.key"):
        shutil.copy(key, old / "keys")
    processes.pin(directory / "follower", old / "trust" / "root.json")
    client = processes.follow(directory / "follower", "app", broker.url)
    client.event("applied", config={"n": 4})
    told = restored(old, broker.url)
    assert told["epoch_seq"] == 2
    server = processes.server(old, broker.url)
    is_normal(server)
    assert server.root().version == 3
    for version in (1, 2, 3):
        assert server.get(f"/api/v1/trust/roots/{version}").status_code == 200
    client.event("applied", epoch_seq=2, config={"n": 1}, within=15)
    assert [line for line in client.lines if line["event"] == "refused"] == []


def test_a_newer_root_whose_keys_are_not_here_is_exit_5_and_nothing_was_changed(
    rotated: Kept, old: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    broker = rotated.broker(processes, directory / "broker")
    before = contents(old)
    said = restore(old, mqtt_url=broker.url, code=5)
    assert "trust root 3" in said
    assert "config-manager recover" in said
    assert {n: d for n, d in contents(old).items() if not n.startswith("config.db-")} == before


# ── the command ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize(
    "version", few_in_the_suite(VERSIONS, BOTH_ENDS), ids=lambda version: version.version
)
def test_a_dry_run_leaves_what_an_earlier_version_wrote_to_it(
    version: Earlier, shop: tuple[Processes, Path], killed: bool
) -> None:
    processes, directory = shop
    data = version.copy(SERVER, directory / "data")
    if killed:
        with Processes(command(unpack(version.wheel, directory / "code"))) as theirs:
            server = theirs.server(data, "none:")
            assert server.put("door", {"greeting": "more"}).status_code == 200
            server.kill()
        assert (data / "config.db-wal").stat().st_size > 0
    before = contents(data)
    would = restored(data, "none:", "--dry-run")
    assert {n: d for n, d in contents(data).items() if n != "config.db-shm"} == {
        n: d for n, d in before.items() if n != "config.db-shm"
    }
    assert restored(data) == would


@pytest.mark.parametrize("edited", [None, *FOREIGN], ids=lambda name: name or "rolled back")
def test_a_dry_run_says_the_same_and_changes_nothing(
    timelines: Timelines,
    broker: Broker,
    shop: tuple[Processes, Path],
    edited: str | None,
) -> None:
    processes, directory = shop
    data = (timelines.new if edited else timelines.old).copy(directory / "data")
    if edited:
        edit(data, FOREIGN[edited][0])
    before, kept_there = contents(data), retained_by(broker)
    would = restored(data, broker.url, "--dry-run")
    assert contents(data) == before
    assert retained_by(broker) == kept_there
    assert restored(data, broker.url) == would


def test_each_exit_code(timelines: Timelines, old: Path, shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    before = contents(old)
    command = ("restore", "--data-dir", str(old), "--mqtt-url", "none:")
    code, told = processes.run(*command)
    assert (code, "--accept" in "\n".join(told.text)) == (2, True)
    assert processes.run(*command, "--dry-run")[0] == 2
    assert contents(old) == before
    wrong = directory / "wrong.key"
    wrong.write_text("ab" * 32)
    wrong.chmod(0o600)
    restore(old, "--db-key-file", str(wrong), code=3)
    assert contents(old) == before
    for nothing in (directory / "nothing", directory):
        restore(nothing, code=6)
    assert not (directory / "nothing").exists()
    server = processes.server(old, "none:")
    restore(old, code=4)
    is_normal(server)
    assert server.stop() == 0
    for file in old.glob("config.db*"):
        file.write_bytes(b"")
    restore(old, code=3)
    shutil.rmtree(old / "trust")
    shutil.copyfile(timelines.old.data / "config.db", old / "config.db")
    restore(old, code=5)


def test_accepting_twice_is_accepting_once_more(
    timelines: Timelines, old: Path, broker: Broker, shop: tuple[Processes, Path]
) -> None:
    processes, _ = shop
    told = [restored(old, broker.url) for _ in range(3)]
    assert [one["epoch_seq"] for one in told] == [2, 3, 4]
    first = timelines.revision + 1
    assert [one["revision"] for one in told] == [first, first + 1, first + 2]
    is_normal(processes.server(old, broker.url))


# ── dying, and disks that are full ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=LONG)])
def test_killed_at_any_line_it_can_be_repeated_and_ends_well(
    timelines: Timelines, shop: tuple[Processes, Path], every: int
) -> None:
    """every: of so many lines one."""
    processes, directory = shop
    start = timelines.old.copy(directory / "start")
    for name in ("instance.json", "config.lkg"):
        shutil.copyfile(timelines.new.data / name, start / name)
    edit(
        start,
        "UPDATE history SET by = 'mallory' WHERE service = 'door'",
        "UPDATE registry SET key = 'mallory' WHERE key = 'eve'",
    )
    copies = directory / "copies"
    copies.mkdir()
    deaths = dies("accept", start, copies, every)
    assert deaths > 40 // every

    async def ends_well(data: Path) -> tuple[str, int]:
        async with on_disk(data) as system:
            verdict = (await Caller(system).ask("GET", "/api/v1/audit/verify")).json
            assert verdict["ok"], (data.name, verdict)
            assert system.view.committed.services["app"].stored == {"n": 1}
            return system.view.mode, system.view.committed.epoch.seq

    seen = set()
    for line in range(1, deaths + 2):
        data = copies / str(line)
        if line <= deaths:
            accept(data)
        mode, epoch_seq = trio.run(ends_well, data)
        assert mode == "normal", line
        seen.add(epoch_seq)
    assert seen == {2, 3}, "some died before it was committed, some after"


@pytest.fixture
def small(shop: tuple[Processes, Path]) -> Iterator[Path]:
    """A file system of its own."""
    with file_system(shop[1] / "small", "4m") as place:
        yield place


@pytest.mark.parametrize(
    "left",
    [(0, 48, 96, 160), pytest.param(range(0, 224, 16), marks=LONG)],
    ids=["some", "many"],
)
def test_on_a_full_disk_it_is_one_line_and_exit_3_and_can_be_repeated(
    timelines: Timelines, small: Path, shop: tuple[Processes, Path], left: Iterable[int]
) -> None:
    """left: KiB."""
    processes, _ = shop
    for leave_kib in left:
        data = timelines.old.copy(small / "data")
        ballast = fill(small, leave_kib)
        code, told = processes.run("restore", "--accept", "--data-dir", str(data))
        if code != 0:
            assert code == 3, (leave_kib, told.text)
            (line,) = told.text
            assert line.startswith("config-manager: CONFIG_MANAGER_DATA_DIR: "), line
        ballast.unlink()
        restore(data)

        async def is_whole() -> None:
            async with on_disk(data) as system:  # noqa: B023  at once
                assert system.view.mode == "normal"

        trio.run(is_whole)
        shutil.rmtree(data)
