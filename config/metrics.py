"""Counters, histograms, and Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

Plain numbers on one thread: no lock, no clock, no library. Label values are words of ours, never a caller's:
each new one is a series that every Prometheus keeps.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]
"""Values of a family's labels, in its order."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_LABEL_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Family(ABC):
    """Every series of one name."""

    def __init__(self, name: str, kind: Kind, about: str, labels: Labels = ()) -> None:
        """about: what it counts, and in which unit. labels: their names. Raises ValueError if one can't be a name."""
        for one in (name, *labels):
            if not _NAME.fullmatch(one) or one == "le":
                raise ValueError(f"{one!r} can't be the name of a metric or of a label")
        self.name = name
        self.kind = kind
        self.help = about
        self.labels = labels

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Its series, as the text format has them."""

    def checked(self, values: Labels) -> Labels:
        """Raises ValueError if these are not one value for each label."""
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)}")
        return values

    def labelled(self, values: Labels) -> str:
        """What stands between the braces."""
        pairs = zip(self.labels, values, strict=True)
        return ",".join(f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in pairs)

    def line(self, values: Labels, value: float) -> str:
        return f"{self.name}{_braced(self.labelled(values))} {number(value)}"


class Counter(Family):
    """It only rises, and begins at 0 with each start."""

    def __init__(
        self, name: str, about: str, labels: Labels = (), *, known: Iterable[Labels] = ()
    ) -> None:
        """known: label values that are shown from the start, so that a rate sees the first one."""
        super().__init__(name, "counter", about, labels)
        self._counts = {self.checked(one): 0 for one in ([()] if not labels else known)}

    def inc(self, *values: str) -> None:
        """One more. values: of the labels; raises ValueError if they are not one for each label."""
        try:
            self._counts[values] += 1
        except KeyError:
            self._counts[self.checked(values)] = 1

    def value(self, *values: str) -> int:
        return self._counts.get(values, 0)

    def lines(self) -> Iterator[str]:
        for values, count in sorted(self._counts.items()):
            yield self.line(values, count)


class _Bins:
    """How many observations lie in each bin, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self, bins: int) -> None:
        self.counts = [0] * bins
        self.sum = 0.0


class Histogram(Family):
    """How observations are distributed, by upper bounds."""

    def __init__(
        self, name: str, about: str, bounds: tuple[float, ...], labels: Labels = ()
    ) -> None:
        """bounds: upper ones, inclusive, rising; one more bin takes what is above them."""
        super().__init__(name, "histogram", about, labels)
        if list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise ValueError(f"the bounds of {name} do not rise")
        self.bounds = bounds
        self._bins: dict[Labels, _Bins] = {} if labels else {(): _Bins(len(bounds) + 1)}

    def observe(self, value: float, *values: str) -> None:
        """values: of the labels; raises ValueError if they are not one for each label."""
        try:
            bins = self._bins[values]
        except KeyError:
            bins = self._bins[self.checked(values)] = _Bins(len(self.bounds) + 1)
        bins.counts[bisect_left(self.bounds, value)] += 1
        bins.sum += value

    def count(self, *values: str) -> int:
        """Observations so far."""
        bins = self._bins.get(values)
        return 0 if bins is None else sum(bins.counts)

    def sum(self, *values: str) -> float:
        """Of all observations so far."""
        bins = self._bins.get(values)
        return 0.0 if bins is None else bins.sum

    def lines(self) -> Iterator[str]:
        bounds = [*map(number, self.bounds), "+Inf"]
        for values, bins in sorted(self._bins.items(), key=lambda item: item[0]):
            total, inside = 0, self.labelled(values)
            before = f"{self.name}_bucket{{{inside}{',' if inside else ''}le="
            for bound, count in zip(bounds, bins.counts, strict=True):
                total += count
                yield f'{before}"{bound}"}} {total}'
            yield f"{self.name}_sum{_braced(inside)} {number(bins.sum)}"
            yield f"{self.name}_count{_braced(inside)} {total}"


class Sampled(Family):
    """What somebody else keeps, as of one scrape."""

    def __init__(
        self,
        name: str,
        about: str,
        found: float | Mapping[Labels, float],
        labels: Labels = (),
        *,
        kind: Literal["counter", "gauge"] = "gauge",
    ) -> None:
        """found: one number, or one for each set of label values. Raises ValueError if they do not fit."""
        super().__init__(name, kind, about, labels)
        self._values = found if isinstance(found, Mapping) else {(): found}
        for values in self._values:
            self.checked(values)

    def lines(self) -> Iterator[str]:
        for values, value in self._values.items():
            yield self.line(values, value)


def text(families: Iterable[Family]) -> str:
    """All of them, in text format 0.0.4."""
    lines: list[str] = []
    for one in families:
        lines.append(f"# HELP {one.name} {one.help.translate(_HELP_ESCAPES)}")
        lines.append(f"# TYPE {one.name} {one.kind}")
        lines += one.lines()
    return "\n".join([*lines, ""])


def _braced(inside: str) -> str:
    return f"{{{inside}}}" if inside else ""


def number(value: float) -> str:
    """A value as Go's ParseFloat reads it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
