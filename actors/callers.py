"""What callers leave behind: when each token was last used, and who was refused what.

REST notes both in memory and waits for nothing. This actor writes them together, at most once a minute: last
uses without an audit row, refusals with one for each caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from config_manager.actors.actor import Full, Gone, Life, follower
from config_manager.config.access import ANYBODY
from config_manager.config.errors import Refusal
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.tokens import NoteTokenUses
from config_manager.storage.state import Committed

_INTERVAL_S = 60.0
_GATHER_S = 1.0
"""Everything within a second of the first note is written with it."""
_FAREWELL_S = 1.0
_MOST_OF_ONE = 16
_MOST_STRANGERS = 64
"""Refusals of one caller, and addresses without a known token, that are told apart between two writes. A
flood of refusals fills memory and audit no further, and hides no other caller's."""

WriteDown = Callable[[Decidable[None], str], Awaitable[None]]
"""Has an administration done in the name of a caller."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """by: the caller's token, or `anonymous`. client: from where. call: method and route."""

    by: str
    client: str | None
    call: str
    service: str | None
    error: str


_Who = tuple[str, str | None]
"""A caller: whose token (and None), or `anonymous` and from where."""
_Refusals = dict[RefusedCall, tuple[int, str]]
"""How often each refusal came, and the newest request's id."""


@dataclass
class Callers:
    """What was noted since it was last written; bounded by the number of tokens and the limits above."""

    uses: dict[str, float] = field(default_factory=dict[str, float])
    """token hash → when it was last used (Unix seconds), since the start"""
    _unwritten: set[str] = field(default_factory=set[str])
    _refusals: dict[_Who, _Refusals] = field(default_factory=dict[_Who, _Refusals])
    _not_told_apart: Counter[str] = field(default_factory=Counter[str])
    _news: trio.Event = field(default_factory=trio.Event)

    def used(self, token_hash: str, at: float) -> None:
        self.uses[token_hash] = at
        self._unwritten.add(token_hash)
        self._news.set()

    def refused(self, refusal: RefusedCall, request_id: str) -> None:
        is_stranger = refusal.by == ANYBODY.name
        theirs = self._room_for((refusal.by, refusal.client if is_stranger else None))
        if theirs is not None and (refusal in theirs or len(theirs) < _MOST_OF_ONE):
            count, _ = theirs.get(refusal, (0, ""))
            theirs[refusal] = (count + 1, request_id)
        else:
            self._not_told_apart[refusal.by] += 1
        self._news.set()

    def _room_for(self, who: _Who) -> _Refusals | None:
        if who not in self._refusals:
            _, client = who
            strangers = sum(client is not None for _, client in self._refusals)
            if client is not None and strangers >= _MOST_STRANGERS:
                return None
            self._refusals[who] = {}
        return self._refusals[who]

    async def news(self) -> None:
        """Wait until there is something to write."""
        await self._news.wait()

    async def write(self, write: WriteDown) -> None:
        """Write all notes; those that can't be written now wait for the next time."""
        self._news = trio.Event()
        if self._unwritten:
            writing, self._unwritten = self._unwritten, set()
            uses = {token_hash: rfc3339(self.uses[token_hash]) for token_hash in writing}
            if not await _written(write, NoteTokenUses(uses), "config-manager"):
                self._unwritten |= writing
                self._news.set()
                return
        refusals, self._refusals = self._refusals, {}
        others, self._not_told_apart = self._not_told_apart, Counter()
        for by in dict.fromkeys(by for by, _ in refusals):
            theirs = {who: seen for who, seen in refusals.items() if who[0] == by}
            told = {refusal: times for seen in theirs.values() for refusal, times in seen.items()}
            if not await _written(write, NoteRefusals(told, others[by]), by):
                self._refusals = {**theirs, **self._refusals}
                self._not_told_apart[by] += others[by]
                self._news.set()


async def _written(write: WriteDown, what: Decidable[None], by: str) -> bool:
    try:
        await write(what, by)
    except (Refusal, Gone, Full, trio.TooSlowError) as error:
        structlog.get_logger().warning(
            "not written down", what=type(what).__name__, error=str(error)
        )
        return False
    return True


@dataclass(frozen=True, slots=True)
class NoteRefusals:
    """The audit row of one caller's refusals. others: how many were too many to tell apart."""

    refusals: Mapping[RefusedCall, tuple[int, str]]
    others: int

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        details: JsonObject = {
            "refusals": [
                {
                    "call": refusal.call,
                    "service": refusal.service,
                    "client": refusal.client,
                    "error": refusal.error,
                    "count": count,
                    "request_id": request_id,
                }
                for refusal, (count, request_id) in self.refusals.items()
            ]
        }
        if self.others:
            details["others"] = self.others
        return administered(before, on, "access.refused", details, (), None)


def noting_callers(callers: Callers, write: WriteDown) -> Life:
    async def follow() -> None:
        while True:
            await callers.news()
            await trio.sleep(_GATHER_S)
            await callers.write(write)
            await trio.sleep(_INTERVAL_S - _GATHER_S)

    return follower(follow, at_end=lambda: callers.write(write), end_within_s=_FAREWELL_S)
