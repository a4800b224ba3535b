"""Two processes of one service in one state directory, with a real lock between them."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from config_manager.client import Config
from config_manager.client.commands.client import client
from config_manager.client.state.cache import Cache
from config_manager.client.state.claim import Claim, Onlooker
from config_manager.client.state.identity import load_identity
from config_manager.client.testing import FakePublisher
from config_manager.config.documents.receipt import Receipt
from config_manager.config.world import World
from tests.kit import clients
from tests.kit import documents as m
from tests.kit.client_story import Settings
from tests.kit.processes import eventually

FIRST = """
import sys
from pathlib import Path
from config_manager.client.testing import FakePublisher
from tests.kit.client_story import Settings

publisher, state = FakePublisher("stt-worker"), Path(sys.argv[1])
with publisher.open_in_threads(Settings, state_dir=state):
    publisher.deliver_and_wait(n=8)
with publisher.open_in_threads(Settings, state_dir=state, bake_s=3600.0) as config:
    publisher.deliver_and_wait(n=9)
    print(config.current.n, flush=True)
    sys.stdin.read()
"""
"""Revision 1, with n = 8, proved itself; revision 2, with n = 9, is on trial until stdin ends."""

Process = subprocess.Popen[str]


DIES = """
import os, signal, sys
from config_manager.client import Config
from tests.kit.client_story import Settings

with Config(
    Settings, service="stt-worker", state_dir=sys.argv[1], mqtt_url="none:", env_file=None
) as config:
    print(config.current.n, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST, str(tmp_path / "state")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "9\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def second(tmp_path: Path) -> Callable[[], Config[Settings]]:
    """Opens the same service's configuration here, without any network."""

    def opened() -> Config[Settings]:
        given: dict[str, Any] = {"service": m.SERVICE, "mqtt_url": "none:", "env_file": None}
        return Config(Settings, state_dir=tmp_path / "state", **given)

    return opened


def get(tmp_path: Path) -> tuple[str, str]:
    """What `client get` prints, and what it remarks."""
    where = ["--state", str(tmp_path / "state"), "--service", m.SERVICE]
    done = CliRunner().invoke(client, ["get", *where, "--format", "env"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.strip(), done.stderr.strip()


def test_who_starts_while_another_lives_with_a_trial_runs_what_is_proved_and_poisons_nothing(
    tmp_path: Path, first: Process, second: Callable[[], Config[Settings]], caplog: Any
) -> None:
    before = (tmp_path / "state" / "stt-worker.lkg").read_bytes()
    caplog.set_level("INFO", "config_manager.client")
    with second() as config:
        assert (config.current.n, config.source, config.refusals) == (8, "last-known-good", {})
    assert "kept file shared service=stt-worker" in caplog.text
    assert (tmp_path / "state" / "stt-worker.lkg").read_bytes() == before
    printed, remark = get(tmp_path)
    assert printed == "STT_WORKER_N=8"
    assert remark == (
        "revision 1 is what a start begins with; "
        "a running process has yet to prove itself with revision 2"
    )
    first.communicate("", timeout=20)  # it ends on purpose: its trial goes on with the next
    printed, remark = get(tmp_path)
    assert printed == "STT_WORKER_N=9"
    assert remark == (
        "revision 2 is what a start begins with; "
        "it has not proved itself yet, the last that did is revision 1"
    )
    with second() as config:
        assert (config.current.n, config.refusals) == (9, {})


def test_who_starts_after_another_died_of_its_trial_tries_it_again_and_the_third_does_not(
    tmp_path: Path, first: Process, second: Callable[[], Config[Settings]]
) -> None:
    first.kill()
    first.wait(20)
    printed, remark = get(tmp_path)
    assert printed == "STT_WORKER_N=9"
    assert remark.endswith(
        "the service died within its bake time, and it is tried again; "
        "the last that proved itself is revision 1"
    )
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path / "state")], stdout=subprocess.PIPE, timeout=20
    )
    assert (died.stdout, died.returncode) == (b"9\n", -9)
    printed, remark = get(tmp_path)
    assert printed == "STT_WORKER_N=8"
    assert remark.endswith(
        "the service died within the bake time of revision 2, which is not tried again"
    )
    with second() as config:
        assert (config.current.n, config.refusals) == (8, {"callback": 1})


FIRST_EVER = """
import sys
from pathlib import Path
from config_manager.client.testing import FakePublisher
from tests.kit.client_story import Settings

publisher = FakePublisher("stt-worker")
with publisher.open_in_threads(Settings, state_dir=Path(sys.argv[1]), bake_s=60.0) as config:
    publisher.deliver_and_wait(n=9)
    print(config.current.n, flush=True)
    sys.stdin.read()
"""


def test_where_nothing_was_proved_who_starts_beside_a_trial_runs_the_same_and_not_the_defaults(
    tmp_path: Path, second: Callable[[], Config[Settings]]
) -> None:
    """The workers of one server, restarted offline within ten seconds of the first change ever."""
    first = subprocess.Popen(
        [sys.executable, "-c", FIRST_EVER, str(tmp_path / "state")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "9\n"
        with second() as config:
            assert (config.current.n, config.source, config.refusals) == (9, "last-known-good", {})
        first.communicate("", timeout=20)
    with second() as config:
        assert (config.current.n, config.refusals) == (9, {})


# ── whom the operator sees ─────────────────────────────────────────────────────────────────────


class Seen:
    """The instance, as a server takes its receipts."""

    def __init__(self, publisher: FakePublisher) -> None:
        self._publisher = publisher

    @property
    def newest(self) -> Receipt:
        return max(self._publisher.receipts, key=lambda receipt: receipt.order)

    def runs(self, revision: int) -> bool:
        running = self.newest.running
        return not self.newest.gone and running is not None and running.revision == revision


@pytest.mark.parametrize("leaves", ["the one that writes", "the one that started last"])
def test_while_one_of_two_goes_on_the_instance_is_not_gone(tmp_path: Path, leaves: str) -> None:
    """A server's workers are replaced one by one, and each says that it leaves."""
    publisher = FakePublisher(m.SERVICE)
    seen, given = Seen(publisher), {"state_dir": tmp_path / "state", "first_wait_s": 0.0}
    first, second = (publisher.open_in_threads(Settings, **given) for _ in range(2))  # type: ignore[arg-type]
    first.open()
    publisher.deliver_and_wait(n=1)
    second.open()
    try:
        publisher.deliver_and_wait(n=2)
        gone, stays = (first, second) if leaves == "the one that writes" else (second, first)
        gone.close()
        eventually(lambda: seen.runs(2), within=10, what="the one that stays is shown")
        publisher.deliver_and_wait(n=3)
        assert stays.current.n == 3
        eventually(lambda: seen.runs(3), within=10, what="what it runs is shown")
    finally:
        first.close()
        second.close()
    assert seen.newest.gone


# ── who writes ─────────────────────────────────────────────────────────────────────────────────


def make_cache(state: Path) -> tuple[Claim, Cache]:
    claim = Claim(state, m.SERVICE)
    claim.take()
    return claim, Cache(state, m.SERVICE, b"k" * 32, [m.make_root()], World(), claim)


def test_the_second_writes_once_the_first_has_ended(tmp_path: Path) -> None:
    (old_claim, old), (_, new) = make_cache(tmp_path), make_cache(tmp_path)
    old.keep(clients.make_kept(5))
    new.keep(clients.make_kept(6))
    assert new.unwritten == clients.make_kept(6)
    assert new.load() == clients.make_kept(5)
    old_claim.close()
    assert new.unwritten is not None
    new.keep(new.unwritten)
    assert new.unwritten is None
    assert make_cache(tmp_path)[1].load() == clients.make_kept(6)


def test_who_only_looks_makes_nothing_and_takes_nothing(tmp_path: Path) -> None:
    onlooker, claim = Onlooker(tmp_path, m.SERVICE), Claim(tmp_path, m.SERVICE)
    assert onlooker.take()
    assert list(tmp_path.iterdir()) == []
    assert claim.take()
    assert not onlooker.take()
    claim.close()
    assert onlooker.take()
    assert onlooker.take()
    assert Claim(tmp_path, m.SERVICE).take()


def test_who_starts_while_somebody_looks_writes_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / f"{m.SERVICE}.lock"
    with path.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        waited: list[float] = []

        def pause(seconds: float) -> None:
            waited.append(seconds)
            fcntl.flock(looking, fcntl.LOCK_UN)

        assert Claim(tmp_path, m.SERVICE, pause).take()
        assert len(waited) == 1


def test_who_takes_over_never_goes_back(tmp_path: Path) -> None:
    (old_claim, old), (_, new) = make_cache(tmp_path), make_cache(tmp_path)
    old.keep(clients.make_kept(7))
    old_claim.close()
    new.keep(clients.make_kept(6))
    assert (new.unwritten, new.load()) == (clients.make_kept(6), clients.make_kept(7))
    new.keep(clients.make_kept(8))
    assert (new.unwritten, new.load()) == (None, clients.make_kept(8))


class Shared:
    """A state directory whose claim is held by somebody else: this test."""

    def __init__(self, state: Path) -> None:
        self.publisher = FakePublisher(m.SERVICE)
        with self.publisher.open_in_threads(Settings, state_dir=state):
            self.publisher.deliver_and_wait(n=8)
        identity = load_identity(state)
        self._cache = Cache(state, m.SERVICE, identity.file_key, identity.roots, World())
        self.other = Claim(state, m.SERVICE)
        assert self.other.take()  # the one before has let go of it

    @property
    def kept(self) -> Any:
        """The n on disk."""
        kept = self._cache.load()
        assert kept is not None
        assert kept.running is not None
        return kept.running[0].config["n"]


def test_a_thread_that_only_read_goes_on_writing_by_itself(tmp_path: Path) -> None:
    shared = Shared(tmp_path / "state")
    with shared.publisher.open_in_threads(Settings, state_dir=tmp_path / "state") as config:
        shared.publisher.deliver_and_wait(n=9)
        assert (config.current.n, shared.kept) == (9, 8)
        shared.other.close()
        until = time.monotonic() + 10
        while shared.kept != 9 and time.monotonic() < until:
            time.sleep(0.05)
        assert shared.kept == 9


def test_a_trio_task_that_only_read_goes_on_writing_by_itself(tmp_path: Path) -> None:
    shared = Shared(tmp_path / "state")

    async def main() -> None:
        async with shared.publisher.open(Settings, state_dir=tmp_path / "state") as config:
            await shared.publisher.deliver(n=9)
            assert (config.current.n, shared.kept) == (9, 8)
            shared.other.close()
            with trio.move_on_after(10):
                while shared.kept != 9:
                    await trio.sleep(0.05)
            assert shared.kept == 9

    trio.run(main)
    assert Claim(tmp_path / "state", m.SERVICE).take()


FORKS = """
import os, sys
from pathlib import Path
from config_manager.client.state.claim import Claim

state = Path(sys.argv[1])
mine = Claim(state, "door")
assert mine.take()
ask, answer = os.pipe()
if os.fork() == 0:
    os.close(answer)
    held = mine.is_held, Claim(state, "door").take()
    print(*held, flush=True)
    os.read(ask, 1)  # lives until its parent is gone
    os._exit(0)
os.close(ask)
sys.stdin.readline()
mine.close()
print(Claim(state, "door").take(), flush=True)
"""


def test_a_forked_worker_neither_has_its_parents_claim_nor_keeps_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        assert it.stdout.readline() == "False False\n"
        it.stdin.write("close\n")
        it.stdin.flush()
        assert it.stdout.readline() == "True\n"
