"""Server-sent events as the HTML standard says that a client reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """kind: `message` if none was named. id: as of this event."""

    kind: str
    id: str
    data: Any


@dataclass
class EventReader:
    """Fed with what comes, in whatever pieces. last_id: what the client would send as Last-Event-ID. comments: how
    many came. retry_ms: how long it would wait before it connects again."""

    last_id: str = ""
    comments: int = 0
    retry_ms: int | None = None
    _rest: str = ""
    _kind: str = ""
    _id: str = ""
    _data: list[str] = field(default_factory=list[str])

    def feed(self, data: bytes) -> Iterator[Event]:
        self._rest += data.decode()
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            if line:
                self._field(line)
                continue
            self.last_id = self._id
            if self._data:
                yield Event(self._kind or "message", self._id, json.loads("\n".join(self._data)))
            self._kind, self._data = "", []

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments += 1
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
            case "retry":
                self.retry_ms = int(value)
            case _:
                raise AssertionError(f"no field of an event stream: {line!r}")
