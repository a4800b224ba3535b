"""Steps of changes as spans of OpenTelemetry, in OTLP/JSON (opentelemetry-proto, `trace.proto`). Pure.

A span is a step that is done: it begins where the step before it ended. So the spans of one way, from the request to an
instance, add up to the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config_manager.actors.tracing import Noted
from config_manager.config import strict_json
from config_manager.config.traceparent import own_traceparent, parse_traceparent
from config_manager.storage.trace import BROKER_STEPS, BrokerTimes

_INTERNAL, _SERVER, _PRODUCER, _CONSUMER = 1, 2, 4, 5
"""`Span.SpanKind`"""
_ERROR = 2
"""`Status.StatusCode`"""
_FAILED = frozenset({"refused", "poisoned"})


@dataclass(frozen=True, slots=True)
class Span:
    """start, end: Unix seconds. parent: empty if it has none. error: why the step went wrong, None if it did not."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    kind: int
    start: float
    end: float
    attributes: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    error: str | None = None


def spans_of(noted: Noted) -> Iterator[Span]:
    """Every step of a change that is done, each with the same id whenever it is asked for. None if who asked for the
    change does not record its own trace (the flag `sampled` of `traceparent`)."""
    times, own = noted.times, own_traceparent(noted.correlation_id)
    caller = parse_traceparent(times.traceparent or own)
    if caller is None or not caller.is_sampled:
        return
    trace_id, is_ours = caller.trace_id, times.traceparent in (None, own)
    whole = caller.span_id if is_ours else _span_id(trace_id, "change", str(times.revision))
    about: dict[str, str | int] = {
        "config_manager.revision": times.revision,
        "config_manager.correlation_id": noted.correlation_id,
    }
    yield Span(
        trace_id,
        whole,
        "" if is_ours else caller.span_id,
        f"change {noted.action}".strip(),
        _SERVER,
        times.began,
        times.committed,
        {
            **about,
            "config_manager.services": ", ".join(sorted(noted.services)),
            "config_manager.commit.writes": times.writes,
            **({"config_manager.by": noted.by} if noted.by else {}),
        },
    )
    for one in noted.all_times.brokers:
        for step, start, end in _at_broker(one, times.committed):
            yield Span(
                trace_id,
                _span_id(whole, step, one.service, one.broker),
                whole,
                step,
                _PRODUCER if step == "published" else _INTERNAL,
                start,
                end,
                {**about, "config_manager.service": one.service, "server.address": one.broker},
            )
    yield from _of_instances(noted, trace_id, whole, about)


def _at_broker(times: BrokerTimes, committed: float) -> Iterator[tuple[str, float, float]]:
    done = [(at, step) for step in BROKER_STEPS if (at := getattr(times, step)) is not None]
    before = committed
    for at, step in sorted(done, key=lambda one: one[0]):
        yield step, before, at
        before = at


def _of_instances(
    noted: Noted, trace_id: str, whole: str, about: Mapping[str, str | int]
) -> Iterator[Span]:
    published: dict[str, float] = {}
    for one in noted.all_times.brokers:
        if one.published is not None:
            first = published.get(one.service, one.published)
            published[one.service] = min(first, one.published)
    for (service, instance), stages in noted.instances.items():
        before = published.get(service, noted.times.committed)
        for number, stage in enumerate(stages):
            took = {} if stage.took_ms is None else {"config_manager.took_ms": stage.took_ms}
            yield Span(
                trace_id,
                _span_id(whole, stage.stage, service, instance, str(number)),
                whole,
                stage.stage,
                _CONSUMER,
                before,
                stage.received_at,
                {
                    **about,
                    "config_manager.service": service,
                    "config_manager.instance": instance,
                    **took,
                },
                (stage.reason or stage.stage) if stage.stage in _FAILED else None,
            )
            before = stage.received_at


def _span_id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


# ── OTLP/JSON ──────────────────────────────────────────────────────────────────────────────────


def export_request(spans: Sequence[Span], resource: Mapping[str, str]) -> bytes:
    """The body of `POST /v1/traces`. resource: what says who sends them."""
    scope = {"name": "config-manager", "version": resource.get("service.version", "")}
    return strict_json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource.items())},
                    "scopeSpans": [{"scope": scope, "spans": list(map(_to_object, spans))}],
                }
            ]
        }
    )


def _to_object(span: Span) -> dict[str, Any]:
    parent = {"parentSpanId": span.parent} if span.parent else {}
    status = {} if span.error is None else {"status": {"code": _ERROR, "message": span.error}}
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        **parent,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": _nanoseconds(min(span.start, span.end)),
        "endTimeUnixNano": _nanoseconds(span.end),
        "attributes": _attributes(span.attributes.items()),
        **status,
    }


def _attributes(items: Iterable[tuple[str, str | int]]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(one)} if isinstance(one, int) else {"stringValue": one}}
        for key, one in items
    ]  # fmt: skip


def _nanoseconds(at: float) -> str:
    """In decimal digits, as 64 bits travel in JSON. A float has no more than microseconds."""
    return str(max(0, round(at * 1_000_000)) * 1_000)
