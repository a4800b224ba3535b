"""The schemas that instances publish, as brokers send them: bounded, and told apart by digest. Pure: bytes in, no I/O.

A schema is not signed. Whoever holds its digest checks it, and a signed receipt names the digest. So everything that
has the right digest is taken, and what no instance names makes room first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple

from config_manager.config import strict_json, wire
from config_manager.config.catalogue import schema_text
from config_manager.config.errors import InvalidName
from config_manager.config.names import parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.instance_schemas import MOST, MOST_OF_A_SERVICE

MAX_TOTAL_BYTES = 16 * 1024 * 1024
_KNOWN_AS_UNFIT = 4_096

Standing = Literal["enrolled", "claimed"] | None
"""Who names a schema: an instance that enrolled, or one that only claims to."""


class Key(NamedTuple):
    service: str
    digest: str


class Heard(NamedTuple):
    """at: when it was first heard (Unix seconds)."""

    payload: bytes
    at: float

    def parsed(self) -> JsonObject:
        """Raises ValueError: it is no object, or not written as digests are made, with sorted keys."""
        schema = strict_json.loads_object(self.payload)
        if schema_text(schema) != self.payload:
            raise ValueError("not written with sorted keys and without spaces")
        return schema


class SchemaBoard:
    """What was heard and is not kept in the database."""

    def __init__(
        self,
        standing: Callable[[str, str], Standing] = lambda _service, _digest: None,
        is_kept: Callable[[str, str], bool] = lambda _service, _digest: False,
        *,
        most: int = MOST,
        max_total_bytes: int = MAX_TOTAL_BYTES,
    ) -> None:
        """standing: who names a service's schema of a digest. is_kept: whether the database has it."""
        self.refused = 0
        """messages that were no schemas, or too many"""
        self._standing = standing
        self._is_kept = is_kept
        self._most = most
        self._max_total_bytes = max_total_bytes
        self._heard: dict[Key, Heard] = {}
        self._of_service: dict[str, dict[Key, None]] = {}  # in the order in which they came
        self._total_bytes = 0
        self._unfit = OrderedDict[Key, None]()

    def take(self, topic: str, payload: bytes, now: float) -> str | None:
        """A message of `wire.SCHEMA_FILTER`. Answers why it is not taken, if it is none. now: Unix seconds."""
        service, _, digest = topic.removeprefix(wire.SCHEMA_PREFIX).partition("/")
        key = Key(service, digest)
        try:
            parse_service(service)
            why = None if wire.is_digest(digest) else "its topic names no digest"
        except InvalidName as error:
            why = error.detail
        if why is None and not payload:
            self.drop(key)
            return None
        if key in self._heard or key in self._unfit or (why is None and self._is_kept(*key)):
            return None
        why = why or self._complaint(key, payload)
        if why is not None:
            self.refused += 1
            return why
        self._heard[key] = Heard(payload, now)
        self._of_service.setdefault(service, {})[key] = None
        self._total_bytes += len(payload)
        return None

    def _complaint(self, key: Key, payload: bytes) -> str | None:
        if len(payload) > wire.MAX_SCHEMA_BYTES:
            return f"it is over {wire.MAX_SCHEMA_BYTES} bytes"
        if wire.digest(payload) != key.digest:
            return "it has another digest than its topic names"
        return None if self._makes_room(key, len(payload)) else "there are too many schemas"

    def heard(self, service: str, digest: str) -> Heard | None:
        return self._heard.get(Key(service, digest))

    def candidates(self, service: str) -> dict[str, Heard]:
        """By digest, those that some instance which is there names."""
        return {
            key.digest: self._heard[key]
            for key in self._of_service.get(service, ())
            if self._standing(*key) is not None
        }

    def unfit(self, key: Key) -> None:
        """It can't be a service's schema: forget it, and don't look at it again."""
        self.refused += 1
        self.drop(key)
        self._unfit[key] = None
        if len(self._unfit) > _KNOWN_AS_UNFIT:
            self._unfit.popitem(last=False)

    def drop(self, key: Key) -> None:
        held = self._heard.pop(key, None)
        if held is not None:
            self._total_bytes -= len(held.payload)
            mine = self._of_service[key.service]
            del mine[key]
            if not mine:
                del self._of_service[key.service]

    def _makes_room(self, key: Key, size: int) -> bool:
        """The one that was heard longest ago, of those with the least standing, if that is not above the new one's."""
        while True:
            mine = self._of_service.get(key.service, {})
            is_full = (
                len(self._heard) >= self._most or self._total_bytes + size > self._max_total_bytes
            )
            crowd = mine if len(mine) >= MOST_OF_A_SERVICE else self._heard if is_full else {}
            if not crowd:
                return True
            nobodys = (one for one in crowd if not self._rank(one))  # of a flood the first is one
            weakest = next(nobodys, None) or min(crowd, key=self._rank)
            if self._rank(weakest) > self._rank(key):
                return False
            self.drop(weakest)

    def _rank(self, key: Key) -> int:
        return {None: 0, "claimed": 1, "enrolled": 2}[self._standing(*key)]
