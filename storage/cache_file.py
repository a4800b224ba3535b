"""The server's last-known-good state, in `config.lkg`: a base, and behind it a record of each change since.

So a change costs what it changed, not the size of everything. The base is rewritten when the records behind it
grow to a share of it, and whenever it is not certain that another record can follow. Base and records are one
file, so they can't be mixed up; the generation before it (`config.lkg.previous`) has records of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from config_manager.config.sealed_file import SealBroken, SealedFile, newest_of
from config_manager.config.world import World
from config_manager.storage import commit_record, state_codec
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.sealed_records import (
    MAGIC,
    NONCE_BYTES,
    PLACE_BYTES,
    Damaged,
    Seals,
    Torn,
)
from config_manager.storage.state import Committed

_PURPOSE = "server-last-known-good"
_MOST_BEHIND = 256 * 1024
_SHARE_BEHIND = 0.25
"""Records behind a base may have this many bytes, or this share of the base, whichever is more."""


@dataclass(frozen=True, slots=True)
class _Base:
    """The base of the newest file. begin: what the file begins with; end: its bytes."""

    begin: bytes
    end: int


@dataclass(frozen=True, slots=True)
class _End:
    """Where the newest file ends, known to be whole. place: its last bytes. holds: what is read from it."""

    size: int
    place: bytes
    holds: Committed


class CacheFile:
    """One kept state and the generation before it, sealed. One thread at a time."""

    def __init__(self, path: Path, master: bytes, world: World) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self._seals = Seals(master, _PURPOSE)
        self._before_0_3 = SealedFile(path, master, _PURPOSE, world)
        self._world = world
        self._base: _Base | None = None
        self._end: _End | None = None
        self._left_out: str | None = None
        self.is_older: str | None = None
        """Why the last `load` took something older than what was kept last; None if it did not."""

    @classmethod
    def of(cls, keys: KeyRing, world: World) -> CacheFile:
        """The one of a data directory."""
        return cls(keys.data_dir / "config.lkg", keys.instance_key, world)

    def load(self) -> Committed:
        """The newest state that verifies. Raises SealBroken or OSError if there is none."""
        self._base = self._end = self._left_out = None
        committed, why = newest_of(self.path, self.previous, self._world, self._opened)
        self.is_older = why or self._left_out
        return committed

    def save(self, committed: Committed) -> None:
        """Durable on return. Raises OSError; then what was kept before is still there."""
        if not self._wrote_behind(committed):
            self._end = None
            self._write_base(committed)

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def _opened(self, raw: bytes, is_newest: bool) -> Committed | None:
        """None if not even the base is right."""
        try:
            return self._read(raw, is_newest=is_newest)
        except (ValueError, LookupError, TypeError):
            return None

    def _read(self, raw: bytes, *, is_newest: bool) -> Committed:
        """Raises ValueError, LookupError or TypeError if not even the base is right."""
        if not raw.startswith(MAGIC):
            data = self._before_0_3.opened(raw)
            if data is None:
                raise Damaged("it does not verify")
            return state_codec.decode_whole(data)
        records = self._seals.opened(raw)
        end = 0

        def base() -> Iterator[bytes]:
            nonlocal end
            for record in records:
                end = record.end
                yield record.content

        committed = state_codec.decode(base())
        is_whole = False
        try:
            for record in records:
                committed = commit_record.decode(record.content, committed).after
            is_whole = True
        except Torn:
            pass  # a power cut: it was never said to be kept
        except (Damaged, commit_record.RecordRefused) as error:
            self._left_out = f"a part of the kept file does not verify: {error}"
        if is_newest:
            self._base = _Base(raw[: len(MAGIC) + PLACE_BYTES], end)
            self._end = _End(len(raw), raw[-PLACE_BYTES:], committed) if is_whole else None
        return committed

    # ── writing ────────────────────────────────────────────────────────────────────────────────

    def _wrote_behind(self, committed: Committed) -> bool:
        """Append what changed as a record. Returns whether that is durable; if not, a base is needed."""
        base, end = self._base, self._end
        if base is None or end is None:
            return False
        try:
            change = commit_record.difference(end.holds, committed)
        except commit_record.NoDifference:
            return False
        if commit_record.changes_nothing(change):
            self._end = _End(end.size, end.place, committed)
            return True
        nonce = self._world.randomness.token(NONCE_BYTES)
        record = self._seals.seal(commit_record.encode(change), end.place, nonce)
        size = end.size + len(record)
        if size - base.end > max(_MOST_BEHIND, base.end * _SHARE_BEHIND):
            return False
        try:
            self._world.disk.append(self.path, record, at=end.size)
        except OSError:  # a part of the record may be there, and no reader gets past that
            return False
        self._end = _End(size, record[-PLACE_BYTES:], committed)
        return True

    def _write_base(self, committed: Committed) -> None:
        self._keep_newest()
        token = self._world.randomness.token
        place = token(PLACE_BYTES)
        begin = MAGIC + place
        size = len(begin)

        def pieces() -> Iterator[bytes]:
            nonlocal place, size
            yield begin
            for piece in state_codec.encode(committed):
                record = self._seals.seal(piece, place, token(NONCE_BYTES))
                place = record[-PLACE_BYTES:]
                size += len(record)
                yield record

        self._world.disk.write_pieces(self.path, pieces())
        self._base, self._end = _Base(begin, size), _End(size, place, committed)

    def _keep_newest(self) -> None:
        """Make the newest file the generation before, unless it is damaged: it must not replace a good one."""
        disk = self._world.disk
        if disk.exists(self.path):
            with suppress(OSError):
                newest = disk.read(self.path)
                if self._verifies(newest):
                    # durable with the write after it; if the power goes between the two, it alone is left
                    disk.rename(self.path, self.previous)

    def _verifies(self, newest: bytes) -> bool:
        """Whether its base does. `load` takes the records behind it as far as they are right."""
        if not newest.startswith(MAGIC):
            return self._before_0_3.opened(newest) is not None
        base = self._base
        if base is None or not newest.startswith(base.begin):
            return False
        with suppress(Torn, Damaged):
            return any(record.end >= base.end for record in self._seals.opened(newest))
        return False


def kept_in_cache(keys: KeyRing, world: World) -> Committed | None:
    """The state that is kept and that our own key sealed; None if nothing verifies."""
    try:
        return CacheFile.of(keys, world).load()
    except (OSError, SealBroken):
        return None
