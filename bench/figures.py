"""Medians, percentiles and how they are printed: pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


def median(values: Sequence[float]) -> float:
    """The middle of the values; of an even number the mean of the middle two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that at least `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. p99, goal: None or empty if there is none. note: what was measured."""

    name: str
    value: float
    unit: str
    p99: float | None = None
    note: str = ""
    goal: str = ""
    met: bool | None = None


def ratio(name: str, value: float, *, goal: float | None = None) -> Figure:
    """A ratio as percent; the goal, if there is one, in percent too."""
    percent = 100 * value
    if goal is None:
        return Figure(name, percent, "%")
    return Figure(name, percent, "%", goal=f"≥ {goal:g} %", met=percent >= goal)


def at_most(
    name: str, value: float, unit: str, goal: float, *, p99: float | None = None, note: str = ""
) -> Figure:
    """A figure that should be at most the goal, in the same unit."""
    return Figure(name, value, unit, p99, note, f"≤ {goal:g} {unit}", value <= goal)


def line(figure: Figure) -> str:
    """The figure for people."""
    number = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.3g}"
    said = f"  {figure.name:<46} {number:>9} {figure.unit:<5}"
    if figure.p99 is not None:
        said += f" p99 {figure.p99:.3g}"
    if figure.goal:
        said += f"   goal {figure.goal}: {'reached' if figure.met else 'MISSED'}"
    if figure.note:
        said += f"   ({figure.note})"
    return said


def as_json(figures: Sequence[Figure]) -> str:
    """The figures for machines: one JSON array."""
    return json.dumps([asdict(figure) for figure in figures], indent=1, ensure_ascii=False)
