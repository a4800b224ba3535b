"""The trust root's versions on disk, byte for byte as they are retained.

trust/roots/<n>.json is every version; trust/root.json is the current one again, for people to hand on. A new
version is staged beside them first, so that a full disk is noticed before anybody was told. Then it is moved
into `roots/`, and counts. If the process dies before `root.json` follows, the next start catches up.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from config_manager.config.documents.root import Root
from config_manager.config.errors import RootRefused
from config_manager.config.files import sync
from config_manager.config.trust import Distrust, judge_root
from config_manager.config.world import World

_BEFORE_ANY_DATE = float("-inf")
_MODE = 0o755
"""Readable by everybody: operators hand `root.json` on."""


class RootFiles:
    """Reads and keeps the chain in a data directory."""

    def __init__(self, data_dir: Path, world: World) -> None:
        self._current = data_dir / "trust" / "root.json"
        self._all = data_dir / "trust" / "roots"
        self._pending = data_dir / "trust" / "pending.json"
        self._staged = data_dir / "trust" / "staged.json"
        self._world = world

    def load(self) -> tuple[Root, dict[int, bytes]] | None:
        """The current version and the bytes of each, verified from the first to the last. None before the first
        start. Raises RootRefused."""
        disk = self._world.disk
        if not disk.exists(self._current):
            return None
        roots: dict[int, bytes] = {}
        root: Root | None = None
        try:
            while (version := len(roots) + 1) == 1 or disk.exists(self._path(version)):
                first_elsewhere = version == 1 and not disk.exists(self._path(1))
                data = disk.read(self._current if first_elsewhere else self._path(version))
                root = judge_root(data, root, _BEFORE_ANY_DATE)
                if root.version != version:
                    raise RootRefused(f"{self._path(version)} is version {root.version}")
                roots[version] = data
                if first_elsewhere:  # made before there was a second version
                    self._catch_up(self._path(1), data)
        except Distrust as verdict:
            raise RootRefused(
                f"{self._path(len(roots) + 1)} does not verify: {verdict}; put it back from a backup"
            ) from None
        assert root is not None
        if disk.read(self._current) != roots[root.version]:
            if disk.read(self._current) not in roots.values():
                raise RootRefused(
                    f"{self._current} is none of the versions in {self._all}: it was exchanged; "
                    "put back the one that belongs to these keys"
                )
            self._catch_up(self._current, roots[root.version])
        return root, roots

    def keep(self, version: int, data: bytes) -> None:
        """Keep the first version, durable on return. Raises OSError; then there is none yet."""
        self._keep(self._path(version), data)
        self._keep(self._current, data)

    def stage(self, data: bytes) -> None:
        """Write it durably beside the others, where nobody reads it. Raises OSError."""
        self._keep(self._staged, data)

    def unstage(self) -> None:
        with suppress(OSError):  # a staged file that stays is read by nobody
            self._staged.unlink(missing_ok=True)

    def adopt(self, version: int, data: bytes) -> None:
        """The staged root is this version from now on. Raises OSError; then it is not."""
        self._world.disk.rename(self._staged, self._path(version))
        sync(self._all)
        self._catch_up(self._current, data)

    def load_pending(self) -> bytes | None:
        """The root that waits for signatures, if there is one."""
        disk = self._world.disk
        return disk.read(self._pending) if disk.exists(self._pending) else None

    def keep_pending(self, data: bytes | None) -> None:
        """data: as it was staged; None: nothing waits any more. Raises OSError."""
        if data is None:
            # a file that stays is behind the current version, and does not count
            with suppress(OSError):
                self._pending.unlink(missing_ok=True)
        else:
            self._world.disk.rename(self._staged, self._pending)
            sync(self._pending.parent)

    def _path(self, version: int) -> Path:
        return self._all / f"{version}.json"

    def _catch_up(self, path: Path, data: bytes) -> None:
        """Write a copy of another file; a disk that takes no writes does not matter."""
        with suppress(OSError):
            self._keep(path, data)

    def _keep(self, path: Path, data: bytes) -> None:
        for directory in (self._current.parent, path.parent):
            self._world.disk.make_directory(directory, mode=_MODE)
        self._world.disk.write_atomic(path, data, mode=0o644)
