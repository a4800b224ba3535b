"""Keeps the server's last-known-good cache and its witness: after commits, never before one.

At most once a second and off the reply's path, so being a second behind is normal; what stopping
leaves behind is current.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from config_manager.actors.actor import Handler, Life, idle
from config_manager.actors.views import CommittedView
from config_manager.config.sealed_file import SealBroken, SealedFile
from config_manager.config.world import World
from config_manager.storage import state_codec
from config_manager.storage.instance import Witness
from config_manager.storage.keys import KeyRing
from config_manager.storage.state import Committed

_MIN_INTERVAL_S = 1.0
_RETRY_S = 5.0


class LastKnownGood:
    """The sealed cache file, and whether its newest write succeeded."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file
        self.available = False

    @classmethod
    def of(cls, keys: KeyRing, world: World) -> LastKnownGood:
        """The one of a data directory."""
        path = keys.data_dir / "config.lkg"
        return cls(SealedFile(path, keys.instance_key, "server-last-known-good", world))

    def load(self) -> Committed | None:
        """What was kept, or None where nothing verifies."""
        try:
            committed = state_codec.decode(self._file.read())
        except (OSError, SealBroken, ValueError, KeyError):
            return None
        if self._file.newest_unread is not None:
            structlog.get_logger().warning(
                "older cache taken", error=self._file.newest_unread, revision=committed.revision
            )
        self.available = True
        return committed

    def save(self, committed: Committed) -> None:
        """Durable on return; raises OSError."""
        self._file.write(state_codec.encode(committed))


class Keeper:
    """Writes cache and witness for the newest committed state; survives its actor's crashes."""

    def __init__(self, view: CommittedView, cache: LastKnownGood, witness: Witness) -> None:
        self._view = view
        self._cache = cache
        self._witness = witness
        self._kept: Committed | None = None
        self._logged = view.committed

    @property
    def due(self) -> bool:
        is_kept = self._kept is self._view.committed and not self._witness.is_due
        return self._view.publishable and not is_kept

    async def keep(self) -> bool:
        """Write what is due; False where the disk refuses."""
        log = structlog.get_logger()
        committed = self._view.committed
        try:
            await trio.to_thread.run_sync(self._write, committed)
        except OSError as error:
            self._cache.available = False
            why = error.strerror or str(error)
            notice = f"the last-known-good cache can't be written: {why}"
            if self._view.notices.get("cache") != notice:  # it is tried again every few seconds
                log.warning("cache not written", error=why)
            self._view.notices["cache"] = notice
            return False
        self._cache.available = True
        self._view.notices.pop("cache", None)
        self._view.notices.pop("instance", None)  # with it the start is noted, too
        self._kept = committed
        for name, state in committed.services.items():
            before = self._logged.services.get(name)
            if before is None or before.revision < state.revision:
                log.info(
                    "cached",
                    service=name,
                    revision=state.revision,
                    config_epoch=state.epoch.id,
                    correlation_id=state.correlation_id,
                    request_id=state.correlation_id,
                )
        self._logged = committed
        return True

    def _write(self, committed: Committed) -> None:
        self._cache.save(committed)
        self._witness.advance(committed.mark, (committed.audit_seq, committed.audit_head))


def caching(view: CommittedView, keeper: Keeper) -> Life:
    @asynccontextmanager
    async def life() -> AsyncIterator[Handler]:
        async def follow() -> None:
            structlog.contextvars.bind_contextvars(actor="caching")
            while True:
                if keeper.due:
                    written = await keeper.keep()
                    await trio.sleep(_MIN_INTERVAL_S if written else _RETRY_S)
                else:
                    await view.changed()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            try:
                yield idle
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    if keeper.due:
                        await keeper.keep()

    return life
