"""Steps of changes as spans at a collector: their shape, and what a collector may do to us, which is nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf import json_format  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from config_manager.actors.exporting import Exporter
from config_manager.actors.http_out import Answered, Unanswered
from config_manager.actors.spans import Span, export_request, spans_of
from config_manager.actors.tracing import Noted, Tracing
from config_manager.config.http_target import parse_http_target
from config_manager.config.traceparent import own_traceparent
from config_manager.config.world import World
from config_manager.storage.trace import BROKER_STEPS, ChangeTimes, StageTime
from tests.actors.test_tracing import HERE, THERE, Noting
from tests.kit.receivers import receiving, says

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RESOURCE = {"service.name": "config-manager", "service.version": "1"}


def noted(traceparent: str | None = CALLER) -> Noted:
    """Asked at 100; a millisecond for each further step, at two brokers and an instance."""
    one = Noted(
        ChangeTimes(7, 100.0, 100.001, 2, traceparent),
        frozenset({"door"}),
        "id-7",
        "ada",
        "put",
        True,
    )
    one.brokers["door", HERE] = [100.002, 100.003, 100.005, 100.004]  # its PUBACK came last
    one.brokers["door", THERE] = [100.002, None, None, None]
    one.instances["door", "one"] = [
        StageTime("received", 90.0, 100.006),
        StageTime("refused", 90.1, 100.008, "model: no", 2),
    ]
    return one


def named(spans: Sequence[Span]) -> dict[tuple[str, str], Span]:
    return {
        (one.name, str(one.attributes.get("server.address", one.attributes.get("config_manager.instance", "")))): one
        for one in spans
    }  # fmt: skip


def parsed(body: bytes) -> Any:
    """By the messages of opentelemetry-proto; in OTLP/JSON ids are in hex, where protobuf has base64."""
    told = json.loads(body)
    for span in told["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json_format.ParseDict(told, ExportTraceServiceRequest())  # an unknown member is an error


def test_each_step_is_a_span_below_the_change_which_is_below_the_callers() -> None:
    spans = list(spans_of(noted()))
    by_name = named(spans)
    whole = by_name["change put", ""]
    assert (whole.trace_id, whole.parent) == (CALLER[3:35], CALLER[36:52])
    others = [one for one in spans if one is not whole]
    assert {one.parent for one in others} == {whole.span_id}
    assert {one.trace_id for one in spans} == {whole.trace_id}
    assert len({one.span_id for one in spans}) == len(spans) == 8
    assert spans == list(spans_of(noted())), "the same ids whenever they are asked for"


def test_the_spans_of_one_way_add_up_to_the_whole() -> None:
    by_name = named(list(spans_of(noted())))
    to_broker = ["change put", "signed", "published", "confirmed", "acknowledged"]
    way = [by_name[name, HERE if name != "change put" else ""] for name in to_broker]
    assert [one.start for one in way[1:]] == [one.end for one in way[:-1]]
    assert sum(one.end - one.start for one in way) == pytest.approx(0.005)
    received, refused = by_name["received", "one"], by_name["refused", "one"]
    assert received.start == by_name["published", HERE].end
    assert refused.start == received.end
    assert refused.error == "model: no"


def test_what_is_sent_is_what_the_fields_own_messages_read() -> None:
    spans = list(spans_of(noted()))
    request = parsed(export_request(spans, RESOURCE))
    (of_resource,) = request.resource_spans
    assert {one.key: one.value.string_value for one in of_resource.resource.attributes} == RESOURCE
    (scope,) = of_resource.scope_spans
    assert scope.scope.name == "config-manager"
    read = {span.span_id.hex(): span for span in scope.spans}
    assert read.keys() == {one.span_id for one in spans}
    for one in spans:
        span = read[one.span_id]
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.trace_id.hex() == one.trace_id
        assert span.parent_span_id.hex() == one.parent
        assert span.end_time_unix_nano == pytest.approx(one.end * 1e9, abs=1_000)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        told = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
        assert told == one.attributes
        assert (span.status.message, span.status.code) == ((one.error, 2) if one.error else ("", 0))


def test_without_a_callers_trace_the_change_begins_one_and_its_answer_names_it() -> None:
    ours = own_traceparent("id-7")
    for traceparent in (None, ours):
        whole, *_ = spans_of(noted(traceparent))
        assert (whole.trace_id, whole.span_id, whole.parent) == (ours[3:35], ours[36:52], "")


def test_a_caller_that_records_nothing_is_not_recorded() -> None:
    assert list(spans_of(noted(CALLER[:-2] + "00"))) == []


# ── a collector ────────────────────────────────────────────────────────────────────────────────


class Collector:
    """Answers as it is told to, and keeps what it took."""

    def __init__(self, answers: Callable[[], Answered | Unanswered]) -> None:
        self.answers = answers
        self.asked = 0
        self.taken: list[Any] = []

    async def __call__(self, body: bytes) -> Answered | Unanswered:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        answer = self.answers()
        if answer.ok:
            self.taken += parsed(body).resource_spans[0].scope_spans[0].spans
        return answer


def well() -> Answered:
    return Answered(200)


def change(noting: Noting, service: str = "door") -> None:
    (state,) = noting.commits(service)
    for step in BROKER_STEPS:
        noting.tracing.done(step, state, HERE)


async def test_each_span_is_sent_once_also_if_the_change_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    noting, collector = Noting(), Collector(well)
    exporter = Exporter(noting.tracing, collector, RESOURCE, fraction=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.work)
        (state,) = noting.commits("door")
        await trio.sleep(2)
        assert [span.name for span in collector.taken] == ["change put"]
        for step in BROKER_STEPS:
            noting.tracing.done(step, state, HERE)
            await trio.sleep(2)
        assert [span.name for span in collector.taken] == ["change put", *BROKER_STEPS]
        before = collector.asked
        await trio.sleep(60)
        assert collector.asked == before, "nothing is sent while nothing happens"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [Unanswered("it is dead"), Answered(503), Answered(429)])
async def test_while_a_collector_is_away_spans_wait_within_bounds_and_the_log_says_so_once(
    autojump_clock: trio.testing.MockClock,
    capsys: pytest.CaptureFixture[str],
    answer: Answered | Unanswered,
) -> None:
    noting, collector = Noting(), Collector(lambda: answer)
    exporter = Exporter(noting.tracing, collector, RESOURCE, fraction=lambda: 0.5, most=12)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.work)
        for _ in range(10):
            change(noting)
            await trio.sleep(100)
        assert exporter.dropped == 10 * 5 - 12
        assert capsys.readouterr().out.count("traces not sent") == 1
        assert collector.asked < 50, "it is asked less and less often"
        collector.answers = well
        await trio.sleep(100)
        assert len(collector.taken) == 12
        told = capsys.readouterr().out
        assert told.count("traces are taken again") == 1
        assert "38" in told
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("status", [301, 400, 404, 413, 500])
async def test_what_a_collector_refuses_is_let_go_and_the_next_is_tried(
    autojump_clock: trio.testing.MockClock, status: int
) -> None:
    noting, collector = Noting(), Collector(lambda: Answered(status))
    exporter = Exporter(noting.tracing, collector, RESOURCE, fraction=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.work)
        change(noting)
        await trio.sleep(5)
        assert exporter.dropped == 5
        collector.answers = well
        change(noting)
        await trio.sleep(5)
        assert (exporter.dropped, len(collector.taken)) == (5, 5)
        nursery.cancel_scope.cancel()


async def test_what_the_memory_let_go_of_is_let_go_of_here(
    autojump_clock: trio.testing.MockClock,
) -> None:
    noting = Noting(most=10)
    exporter = Exporter(noting.tracing, Collector(well), RESOURCE, fraction=lambda: 0.5)
    for _ in range(50):
        change(noting)
        exporter.collect()
    assert len(exporter._told) <= 10


async def test_over_a_socket_it_is_json_at_the_path_of_traces() -> None:
    noting = Noting()
    async with receiving(says(200, body=b"{}")) as receiver:
        base = parse_http_target(f"http://127.0.0.1:{receiver.port}/otel/", plain=True)
        exporter = Exporter.to(base, noting.tracing, "an-instance", World())
        change(noting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exporter.work)
            with trio.fail_after(10):
                (received,) = await receiver.until(1)
            nursery.cancel_scope.cancel()
    assert received.path == "/otel/v1/traces"
    assert received.headers["content-type"] == "application/json"
    assert len(parsed(received.body).resource_spans[0].scope_spans[0].spans) == 5
    assert isinstance(noting.tracing, Tracing)
