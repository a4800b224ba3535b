"""The first starts of several processes at once, and of one that dies in the middle."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from config_manager.client.rules.identity import Identity
from config_manager.client.rules.root_chain import follow_on
from config_manager.client.state.boots import Boots
from config_manager.client.state.claim import Claim
from config_manager.client.state.identity import (
    keep_root,
    load_identity,
    note_enrolled,
    trust_init,
)
from config_manager.config.errors import RootRefused
from config_manager.config.world import SystemDisk, World
from tests.kit import clients
from tests.kit import documents as m
from tests.kit import roots as r

ROUNDS = 15
PROCESSES = 8

START = """
import json, sys
from pathlib import Path
from config_manager.client.state.identity import trust_init
from config_manager.config.errors import ConfigManagerError

print("ready", flush=True)
for line in sys.stdin:
    root, state = map(Path, line.split())
    try:
        it = trust_init(state, root)
        keys = [key.hex() for key in (it.sign_key, it.seal_key, it.file_key)]
        told = [it.instance, it.root.version, *keys]
    except ConfigManagerError as error:
        told = type(error).__name__
    print(json.dumps(told), flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    return tmp_path / "root.json"


def on_disk(state: Path) -> list[object]:
    keys = [(state / f"keys/{name}.key").read_text().strip() for name in ("sign", "seal", "file")]
    return [(state / "instance").read_text().strip(), load_identity(state).root.version, *keys]


def test_eight_processes_start_in_one_empty_directory_and_all_are_who_the_disk_says(
    tmp_path: Path, root: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(r.root(1, r.STRANGER, root=(r.STRANGER,)))
    command = [sys.executable, "-c", START]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            )
            for _ in range(PROCESSES)
        ]

        def say(index: int, line: str) -> str:
            pipe_in, pipe_out = processes[index].stdin, processes[index].stdout
            assert pipe_in is not None
            assert pipe_out is not None
            if line:
                pipe_in.write(line)
            return pipe_out.readline()

        def start(state: Path, *roots: Path) -> list[object]:
            lines = [f"{roots[index % len(roots)]} {state}\n" for index in range(PROCESSES)]
            with ThreadPoolExecutor(PROCESSES) as threads:
                return [json.loads(told) for told in threads.map(say, range(PROCESSES), lines)]

        assert [say(index, "") for index in range(PROCESSES)] == ["ready\n"] * PROCESSES
        for index in range(ROUNDS):
            state = tmp_path / f"state-{index}"
            assert start(state, root) == [on_disk(state)] * PROCESSES
            assert not list(state.rglob(".config-manager-*"))
        # two publishers at once: one is trusted, and the others' processes are told
        told = start(tmp_path / "contested", root, other)
        assert sorted(map(str, told), key=len)[: PROCESSES // 2] == ["RootRefused"] * 4
        assert [one for one in told if one != "RootRefused"] == [
            on_disk(tmp_path / "contested")
        ] * 4
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()


class PowerCut(BaseException):
    """Nothing after this instant happens."""


class InterruptedDisk(SystemDisk):
    """Before its nth step something else happens: somebody comes first, or nothing comes any more."""

    def __init__(self, at: int, what: Callable[[], object]) -> None:
        super().__init__()
        self.steps, self._at, self._what = 0, at, what

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self._at:
            self._what()

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self._step()
        super().create(path, data, mode=mode)

    def make_directory(self, path: Path, *, mode: int = 0o700) -> None:
        self._step()
        super().make_directory(path)

    def read(self, path: Path) -> bytes:
        self._step()
        return super().read(path)

    def exists(self, path: Path) -> bool:
        self._step()
        return super().exists(path)


def steps_of_a_start(directory: Path, root: Path) -> int:
    disk = InterruptedDisk(0, lambda: None)
    trust_init(directory / "whole", root, World(disk=disk))
    return disk.steps


def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's file system without locks."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)


def test_whoever_comes_first_at_whichever_step_both_are_who_the_disk_says(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked(monkeypatch)
    steps = steps_of_a_start(tmp_path, root)
    assert steps > 10
    for step in range(1, steps + 1):
        state = tmp_path / str(step)
        others: list[Identity] = []
        disk = InterruptedDisk(step, lambda: others.append(trust_init(state, root)))  # noqa: B023
        ours = trust_init(state, root, World(disk=disk))
        assert [ours] == others == [load_identity(state)]


def test_another_root_that_comes_first_is_trusted_and_ours_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked(monkeypatch)
    other = tmp_path / "other.json"
    other.write_bytes(r.root(1, r.STRANGER, root=(r.STRANGER,)))
    steps = steps_of_a_start(tmp_path, root)
    refused = 0
    for step in range(1, steps + 1):
        state = tmp_path / str(step)
        others: list[object] = []

        def come_first() -> None:
            with suppress(RootRefused):
                others.append(trust_init(state, other))  # noqa: B023

        try:
            ours = trust_init(state, root, World(disk=InterruptedDisk(step, come_first)))
        except RootRefused as error:
            assert "new state directory" in error.detail
            assert others == [load_identity(state)]
            refused += 1
        else:
            assert (others, ours) == ([], load_identity(state))
    assert refused > 5


def test_a_start_that_dies_at_whichever_step_is_finished_by_the_next(
    tmp_path: Path, root: Path
) -> None:
    def die() -> None:
        raise PowerCut

    for step in range(1, steps_of_a_start(tmp_path, root) + 1):
        state = tmp_path / str(step)
        with pytest.raises(PowerCut):
            trust_init(state, root, World(disk=InterruptedDisk(step, die)))
        was_made = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        identity = trust_init(state, root)
        assert identity == load_identity(state)
        assert {path: path.read_bytes() for path in was_made} == was_made  # nothing is made twice


def test_a_disk_that_is_not_the_systems_can_do_it(tmp_path: Path, root: Path) -> None:
    disk = clients.MemoryDisk()
    disk.files[root] = root.read_bytes()
    world = World(disk=disk)
    identity = trust_init(tmp_path / "state", root, world)
    assert trust_init(tmp_path / "state", root, world) == identity
    assert not (tmp_path / "state").exists()


def test_where_files_have_one_name_only_the_directorys_lock_does_it(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    for index in range(ROUNDS):
        state = tmp_path / str(index)
        with ThreadPoolExecutor(PROCESSES) as threads:
            made = list(threads.map(lambda _: trust_init(state, root), range(PROCESSES)))  # noqa: B023
        assert made == [load_identity(state)] * PROCESSES


# ── and what is written there later ────────────────────────────────────────────────────────────


def test_starts_at_once_have_numbers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "stt-worker.boot"
    world = World(clock=clients.SetClock())
    with ThreadPoolExecutor(PROCESSES) as threads:
        claim = Claim(tmp_path, m.SERVICE)
        numbers = list(threads.map(lambda _: Boots(path, claim, world).number, range(40)))
    assert len(set(numbers)) == 40
    assert int(path.read_text()) == max(numbers)


def test_enrolments_noted_at_once_are_all_there(tmp_path: Path, root: Path) -> None:
    trust_init(tmp_path / "state", root)
    services = [f"service-{index}" for index in range(40)]
    with ThreadPoolExecutor(PROCESSES) as threads:
        list(
            threads.map(lambda s: note_enrolled(tmp_path / "state", s, "robot", World()), services)
        )
    assert load_identity(tmp_path / "state").enrolled == {f"{one}/robot" for one in services}


def test_roots_kept_at_once_are_the_same_chain(tmp_path: Path, root: Path) -> None:
    state = tmp_path / "state"
    second = follow_on(trust_init(state, root).chain[-1], r.root(2))
    third = follow_on(second, r.root(3))
    with ThreadPoolExecutor(PROCESSES) as threads:
        list(threads.map(lambda link: keep_root(state, link, World()), [second, third] * 8))
    identity = load_identity(state)
    assert (identity.chain[1:], identity.broken) == ((second, third), None)
