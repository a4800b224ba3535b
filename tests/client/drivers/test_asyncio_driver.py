"""What only asyncio has: tasks, `cancel()`, `uncancel()`, task groups, timeouts; and no Trio inside."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config_manager.client import Change, open_config
from config_manager.client.drivers.asyncio_driver import AsyncioConfig
from config_manager.config.errors import ConfigurationStale
from tests.kit import documents as m
from tests.kit.client_drivers import AioKit, run_asyncio
from tests.kit.client_story import Settings


@pytest.fixture
def it(tmp_path: Path) -> AioKit:
    """Its `run` fails where any task is left over."""
    kit = AioKit(tmp_path)
    kit.a.configures(5)
    kit.a.vouches(5, 1)
    return kit


def test_a_task_group_in_the_body_reads_changes_while_the_body_works(it: AioKit) -> None:
    seen = list[int]()

    async def read(config: Any) -> None:
        async for change in config.changes():
            seen.append(change.new.n)

    async def story() -> None:
        async with it.open() as config, asyncio.TaskGroup() as group:
            reader = group.create_task(read(config))
            for revision in (6, 7, 8):
                it.a.configures(revision)
                await asyncio.sleep(1)
            reader.cancel()

    it.run(story)
    assert seen == [6, 7, 8]


def test_a_sibling_that_fails_cancels_it_and_the_group_says_only_its_error(it: AioKit) -> None:
    async def serve() -> None:
        async with it.open():
            await it.forever()

    async def fail() -> None:
        await asyncio.sleep(10)
        raise LookupError("the sibling")

    async def story() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(serve())
                group.create_task(fail())
        (error,) = caught.value.exceptions
        assert isinstance(error, LookupError)
        assert it.a.last.gone

    it.run(story)


def test_a_timeout_around_it_is_a_timeout_and_it_still_says_gone(it: AioKit) -> None:
    async def story() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10), it.open():
                await it.forever()
        assert it.a.last.gone

    it.run(story)


def test_a_timeout_in_the_body_is_the_bodys_own(it: AioKit) -> None:
    async def story() -> None:
        async with it.open() as config:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(config.changes()), 10)
            it.a.configures(6)
            await it.until(lambda: config.current.n == 6)

    it.run(story)


@pytest.mark.parametrize("acknowledges", [True, False])
def test_whoever_cancels_twice_is_obeyed_and_nothing_is_left_over(
    it: AioKit, acknowledges: bool
) -> None:
    """The second one comes while it says farewell."""

    async def serve() -> None:
        async with it.open():
            it.a.acknowledges = acknowledges
            await it.forever()

    async def story() -> None:
        task = asyncio.create_task(serve())
        await asyncio.sleep(10)
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    it.run(story)


def test_a_body_that_was_cancelled_by_us_can_go_on_afterwards(it: AioKit) -> None:
    """No cancellation is left pending: the caller may handle the error and work on."""

    async def story() -> None:
        with pytest.raises(ConfigurationStale):
            async with it.open(max_stale_s=1.0, on_stale="stop"):
                await it.forever()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)
        async with asyncio.timeout(5):
            await asyncio.sleep(1)

    it.run(story)


def test_a_body_that_ends_just_as_we_fail_is_told_so_and_not_cancelled_later(it: AioKit) -> None:
    async def story() -> None:
        with pytest.raises(ConfigurationStale):
            async with it.open(max_stale_s=1.0, on_stale="stop"):
                try:
                    await it.forever()
                except asyncio.CancelledError:
                    pass  # what it should not do
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)

    it.run(story)


def test_what_the_body_raises_when_we_fail_is_what_comes_out(it: AioKit) -> None:
    async def story() -> None:
        with pytest.raises(LookupError, match="its clean-up"):
            async with it.open(max_stale_s=1.0, on_stale="stop"):
                try:
                    await it.forever()
                finally:
                    raise LookupError("its clean-up")
        await asyncio.sleep(1)

    it.run(story)


def test_a_cancellation_from_outside_wins_over_a_failure_of_ours(it: AioKit) -> None:
    async def serve() -> None:
        async with it.open(max_stale_s=1.0, on_stale="stop"):
            try:
                await it.forever()
            finally:  # cancelled by us, for being stale; and now by its owner too
                tasks[0].cancel()

    async def story() -> None:
        tasks.append(asyncio.create_task(serve()))
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()

    tasks = list[asyncio.Task[None]]()
    it.run(story)


def test_a_base_exception_comes_out_as_it_is(it: AioKit) -> None:
    async def story() -> None:
        async with it.open():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        it.run(story)


def test_a_callback_that_is_cancelled_by_what_it_waits_for_refuses_and_is_asked_about_the_next(
    it: AioKit,
) -> None:
    """Else there would never be an answer, and no change would be taken any more."""

    async def apply(change: Change[Settings]) -> None:
        if change.revision == 6:
            loading = asyncio.create_task(asyncio.sleep(10))
            asyncio.get_running_loop().call_soon(loading.cancel)
            await loading

    async def story() -> None:
        async with it.open(apply=apply) as config:
            it.a.configures(6)
            await it.until(lambda: it.a.stage == "refused 6")
            assert config.current.n == 5
            it.a.configures(7)
            await it.until(lambda: config.current.n == 7)

    it.run(story)


def test_a_task_that_waits_for_a_change_when_the_block_ends_is_through(it: AioKit) -> None:
    async def read(config: Any) -> list[int]:
        return [change.new.n async for change in config.changes()]

    async def story() -> None:
        async with it.open() as config:
            reader = asyncio.create_task(read(config))
            await asyncio.sleep(1)
            it.a.configures(6)
            await it.until(lambda: config.current.n == 6)
        async with asyncio.timeout(10):
            assert await reader == [6]

    it.run(story)


def test_a_change_that_is_read_by_two_tasks_reaches_each(it: AioKit) -> None:
    async def story() -> None:
        async with it.open() as config:
            readers = [asyncio.ensure_future(anext(config.changes())) for _ in range(3)]
            it.a.configures(6)
            assert [change.new.n for change in await asyncio.gather(*readers)] == [6, 6, 6]

    it.run(story)


def test_open_config_finds_out_that_asyncio_runs(tmp_path: Path) -> None:
    kit = AioKit(tmp_path)

    async def story() -> None:
        options: Any = {
            "service": m.SERVICE, "state_dir": kit.state, "mqtt_url": "none:", "env_file": None,
        }  # fmt: skip
        async with open_config(Settings, first_wait_s=0.01, **options) as config:
            assert isinstance(config, AsyncioConfig)
            assert config.source == "defaults"

    run_asyncio(story())


def test_a_port_that_nobody_listens_on_is_only_a_broker_that_is_away(tmp_path: Path) -> None:
    """The real aiomqtt; a service starts all the same."""
    kit = AioKit(tmp_path)

    async def story() -> None:
        async with open_config(
            Settings,
            service=m.SERVICE,
            state_dir=kit.state,
            mqtt_url="mqtt://127.0.0.1:1",
            env_file=None,
            first_wait_s=0.2,
        ) as config:
            assert config.source == "defaults"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_asyncio(story())


def test_leaving_while_it_connects_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The real aiomqtt, which connects in a thread; a short program ends before that is through."""
    kit = AioKit(tmp_path)

    async def story(url: str, wait_s: float) -> None:
        async with open_config(
            Settings,
            service=m.SERVICE,
            state_dir=kit.state,
            mqtt_url=url,
            env_file=None,
            first_wait_s=0,
        ):
            await asyncio.sleep(wait_s)

    with socket.create_server(("127.0.0.1", 0)) as never_answers:
        url = f"mqtt://127.0.0.1:{never_answers.getsockname()[1]}"
        for wait_s in (0, 0, 0, 0.001, 0.01, 0.1):
            run_asyncio(story(url, wait_s))
            gc.collect()
    assert not [one for one in caplog.records if one.name == "asyncio"]


_NO_TRIO = """
import asyncio, sys
from pydantic import BaseModel
from config_manager.client import Change, open_config

class Settings(BaseModel):
    n: int = 3

async def main(state):
    async with open_config(
        Settings, service="stt-worker", state_dir=state, mqtt_url="mqtt://127.0.0.1:1",
        env_file=None, first_wait_s=0.1,
    ) as config:
        print(config.current.n)

asyncio.run(main(sys.argv[1]))
found = {"trio", "trio_asyncio", "structlog", "quart", "hypercorn", "sqlcipher3"} & set(sys.modules)
sys.exit(f"loaded: {found}" if found else 0)
"""


def test_a_whole_run_under_asyncio_loads_no_trio(tmp_path: Path) -> None:
    state = AioKit(tmp_path).state
    done = subprocess.run(
        [sys.executable, "-c", _NO_TRIO, str(state)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
