"""What instances were built with, learnt from what they publish: kept, adopted where that breaks nothing, adapted to.

A receipt names a schema by its digest; brokers retain the schema itself (`actors.schema_board`). Once both are here, it
is kept if the instance enrolled. Then it may become the service's schema by itself, and the service's message gets
the variant that it lacks for code with that schema. Everything is decided by storing; this actor only asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
import trio

from config_manager.actors.actor import Full, Gone, Life, follower
from config_manager.actors.schema_board import Key, SchemaBoard
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.views import CommittedView
from config_manager.config.errors import InvalidValues, Refusal, SchemaInvalid, TooLarge
from config_manager.config.world import World, parse_rfc3339
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.instance_schemas import (
    SEEN_AGAIN_S,
    Adapt,
    KeepInstanceSchema,
    may_be_adopted,
)
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_changes import PutSchema
from config_manager.storage.decisions.schema_comparison import Difference, compare
from config_manager.storage.decisions.schema_outlook import Outlook, outlook
from config_manager.storage.decisions.shapes import Shapes, row
from config_manager.storage.decisions.variants import missing
from config_manager.storage.store import DatabaseUnavailable

_LOOK_S = 0.25
"""News within that time are looked at together."""
_LOOK_ANYWAY_S = 3600.0
_AGAIN_S = 10.0

Ask = Callable[[Decidable[Any], str], Awaitable[Any]]
"""Has something written, for a reason. Raises what storing raises."""


class News:
    """Set by whoever hears an instance; nobody waits for anybody."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        self._event.set()

    async def wait(self, within_s: float) -> None:
        with trio.move_on_after(within_s):
            await self._event.wait()
        self._event = trio.Event()


class Learner:
    """Across its lives."""

    def __init__(
        self,
        board: SchemaBoard,
        statuses: StatusBoard,
        view: CommittedView,
        shapes: Shapes,
        ask: Ask,
        news: News,
        world: World,
        *,
        believes_claims: bool = False,
    ) -> None:
        """believes_claims: an instance that never enrolled counts as enrolled (`--dev`)."""
        self._board = board
        self._statuses = statuses
        self._view = view
        self._shapes = shapes
        self._ask = ask
        self._news = news
        self._clock = world.clock
        self._believes_claims = believes_claims
        self._next_look: dict[Key, float] = {}
        self._tried: dict[Key, str | None] = {}  # under which active schema it was not adopted

    async def work(self) -> None:
        pause_s = 0.0  # what is retained may be here already
        while True:
            await self._news.wait(pause_s)
            try:
                await self.look()
                pause_s = _LOOK_ANYWAY_S
            except (Refusal, Gone, Full, DatabaseUnavailable, trio.TooSlowError) as error:
                pause_s = _AGAIN_S
                structlog.get_logger().warning("schemas not learnt", error=str(error))
            await trio.sleep(_LOOK_S)

    async def look(self) -> None:
        """At every schema that an instance names. Raises what storing raises."""
        named: dict[str, list[Key]] = {}
        for service, digest in self._statuses.schemas():
            named.setdefault(service, []).append(Key(service, digest))
        known = {key for keys in named.values() for key in keys}
        self._next_look = {key: at for key, at in self._next_look.items() if key in known}
        for service, keys in named.items():
            try:
                if any([await self._is_news(key) for key in keys]):
                    await self._adopt(service)
                    await self._adapt(service)
            except BaseException:
                for key in keys:
                    self._next_look.pop(key, None)
                raise

    async def _is_news(self, key: Key) -> bool:
        """Keep it, or that it was seen again; whether something may follow from it."""
        now = self._clock.now()
        if self._next_look.get(key, 0.0) > now or not self._counts(key):
            return False
        kept = self._shapes.of_instances(self._view.committed, key.service).get(key.digest)
        seen_at = None if kept is None else parse_rfc3339(kept["last_seen"])
        schema = None
        if seen_at is None:
            schema = await self._fit(key)
            if schema is None:
                return False
        if seen_at is None or not 0 <= now - seen_at < SEEN_AGAIN_S:
            said = None if schema is None else schema.schema
            what = KeepInstanceSchema(key.service, key.digest, said)
            if not await self._ask(what, "an instance was built with it"):
                self._next_look[key] = now + _LOOK_ANYWAY_S
                return False
            self._board.drop(key)
            seen_at = now
        self._next_look[key] = seen_at + SEEN_AGAIN_S
        return True

    def _counts(self, key: Key) -> bool:
        standing = self._statuses.built_with(*key)
        return standing == "enrolled" or (standing == "claimed" and self._believes_claims)

    async def _fit(self, key: Key) -> CompiledSchema | None:
        """What was heard, as a schema; None if nothing was, or it can't be a service's schema."""
        heard = self._board.heard(*key)
        if heard is None:
            return None
        try:
            return await trio.to_thread.run_sync(lambda: CompiledSchema(heard.parsed()))
        except (ValueError, SchemaInvalid) as error:
            self._board.unfit(key)
            structlog.get_logger().warning(
                "schema not taken", service=key.service, digest=key.digest, error=str(error)
            )
            return None

    # ── what follows ───────────────────────────────────────────────────────────────────────────

    async def _adopt(self, service: str) -> None:
        """Make what instances were built with the service's schema, where nobody put one. Two of which each takes what
        the other's code wrote are in order of age; else the wider one stays. So nothing goes back and forth."""
        shapes = self._shapes
        has_model = shapes.catalogue.shape(service) is not None
        rows = shapes.of_instances(self._view.committed, service)
        for digest in sorted(rows, key=lambda one: rows[one]["first_seen"]):
            committed, key = self._view.committed, Key(service, digest)
            if not may_be_adopted(committed, service, has_model=has_model):
                return
            active = row(committed, service)
            under: str | None = None if active is None else active["digest"]
            if under == digest or self._tried.get(key, "") == under or not self._counts(key):
                continue
            since = None
            if active is not None and under is not None:
                since = rows[under]["first_seen"] if under in rows else active["at"]
            is_newer = since is None or rows[digest]["first_seen"] > since
            if not await self._is_adopted(key, is_newer=is_newer):
                self._tried[key] = under

    async def _is_adopted(self, key: Key, *, is_newer: bool) -> bool:
        """Raises what storing raises: Conflict if somebody changed the service meanwhile."""
        committed, shapes, service = self._view.committed, self._shapes, key.service
        shape = shapes.of_instance(committed, *key)
        if shape is None:
            return False
        live = self._statuses.live(service)

        def worked_out() -> Outlook | None:
            if not is_newer and not _is_wider(shape, shapes.schema_of(committed, service)):
                return None
            then = outlook(committed, shapes, service, shape, instances=live)
            return None if _breaks(then.differences) else then

        then = await trio.to_thread.run_sync(worked_out)
        if then is None:
            return False
        what = PutSchema(service=service, shape=shape, outlook=then, source="instance")
        who = next((one.instance for one in live if one.schema == key.digest), "an instance")
        try:
            await self._ask(what, f"{who} was built with it")
        except (InvalidValues, TooLarge) as error:
            structlog.get_logger().info("schema not adopted", **key._asdict(), why=str(error))
            return False
        structlog.get_logger().info("schema adopted", **key._asdict(), instance=who)
        return True

    async def _adapt(self, service: str) -> None:
        """Give the service's message the variants that it lacks."""
        committed, shapes = self._view.committed, self._shapes
        live = committed.live(service)
        if live is None or missing(shapes, committed, live, now=self._clock.now()) is None:
            return
        try:
            await self._ask(Adapt(service), "an instance was built with another schema")
        except TooLarge as error:
            structlog.get_logger().warning("not adapted", service=service, error=str(error))


def _is_wider(new: CompiledSchema, old: CompiledSchema | None) -> bool:
    """Whether the old one would not take what the new one takes."""
    return old is not None and _breaks(compare(new, old))


def _breaks(differences: Iterable[Difference]) -> bool:
    """Stored values or new code, in principle: somebody who puts a schema may know that nothing of it is there."""
    return any("breaks" in (one.stored, one.new_code) for one in differences)


def learning_schemas(learner: Learner) -> Life:
    return follower(learner.work)
