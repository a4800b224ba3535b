"""Keeps the server's last-known-good cache and its witness: after commits, never before one.

At most once a second and off the reply's path: a second behind is normal. After a stop they are current.
"""

from __future__ import annotations

import structlog
import trio

from config_manager.actors.actor import Life, follower
from config_manager.actors.views import CommittedView, about
from config_manager.config.sealed_file import SealBroken
from config_manager.config.world import World
from config_manager.storage.cache_file import CacheFile
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.state import Committed
from config_manager.storage.witness import Witness

_MIN_INTERVAL_S = 1.0
_RETRY_S = 5.0


class LastKnownGood:
    """The sealed cache file, and whether its newest write succeeded."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file
        self.available = False
        self.behind_since: float | None = None
        """since when something that is committed is not kept, on Trio's clock; None while everything is"""

    @classmethod
    def of(cls, keys: KeyRing, world: World) -> LastKnownGood:
        """That of a data directory."""
        return cls(CacheFile.of(keys, world))

    def load(self) -> Committed | None:
        """What was kept, or None if nothing verifies."""
        try:
            committed = self._file.load()
        except (OSError, SealBroken):
            return None
        if self._file.is_older is not None:
            structlog.get_logger().warning(
                "older cache taken", error=self._file.is_older, revision=committed.revision
            )
        self.available = True
        return committed

    def save(self, committed: Committed) -> None:
        """Durable on return; raises OSError."""
        self._file.save(committed)


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
        """Write what is due; False if the disk refuses."""
        log = structlog.get_logger()
        committed, began = self._view.committed, trio.current_time()
        if self._cache.behind_since is None:
            self._cache.behind_since = began
        try:
            await trio.to_thread.run_sync(self._write, committed)
        except OSError as error:
            self._cache.available = False
            why = error.strerror or str(error)
            notice = f"the last-known-good cache can't be written: {why}"
            if self._view.notices.get("cache") != notice:  # so that a retry does not log it again
                log.warning("cache not written", error=why)
            self._view.notices["cache"] = notice
            return False
        self._cache.available = True
        self._view.notices.pop("cache", None)
        self._view.notices.pop("instance", None)  # the witness has the start, too
        self._kept = committed
        self._cache.behind_since = None if self._view.committed is committed else began
        for name, state in committed.services.items():
            before = self._logged.services.get(name)
            if before is None or before.revision < state.revision:
                log.info("cached", **about(state))
        self._logged = committed
        return True

    def _write(self, committed: Committed) -> None:
        self._cache.save(committed)
        self._witness.advance(committed.mark, (committed.audit_seq, committed.audit_head))


def caching(view: CommittedView, keeper: Keeper) -> Life:
    async def follow() -> None:
        while True:
            if keeper.due:
                written = await keeper.keep()
                await trio.sleep(_MIN_INTERVAL_S if written else _RETRY_S)
            else:
                await view.changed()

    async def keep_what_is_due() -> None:
        if keeper.due:
            await keeper.keep()

    return follower(follow, at_end=keep_what_is_due)
