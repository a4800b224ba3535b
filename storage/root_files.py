"""The trust root's versions on disk, byte for byte as they are retained.

trust/roots/<n>.json  every version; trust/root.json is the current one again, for people to hand on.
A new version is first in `roots/`: a death before `root.json` is caught up at the next start.
"""

from __future__ import annotations

from pathlib import Path

from config_manager.config.documents import Root
from config_manager.config.errors import RootRefused
from config_manager.config.trust import Distrust, judge_root
from config_manager.config.world import World

_BEFORE_ANY_DATE = float("-inf")


class RootFiles:
    """Reads and keeps the chain in a data directory."""

    def __init__(self, data_dir: Path, world: World) -> None:
        self._current = data_dir / "trust" / "root.json"
        self._all = data_dir / "trust" / "roots"
        self._pending = data_dir / "trust" / "pending.json"
        self._world = world

    def load(self) -> tuple[Root, dict[int, bytes]] | None:
        """The current version and the bytes of each, verified from the first to the last; None
        before the first start. Raises RootRefused."""
        disk = self._world.disk
        if not disk.exists(self._current):
            return None
        roots: dict[int, bytes] = {}
        root: Root | None = None
        try:
            if not disk.exists(self._path(1)):  # made before there was a second version
                self._keep(self._path(1), disk.read(self._current))
            while disk.exists(self._path(len(roots) + 1)):
                version = len(roots) + 1
                data = disk.read(self._path(version))
                root = judge_root(data, root, _BEFORE_ANY_DATE)
                if root.version != version:
                    raise RootRefused(f"{self._path(version)} is version {root.version}")
                roots[version] = data
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
            self._keep(self._current, roots[root.version])
        return root, roots

    def keep(self, version: int, data: bytes) -> None:
        """Durable on return. Raises OSError; then the version before is still current."""
        self._keep(self._path(version), data)
        self._keep(self._current, data)

    def load_pending(self) -> bytes | None:
        """What waits for signatures."""
        disk = self._world.disk
        return disk.read(self._pending) if disk.exists(self._pending) else None

    def keep_pending(self, data: bytes | None) -> None:
        """None: nothing waits any more. Raises OSError."""
        if data is None:
            self._pending.unlink(missing_ok=True)
        else:
            self._keep(self._pending, data)

    def _path(self, version: int) -> Path:
        return self._all / f"{version}.json"

    def _keep(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._world.disk.write_atomic(path, data, mode=0o644)
