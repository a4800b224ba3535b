"""The kit for users' tests, used as its page says."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from config_manager.client import Change, Config, LiveConfig, NothingDelivered, NotNow, open_config
from config_manager.client.testing import FakePublisher, NobodyListens
from tests.kit.client_drivers import run_asyncio


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


def test_what_came_with_a_change_is_judged_before_anybody_hears_of_the_change() -> None:
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Voice, first_wait_s=0) as config:
        assert publisher.deliver_and_wait(volume=0.9).applied
        assert config.freshness == "fresh"  # by the snapshot that came right behind it


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


# ── where nobody decides ───────────────────────────────────────────────────────────────────────


def disconnected(publisher: FakePublisher) -> None:
    publisher.disconnect()


def withheld(publisher: FakePublisher) -> None:
    publisher.withhold()


NOBODY = [(disconnected, "disconnected: `reconnect` first"), (withheld, "withheld")]


@both
def test_a_delivery_that_nobody_can_decide_on_says_so_at_once(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(NobodyListens, match="nobody has voice open: deliver inside"):
            await FakePublisher("voice").deliver(volume=0.1)
        for happens, why in NOBODY:
            publisher = FakePublisher("voice")
            async with publisher.open(Voice, first_wait_s=0) as config:
                await publisher.deliver(volume=0.2)
                happens(publisher)
                began = time.monotonic()
                with pytest.raises(NobodyListens, match=why):
                    await publisher.deliver(volume=0.3)
                assert time.monotonic() - began < 1
                assert (publisher.revision, config.current.volume) == (1, 0.2)
                assert publisher.publish(volume=0.4) == 2  # which waits for nobody
            with pytest.raises(NobodyListens, match="nobody has voice open"):
                await publisher.deliver(volume=0.3)

    run(main)


def test_nor_without_an_event_loop() -> None:
    with pytest.raises(NobodyListens, match="nobody has voice open"):
        FakePublisher("voice").deliver_and_wait(volume=0.1)
    for happens, why in NOBODY:
        publisher = FakePublisher("voice")
        with publisher.open_in_threads(Voice, first_wait_s=0):
            happens(publisher)
            with pytest.raises(NobodyListens, match=why):
                publisher.deliver_and_wait(volume=0.3)


@both
def test_waiting_in_the_thread_that_would_have_to_decide_is_refused(run: Run) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, first_wait_s=0):
            with pytest.raises(NobodyListens, match=r"await publisher\.deliver"):
                publisher.deliver_and_wait(volume=0.3)

    run(main)


@both
def test_who_has_not_decided_in_time_is_named_and_how_far_it_came(run: Run) -> None:
    async def think(change: Change[Voice]) -> None:
        await (trio.sleep(60) if run is under_trio else asyncio.sleep(60))

    async def main() -> None:
        publisher = FakePublisher("voice")
        async with (
            publisher.open(Voice, instance="slow", apply=think, first_wait_s=0),
            publisher.open(Voice, instance="quick", first_wait_s=0) as quick,
        ):
            with pytest.raises(TimeoutError) as caught:
                await publisher.deliver(0.3, volume=0.3)
            assert str(caught.value) == (
                "revision 1 was not decided on within 0.3 s by slow (received)"
            )
            assert quick.current.volume == 0.3
            with pytest.raises(TimeoutError, match=r"by slow \(revision 1: received\)$"):
                await publisher.deliver(0.3, volume=0.4)

    run(main)


def test_the_time_is_real_though_the_loops_clock_leaps() -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, first_wait_s=0):
            for step in range(20):
                assert (await publisher.deliver(volume=step / 20)).applied

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@both
def test_one_that_leaves_is_awaited_no_longer(run: Run) -> None:
    """Both readers of a test run in tasks of their own, as in a service."""
    outcomes: list[str] = []
    asked = threading.Event()

    async def think(change: Change[Voice]) -> None:
        asked.set()
        await (trio.sleep(60) if run is under_trio else asyncio.sleep(60))

    async def deliver(publisher: FakePublisher) -> None:
        try:
            outcomes.append((await publisher.deliver(30, volume=0.3)).stage)
        except NobodyListens as error:
            outcomes.append(str(error))

    async def leave(publisher: FakePublisher) -> None:
        async with publisher.open(Voice, apply=think, first_wait_s=0):
            deliverer = threading.Thread(target=deliver_from_elsewhere, args=(publisher,))
            deliverer.start()
            while not asked.is_set():
                await (trio.sleep(0.01) if run is under_trio else asyncio.sleep(0.01))
        # not in the loop's own thread: one that stays open has yet to decide
        in_thread = trio.to_thread.run_sync if run is under_trio else asyncio.to_thread
        await in_thread(deliverer.join, 5)
        assert not deliverer.is_alive()

    def deliver_from_elsewhere(publisher: FakePublisher) -> None:
        run(lambda: deliver(publisher))

    async def main() -> None:
        publisher = FakePublisher("voice")
        await leave(publisher)
        assert outcomes.pop() == "voice was closed before it decided on revision 1"
        asked.clear()
        async with publisher.open(Voice, instance="stays", first_wait_s=5) as config:
            await leave(publisher)
            assert config.current.volume == 0.3
        assert outcomes in (["applied"], ["healthy"])

    run(main)


# ── what is delivered ──────────────────────────────────────────────────────────────────────────


class Awkward(BaseModel):
    """Settings of names that the kit's own arguments have, or had."""

    model_config = ConfigDict(extra="forbid")
    timeout: float = 1.0
    within_s: float = 1.0
    self: str = ""
    values: list[int] = []
    revision: int = 0


AWKWARD: dict[str, Any] = {
    "timeout": 5.0, "within_s": 2.0, "self": "me", "values": [1], "revision": 7,
}  # fmt: skip


@both
def test_any_name_may_be_a_settings(run: Run) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Awkward, first_wait_s=0) as config:
            assert (await publisher.deliver(**AWKWARD)).applied
            assert config.current.model_dump() == AWKWARD

    run(main)


def test_any_name_may_be_a_settings_or_a_secrets_without_an_event_loop_too() -> None:
    class Keys(BaseModel):
        timeout: SecretStr = SecretStr("")
        self: SecretStr = SecretStr("")

    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Awkward, first_wait_s=0) as config:
        assert publisher.deliver_and_wait(**AWKWARD).applied
        assert config.current.model_dump() == AWKWARD
        publisher.publish(**AWKWARD)
    publisher = FakePublisher("voice")
    publisher.set_secrets(timeout="t", self="s")
    with publisher.open_in_threads(Keys, first_wait_s=0) as keys:
        assert publisher.deliver_and_wait(5).applied
        assert keys.current.timeout.get_secret_value() == "t"
        assert keys.current.self.get_secret_value() == "s"


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), [float("inf")], 2**60, {"a": "\0"}, "\ud800", Path("x"), {1, 2}, b"x",
        SecretStr("x"), Voice(), {1: "a", "1": "b"}, "x" * 300_000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_no_server_takes_is_not_delivered_either(value: object) -> None:
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Voice, first_wait_s=0) as config:
        for give in (publisher.publish, publisher.deliver_and_wait):
            with pytest.raises(ValueError, match=r"name can't be delivered|a server takes"):
                give(name=value)
        assert publisher.deliver_and_wait(volume=0.1).revision == 1
        assert config.refusals == {}


def test_a_secret_is_text_and_of_several_all_are_stored_or_none() -> None:
    publisher = FakePublisher("voice")
    for wrong in (5, None, "\ud800", SecretStr("x")):
        with pytest.raises(ValueError, match="api_key"):
            publisher.set_secrets(other="x", api_key=wrong)  # type: ignore[arg-type]
    with publisher.open_in_threads(Guarded, first_wait_s=0) as config:
        assert publisher.deliver_and_wait(volume=0.1).applied
        assert config.refusals == {}


def test_another_services_program_is_told_whose_publisher_it_has() -> None:
    publisher = FakePublisher("voice")
    with pytest.raises(ValueError, match="voice's; ears takes one of its own"):
        publisher.open_in_threads(Voice, service="ears").open()


# ── several, and again ─────────────────────────────────────────────────────────────────────────


@both
def test_two_of_one_state_directory_are_both_awaited(run: Run, tmp_path: Path) -> None:
    async def slowly(change: Change[Voice]) -> None:
        await (trio.sleep(0.1) if run is under_trio else asyncio.sleep(0.1))

    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, state_dir=tmp_path, apply=slowly, first_wait_s=0) as one:
            async with publisher.open(Voice, state_dir=tmp_path, first_wait_s=0) as other:
                assert one.instance == other.instance
                assert (await publisher.deliver(volume=0.9)).applied
                assert one.current.volume == other.current.volume == 0.9
                numbers = {receipt.boot_seq for receipt in publisher.receipts}
                assert len(numbers) == 2
            assert (await publisher.deliver(volume=0.8)).applied  # the other left, this one did not
            assert one.current.volume == 0.8

    run(main)


class Sampled(BaseModel):
    rate: int = Field(default=16_000, json_schema_extra={"x-restart-required": True})
    volume: float = 0.5


@both
def test_what_a_test_calls_a_restart_is_one(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        state = tmp_path / "state"
        async with publisher.open(Sampled, state_dir=state, first_wait_s=0) as config:
            assert (await publisher.deliver(rate=8_000)).stage == "restart-required"
            assert config.current.rate == 16_000
        async with publisher.open(Sampled, state_dir=state) as config:
            assert (config.current.rate, config.source) == (8_000, "last-known-good")
            assert (await publisher.deliver(rate=8_000, volume=0.1)).applied
        async with publisher.open(Sampled, state_dir=state, bake_s=3600) as config:
            assert (await publisher.deliver(rate=8_000, volume=0.2)).stage == "applied"
        publisher.disconnect()
        async with publisher.open(Sampled, state_dir=state) as config:  # left on purpose: no poison
            assert (config.current.volume, config.refusals) == (0.2, {})

    run(main)


def test_a_restart_without_an_event_loop_and_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Sampled, state_dir="~/state", first_wait_s=0) as config:
        assert publisher.deliver_and_wait(rate=8_000).stage == "restart-required"
        names = {config.instance}
    with publisher.open_in_threads(Sampled, state_dir=tmp_path / "state") as config:
        assert config.current.rate == 8_000
        assert {config.instance} == names


# ── from other threads ─────────────────────────────────────────────────────────────────────────


@both
def test_a_publisher_is_used_from_any_thread(run: Run) -> None:
    """As where a framework's test client runs the program in a thread of its own."""
    publisher = FakePublisher("voice")
    opened, leaves = threading.Event(), threading.Event()
    seen: list[float] = []

    async def service() -> None:
        async with publisher.open(Voice, first_wait_s=0) as config:
            opened.set()
            while not leaves.is_set():
                await (trio.sleep(0.01) if run is under_trio else asyncio.sleep(0.01))
            seen.append(config.current.volume)

    thread = threading.Thread(target=run, args=(service,))
    thread.start()
    assert opened.wait(10)
    for step in range(10):
        assert publisher.deliver_and_wait(volume=step / 10).applied
    publisher.disconnect()
    publisher.publish(volume=1)
    publisher.reconnect()

    async def deliver() -> None:
        assert (await publisher.deliver(volume=0.7)).applied

    run(deliver)
    leaves.set()
    thread.join(10)
    assert seen == [0.7]


@both
def test_a_service_in_threads_is_fed_from_an_event_loop(run: Run) -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        with publisher.open_in_threads(Voice, first_wait_s=0) as config:
            assert (await publisher.deliver(volume=0.1)).applied
            assert publisher.deliver_and_wait(volume=0.2).applied
            assert config.current.volume == 0.2

    run(main)


def test_what_is_published_right_after_the_network_went_is_no_error() -> None:
    async def main() -> None:
        publisher = FakePublisher("voice")
        async with publisher.open(Voice, first_wait_s=0):
            await publisher.deliver(volume=0.1)
            publisher.disconnect()
            publisher.publish(volume=0.2)

    trio.run(main)


# ── whole programs ─────────────────────────────────────────────────────────────────────────────


def make_wsgi_app(config: Config[Voice]) -> Callable[..., list[bytes]]:
    """As Flask's: whoever makes it gives it what it reads."""

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [])
        return [str(config.current.volume).encode()]

    return app


def test_a_wsgi_program_is_given_its_configuration() -> None:
    publisher = FakePublisher("voice")
    with publisher.open_in_threads(Voice, first_wait_s=0) as config:
        app = make_wsgi_app(config)
        assert publisher.deliver_and_wait(volume=0.8).applied
        assert app({}, lambda *_: None) == [b"0.8"]


def test_a_program_that_opens_and_closes_gets_a_config_of_the_kits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a module that a server imports; `Config` is a name of this one."""
    publisher = FakePublisher("voice")
    monkeypatch.setattr(sys.modules[__name__], "Config", publisher.open_in_threads)
    changed = threading.Event()
    config = Config(Voice, service="voice")
    config.on_change(lambda _: changed.set())
    with pytest.raises(RuntimeError, match="not open"):
        _ = config.current
    assert config.open() is config
    assert publisher.deliver_and_wait(volume=0.8).applied
    assert changed.wait(5)
    app = make_wsgi_app(config)
    config.close()
    config.close()
    assert app({}, lambda *_: None) == [b"0.8"]
    with pytest.raises(NobodyListens):
        publisher.deliver_and_wait(volume=0.9)
    with pytest.raises(RuntimeError, match="make another"):
        config.open()


def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    publisher = FakePublisher("voice")
    config = publisher.open_in_threads(Voice, require=True, first_wait_s=0, state_dir=tmp_path)
    with pytest.raises(NothingDelivered):
        config.open()
    with pytest.raises(NobodyListens):
        publisher.deliver_and_wait(volume=0.9)
    with publisher.open_in_threads(Voice, first_wait_s=0, state_dir=tmp_path) as another:
        assert another.source == "defaults"


class AsgiApp:
    """As FastAPI's: it opens its configuration in its lifespan, by a name of its module."""

    config: LiveConfig[Voice]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with open_config(Voice, service="voice") as self.config:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            body = str(self.config.current.volume).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})


def test_a_program_that_opens_its_configuration_itself_gets_the_kits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = FakePublisher("voice")
    monkeypatch.setattr(sys.modules[__name__], "open_config", publisher.open)

    async def main() -> None:
        app, told = AsgiApp(), list[Any]()
        calls: asyncio.Queue[Any] = asyncio.Queue()
        answers: asyncio.Queue[Any] = asyncio.Queue()
        life = asyncio.create_task(app({"type": "lifespan"}, calls.get, answers.put))
        await calls.put({"type": "lifespan.startup"})
        assert (await answers.get())["type"] == "lifespan.startup.complete"
        assert (await publisher.deliver(volume=0.8)).applied

        async def note(message: Any) -> None:
            told.append(message)

        await app({"type": "http"}, calls.get, note)
        assert told[1]["body"] == b"0.8"
        await calls.put({"type": "lifespan.shutdown"})
        await life

    run_asyncio(main())


# ── the page ───────────────────────────────────────────────────────────────────────────────────

PAGE = Path(__file__).resolve().parents[3] / "docs" / "testing.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("plugin", ["trio_mode=true", "anyio_mode=auto"])
def test_the_page_is_true(tmp_path: Path, plugin: str) -> None:
    """Its examples, in the order in which they stand there, run by pytest."""
    blocks = _BLOCK.findall(PAGE.read_text())
    known = [one for one in blocks if _can_be_imported(one)]
    assert len(known) > 5
    for number, block in enumerate(known):
        if block.startswith("# "):  # a file of its own
            (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block)
            continue
        (tmp_path / f"test_{number}.py").write_text("from service import *\n\n" + block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", plugin]
    done = subprocess.run(
        [*command, "-o", f"pythonpath={tmp_path}", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(
        re.findall(r"^(?:async )?def test_", "\n".join(known), re.MULTILINE)
    )
    assert "skipped" not in done.stdout


def _can_be_imported(block: str) -> bool:
    return all(importlib.util.find_spec(name) for name in ("fastapi", "flask") if name in block)
