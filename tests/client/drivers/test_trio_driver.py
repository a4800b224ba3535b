"""What only Trio has: nurseries, cancel scopes, the default transport, `open_config` that finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from config_manager.client import open_config
from config_manager.client.drivers.trio_driver import TrioConfig
from tests.kit import documents as m
from tests.kit.client_drivers import TrioKit
from tests.kit.client_story import Settings


@pytest.fixture
def it(tmp_path: Path) -> TrioKit:
    kit = TrioKit(tmp_path)
    kit.a.configures(5)
    kit.a.vouches(5, 1)
    return kit


def test_a_nursery_in_the_body_reads_changes_while_the_body_works(it: TrioKit) -> None:
    seen = list[int]()

    async def read(config: Any) -> None:
        async for change in config.changes():
            seen.append(change.new.n)

    async def story() -> None:
        async with it.open() as config, trio.open_nursery() as nursery:
            nursery.start_soon(read, config)
            for revision in (6, 7, 8):
                it.a.configures(revision)
                await trio.sleep(1)
            nursery.cancel_scope.cancel()

    it.run(story)
    assert seen == [6, 7, 8]


def test_a_task_of_the_body_that_fails_ends_the_body_and_is_the_bodys_failure(it: TrioKit) -> None:
    async def fail() -> None:
        await trio.sleep(1)
        raise LookupError("mine")

    async def story() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with it.open(), trio.open_nursery() as nursery:
                nursery.start_soon(fail)
        (error,) = caught.value.exceptions  # one group: that of the body's own nursery
        assert isinstance(error, LookupError)
        assert it.a.last.gone

    it.run(story)


@pytest.mark.parametrize("shield", [False, True])
def test_a_deadline_around_it_passes_and_it_still_says_gone(it: TrioKit, shield: bool) -> None:
    async def story() -> None:
        with trio.move_on_after(10, shield=shield) as scope:
            async with it.open():
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert it.a.last.gone

    it.run(story)


def test_a_deadline_in_the_body_is_the_bodys_own(it: TrioKit) -> None:
    async def story() -> None:
        async with it.open() as config:
            with trio.move_on_after(10) as scope:
                await anext(config.changes())
            assert scope.cancelled_caught
            it.a.configures(6)
            await it.until(lambda: config.current.n == 6)

    it.run(story)


def test_a_base_exception_comes_out_as_it_is(it: TrioKit) -> None:
    async def story() -> None:
        with pytest.raises(KeyboardInterrupt):
            async with it.open():
                raise KeyboardInterrupt

    it.run(story)


def test_a_callback_may_start_tasks_of_the_services_own_nursery(it: TrioKit) -> None:
    loaded = list[int]()

    async def story() -> None:
        async with trio.open_nursery() as nursery:

            async def load(revision: int) -> None:
                await trio.sleep(1)
                loaded.append(revision)

            def apply(change: Any) -> None:
                nursery.start_soon(load, change.new.n)

            async with it.open(apply=apply) as config:
                it.a.configures(6)
                await it.until(lambda: config.current.n == 6)

    it.run(story)
    assert sorted(loaded) == [5, 6]  # both in the same second: Trio throws dice


async def test_open_config_finds_out_that_trio_runs(tmp_path: Path) -> None:
    kit = TrioKit(tmp_path)
    options: Any = {
        "service": m.SERVICE,
        "state_dir": kit.state,
        "mqtt_url": "none:",
        "env_file": None,
    }
    async with open_config(Settings, first_wait_s=0.01, **options) as config:
        assert isinstance(config, TrioConfig)
        assert config.source == "defaults"


async def test_a_port_that_nobody_listens_on_is_only_a_broker_that_is_away(tmp_path: Path) -> None:
    """The real transport; a service starts all the same."""
    kit = TrioKit(tmp_path)
    async with open_config(
        Settings,
        service=m.SERVICE,
        state_dir=kit.state,
        mqtt_url="mqtt://127.0.0.1:1",
        env_file=None,
        first_wait_s=0.2,
    ) as config:
        assert config.source == "defaults"
