"""The kit for users' tests, used as its page says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from pydantic import BaseModel, Field, SecretStr

from config_manager.client import Change, NotNow
from config_manager.client.testing import FakePublisher
from tests.client.drivers import run_asyncio


class Voice(BaseModel):
    volume: float = Field(default=0.5, ge=0, le=1)
    name: str = "amy"


def under_trio(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main)


def under_asyncio(main: Callable[[], Awaitable[None]]) -> None:
    run_asyncio(main())  # type: ignore[arg-type]


both = pytest.mark.parametrize("run", [under_trio, under_asyncio])
Run = Callable[[Callable[[], Awaitable[None]]], None]


@both
def test_a_delivery_is_applied_and_a_misfit_refused(run: Run) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, first_wait_s=0) as config:
            assert config.current == Voice()
            assert (await publisher.deliver(volume=0.8)).applied
            assert config.current.volume == 0.8
            refused = await publisher.deliver(volume=7)
            assert (refused.applied, refused.stage) == (False, "refused")
            assert "volume" in (refused.reason or "")
            assert config.current.volume == 0.8
            assert config.refusals["model"] == 1

    run(main)


@both
def test_a_callback_may_refuse_and_may_say_not_now(run: Run) -> None:
    asked: list[float] = []

    def apply(change: Change[Voice]) -> None:
        asked.append(change.new.volume)
        if change.new.volume == 1:
            raise RuntimeError("too loud")
        if change.new.volume == 0.3:
            raise NotNow(3600)

    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, apply=apply, first_wait_s=0) as config:
            assert "too loud" in ((await publisher.deliver(volume=1)).reason or "")
            assert (await publisher.deliver(volume=0.3)).stage == "deferred"
            assert (await publisher.deliver(volume=0.2)).applied
            assert config.current.volume == 0.2
        assert asked == [1, 0.3, 0.2]

    run(main)


@both
def test_what_was_kept_is_there_with_nothing_in_reach(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        state = tmp_path / "state"
        async with publisher.open(Voice, state_dir=state, first_wait_s=0):
            await publisher.deliver(name="joe")
        publisher.disconnect()
        async with publisher.open(Voice, state_dir=state) as config:
            assert (config.current.name, config.source) == ("joe", "last-known-good")
            publisher.publish(name="eve")
            publisher.reconnect()
            async for change in config.changes():
                assert change.new.name == "eve"
                break

    run(main)


@both
def test_rubbish_on_the_wire_changes_nothing(run: Run) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, first_wait_s=0) as config:
            await publisher.deliver(volume=0.1)
            for payload in (b"", b"{", b"[" * 100_000, b"x" * 300_000, FakePublisher("voice").root):
                publisher.send(payload)
            assert (await publisher.deliver(volume=0.2)).applied
            assert sum(config.refusals.values()) == 5
            publisher.delete()
            assert (await publisher.deliver(volume=0.3)).applied

    run(main)


def test_threads_too() -> None:
    publisher = FakePublisher("voice")
    changed = threading.Event()
    keys: list[frozenset[str]] = []

    def note(change: Change[Voice]) -> None:
        keys.append(change.keys)
        changed.set()

    with publisher.open_in_threads(Voice, first_wait_s=0) as config:
        config.on_change(note)
        assert publisher.deliver_and_wait(volume=0.9).applied
        assert config.current.volume == 0.9
        assert changed.wait(5)
        assert keys == [frozenset({"volume"})]
        assert not publisher.deliver_and_wait(volume=9).applied


def test_an_option_that_the_client_does_not_have_is_none_of_the_kits() -> None:
    publisher = FakePublisher("voice")
    with (
        pytest.raises(TypeError, match="first_wiat_s"),
        publisher.open_in_threads(Voice, first_wiat_s=0),  # type: ignore[call-arg]
    ):
        pass


@both
def test_a_delivery_waits_for_every_instance(run: Run) -> None:
    async def slowly(change: Change[Voice]) -> None:
        for _ in range(50):
            await (trio.lowlevel.checkpoint() if run is under_trio else asyncio.sleep(0))
        if change.new.volume == 1:
            raise RuntimeError("too loud")

    async def main() -> None:
        publisher = FakePublisher("voice")
        async with (
            publisher.open(Voice, instance="slow", apply=slowly, first_wait_s=0) as slow,
            publisher.open(Voice, instance="quick", first_wait_s=0) as quick,
        ):
            assert (await publisher.deliver(volume=0.9)).applied
            assert slow.current.volume == quick.current.volume == 0.9
            refused = await publisher.deliver(volume=1)
            assert (refused.applied, "too loud" in (refused.reason or "")) == (False, True)
            assert (slow.current.volume, quick.current.volume) == (0.9, 1)
        async with publisher.open(Voice, instance="third", first_wait_s=5):
            assert (await publisher.deliver(volume=0.1)).applied  # those that left are not awaited

    run(main)


class Guarded(BaseModel):
    volume: float = 0.5
    api_key: SecretStr = SecretStr("")


@both
def test_secrets_come_sealed_with_the_revision_that_names_them(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        publisher.set_secrets(api_key="hunter2")
        async with publisher.open(Guarded, state_dir=tmp_path, first_wait_s=0) as config:
            assert (await publisher.deliver(volume=0.8)).applied
            assert config.current.api_key.get_secret_value() == "hunter2"
            publisher.set_secrets(api_key="hunter3")
            async with publisher.open(Guarded, instance="other", first_wait_s=5) as other:
                assert other.current.api_key.get_secret_value() == "hunter2"
                assert (await publisher.deliver(volume=0.9)).applied
                assert config.refusals == other.refusals == {}
            assert config.current.api_key.get_secret_value() == "hunter3"
        publisher.disconnect()
        async with publisher.open(Guarded, state_dir=tmp_path, first_wait_s=0) as config:
            assert config.current.api_key.get_secret_value() == "hunter3"
        assert b"hunter" not in b"".join(
            path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        )

    run(main)


def test_secrets_come_sealed_without_an_event_loop() -> None:
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Guarded, first_wait_s=0) as config:
        assert publisher.deliver_and_wait(volume=0.1).applied
        publisher.set_secrets(api_key="hunter2")
        assert publisher.deliver_and_wait(volume=0.2).applied
        assert config.current.api_key.get_secret_value() == "hunter2"
