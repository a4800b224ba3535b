"""Leaving always ends, within a bound, and what did not end is said."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from config_manager.client import Change, Config, ConfigurationStale
from config_manager.client.drivers import asyncio_driver, trio_driver
from config_manager.client.drivers.asyncio_connection import Will, connect_with_aiomqtt
from config_manager.client.state.claim import Claim
from config_manager.client.state.identity import trust_init
from config_manager.client.testing import FakePublisher
from config_manager.config.brokers import BrokerAddress
from config_manager.config.world import SystemDisk, World
from tests.kit import documents as m
from tests.kit.client_drivers import AioKit, Kit, TrioKit, run_asyncio
from tests.kit.client_story import Settings
from tests.kit.hostile_broker import CONNACK_5, hostile
from tests.kit.processes import MOSQUITTO, eventually, workshop

BOUND_S = 8.0
"""Longer than leaving may take, whatever hangs; far shorter than for ever."""


@pytest.fixture(params=[TrioKit, AioKit], ids=lambda kit: kit.name)
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    kit: Kit = request.param(tmp_path)
    kit.a.configures(5)
    kit.a.vouches(5, 1)
    return kit


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    trust_init(tmp_path / "state", tmp_path / "root.json")
    return {
        "service": m.SERVICE, "state_dir": tmp_path / "state", "mqtt_url": "mqtt://x",
        "env_file": None, "first_wait_s": 0.01,
    }  # fmt: skip


class Connection:
    """Connected for as long as nobody cancels it."""

    def __init__(self, *, deaf_to: int = 0) -> None:
        self.deaf_to = deaf_to
        """how many cancellations are lost, as python/cpython#86296 loses them"""
        self.entered = threading.Event()

    @asynccontextmanager
    async def connect(self, *_: Any) -> AsyncIterator[Connection]:
        yield self

    async def subscribe(self, *filters: str) -> None: ...

    async def publish(self, topic: str, payload: bytes) -> None: ...

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        self.entered.set()
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if self.deaf_to == 0:
                    raise
                self.deaf_to -= 1
        yield "", b""


@pytest.mark.parametrize("lost", [1, 3])
def test_a_cancellation_that_is_lost_is_repeated(options: dict[str, Any], lost: int) -> None:
    wire = Connection(deaf_to=lost)

    async def story() -> None:
        async with asyncio_driver.open_config(Settings, connect=wire.connect, **options):
            while not wire.entered.is_set():
                await asyncio.sleep(0.001)
        assert wire.deaf_to == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    began = time.monotonic()
    run_asyncio(story())
    assert time.monotonic() - began < BOUND_S


def test_who_takes_no_cancellation_at_all_is_left_alone_and_named(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    wire = Connection(deaf_to=1_000)

    async def story() -> None:
        async with asyncio_driver.open_config(Settings, connect=wire.connect, **options):
            while not wire.entered.is_set():
                await asyncio.sleep(0.001)
        wire.deaf_to = 0  # and now it may end

    began = time.monotonic()
    run_asyncio(story())
    assert time.monotonic() - began < BOUND_S
    assert "did not end service=stt-worker task=config-manager mqtt://x" in caplog.text


def test_whoever_loses_patience_while_it_ends_is_obeyed_and_nothing_is_left(
    options: dict[str, Any],
) -> None:
    wire = Connection(deaf_to=2)

    async def serve() -> None:
        async with asyncio_driver.open_config(Settings, connect=wire.connect, **options):
            await asyncio.sleep(3600)

    async def story() -> None:
        task = asyncio.create_task(serve())
        while not wire.entered.is_set():
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.05)
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_asyncio(story())


class CancelsAt(trio.abc.Instrument):
    """Cancels at that step of all tasks."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@pytest.mark.timeout(30)
def test_cancelled_at_any_step_of_its_start_it_ends_under_trio(options: dict[str, Any]) -> None:
    """Also between the start of what is shielded and its first step."""
    options |= {"mqtt_url": "none:", "first_wait_s": 0.0}

    async def cancelled_at(step: int) -> bool:
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(CancelsAt(scope, step))
            async with trio_driver.open_config(Settings, **options):
                pass
        return scope.cancelled_caught

    caught = [trio.run(cancelled_at, step) for step in range(1, 40)]
    assert caught[0]
    assert not caught[-1]  # it had ended: the sweep met each step


@pytest.mark.timeout(30)
def test_cancelled_at_any_pass_of_its_start_it_ends_under_asyncio(options: dict[str, Any]) -> None:
    options |= {"mqtt_url": "none:", "first_wait_s": 0.0}

    async def once() -> None:
        async with asyncio_driver.open_config(Settings, **options):
            pass

    async def cancelled_at(number: int) -> bool:
        task = asyncio.create_task(once())
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return task.cancelled()

    caught = [run_asyncio(cancelled_at(number)) for number in range(1, 40)]
    assert any(caught)


class HungDisk(SystemDisk):
    """Takes a write and never returns, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.let_go = threading.Event()

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if self.hangs:
            self.let_go.wait(60)
        super().write_atomic(path, data, mode=mode)


def kept(options: dict[str, Any]) -> None:
    """A last-known-good file, which leaving writes again."""
    publisher = FakePublisher(m.SERVICE)
    state = options["state_dir"]
    with publisher.open_in_threads(Settings, state_dir=state.parent / "own", bake_s=5.0):
        publisher.deliver_and_wait(n=5)
    options["state_dir"] = state.parent / "own"


@pytest.mark.parametrize("driver", ["asyncio", "trio", "threads"])
def test_a_disk_that_hangs_keeps_nobody_from_leaving(options: dict[str, Any], driver: str) -> None:
    kept(options)
    disk = HungDisk()
    options |= {"mqtt_url": "none:", "world": World(disk=disk)}

    async def under_asyncio() -> None:
        async with asyncio_driver.open_config(Settings, **options) as config:
            assert config.current.n == 5
            disk.hangs = True

    async def under_trio() -> None:
        async with trio_driver.open_config(Settings, **options) as config:
            assert config.current.n == 5
            disk.hangs = True

    def in_threads() -> None:
        with Config(Settings, **options) as config:
            assert config.current.n == 5
            disk.hangs = True

    began = time.monotonic()
    try:
        match driver:
            case "asyncio":
                run_asyncio(under_asyncio())
            case "trio":
                trio.run(under_trio)
            case _:
                in_threads()
        assert time.monotonic() - began < BOUND_S
    finally:
        disk.let_go.set()


def test_nobody_else_may_write_before_the_last_write_is_through(options: dict[str, Any]) -> None:
    """Else a slow disk lays an older file over the newer one of the process that took over."""
    kept(options)
    disk = HungDisk()
    slow = {**options, "mqtt_url": "none:", "world": World(disk=disk)}
    try:
        with Config(Settings, **slow):
            disk.hangs = True
        claim = Claim(options["state_dir"], m.SERVICE)
        assert not claim.take()
    finally:
        disk.let_go.set()
    eventually(claim.take, within=10, what="the claim is free once it is written")
    claim.close()


def test_a_full_default_executor_keeps_no_change_waiting() -> None:
    """Six threads, on two cores: a service that computes in them has none left."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        busy, done = ThreadPoolExecutor(1), threading.Event()
        loop.set_default_executor(busy)
        job = loop.run_in_executor(None, done.wait, 60)
        try:
            publisher = FakePublisher("voice")
            async with publisher.open(Settings, first_wait_s=0) as config:
                async with asyncio.timeout(10):
                    assert (await publisher.deliver(n=6)).applied
                assert config.current.n == 6
        finally:
            done.set()
            await job

    run_asyncio(story())


def test_a_full_default_executor_keeps_nobody_from_connecting() -> None:
    async def story(address: BrokerAddress) -> None:
        loop = asyncio.get_running_loop()
        busy, done = ThreadPoolExecutor(1), threading.Event()
        loop.set_default_executor(busy)
        job = loop.run_in_executor(None, done.wait, 20)
        try:
            will = Will("system/config-status/a/b", b"{}")
            async with connect_with_aiomqtt(address, "one", will):
                assert not job.done()
        finally:
            done.set()
            await job

    with hostile(CONNACK_5) as (address, _):
        run_asyncio(story(address))


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_leaving_right_after_entering_ends_with_a_real_broker() -> None:
    """Each within what a connection needs to be made: there Python 3.11 lost a cancellation in 2 to 12
    of 100."""
    with workshop() as (processes, directory):
        broker = processes.broker(directory / "broker", persistent=False)
        (directory / "root.json").write_bytes(m.root_bytes())
        given: dict[str, Any] = {
            "service": m.SERVICE, "state_dir": directory / "state", "mqtt_url": broker.url,
            "root": directory / "root.json", "env_file": None, "first_wait_s": 0.0,
        }  # fmt: skip

        async def once(number: int) -> None:
            async with asyncio_driver.open_config(Settings, **given):
                await asyncio.sleep(number % 13 / 1000)

        async def story() -> None:
            for number in range(120):
                async with asyncio.timeout(10):
                    await once(number)
            async with asyncio.timeout(5):  # aiomqtt's own, which were cancelled in their turn
                while asyncio.all_tasks() != {asyncio.current_task()}:
                    await asyncio.sleep(0.01)

        run_asyncio(story())
        for _ in range(30):
            with Config(Settings, **given) as config:
                assert config.current.n == 0
        eventually(
            lambda: not [one for one in threading.enumerate() if "config-manager" in one.name],
            within=10,
            what="each thread has ended, the one that connected too",
        )


# ── the end of a program ───────────────────────────────────────────────────────────────────────

BEGINS = """
import atexit, os, signal, sys, threading, time
from pathlib import Path
from config_manager.client import Config, ForkedAway
from config_manager.client.testing import FakePublisher
from tests.kit.client_story import Settings

publisher = FakePublisher("stt-worker")
state = Path(sys.argv[1])
opened = publisher.open_in_threads(Settings, state_dir=state, first_wait_s=0, bake_s=10.0)
"""


def ended(tmp_path: Path, code: str, *, within: float = 15) -> tuple[int, str, str]:
    """A program's exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGINS + code, tmp_path / "state"],
        capture_output=True, text=True, timeout=within,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def starts_with(tmp_path: Path) -> tuple[int, dict[str, int]]:
    """What the next start runs, and what it refused."""
    given: dict[str, Any] = {"service": m.SERVICE, "mqtt_url": "none:", "env_file": None}
    with Config(Settings, state_dir=tmp_path / "state", **given) as config:
        return config.current.n, dict(config.refusals)


@pytest.mark.parametrize(
    "end",
    [
        "",
        "atexit.register(config.close)",
        "atexit.register(config.__exit__, None, None, None)",
        "config.close(); config.close()",
        "sys.exit(0)",
    ],
)
def test_a_program_that_ends_says_goodbye_and_leaves_no_trial_open(
    tmp_path: Path, end: str
) -> None:
    """As a Flask app, a Celery worker or a script does it: not through the block."""
    code, said, errors = ended(
        tmp_path,
        "config = opened.__enter__(); publisher.deliver_and_wait(n=6)\n"
        "atexit.register(lambda: print(publisher.receipts[-1].gone))\n"  # runs last
        f"{end}\n".replace("atexit", "atexit"),
    )
    assert (code, errors) == (0, "")
    del said
    for _ in range(3):  # never a death
        assert starts_with(tmp_path) == (6, {})


def test_a_signal_within_the_bake_time_poisons_nothing(tmp_path: Path) -> None:
    code, _, errors = ended(
        tmp_path,
        "config = opened.__enter__(); publisher.deliver_and_wait(n=6)\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(10)",
    )
    assert (code, errors) == (-15, "")
    assert starts_with(tmp_path) == (6, {})


def test_a_callback_that_hangs_keeps_no_program_from_ending(tmp_path: Path) -> None:
    code, said, errors = ended(
        tmp_path,
        "heard = threading.Event()\n"
        "with opened as config:\n"
        "    config.on_change(lambda change: threading.Event().wait())\n"
        "    config.on_change(lambda change: heard.set())\n"
        "    publisher.deliver_and_wait(n=6)\n"
        "    print(heard.wait(5))\n"
        "print('the last line')",
    )
    assert (code, said) == (0, "True\nthe last line\n")
    assert "did not end service=stt-worker thread=config-manager on_change" in errors


def test_a_callback_may_close_it_and_exit_in_one_ends_nothing(tmp_path: Path) -> None:
    code, said, errors = ended(
        tmp_path,
        "closed = threading.Event()\n"
        "with opened as config:\n"
        "    config.on_change(lambda change: sys.exit(1))\n"
        "    publisher.deliver_and_wait(n=6)\n"
        "    config.on_change(lambda change: (config.close(), closed.set()))\n"
        "    publisher.deliver_and_wait(n=7)\n"
        "    assert closed.wait(10)\n"
        "    print(config.current.n, config.freshness)",
    )
    assert (code, said) == (0, "7 stale (ended)\n")
    assert "SystemExit" in errors


FORKS = """
config = opened.__enter__()
publisher.deliver_and_wait(n=6)
child = os.fork()
if not child:
    said = [config.freshness]
    for use in (lambda: config.current, lambda: config.hold().__enter__()):
        try:
            use()
        except ForkedAway as error:
            said.append("post_worker_init" in str(error))
    config.close()
    print(said, flush=True)
    os._exit(0)
os.waitpid(child, 0)
publisher.deliver_and_wait(n=7)
print(config.current.n, config.freshness != "stale (forked)")
"""


def test_a_forked_worker_is_told_and_its_parent_goes_on(tmp_path: Path) -> None:
    code, said, errors = ended(tmp_path, FORKS)
    assert (code, errors) == (0, "")
    assert said == "['stale (forked)', True, True]\n7 True\n"


OPENS_ANEW = """
given = {"service": "stt-worker", "state_dir": state, "env_file": None, "mqtt_url": "none:"}
with publisher.open_in_threads(Settings, state_dir=state, first_wait_s=0, bake_s=0) as config:
    publisher.deliver_and_wait(n=6)
heard = []
config = Config(Settings, **given)
config.on_change(heard.append)
config.open()
child = os.fork()
if not child:
    config.open()
    print(config.current.n, config.freshness, len(threading.enumerate()), flush=True)
    config.close()
    os._exit(0)
os.waitpid(child, 0)
print(config.current.n)
"""


def test_a_worker_may_open_anew_what_its_parent_opened(tmp_path: Path) -> None:
    code, said, errors = ended(tmp_path, OPENS_ANEW)
    assert (code, said) == (0, "6 unknown 4\n6\n")
    assert errors == ""


MADE_BEFORE = """
given = {"service": "stt-worker", "state_dir": state, "env_file": None, "mqtt_url": "none:"}
with opened:
    publisher.deliver_and_wait(n=6)
config = Config(Settings, **given)  # at import, in a server's master process
for _ in range(3):
    child = os.fork()
    if not child:
        config.open()
        print(config.current.n, flush=True)
        sys.exit(0)
    os.waitpid(child, 0)
"""


def test_what_was_made_before_a_fork_and_opened_after_it_is_closed_there(tmp_path: Path) -> None:
    code, said, errors = ended(tmp_path, MADE_BEFORE)
    assert (code, said, errors) == (0, "6\n6\n6\n", "")
    assert starts_with(tmp_path) == (6, {})


READERS_AND_FORKS = """
def reads():
    while True:
        config.current, config.freshness

given = {"service": "stt-worker", "state_dir": state, "env_file": None, "mqtt_url": "none:"}
with opened:
    publisher.deliver_and_wait(n=6)
config = Config(Settings, **given)
config.open()
for _ in range(3):
    threading.Thread(target=reads, daemon=True).start()
for _ in range(30):
    child = os.fork()
    if not child:
        config.freshness
        config.close()
        os._exit(7)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            sys.exit("a child hangs")
        time.sleep(0.001)
"""


def test_a_child_that_was_forked_while_others_read_hangs_nowhere(tmp_path: Path) -> None:
    code, _, errors = ended(tmp_path, READERS_AND_FORKS, within=60)
    assert (code, errors) == (0, "")


MULTIPROCESSING = """
import multiprocessing

given = {"service": "stt-worker", "state_dir": state, "env_file": None, "mqtt_url": "none:"}
with opened:
    publisher.deliver_and_wait(n=6)

def work():
    Config(Settings, **given).open()

for _ in range(3):
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    print(child.exitcode)
"""


def test_a_child_of_multiprocessing_that_returns_leaves_no_death_behind(tmp_path: Path) -> None:
    code, said, errors = ended(tmp_path, MULTIPROCESSING)
    assert (code, said, errors) == (0, "0\n0\n0\n", "")
    assert starts_with(tmp_path) == (6, {})


FORKS_IN_A_CALLBACK = """
def forks(change):
    child = os.fork()
    if not child:
        sys.exit(0)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    done.append(time.monotonic() < deadline)
    heard.set()

done, heard = [], threading.Event()
with opened as config:
    config.on_change(forks)
    publisher.deliver_and_wait(n=6)
    heard.wait(12)
    print(done)
"""


def test_a_child_that_was_forked_in_a_callback_ends_when_it_exits(tmp_path: Path) -> None:
    code, said, _ = ended(tmp_path, FORKS_IN_A_CALLBACK)
    assert (code, said) == (0, "[True]\n")


INTERRUPTED = """
given = {"service": "stt-worker", "state_dir": state, "env_file": None, "mqtt_url": "mqtt://127.0.0.1:1"}
with opened:
    pass
signal.signal(signal.SIGALRM, lambda *_: sys.exit(3))
signal.setitimer(signal.ITIMER_REAL, 0.3)
config = Config(Settings, require=True, first_wait_s=60, **{**given, "state_dir": state.parent / "new"})
from config_manager.client import trust_init
(state.parent / "root").write_bytes(publisher.root)
trust_init(state.parent / "new", state.parent / "root")
try:
    config.open()
except SystemExit as error:
    left = [one.name for one in threading.enumerate() if "config-manager" in one.name]
    print(error.code, left, config.close())
"""


def test_an_open_that_a_signal_interrupts_is_closed_again(tmp_path: Path) -> None:
    code, said, _ = ended(tmp_path, INTERRUPTED)
    assert (code, said) == (0, "3 [] None\n")


def test_closing_ends_an_open_that_is_under_way_in_another_thread(options: dict[str, Any]) -> None:
    config = Config(Settings, **{**options, "mqtt_url": "none:", "first_wait_s": 60.0})
    raised: list[BaseException] = []

    def opens() -> None:
        try:
            config.open()
        except RuntimeError as error:
            raised.append(error)

    opening = threading.Thread(target=opens)
    opening.start()
    eventually(lambda: config._living is not None, within=10, what="it began to open")
    config.close()
    opening.join(BOUND_S)
    assert str(raised) == "[RuntimeError('it was closed while it was being opened')]"
    with pytest.raises(RuntimeError, match="not open"):
        print(config.current)


# ── callbacks in threads ───────────────────────────────────────────────────────────────────────


def nothing(change: Change[Any]) -> None: ...


async def later(change: Change[Any]) -> None: ...


def generates(change: Change[Any]) -> Any:
    yield change


class Asks:
    async def __call__(self, change: Change[Any]) -> None: ...


@pytest.mark.parametrize("never_runs", [later, generates, Asks(), 5])
def test_a_callback_that_would_never_run_is_refused_where_it_is_given(never_runs: Any) -> None:
    publisher = FakePublisher("voice")
    with pytest.raises(TypeError, match="apply: "):
        Config(Settings, service="voice", apply=never_runs)
    with (
        publisher.open_in_threads(Settings, first_wait_s=0) as config,
        pytest.raises(TypeError, match="on_change: "),
    ):
        config.on_change(never_runs)


@pytest.mark.parametrize("call", [later, generates], ids=["coroutine", "generator"])
def test_an_answer_that_nobody_runs_is_no_yes(call: Callable[..., Any]) -> None:
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(
        Settings, first_wait_s=0, apply=lambda change: call(change)
    ) as config:
        outcome = publisher.deliver_and_wait(n=6)
        assert (outcome.stage, config.current.n) == ("refused", 0)
        assert outcome.reason is not None
        assert "TypeError: apply returned a" in outcome.reason


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(), SystemExit(1), KeyboardInterrupt(), GeneratorExit(),
        asyncio.CancelledError(), BaseException("odd"), MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_callback_raises_is_a_refusal_and_listeners_go_on(error: BaseException) -> None:
    def raises(_: Change[Any]) -> None:
        raise error

    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Settings, first_wait_s=0, apply=raises) as config:
        for n in (6, 7):
            outcome = publisher.deliver_and_wait(n=n)
            assert outcome.stage == "refused"
            assert type(error).__name__ in (outcome.reason or "")
        assert config.current.n == 0
    heard: list[int | None] = []
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Settings, first_wait_s=0) as config:
        config.on_change(raises)
        config.on_change(lambda change: heard.append(change.revision))
        publisher.deliver_and_wait(n=6)
        publisher.deliver_and_wait(n=7)
    assert heard == [1, 2]


def test_a_traceback_of_a_listener_in_the_log_holds_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(change: Change[Any]) -> None:
        raise ValueError(f"cannot log in with {change.new.whisper_model}")

    publisher = FakePublisher("voice")
    publisher.set_secrets(whisper_model="hunter2-the-secret")
    with publisher.open_in_threads(Settings, first_wait_s=0) as config:
        config.on_change(fails)
        publisher.deliver_and_wait(n=6)
    assert "ValueError: cannot log in with ********" in caplog.text
    assert "hunter2" not in caplog.text


# ── a driver that ended ────────────────────────────────────────────────────────────────────────


def test_after_the_block_it_is_stale_and_what_was_current_can_be_read(it: Kit) -> None:
    async def story() -> None:
        async with it.open() as config:
            assert config.current.n == 5
        assert (config.freshness, config.current.n) == ("stale (ended)", 5)
        assert it.a.last.freshness != "stale (ended)"

    it.run(story)


def test_once_it_was_stopped_for_being_stale_reading_it_says_so(it: Kit) -> None:
    """Also where nobody sees the block's own error: a web server goes on without its lifespan."""

    async def story() -> None:
        with pytest.raises(ConfigurationStale):
            async with it.open(max_stale_s=1.0, on_stale="stop") as config:
                await it.forever()
        with pytest.raises(ConfigurationStale, match="for longer than max_stale_s allows"):
            print(config.current)
        with pytest.raises(ConfigurationStale):
            config.changes()
        assert config.freshness == "stale (ended)"

    it.run(story)


def test_a_disk_that_takes_nothing_is_in_the_receipt_and_once_a_minute_in_the_log(
    it: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with it.open() as config:
            it.disk.full = True
            it.a.configures(6)
            await it.until(lambda: it.a.stage == "deferred 6")
            shown = it.a.last
            assert shown.last_attempt is not None
            assert shown.last_attempt.reason == "cannot keep: No space left on device"
            assert (shown.running is not None, config.current.n) == (True, 5)
            await it.sleep(90)
            assert it.disk.refused > 50
            it.disk.full = False
            await it.until(lambda: it.a.stage == "applied 6")
            assert (config.current.n, it.a.last.order > shown.order) == (6, True)

    with caplog.at_level(logging.ERROR, "config_manager.client"):
        it.run(story)
    assert caplog.text.count("cannot keep service=stt-worker") == 2


@pytest.mark.parametrize("sick", ["full", "hung"])
def test_a_disk_that_takes_nothing_keeps_no_broker_from_hearing_that_it_left(
    it: Kit, sick: str
) -> None:
    let_go = threading.Event()
    write = it.disk.write_atomic

    def hangs(path: Path, data: bytes, *, mode: int = 0o600) -> None:
        let_go.wait(60)
        write(path, data, mode=mode)

    async def story() -> None:
        async with it.open():
            it.a.configures(6)
            await it.until(lambda: it.a.stage == "applied 6")
            if sick == "full":
                it.disk.full = True
                it.a.configures(7)
                await it.until(lambda: it.a.stage == "deferred 7")
            else:
                threading.Timer(2.0, let_go.set).start()
                it.disk.write_atomic = hangs  # type: ignore[method-assign]
        assert it.a.last.gone

    it.run(story)


def test_receipts_rise_also_if_a_second_broker_comes_while_the_disk_is_full(it: Kit) -> None:
    async def story() -> None:
        async with it.open(mqtt_url="mqtt://a,mqtt://b"):
            it.disk.full = True
            it.a.configures(6)
            await it.until(lambda: it.a.stage == "deferred 6")
            it.b.drops_all()
            await it.sleep(5)
            it.disk.full = False
            await it.until(lambda: it.a.stage == it.b.stage == "healthy 6")
        for broker in (it.a, it.b):
            # each connection's will was made before it
            orders = [receipt.order for receipt in broker.receipts if not receipt.gone]
            assert orders == sorted(orders)

    it.run(story)
