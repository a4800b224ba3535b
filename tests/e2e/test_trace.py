"""A change traced end to end: a real broker, a real client, a real collector of traces, and a server that is restarted."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from config_manager.config.world import parse_rfc3339
from tests.kit.pages import DOCS
from tests.kit.processes import MOSQUITTO, TOKEN, Processes, Server, eventually
from tests.kit.shell import Shell, steps_of

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Its URL, and the spans that it took."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            spans.extend(body["resourceSpans"][0]["scopeSpans"][0]["spans"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", spans
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def enrolled(processes: Processes, server: Server, directory: Path) -> Path:
    """The state of an instance of `door`, the kitchen's."""
    state, token = directory / "kitchen", directory / "token"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    made = server.http.post("/api/v1/devices/tokens", json={"service": "door"})
    token.write_text(made.json()["token"])
    code, told = processes.run(
        *("client", "enroll", "--state", str(state), "--service", "door", "--instance", "kitchen"),
        *("--url", server.url, "--token-file", str(token)),
    )
    assert code == 0, told.text
    return state


def trace(server: Server, name: str | int) -> Any:
    answer = server.get(f"/api/v1/changes/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_sum_of_its_steps_is_the_whole_also_after_a_restart(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    with collector() as (url, spans):
        server = processes.server(directory / "data", broker.url, "--otlp-url", url)
        state = enrolled(processes, server, directory)
        client = processes.follow(state, "door", broker.url, "--instance", "kitchen")
        began = time.time()
        shell = Shell(server, directory, {"CONFIG_MANAGER_TOKEN": TOKEN})
        code, said = shell.run("bash", "-ec", steps_of(DOCS / "tracing.md"))
        assert code == 0, said
        client.event("applied")
        in_its_log = next(
            json.loads(line) for line in client.text if '"actor":"client","event":"applied"' in line
        )

        told = trace(server, 1)
        assert (told["state"], told["services"], told["reason"]) == (
            "settled",
            ["door"],
            "the postman",
        )
        assert trace(server, told["correlation_id"]) == told
        steps = {one["step"]: one for one in told["steps"]}
        assert [one["step"] for one in told["steps"]][:4] == [
            "asked", "committed", "signed", "published",
        ]  # fmt: skip
        assert steps.keys() == {*list(steps)[:4], "acknowledged", "confirmed"}
        (kitchen,) = told["instances"]
        assert (kitchen["instance"], kitchen["state"]) == ("kitchen", "in-line")
        last = kitchen["steps"][-1]
        assert last["stage"] == "healthy"

        # each way from the request to the instance adds up, and lies within what the clock on the wall says
        way = [steps[one]["after_ms"] for one in ("asked", "committed", "signed", "published")]
        way += [one["after_ms"] for one in kitchen["steps"]]
        assert way == sorted(way)
        whole_ms = (parse_rfc3339(last["received_at"]) - parse_rfc3339(steps["asked"]["at"])) * 1000
        assert sum(after - before for before, after in zip(way, way[1:], strict=False)) == (
            pytest.approx(whole_ms, abs=2)
        )
        assert began < parse_rfc3339(steps["asked"]["at"]) + 0.001
        assert parse_rfc3339(last["received_at"]) < time.time() + 0.001
        assert 0 <= last["took_ms"] <= last["after_ms"]
        # the instance shares our clock here, and its own log bears it out
        applied_at = parse_rfc3339(in_its_log["timestamp"])
        assert parse_rfc3339(steps["published"]["at"]) - 0.001 <= applied_at
        assert abs(parse_rfc3339(last["at"]) - applied_at) < 0.5
        drawn = [line.split()[:2] for line in said.splitlines()]
        assert ["server", "asked"] in drawn
        assert ["door/kitchen", kitchen["steps"][0]["stage"]] in drawn
        assert re.search(
            r"^1 .* bootstrap +put +door +settled|pending .* the postman$", said, re.MULTILINE
        )

        # the same steps are spans of the change's own trace, and add up as well
        eventually(
            lambda: len(spans) == 5 + len(kitchen["steps"]), within=10, what="all of the spans"
        )
        assert {one["traceId"] for one in spans} == {told["traceparent"][3:35]}
        ours = {one["name"]: one for one in spans}
        root = ours["change put"]
        assert root["spanId"] == told["traceparent"][36:52]
        assert ours["signed"]["startTimeUnixNano"] == root["endTimeUnixNano"]
        assert ours["published"]["startTimeUnixNano"] == ours["signed"]["endTimeUnixNano"]
        to_kitchen = [one for one in spans if one["kind"] == 5]
        assert to_kitchen[0]["startTimeUnixNano"] == ours["published"]["endTimeUnixNano"]
        span_ns = int(to_kitchen[-1]["endTimeUnixNano"]) - int(root["startTimeUnixNano"])
        assert span_ns / 1e6 == pytest.approx(last["after_ms"], abs=0.01)

    assert server.stop() == 0
    server.start()
    again = trace(server, 1)
    assert again["steps"] == told["steps"]
    assert again["traceparent"] == told["traceparent"]
    (kitchen_again,) = again["instances"]
    assert kitchen_again["steps"][: len(kitchen["steps"])] == kitchen["steps"]
