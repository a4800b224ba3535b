"""The broker of our own: what becomes of us while it can't be started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from config_manager.actors import own_broker
from config_manager.config.world import World


async def test_a_broker_that_can_not_be_started_for_a_day_is_tried_again_and_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def refuse(folder: Path, port: int, _world: World) -> subprocess.Popen[bytes]:
        nonlocal attempts
        attempts += 1
        raise OSError("the port is somebody else's")

    monkeypatch.setattr(own_broker, "_start", refuse)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with trio.move_on_after(24 * 3600):
        await own_broker._keep_running(dead, tmp_path, 1883, World())  # noqa: SLF001
    assert attempts > 1100


async def test_whose_id_was_given_to_another_program_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as another:
        monkeypatch.setattr(dead, "pid", another.pid)
        with trio.fail_after(5):
            await own_broker._ended(dead)  # noqa: SLF001


async def test_one_that_ends_at_once_is_told_with_where_it_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mosquitto").write_text("#!/bin/sh\necho 'no room'\nexit 3\n")
    (programs / "mosquitto").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    log = tmp_path / "broker.log"
    with pytest.raises(OSError, match=f"the broker ended with 3; see {log}"):
        await own_broker._start(tmp_path, own_broker.any_free_port(), World())  # noqa: SLF001
    assert log.read_text() == "no room\n"
