"""A change's trace as a waterfall: what took how long, one bar below the other. Pure: an answer in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from config_manager.api.commands.output import clean
from config_manager.api.commands.states import in_words

Trace = Mapping[str, Any]
"""As `GET /api/v1/changes/{id}` answers it."""

_NARROWEST = 10
_MOST_INSTANCES = 40
_SKEW_S = 1.0


@dataclass(frozen=True, slots=True)
class _Bar:
    """One line. after, before: milliseconds since the change began, of this step and of the one that it followed. work:
    how much of the time between was the instance's own, if it says so. waits: it is reached by waiting, and a minute of
    that must not make everything else invisible."""

    where: str
    step: str
    after: float
    before: float
    clock: str = ""
    work: float | None = None
    waits: bool = False

    @property
    def took(self) -> float:
        return self.after - self.before


def waterfall(trace: Trace, width: int, block: str = "█") -> Iterator[str]:
    """width: of a line, in characters. block: of a bar."""
    bars = [*_server(trace), *_brokers(trace)]
    instances = sorted(trace["instances"], key=_worst_first)
    shown = instances[:_MOST_INSTANCES]
    for instance in shown:
        bars += _instance(trace, instance)
    if not trace["steps"]:
        yield "when its steps were done is not known: that is kept for 90 days, from 0.7.0 on"
    if bars:
        yield from _drawn(bars, width, block)
    yield from _said(shown)
    if len(instances) > len(shown):
        yield f"and {len(instances) - len(shown)} more instances: --json shows all"


def heading(trace: Trace) -> Iterator[str]:
    """What was changed, and how it stands."""
    services = ", ".join(trace["services"])
    reason = f' "{trace["reason"]}"' if trace["reason"] else ""
    yield clean(
        f"revision {trace['revision']}: {trace['action']} of {services} by {trace['by']}"
        f" at {trace['at'][:19].replace('T', ' ')}{reason}"
    )
    yield clean(f"{trace['state']}; id {trace['correlation_id']}")
    if trace["others"]:
        others = ", ".join(map(str, trace["others"]))
        yield f"the same id also has: revision {others}"


# ── from steps to bars ─────────────────────────────────────────────────────────────────────────


def _server(trace: Trace) -> Iterator[_Bar]:
    before = 0.0
    for step in trace["steps"]:
        if step["broker"] is None:
            yield _Bar("server", step["step"], step["after_ms"], before)
            before = step["after_ms"]


def _brokers(trace: Trace) -> Iterator[_Bar]:
    committed = _committed(trace)
    for broker in sorted({one["broker"] for one in trace["steps"]} - {None}):
        before = committed
        for step in trace["steps"]:
            if step["broker"] == broker:
                yield _Bar(broker, step["step"], step["after_ms"], before)
                before = step["after_ms"]


def _instance(trace: Trace, instance: Mapping[str, Any]) -> Iterator[_Bar]:
    published = [one["after_ms"] for one in trace["steps"] if one["step"] == "published"]
    before, known = min(published, default=_committed(trace)), 0.0
    stages: list[str] = []
    for step in instance["steps"]:
        where = f"{instance['service']}/{instance['instance']}"
        clock = step["at"].partition("T")[2].removesuffix("Z")
        took = step.get("took_ms")
        work = None if took is None else max(0.0, took - known)
        waits = step["stage"] == "healthy" and "applied" in stages
        yield _Bar(where, step["stage"], step["after_ms"], before, clock, work, waits)
        before, known = step["after_ms"], took or known
        stages.append(step["stage"])


def _committed(trace: Trace) -> float:
    """When it was on the disk; 0 if that is not known."""
    return next((one["after_ms"] for one in trace["steps"] if one["step"] == "committed"), 0.0)


def _worst_first(instance: Mapping[str, Any]) -> tuple[bool, str, str]:
    return instance["state"] == "in-line", instance["service"], instance["instance"]


# ── drawing ────────────────────────────────────────────────────────────────────────────────────


def _drawn(bars: Sequence[_Bar], width: int, block: str) -> Iterator[str]:
    whole = max([one.after for one in bars if not one.waits], default=0.0)
    rows = [
        (
            clean(one.where) if at == 0 or bars[at - 1].where != one.where else "",
            clean(one.step),
            _time(one.after),
            "" if at == 0 else _time(one.took),
            clean(one.clock),
        )
        for at, one in enumerate(bars)
    ]
    header = ("WHERE", "STEP", "AFTER", "TOOK", "ITS CLOCK")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    room = max(_NARROWEST, width - sum(widths) - 2 * len(widths))
    drawn = ["", *(_bar(one, whole, room, block) for one in bars)]
    for row, bar in zip([header, *rows], drawn, strict=True):
        where, step, after, took, clock = (
            cell.rjust(size) if at in (2, 3) else cell.ljust(size)
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((where, step, after, took, bar.ljust(room), clock)).rstrip()


def _bar(one: _Bar, whole: float, room: int, block: str) -> str:
    """From where it began to where it was done; dots for what was not the instance's own work. What ends behind the
    scale ends in an arrow."""
    if whole <= 0:
        return ""

    def place(ms: float) -> int:
        return min(room - 1, max(0, int(ms / whole * room)))

    start, end = place(one.before), place(one.after)
    if one.after > whole:
        return " " * start + ">" * (room - start)
    begins = start if one.work is None else max(start, place(one.after - one.work))
    return " " * start + "." * (begins - start) + block * (end - begins + 1)


def _time(ms: float) -> str:
    if abs(ms) < 1_000:  # noqa: PLR2004  a second
        return f"{ms:.1f} ms"
    return f"{ms / 1_000:.1f} s"


# ── instances, in words ────────────────────────────────────────────────────────────────────────


def _said(instances: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in instances:
        name = clean(f"{one['service']}/{one['instance']}")
        said = None if one["state"] == "in-line" else one["why"]
        if said is not None:
            yield clean(f"{name}: {in_words(one['state'])}, {said}")
        for step in one["steps"]:
            if step["reason"] and step["reason"] != said:
                yield clean(f"{name}: {step['stage']}: {step['reason']}")
        skew = max((_skew_s(step) for step in one["steps"]), key=abs, default=0.0)
        if abs(skew) > _SKEW_S:
            ahead = "ahead of" if skew > 0 else "behind"
            yield f"{name}: its clock is {abs(skew):.1f} s {ahead} the server's"


def _skew_s(step: Mapping[str, Any]) -> float:
    """How far the instance's clock is ahead, in seconds; a receipt that was long on its way makes it look behind."""
    at, received = (datetime.fromisoformat(step[name]) for name in ("at", "received_at"))
    return (at - received).total_seconds()
