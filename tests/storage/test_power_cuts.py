"""What has to be there after a power cut is durable on return: each file that a server or a client keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config_manager.config.names import Mark
from config_manager.config.sealed_file import SealedFile
from config_manager.config.world import World
from config_manager.storage.cache_file import CacheFile
from config_manager.storage.decisions.intents import Put
from config_manager.storage.keys.key_file import KeyFile
from config_manager.storage.keys.root_files import RootFiles
from config_manager.storage.witness import Witness
from tests.kit import stores as m
from tests.kit.platter import REPLACED, platter

KEY = b"k" * 32

Write = Callable[[Path], Callable[[], object]]
"""Gets everything ready in a directory; what it returns writes once more."""


def witness(directory: Path) -> Callable[[], object]:
    one = Witness.open(directory / "instance.json", KEY, World())
    one.boot()
    return lambda: one.advance(Mark(1, 7), (3, "c" * 64))


def first_kept(directory: Path) -> Callable[[], object]:
    one = SealedFile(directory / "door.lkg", KEY, "test", World())
    return lambda: one.write(b"kept")


def first_cached(directory: Path) -> Callable[[], object]:
    one = CacheFile(directory / "config.lkg", KEY, World())
    return lambda: one.save(m.empty())


def key(directory: Path) -> Callable[[], object]:
    return KeyFile(directory / "db.key", World()).make


def new_key(directory: Path) -> Callable[[], object]:
    one = KeyFile(directory / "db.key", World())
    one.make()
    return one.begin


def staged_root(directory: Path) -> Callable[[], object]:
    files = RootFiles(directory, World())
    files.keep(1, b"first")
    return lambda: files.stage(b"second")


@pytest.mark.parametrize("prepare", [witness, first_kept, first_cached, key, new_key, staged_root])
def test_what_is_written_is_durable_before_it_takes_its_place_and_its_name_is_after(
    tmp_path: Path, prepare: Write
) -> None:
    write = prepare(tmp_path)
    with platter() as done:
        write()
    assert done == REPLACED


def test_the_generation_before_keeps_its_name_while_the_newest_is_written(tmp_path: Path) -> None:
    one = SealedFile(tmp_path / "door.lkg", KEY, "test", World())
    one.write(b"first")
    with platter() as done:
        one.write(b"second")
    assert done == ["replace", *REPLACED]


def test_what_is_cached_behind_the_rest_is_durable_on_return(tmp_path: Path) -> None:
    one, state = CacheFile(tmp_path / "config.lkg", KEY, World()), m.empty()
    one.save(state)
    with platter() as done:
        one.save(m.decide(state, Put(service="door", values={})).change.after)
    assert done == ["file"]


def test_a_root_that_was_adopted_or_waits_for_signatures_has_its_name(tmp_path: Path) -> None:
    files = RootFiles(tmp_path, World())
    files.keep(1, b"first")
    files.stage(b"second")
    with platter() as done:
        files.keep_pending(b"second")
    assert done == ["replace", "directory"]
    files.stage(b"second")
    with platter() as done:
        files.adopt(2, b"second")
    assert done == ["replace", "directory", *REPLACED]
