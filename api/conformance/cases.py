"""What is played, and what came of it: groups of cases, and results. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Line = Mapping[str, Any]
"""What a client said: one JSON object of its standard output."""


class Case(NamedTuple):
    group: str
    name: str
    expected: str


@dataclass(frozen=True)
class Result:
    """What came of a case. got: in words. unsafe: why what it applied was wrong, or None. sent: topics and
    messages, in order. said: the client's lines. skipped: why it was not played, or None."""

    case: Case
    passed: bool
    got: str
    unsafe: str | None = None
    sent: tuple[tuple[str, bytes], ...] = ()
    said: tuple[Line, ...] = ()
    skipped: str | None = None

    @property
    def failed(self) -> bool:
        return not self.passed and self.skipped is None


class Unmet(Exception):
    """A client did not do what the case expects; `got` says what it did instead."""

    def __init__(self, got: str) -> None:
        super().__init__(got)
        self.got = got


class Deaf(Unmet):
    """It did not apply what is good either: perhaps it does not listen at all."""


class Permitted:
    """What a client may apply: what its publisher signed for it, and never less than before."""

    def __init__(self) -> None:
        self._configs: dict[tuple[int, int], Any] = {}
        self._highest: tuple[int, int] | None = None

    def add(self, epoch_seq: int, revision: int, config: Any) -> None:
        self._configs[epoch_seq, revision] = config

    def start_anew(self) -> None:
        """The client's directory is new, or what it had seen counts no more."""
        self._highest = None

    def why_not(self, applied: Line) -> str | None:
        """Why a client may not say this `applied`; None if it may."""
        epoch_seq, revision = applied.get("epoch_seq"), applied.get("revision")
        if type(epoch_seq) is not int or type(revision) is not int:
            return "said applied without epoch_seq and revision"
        mark = (epoch_seq, revision)
        if mark not in self._configs:
            return f"applied revision {revision} of epoch {epoch_seq}, which it may not believe"
        if applied.get("config") != self._configs[mark]:
            return f"applied revision {revision} with content that nobody signed for it"
        if self._highest is not None and mark < self._highest:
            return f"went back from revision {self._highest[1]} to {revision}"
        self._highest = mark
        return None


def in_words(lines: Iterable[Line]) -> str:
    """What a client said, each thing once."""
    said = dict.fromkeys(map(_one_in_words, lines))
    return ", ".join(said) or "nothing"


def _one_in_words(line: Line) -> str:
    event = line.get("event")
    match event:
        case "applied" | "deleted":
            return f"{event} {line.get('revision')}"
        case "refused" | "stale":
            return f"{event} ({line.get('reason')})"
        case _:
            return str(event)


class Totals(NamedTuple):
    passed: int
    failed: int
    unsafe: int
    skipped: int


def totals(results: Iterable[Result]) -> Totals:
    found = list(results)
    return Totals(
        sum(one.passed for one in found),
        sum(one.failed for one in found),
        sum(one.unsafe is not None for one in found),
        sum(one.skipped is not None for one in found),
    )
