"""Where a text stands: in the names, values and descriptions of keys, and in the history. Pure.

Values of secrets are nowhere in what is searched, and a value whose key has become a secret since is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

import orjson

from config_manager.config.secret import MASK
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import past
from config_manager.storage.decisions.past import OF_SECRETS
from config_manager.storage.decisions.shapes import Shape, Shapes
from config_manager.storage.state import Committed, HistoryRow, HistorySearch

Place = Literal["keys", "values", "descriptions", "history"]
NOW: Final[tuple[Place, ...]] = ("keys", "values", "descriptions")
"""Places that are searched as of now, in this order for one key."""
_ROWS = 500
"""Rows of history to read at once."""
_MOST_BYTES = 4 * 1024 * 1024
"""Of values in one answer, and of rows to read at once; one value may be larger than that."""
_MOST_PAGES = 8
"""Pages of rows to look through for one answer: a text may stand in many rows and in none of their values."""


class Match(NamedTuple):
    """key: None for the reason of a change. value: what is effective, or what stood there. level: None if the schema
    says nothing. revision: of the service, or that of the change."""

    service: str
    key: str | None
    place: Place
    value: object
    level: str | None
    revision: int


class NowAfter(NamedTuple):
    """Behind this match. place: its number in `NOW`."""

    service: str
    key: str
    place: int


class HistoryFrom(NamedTuple):
    """From the match of this number in this row of history on, or what follows."""

    revision: int
    service: str
    skipped: int


Cursor = NowAfter | HistoryFrom


class Found(NamedTuple):
    """after: where the next page begins; None: this is the last."""

    matches: list[Match]
    after: Cursor | None


class Kept(Protocol):
    """What is asked of a store."""

    def find_in_history(self, query: HistorySearch) -> tuple[Sequence[HistoryRow], bool]: ...


class _Page(list[Match]):
    """At most `limit` matches, and none after the one with which their values reach so many bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._left = limit, _MOST_BYTES

    @property
    def is_full(self) -> bool:
        return len(self) >= self._limit or self._left <= 0

    def add(self, match: Match) -> None:
        self.append(match)
        self._left -= len(_text(match.value))


@dataclass(frozen=True, slots=True)
class Search:
    """text: in any case. covers: whether to look at a service. simple: no advanced keys, unless one bears exactly this
    name. after: where to go on."""

    text: str
    places: frozenset[Place]
    covers: Callable[[str], bool]
    limit: int
    simple: bool = False
    after: Cursor | None = None

    def run(self, kept: Kept, committed: Committed, shapes: Shapes) -> Found:
        """One page."""
        matches = _Page(self.limit)
        if not isinstance(self.after, HistoryFrom):
            for match in self._now(committed, shapes):
                if matches.is_full:
                    last = matches[-1]
                    return Found(
                        matches, NowAfter(last.service, str(last.key), _number(last.place))
                    )
                matches.add(match)
        if "history" not in self.places:
            return Found(matches, None)
        return self._history(kept, committed, shapes, matches)

    # ── as of now ──────────────────────────────────────────────────────────────────────────────

    def _now(self, committed: Committed, shapes: Shapes) -> Iterator[Match]:
        after = self.after if isinstance(self.after, NowAfter) else None
        live = {name for name, state in committed.services.items() if not state.deleted}
        for service in sorted(live | shapes.services(committed)):
            if self.covers(service) and (after is None or service >= after.service):
                for match in self._in_service(committed, shapes, service):
                    if after is None or _place_of(match) > after:
                        yield match

    def _in_service(self, committed: Committed, shapes: Shapes, service: str) -> Iterator[Match]:
        seen, shape = past.seen_now(committed, shapes, service), shapes.of(committed, service)
        assert seen is not None, "it is live, or has a shape"
        described = _described(shape)
        for key in sorted(seen.config.keys() | seen.secrets | described.keys()):
            about = described.get(key, {})
            level = about.get("x-level")
            if not self._shows(key, level):
                continue
            is_secret = key in seen.secrets
            value = MASK if is_secret else seen.config.get(key)
            texts = {
                "keys": key,
                "values": "" if is_secret or key not in seen.config else _text(value),
                "descriptions": str(about.get("description", "")),
            }
            for place in NOW:
                if place in self.places and self._is_in(texts[place]):
                    yield Match(service, key, place, value, level, seen.revision)

    # ── in the history ─────────────────────────────────────────────────────────────────────────

    def _history(self, kept: Kept, committed: Committed, shapes: Shapes, matches: _Page) -> Found:
        known = {*committed.services, *shapes.services(committed)}
        services = [name for name in sorted(known) if self.covers(name)]
        start = self.after if isinstance(self.after, HistoryFrom) else None
        for _ in range(_MOST_PAGES):
            query = HistorySearch(
                self.text,
                _ROWS,
                services,
                None if start is None else (start.revision, start.service),
                _MOST_BYTES,
            )
            rows, more = kept.find_in_history(query)
            for row in rows:
                is_begun = start is not None and _is_at(row, start)
                skipped = start.skipped if start is not None and is_begun else 0
                for number, match in enumerate(self._in_row(row, committed, shapes)):
                    if number < skipped:
                        continue
                    if matches.is_full:
                        return Found(matches, HistoryFrom(row.entry.revision, row.service, number))
                    matches.add(match)
            if not more:
                return Found(matches, None)
            last = rows[-1]
            # a name that follows directly: a space stands before every letter of a name
            start = HistoryFrom(last.entry.revision, f"{last.service} ", 0)
        return Found(matches, start)

    def _in_row(self, row: HistoryRow, committed: Committed, shapes: Shapes) -> Iterator[Match]:
        service, entry = row.service, row.entry
        secrets = shapes.secret_keys(committed, service)
        described = _described(shapes.of(committed, service))
        for change in entry.changes:
            level = described.get(change.key, {}).get("x-level")
            is_secret = entry.action in OF_SECRETS or change.key in secrets
            if not self._shows(change.key, level):
                continue
            sides = [] if is_secret else [past.new_of(change), past.old_of(change)]
            said = [value for value in sides if value is not past.ABSENT]
            hits = [value for value in said if self._is_in(_text(value))]
            if hits or self._is_in(change.key):
                value = MASK if is_secret else [*hits, *said, None][0]
                yield Match(service, change.key, "history", value, level, entry.revision)
        if entry.reason is not None and self._is_in(entry.reason):
            yield Match(service, None, "history", entry.reason, None, entry.revision)

    # ── one by one ─────────────────────────────────────────────────────────────────────────────

    def _shows(self, key: str, level: str | None) -> bool:
        return not self.simple or level != "advanced" or key == self.text.lower()

    def _is_in(self, text: str) -> bool:
        return self.text.lower() in text.lower()


def _described(shape: Shape | None) -> Mapping[str, JsonObject]:
    """key → what the schema says of it."""
    return {} if shape is None else shape.schema.get("properties", {})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _number(place: Place) -> int:
    return NOW.index(place)


def _place_of(match: Match) -> NowAfter:
    return NowAfter(match.service, str(match.key), _number(match.place))


def _is_at(row: HistoryRow, start: HistoryFrom) -> bool:
    return (row.entry.revision, row.service) == (start.revision, start.service)
