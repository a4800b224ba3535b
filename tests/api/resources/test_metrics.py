"""`GET /metrics` of a running system: every name, type, label and bucket, and what each one follows."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import get_args

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from config_manager.actors.views import BrokerView
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt
from config_manager.storage.decisions.drift import STATES
from config_manager.storage.state import Action
from tests.kit.asgi import Answer, Caller, running
from tests.kit.instances import Fleet

PROMTOOL = shutil.which("promtool")
METRICS = "/metrics"
OURS = "config_manager_"


Samples = dict[str, dict[tuple[str, ...], float]]
"""name → values of the labels, by the labels' names → value"""


def read(answer: Answer) -> Samples:
    assert answer.status == 200, answer.body
    found: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_a_change_is_counted_where_it_was_asked_decided_and_committed(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        before = read(await rest.ask("GET", METRICS))
        assert before[f"{OURS}revision"] == {(): 0}
        assert before[f"{OURS}services"] == {(): 0}
        assert set(before[f"{OURS}writes_total"]) == {(one,) for one in get_args(Action)}
        door = "/api/v1/config/door"
        assert (await rest.ask("PUT", door, {"open": True})).status == 201
        assert (await rest.ask("PUT", door, {"open": False})).status == 200
        assert (await rest.ask("DELETE", door)).status == 200
        assert (
            await rest.ask("POST", "/api/v1/config/epoch", {"services": {"a": {}, "b": {}}})
        ).status == 200
        refused = await rest.ask("PUT", "/api/v1/config/stt-worker", {"vad_threshold": 7})
        assert refused.status == 422
        assert (await rest.ask("GET", "/api/v1/config/nobody")).status == 404
        found = read(await rest.ask("GET", METRICS))
        assert found[f"{OURS}revision"] == {(): 4}
        assert found[f"{OURS}services"] == {(): 2}
        assert found[f"{OURS}epoch_seq"] == {(): 2}
        writes = {action: n for (action,), n in found[f"{OURS}writes_total"].items() if n}
        assert writes == {"put": 2, "delete": 1, "epoch": 1}
        refusals = {name: n for (name,), n in found[f"{OURS}refusals_total"].items() if n}
        assert refusals == {"invalid-values": 1}, "a read that finds nothing is no refused write"
        route = "/api/v1/config/{service}"
        asked = found[f"{OURS}http_requests_total"]
        assert asked["PUT", route, "201"] == 1
        assert asked["PUT", route, "200"] == 1
        assert asked["PUT", route, "422"] == 1
        assert asked["GET", route, "404"] == 1
        assert asked["GET", METRICS, "200"] == 1
        took = found[f"{OURS}http_request_duration_seconds_count"]
        assert took["PUT", route] == 3
        commits = found[f"{OURS}commit_duration_seconds_count"][()]
        assert commits in (4, 5), "the four, and when the token was used"
        assert (
            found[f"{OURS}commit_writes_count"]
            == found[f"{OURS}commit_writes_sum"]
            == {(): commits}
        )
        assert found[f"{OURS}mailbox_peak_messages"]["storing",] >= 1
        assert set(found[f"{OURS}mailbox_messages"].values()) == {0}


async def test_what_callers_choose_is_never_a_label(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        for method in ("GET", "PUT", "DELETE", "BREW", "OPTIONS", "HEAD"):
            for path in (
                "/nowhere/at/all",
                "/api/v1/config/chosen-by-me/x/y",
                "/api/v1/config/chosen-by-me",
            ):
                await rest.ask(
                    method, path, {"chosen_by_me": 1}, headers={"x-request-id": "chosen-by-me"}
                )
        await rest.ask("GET", METRICS, token="chosen-by-me")
        answer = await rest.ask("GET", METRICS)
        assert b"chosen" not in answer.body
        asked = read(answer)[f"{OURS}http_requests_total"]
        routes = {route.path for route in ROUTES} | {"unknown"}
        assert {route for _, route, _ in asked} <= routes
        assert ("other", "unknown", "404") in asked
        assert {method for method, _, _ in asked} == {
            "GET",
            "HEAD",
            "PUT",
            "DELETE",
            "OPTIONS",
            "other",
        }


async def test_tokens_that_were_sent_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        for _ in range(12):
            await rest.ask("GET", METRICS, token="nobody-made-this-one")
        await rest.ask("GET", METRICS, token=None)
        assert (await rest.ask("GET", "/api/v1/config")).status == 200
        found = read(await rest.ask("GET", METRICS))[f"{OURS}logins_total"]
        assert found == {("accepted",): 2, ("expired",): 0, ("limited",): 2, ("unknown",): 10}


async def test_it_needs_a_token_for_every_service(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        tokens: dict[str, str] = {}
        for name, services in (("prometheus", ["*"]), ("narrowed", ["stt-*"])):
            made = await rest.ask(
                "POST", "/api/v1/tokens", {"name": name, "role": "read", "services": services}
            )
            tokens[name] = made.json["token"]
        answer = await rest.ask("GET", METRICS, token=tokens["prometheus"])
        assert (answer.status, answer.headers["content-type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        assert answer.headers["cache-control"] == "no-store"
        refused = await rest.ask("GET", METRICS, token=tokens["narrowed"])
        assert (refused.status, refused.json["type"]) == (403, "/problems/forbidden")
        assert (await rest.ask("GET", METRICS, token=None)).status == 401
        assert (await rest.ask("GET", f"{METRICS}?format=json")).status == 400
        through_quart = await Caller(system, fast_path=False).ask("GET", METRICS)
        assert (through_quart.status, through_quart.headers["content-type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        assert (await rest.ask("HEAD", METRICS)).body == b""


async def test_it_answers_while_nothing_can_be_written(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        system.view.mode = "read-only"
        system.storing.crash(RuntimeError("drill"))
        found = read(await rest.ask("GET", METRICS))
        assert found[f"{OURS}read_only"] == {(): 1}
        assert found[f"{OURS}up"] == {(): 0}


async def test_a_crash_is_a_restart_and_the_part_is_down_until_then(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        (actor,) = [one for one in system.states.actors if one.name == "callers"]
        actor.crash(RuntimeError("drill"))
        while system.states.report()["callers"] == "running":
            await trio.sleep(0)
        down = read(await rest.ask("GET", METRICS))
        assert down[f"{OURS}actor_up"]["callers",] == 0
        while system.states.report()["callers"] != "running":
            await trio.sleep(0.005)
        found = read(await rest.ask("GET", METRICS))
        assert found[f"{OURS}actor_up"]["callers",] == 1
        assert found[f"{OURS}actor_restarts_total"]["callers",] == 1
        assert found[f"{OURS}actor_restarts_total"]["storing",] == 0


async def test_what_brokers_and_instances_say_is_counted_as_it_comes(tmp_path: Path) -> None:
    fleet = Fleet()
    async with running(tmp_path) as system:
        rest = Caller(system)
        await rest.ask("PUT", "/api/v1/config/door", {})
        system.confirmations.note(BrokerView("mqtt://a"), "door", 1)
        fleet.view, fleet.statuses = system.view, system.statuses
        fleet.enrol("door", "ada")
        fleet.hear("door", "ada", None, last_attempt=Attempt(1, "refused"))
        fleet.hear("door", "a-stranger", 1, last_attempt=Attempt(1, "applied"))
        topic = wire.status_topic("door", "ada")
        system.statuses.take("mqtt://a", topic, b"no receipt", retained=False, now=fleet.now())
        found = read(await rest.ask("GET", METRICS))
        assert found[f"{OURS}confirm_duration_seconds_count"] == {(): 1}
        stages = {stage: n for (stage,), n in found[f"{OURS}receipts_total"].items() if n}
        assert stages == {"refused": 1, "applied": 1}
        assert found[f"{OURS}receipts_refused_total"] == {(): 1}
        states = found[f"{OURS}instances"]
        assert states.keys() == {(state,) for state in STATES}
        assert {state: n for (state,), n in states.items() if n} == {"refused": 1, "claimed": 1}
        assert found[f"{OURS}drifting_services"] == {(): 0}, "it has not lasted yet"
        assert found[f"{OURS}apply_duration_seconds_count"] == {(): 0}, "a claim proves nothing"


async def test_streams_count_while_they_are_open(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        for _ in range(2):
            async with rest.listen() as stream:
                await stream.event()
                found = read(await rest.ask("GET", METRICS))
                assert found[f"{OURS}live_pages"] == {(): 1}
                assert found[f"{OURS}http_requests_total"]["GET", "/api/v1/watch", "200"] >= 1
        assert read(await rest.ask("GET", METRICS))[f"{OURS}live_pages"] == {(): 0}


async def test_the_process_is_this_one(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        found = read(await Caller(system).ask("GET", METRICS))
    assert 0 < found["process_cpu_seconds_total"][()] <= time.process_time() + 0.1
    started = time.time() - found["process_start_time_seconds"][()]
    assert 0 < started < 86_400
    assert 2**20 < found["process_resident_memory_bytes"][()] < 2**34
    assert abs(found["process_open_fds"][()] - len(list(Path("/proc/self/fd").iterdir()))) < 10


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: prometheus)")
async def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        await rest.ask("PUT", "/api/v1/config/door", {})
        answer = await rest.ask("GET", METRICS)
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=answer.body, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
