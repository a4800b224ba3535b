"""What earlier versions left behind, opened by today's code: nothing that they stored, signed or kept is lost,
and their programs work beside ours. Each has a folder in `tests/data` (`tests/data/make.py` makes one)."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config_manager.api.conformance.publisher import Publisher
from config_manager.config import wire
from config_manager.config.documents.config_update import Variant
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.report_checks import verify
from tests.kit.earlier import (
    BOTH_ENDS,
    CLIENT,
    EXPORT,
    ON_TRIAL,
    RECOVERY_KEY,
    SERVER,
    SERVICE_PROGRAM,
    VERSIONS,
    Earlier,
    answer,
    command,
    python,
    unpack,
)
from tests.kit.long import few_in_the_suite
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Listener,
    Process,
    Processes,
    Server,
    eventually,
    listening,
)

OFFLINE, PROVED_AT_ONCE = "none:", "0"

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda earlier: earlier.version)
def earlier(request: pytest.FixtureRequest) -> Earlier:
    made: Earlier = request.param
    return made


at_both_ends = pytest.mark.parametrize(
    "earlier",
    few_in_the_suite(VERSIONS, BOTH_ENDS),
    indirect=True,
    scope="module",
    ids=lambda earlier: earlier.version,
)


@pytest.fixture(scope="module")
def code(earlier: Earlier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(earlier.wheel, tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def opened(earlier: Earlier, module_shop: tuple[Processes, Path]) -> Server:
    """Today's server on a copy of its data directory, for tests that only read."""
    processes, directory = module_shop
    data = earlier.copy(SERVER, directory / earlier.version)
    return processes.server(data, OFFLINE)


@pytest.fixture
def theirs(code: Path) -> Iterator[Processes]:
    """What runs that version's own code."""
    with Processes(command(code)) as processes:
        yield processes


def holds(now: Any, then: Any) -> bool:
    """Whether all is there as it was: an answer may gain members, and loses or changes none."""
    match then:
        case dict():
            return isinstance(now, dict) and all(
                key in now and holds(now[key], value) for key, value in then.items()
            )
        case list():
            return (
                isinstance(now, list)
                and len(now) == len(then)
                and all(holds(*pair) for pair in zip(now, then, strict=True))
            )
        case _:
            return bool(now == then and type(now) is type(then))


def bearer(earlier: Earlier, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {earlier.expected['tokens'][name]}"}


def test_every_version_that_was_released_is_here() -> None:
    assert {earlier.version for earlier in VERSIONS} >= {"0.1.0"}


# ── what a server stored ───────────────────────────────────────────────────────────────────────


def test_values_history_devices_and_tokens_are_answered_as_they_were(
    opened: Server, earlier: Earlier
) -> None:
    answers = earlier.expected["answers"]
    different = {}
    for path, then in answers.items():
        now = answer(opened, path)
        if not holds(now, then):
            different[path] = (now, then)
    assert different == {}
    assert answers["/api/v1/config/gate"]["status"] == 404, "the tombstone"
    for path, then in answers.items():
        if path.endswith("?view=stored"):  # of values nothing may be gained either
            assert opened.get(path).json().get("config") == then["body"].get("config"), path


def test_every_version_of_every_secret_reveals_what_it_did(
    opened: Server, earlier: Earlier
) -> None:
    kept = earlier.expected["secrets"]
    assert len(kept) == 5
    for one in kept:
        shown = opened.http.post(
            f"/api/v1/secrets/{one['service']}/{one['name']}/reveal",
            json={"reason": "is it there?", "version": one["version"]},
        )
        assert (shown.status_code, shown.json().get("value")) == (200, one["value"])


def values_in(
    entries: list[dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each entry of a history, oldest first, and the values that it left; None: it deleted the service."""
    values = dict[str, Any]()
    for entry in reversed(entries):
        for change in entry["changes"] if not entry["action"].startswith("secret") else ():
            values.pop(change["key"], None)
            if change["new"] is not None or "new" in change.get("nulls", ()):
                values[change["key"]] = change["new"]
        yield entry, None if entry["action"] == "delete" else dict(values)


def test_services_are_read_as_of_any_revision_and_time_of_their_past(
    opened: Server, earlier: Earlier, module_shop: tuple[Processes, Path]
) -> None:
    """That version kept no checkpoints: the way there is back from the newest values."""
    answers = earlier.expected["answers"]
    for service in ("door", "gate", "stt-worker"):
        path = f"/api/v1/config/{service}"
        for entry, values in values_in(answers[f"{path}/history?limit=500"]["body"]["entries"]):
            for then in ({"revision": entry["revision"]}, {"at": entry["at"]}):
                was = opened.get(path, params={**then, "view": "stored"})
                assert was.json().get("config") == values, (service, entry)
                if values is None:
                    assert was.json()["type"] == "/problems/not-there-then"
    processes, _ = module_shop
    then = answers["/api/v1/config/door/history?limit=500"]["body"]["entries"][1]
    asked = ("get", "door", "--at", then["at"], "--json", "--url", opened.url)
    code, told = processes.run(*asked, env={"CONFIG_MANAGER_TOKEN": TOKEN})
    assert (code, told.lines[0]["revision"]) == (0, then["revision"]), told.text


def test_tokens_open_what_they_did_and_a_revoked_one_nothing(
    opened: Server, earlier: Earlier
) -> None:
    def asked(token: str, path: str) -> int:
        return opened.get(path, headers=bearer(earlier, token)).status_code

    assert asked("ci", "/api/v1/config/door") == 200
    assert asked("ci", "/api/v1/config/stt-worker") == 403
    assert asked("reader", "/api/v1/config/stt-worker") == 200
    assert asked("reader", "/api/v1/tokens") == 403
    assert asked("gone", "/api/v1/config/door") == 401


def test_the_roots_are_served_byte_for_byte(opened: Server, earlier: Earlier) -> None:
    roots = earlier.expected["roots"]
    assert {path: opened.get(path).text for path in roots} == roots


def test_the_audit_verifies_from_its_first_row_and_goes_on_from_its_last(
    opened: Server, earlier: Earlier, module_shop: tuple[Processes, Path]
) -> None:
    then = earlier.expected["audit"]
    now = opened.get("/api/v1/audit", params={"limit": 1000}).json()
    assert now["entries"][: then["rows"]] == then["entries"]
    processes, _ = module_shop
    environment = {"CONFIG_MANAGER_TOKEN": TOKEN}
    check = ("audit", "verify", "--url", opened.url, "--contains", then["head"])
    code, told = processes.run(*check, env=environment)
    assert code == 0, told.text
    root = opened.data_dir / "trust" / "root.json"
    export = ("--file", str(earlier.folder / EXPORT), "--root", str(root))
    code, told = processes.run("audit", "verify", *export)
    assert code == 0, told.text


@at_both_ends
def test_a_report_of_what_it_wrote_verifies_with_its_first_root(
    opened: Server, earlier: Earlier
) -> None:
    span = {"from": "2020-01-01T00:00:00Z", "to": rfc3339(time.time() - 0.1)}
    file = opened.get("/api/v1/reports", params=span).content
    verdict = verify(file, opened.get("/api/v1/trust/roots/1").content)
    assert verdict.ok, verdict.findings
    history = opened.get("/api/v1/config/door/history").json()["entries"]
    wanted = verdict.claims["door"]["wanted"]
    assert [one["revision"] for one in wanted] == [one["revision"] for one in reversed(history)]


@at_both_ends
def test_it_is_written_on_and_a_start_later_all_of_it_is_there(
    shop: tuple[Processes, Path], earlier: Earlier
) -> None:
    processes, directory = shop
    server = processes.server(earlier.copy(SERVER, directory / "data"), OFFLINE)
    path = "/api/v1/config/door"
    then = earlier.expected["answers"][path]
    told = server.put(
        "door",
        {"greeting": "from today"},
        headers={**bearer(earlier, "ci"), "If-Match": then["etag"]},
    )
    assert told.status_code == 200, told.text
    assert told.json()["version"] == then["body"]["version"] + 1
    assert server.put("gate", {"open": True}).status_code == 201, "what was deleted comes back"
    assert server.stop() == 0
    server.start()
    assert server.get(path).json()["config"] == {"greeting": "from today", "pin": "********"}
    assert server.get("/api/v1/audit/verify").json()["ok"] is True
    for history in (f"{path}/history?limit=500", "/api/v1/config/gate/history?limit=500"):
        newest, *before = server.get(history).json()["entries"]
        assert holds(before, earlier.expected["answers"][history]["body"]["entries"])
        assert newest["action"] == "put"


@at_both_ends
def test_its_recovery_key_brings_its_keys_back(
    shop: tuple[Processes, Path], earlier: Earlier
) -> None:
    processes, directory = shop
    data = earlier.copy(SERVER, directory / "data")
    kept = {path.name: path.read_text().strip() for path in (data / "keys").glob("*.key")}
    shutil.rmtree(data / "keys")
    note = earlier.copy(RECOVERY_KEY, directory / "paper")
    code, told = processes.run("recover", "--data-dir", str(data), "--recovery-key-file", str(note))
    assert code == 0, told.text
    back = {path.name: path.read_text().strip() for path in (data / "keys").glob("*.key")}
    assert back == kept
    server = processes.server(data, OFFLINE)
    assert server.get("/api/v1/config/stt-worker").json()["config"]["whisper_model"] == "small"


# ── what a client kept ─────────────────────────────────────────────────────────────────────────


def get(processes: Processes, state: Path, service: str, remark: str = "") -> Any:
    """What `client get` prints; stderr has to say `remark`."""
    code, told = processes.run("client", "get", "--state", str(state), "--service", service)
    assert code == 0, told.text
    assert remark in "\n".join(told.text)
    (config,) = told.lines
    return config


DIES_AT_ONCE = """
import json, os, signal, sys
from pydantic import BaseModel
from config_manager.client import Config


class Settings(BaseModel):
    greeting: str = ""


options = {"service": sys.argv[2], "state_dir": sys.argv[1], "mqtt_url": "none:", "env_file": None}
with Config(Settings, **options) as config:
    said = {"event": "opened", "greeting": config.current.greeting, "source": config.source}
    print(json.dumps(said), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def starts_offline(
    processes: Processes, code: Path | None, state: Path, service: str
) -> dict[str, Any]:
    """What a service in Python begins with, by that code (None: today's)."""
    program = processes.start(
        python(code, SERVICE_PROGRAM, str(state), service, OFFLINE, PROVED_AT_ONCE)
    )
    said = program.event("opened")
    assert program.wait() == 0
    return said


def test_todays_client_starts_offline_from_what_was_kept_its_secret_included(
    shop: tuple[Processes, Path], earlier: Earlier
) -> None:
    processes, directory = shop
    state = earlier.copy(CLIENT, directory / "state")
    client = earlier.expected["client"]
    stored = earlier.expected["answers"]["/api/v1/config/door?view=stored"]["body"]["config"]
    assert get(processes, state, client["service"]) == stored
    assert starts_offline(processes, None, state, client["service"]) == {
        "event": "opened",
        "greeting": client["greeting"],
        "pin": client["pin"],
        "source": "last-known-good",
    }


@at_both_ends
def test_what_a_service_died_of_once_is_tried_again_and_after_that_no_more(
    shop: tuple[Processes, Path], earlier: Earlier, code: Path
) -> None:
    """A death is what any stop by a signal looks like, so an earlier version's counts as the first."""
    processes, directory = shop
    state = earlier.copy(ON_TRIAL, directory / "state")
    trial = earlier.expected["on_trial"]
    tried = earlier.expected["answers"][f"/api/v1/config/{trial['service']}"]["body"]["revision"]
    remark = "died within its bake time, and it is tried again"
    assert get(processes, state, trial["service"], remark) == {"greeting": trial["tried"]}
    dies = processes.start(python(None, DIES_AT_ONCE, str(state), trial["service"]))
    said = dies.event("opened")
    assert (said["greeting"], said["source"], dies.wait()) == (
        trial["tried"],
        "last-known-good",
        -signal.SIGKILL,
    )
    remark = f"died within the bake time of revision {tried}"
    assert get(processes, state, trial["service"], remark) == {"greeting": trial["proved"]}
    for by in (None, code) if earlier is VERSIONS[0] else (None,):  # it reads today's poison, too
        said = starts_offline(processes, by, state, trial["service"])
        assert (said["greeting"], said["source"]) == (trial["proved"], "last-known-good")


# ── beside each other ──────────────────────────────────────────────────────────────────────────


def receipt(server: Server, client: dict[str, Any], revision: int, library: str) -> Any:
    """The receipt of the enrolled instance, once it says that this revision runs and is fresh."""

    def arrived() -> Any:
        for one in server.get("/api/v1/status").json()["instances"]:
            if (one["service"], one["instance"]) == (client["service"], client["instance"]):
                running = one["running"] or {}
                if running.get("revision") == revision and one["freshness"] == "fresh":
                    return one
        return None

    found = eventually(arrived, within=15, what=f"the receipt of revision {revision}")
    assert (found["in_sync"], found["enrolled"], found["gone"]) == (True, True, False)
    assert found["library"].startswith(library)
    return found


def change(server: Server, service: str, greeting: str, pin: str) -> int:
    """Its values and its secret; the revision that has both."""
    body = {"service": service, "name": "pin", "value": pin}
    assert server.http.post("/api/v1/secrets", json=body).status_code == 201
    told = server.put(service, {"greeting": greeting})
    assert told.status_code == 200, told.text
    revision: int = told.json()["revision"]
    return revision


def tell_a_change(server: Server, client: Process, expected: dict[str, Any], library: str) -> None:
    """It starts from what it kept, becomes fresh, applies a change, and the operator sees that."""
    kept = client.event("applied", revision=expected["revision"])
    assert (kept["config"]["greeting"], kept["source"]) == (
        expected["greeting"],
        "last-known-good",
    )
    client.event("fresh", within=15)
    receipt(server, expected, expected["revision"], library)
    revision = change(server, expected["service"], "something new", "the fourth pin")
    applied = client.event("applied", revision=revision, within=15)
    assert (applied["config"], applied["source"]) == ({"greeting": "something new"}, "broker")
    receipt(server, expected, revision, library)
    assert [line for line in client.lines if line.get("event") in ("refused", "stale")] == []
    assert client.terminate() == 0


@at_both_ends
@needs_mosquitto
def test_its_client_follows_todays_server_through_a_broker_that_holds_its_messages(
    shop: tuple[Processes, Path], theirs: Processes, earlier: Earlier, code: Path
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    earlier.fill(broker.port)
    server = processes.server(earlier.copy(SERVER, directory / "data"), broker.url)
    state, client = earlier.copy(CLIENT, directory / "state"), earlier.expected["client"]
    library = f"config-manager-python {earlier.version}"
    tell_a_change(server, theirs.follow(state, client["service"], broker.url), client, library)
    said = starts_offline(theirs, code, state, client["service"])
    assert (said["greeting"], said["pin"]) == ("something new", "the fourth pin")


@at_both_ends
@needs_mosquitto
def test_todays_client_follows_its_server(
    shop: tuple[Processes, Path], theirs: Processes, earlier: Earlier
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    earlier.fill(broker.port)
    server = theirs.server(earlier.copy(SERVER, directory / "data"), broker.url)
    state, client = earlier.copy(CLIENT, directory / "state"), earlier.expected["client"]
    follower = processes.follow(state, client["service"], broker.url)
    tell_a_change(server, follower, client, "config-manager-python ")


@at_both_ends
@needs_mosquitto
@pytest.mark.parametrize("bake_s", [PROVED_AT_ONCE, "3600"], ids=["proved", "on trial"])
def test_what_todays_client_kept_its_client_starts_with(
    shop: tuple[Processes, Path], theirs: Processes, earlier: Earlier, code: Path, bake_s: str
) -> None:
    """Back to the version before, after an upgrade that somebody regrets."""
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(earlier.copy(SERVER, directory / "data"), broker.url)
    state, client = earlier.copy(CLIENT, directory / "state"), earlier.expected["client"]
    service = processes.start(
        python(None, SERVICE_PROGRAM, str(state), client["service"], broker.url, bake_s)
    )
    service.event("opened", greeting=client["greeting"])
    change(server, client["service"], "kept by today's", "the fourth pin")
    service.event("changed", greeting="kept by today's", pin="the fourth pin", within=15)
    assert service.terminate() == 0
    assert get(theirs, state, client["service"]) == {"greeting": "kept by today's"}
    said = starts_offline(theirs, code, state, client["service"])
    assert said == {
        "event": "opened",
        "greeting": "kept by today's",
        "pin": "the fourth pin",
        "source": "last-known-good",
    }


# ── variants ───────────────────────────────────────────────────────────────────────────────────


@needs_mosquitto
def test_a_message_with_variants_reaches_old_code_and_new_code_each_with_its_own_values(
    shop: tuple[Processes, Path],
) -> None:
    """A release before schemas takes what everybody takes; today's takes what names its schema."""
    processes, directory = shop
    code = unpack(VERSIONS[0].wheel, directory / "code")
    publisher = Publisher("door")
    broker = processes.broker(directory / "broker")
    states = [directory / "theirs", directory / "ours"]
    (directory / "root.json").write_bytes(publisher.root())
    for state in states:
        processes.pin(state, directory / "root.json")
    with listening(broker.port) as listener:
        first: dict[str, Any] = {"config": {"greeting": "hello"}, "content": "1"}
        publisher.revision = 1
        listener.publish(publisher.topic, publisher.update(1, **first))
        listener.publish(
            wire.SNAPSHOT_TOPIC, publisher.snapshot(names=publisher.payload(1, **first))
        )
        old, new = (
            processes.start(
                python(by, SERVICE_PROGRAM, str(state), "door", broker.url, PROVED_AT_ONCE)
            )
            for by, state in zip((code, None), states, strict=True)
        )
        for service in (old, new):
            assert service.event("opened", within=15)["greeting"] == "hello"
        topic = eventually(lambda: schema_topic(listener), within=10, what="a schema is published")
        variants = (Variant((topic[-64:],), {"greeting": "for new code"}, ()),)
        everyones: dict[str, Any] = {"config": {"greeting": "for everybody"}, "variants": variants}
        listener.publish(publisher.topic, publisher.update(2, **everyones, content="2"))
        old.event("changed", greeting="for everybody", within=15)
        new.event("changed", greeting="for new code", within=15)
        listener.publish(publisher.topic, publisher.update(3, **everyones, content="2"))
        last: dict[str, Any] = {"config": {"greeting": "bye"}, "content": "4"}
        listener.publish(publisher.topic, publisher.update(4, **last))
        for service in (old, new):
            service.event("changed", greeting="bye", within=15)
            assert service.terminate() == 0
    changes = [line["greeting"] for line in new.lines if line["event"] == "changed"]
    assert changes == ["for new code", "bye"], "the third decides nothing new, and asks nobody"


def schema_topic(listener: Listener) -> str | None:
    prefix = "system/config-schema/door/"
    return next((topic for topic, _, _ in listener.messages if topic.startswith(prefix)), None)
