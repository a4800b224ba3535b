"""One PUT, one id: found by name in every place a change passes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.processes import Processes, Server, port_of, retained


def test_one_id_is_found_everywhere_a_change_passes(
    server: Server, module_shop: tuple[Processes, Path]
) -> None:
    processes, directory = module_shop
    state = directory / "stt"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    client = processes.follow(state, "stt-worker", server.mqtt_url)
    name = "trace-me.1_A"

    answer = server.put("stt-worker", {"whisper_model": "small.en"}, headers={"X-Request-ID": name})

    assert answer.status_code in (200, 201), answer.text
    assert (b"X-Request-ID", name.encode()) in answer.headers.raw
    body = answer.json()
    assert body["correlation_id"] == name
    applied = client.event("applied", correlation_id=name)
    assert applied["revision"] == body["revision"]
    assert applied["config"]["whisper_model"] == "small.en"

    envelope = retained(port_of(server.mqtt_url), "system/config/stt-worker")
    assert json.loads(envelope)["correlation_id"] == name
    assert server.verified("stt-worker", envelope).correlation_id == name

    entries = server.get("/api/v1/config/stt-worker/history").json()["entries"]
    assert [e["revision"] for e in entries if e["correlation_id"] == name] == [body["revision"]]

    def line(what: str, *events: str) -> dict[str, object]:
        found = server.process.line(
            lambda it: (
                it.get("correlation_id") == name
                and (it["actor"].startswith(what) or what in it["event"])
                and (not events or any(e in it["event"] for e in events))
            ),
            what=f"{what} line of the change",
        )
        assert found["request_id"] == name, found
        assert {"timestamp", "level", "event", "actor"} <= found.keys()
        return found

    committed = line("storing", "committed")
    assert committed["config_epoch"] == body["config_epoch"]
    assert committed["revision"] == body["revision"]
    line("caching")
    line("signing")
    line("publishing", "publish")
    line("publishing", "confirm")
    server.process.line(
        lambda it: (
            it.get("correlation_id") == name
            and it["actor"] not in ("storing", "caching", "signing")
            and not it["actor"].startswith("publishing")
        ),
        what="the REST access line of the change",
    )


def test_an_id_that_is_not_one_is_replaced(server: Server) -> None:
    answer = server.put("stt-worker", {}, headers={"X-Request-ID": "not one"})
    assert answer.json()["correlation_id"] == answer.headers["X-Request-ID"] != "not one"
