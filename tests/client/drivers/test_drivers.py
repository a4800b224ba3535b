"""What the Trio and the asyncio driver have in common: one suite, told to both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from config_manager.client import Change, NotNow
from config_manager.client.model.published_schema import published_schema
from config_manager.client.rules.set_aside import ROOT_MAY_FOLLOW_S
from config_manager.client.state.claim import Claim
from config_manager.client.state.identity import load_identity
from config_manager.config import wire
from config_manager.config.errors import (
    ConfigurationStale,
    InvalidName,
    NothingDelivered,
    SettingsInvalid,
)
from tests.kit import documents as m
from tests.kit import roots as r
from tests.kit.client_drivers import KITS, Broker, Kit, told
from tests.kit.client_story import Settings


@pytest.fixture(params=KITS, ids=lambda kit: kit.name)
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    kit: Kit = request.param(tmp_path)
    return kit


async def deliver_first(it: Kit, revision: int = 5) -> None:
    """As an earlier process left it: applied and proved."""
    it.a.configures(revision)
    it.a.vouches(revision, 1)
    async with it.open(bake_s=0.0):
        pass
    it.brokers["a"] = Broker()


async def connect(it: Kit) -> None:
    await it.until(lambda: it.a.sessions and it.a.sessions[0].filters, every=0.01)


# ── opening ────────────────────────────────────────────────────────────────────────────────────


@told
async def test_a_first_start_waits_for_what_the_broker_holds(it: Kit) -> None:
    it.a.configures(5)
    it.a.vouches(5, 1)
    async with it.open() as config:
        assert (config.current, config.source) == (Settings(whisper_model="base.en", n=5), "broker")
        assert isinstance(config.current, Settings)
        with pytest.raises(ValidationError):
            config.current.n = 6
        assert it.time() < 0.1 or it.name == "asyncio"
        assert (config.service, config.freshness, config.overrides) == (m.SERVICE, "fresh", ())
        assert config.explain("n").revision == 5
        with pytest.raises(KeyError):
            config.explain("nothing")
        assert "hunter2" not in repr(config)


@told
async def test_a_first_start_with_nobody_there_runs_on_the_defaults_after_5_s(it: Kit) -> None:
    it.a.is_up = False
    began = it.time()
    async with it.open() as config:
        assert 5 <= it.time() - began < 5.5
        assert (config.current, config.source) == (Settings(), "defaults")
        it.a.is_up = True
        it.a.configures(5)
        it.a.vouches(5, 1)
        await it.until(lambda: config.current.n == 5)  # and catches up
        assert config.source == "broker"


@told
async def test_with_require_nobody_there_is_an_error_of_its_own_class(it: Kit) -> None:
    it.a.is_up = False
    began = it.time()
    with pytest.raises(NothingDelivered, match="none was delivered within 20 s"):
        async with it.open(require=True):
            pytest.fail("it must not open")
    assert 20 <= it.time() - began < 22


@told
async def test_a_publisher_that_holds_nothing_for_the_service_is_not_waited_for(it: Kit) -> None:
    it.a.vouches(None, 1)
    began = it.time()
    async with it.open() as config:
        assert (config.source, it.time() - began < 1) == ("defaults", True)


@told
async def test_a_configuration_right_behind_such_a_snapshot_still_makes_it(it: Kit) -> None:
    it.a.vouches(None, 1)

    async def publish() -> None:
        await it.sleep(0.3)
        it.a.configures(5)

    async def open_it() -> None:
        async with it.open(require=True) as config:
            assert config.current.n == 5

    await it.together(publish, open_it)


@told
async def test_a_restart_runs_what_was_kept_at_once_without_any_network(it: Kit) -> None:
    await deliver_first(it)
    it.a.is_up = False
    began = it.time()
    async with it.open(require=True) as config:
        assert (config.current.n, config.source) == (5, "last-known-good")
        assert it.time() - began < 0.5


@told
async def test_require_also_holds_where_what_was_kept_no_longer_fits(it: Kit) -> None:
    class Other(BaseModel):
        n: str = "default"

    await deliver_first(it)
    with pytest.raises(NothingDelivered):
        async with it.open(model=Other, require=True):
            pytest.fail("it must not open")
    async with it.open(model=Other) as config:
        assert (config.current.n, config.source) == ("default", "defaults")


@told
async def test_with_require_a_model_needs_no_defaults(it: Kit) -> None:
    class Demanding(BaseModel):
        n: int

    asked = list[Any]()
    with pytest.raises(SettingsInvalid, match="n: Field required; .* require=True"):
        async with it.open(model=Demanding):
            pytest.fail("it must not open")
    it.a.configures(5)
    it.a.vouches(5, 1)
    async with it.open(model=Demanding, require=True, apply=asked.append) as config:
        assert (config.current.n, config.source) == (5, "broker")
        assert asked[0].keys == {"n"}
        assert config.explain("n").revision == 5
    it.a.is_up = False
    async with it.open(model=Demanding, require=True) as config:
        assert (config.current.n, config.source) == (5, "last-known-good")


@told
async def test_an_open_that_fails_leaves_the_kept_file_to_the_next(it: Kit) -> None:
    class Demanding(BaseModel):
        n: int

    with pytest.raises(SettingsInvalid) as caught:
        async with it.open(model=Demanding):
            pytest.fail("it must not open")
    claim = Claim(it.state, m.SERVICE)
    assert claim.take(), f"still held, as long as somebody looks at {caught.value!r}"
    claim.close()


@told
async def test_with_require_a_model_without_defaults_never_runs_on_nothing(it: Kit) -> None:
    class Demanding(BaseModel):
        whisper: str

    it.a.configures(5)
    it.a.vouches(5, 1)
    with pytest.raises(NothingDelivered):
        async with it.open(model=Demanding, require=True):
            pytest.fail("it must not open")
    assert it.a.stage == "refused 5"


@told
async def test_no_broker_at_all_is_a_way_to_run(it: Kit) -> None:
    await deliver_first(it)
    async with it.open(mqtt_url="none:") as config:
        await it.sleep(100)
        assert (config.current.n, config.freshness) == (5, "stale (no-beacon)")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"service": "../etc"}, InvalidName),
        ({"service": None}, SettingsInvalid),
        ({"mqtt_url": "http://x"}, SettingsInvalid),
        ({"mqtt_url": "auto:"}, SettingsInvalid),
        ({"state_dir": "/nowhere"}, SettingsInvalid),
    ],
)
@told
async def test_what_was_asked_for_wrongly_is_said_before_anything_starts(
    it: Kit, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with it.open(**options):
            pytest.fail("it must not open")
    assert it.a.client_ids == []


# ── changing ───────────────────────────────────────────────────────────────────────────────────


@told
async def test_a_change_is_current_and_each_reader_gets_it_once(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await connect(it)
        first, second = config.changes(), config.changes()
        before = config.current
        it.a.configures(6)
        one: Change[Any] = await anext(first)
        assert (one.old, one.new, one.keys, one.revision) == (
            before, config.current, frozenset({"n"}), 6,
        )  # fmt: skip
        assert (config.current.n, before.n) == (6, 5)
        for _ in range(3):
            it.a.configures(6)
        it.a.configures(7)
        assert (await anext(first)).revision == 7
        assert [(await anext(second)).revision for _ in range(2)] == [6, 7]


@told
async def test_a_reader_begins_with_the_call_not_with_its_first_wait(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await connect(it)
        it.a.configures(6)
        await it.until(lambda: config.current.n == 6)
        late = config.changes()
        it.a.configures(7)
        await it.until(lambda: config.current.n == 7)
        assert (await anext(late)).revision == 7


@told
async def test_who_still_reads_changes_when_the_block_ends_is_through(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        early, late = config.changes(), config.changes()
        it.a.configures(6)
        await it.until(lambda: config.current.n == 6)
        assert (await anext(late)).new.n == 6
    assert [change.new.n async for change in early] == [6]
    assert not [change async for change in late]
    assert not [change async for change in config.changes()]


@told
async def test_who_never_reads_costs_no_more_than_the_newest_256_changes(it: Kit) -> None:
    await deliver_first(it)
    async with it.open(bake_s=0.0) as config:
        await connect(it)
        changes = config.changes()
        for revision in range(6, 306):
            it.a.configures(revision)
        await it.until(lambda: config.current.n == 305)
        assert (await anext(changes)).revision == 305 - 256 + 1


@pytest.mark.parametrize("is_async", [True, False])
@told
async def test_a_callback_that_raises_leaves_current_alone_and_the_receipt_says_why(
    it: Kit, is_async: bool
) -> None:
    def refuse(change: Change[Any]) -> None:
        if change.new.n == 6:
            raise LookupError("no such model")

    async def refuse_slowly(change: Change[Any]) -> None:
        await it.sleep(1)
        refuse(change)

    await deliver_first(it)
    async with it.open(apply=refuse_slowly if is_async else refuse) as config:
        it.a.configures(6)
        await it.until(lambda: it.a.receipts and it.a.stage == "refused 6")
        attempt = it.a.last.last_attempt
        assert attempt is not None
        assert attempt.reason == "callback: LookupError: no such model"
        assert (config.current.n, config.refusals["callback"]) == (5, 1)
        it.a.configures(7)
        await it.until(lambda: config.current.n == 7)


@told
async def test_a_slow_callback_holds_up_nothing_but_its_own_change(it: Kit) -> None:
    go_on, asked = it.event(), list[int]()

    async def load(change: Change[Any]) -> None:
        asked.append(change.new.n)
        await go_on.wait()

    await deliver_first(it)
    async with it.open(apply=load) as config:
        it.a.configures(6)
        await it.until(lambda: asked == [6])
        await it.sleep(5)
        assert it.a.stage == "received 6"
        for seq in range(2, 12):
            it.a.vouches(6, seq)
            it.a.configures(6)
            await it.sleep(10)
            assert (config.freshness, config.current.n) == ("fresh", 5)
        attempt = it.a.last.last_attempt
        assert attempt is not None
        assert (it.a.stage, attempt.reason) == (
            "deferred 6",
            "the callback has not answered for 30 s",
        )
        go_on.set()
        await it.until(lambda: config.current.n == 6)
        await it.until(lambda: it.a.stage == "healthy 6")
        assert asked == [6]


@told
async def test_not_now_asks_again_and_a_newer_one_overtakes(it: Kit) -> None:
    asked = list[tuple[int, float]]()

    def later(change: Change[Any]) -> None:
        asked.append((change.new.n, it.time()))
        if len(asked) < 3:
            raise NotNow(5)

    await deliver_first(it)
    async with it.open(apply=later) as config:
        it.a.configures(6)
        await it.until(lambda: len(asked) == 2)
        assert 5 <= asked[1][1] - asked[0][1] <= 6.5
        it.a.configures(7)
        await it.until(lambda: config.current.n == 7)
        assert [n for n, _ in asked] == [6, 6, 7]


@told
async def test_nothing_changes_in_a_hold_and_what_waited_comes_right_after_it(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        with config.hold():
            it.a.configures(6)
            await it.sleep(30)
            assert (config.current.n, it.a.stage) == (5, "deferred 6")
            ended = it.time()
        await it.until(lambda: config.current.n == 6, every=0.01)
        assert it.time() - ended < 0.1


@told
async def test_a_hold_ends_also_where_its_block_fails(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        with pytest.raises(ZeroDivisionError), config.hold():
            it.a.configures(6)
            await it.sleep(1)
            raise ZeroDivisionError
        await it.until(lambda: config.current.n == 6)


@told
async def test_what_a_broker_makes_up_changes_nothing_and_is_counted(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await connect(it)
        for junk in (b"", b"\xff", b"[" * 100_000, m.update_bytes(6, key=m.STRANGER)):
            it.a.says(m.TOPIC, junk)
        it.a.configures(4)
        it.a.configures(6, config={"n": "x"})
        await it.until(lambda: config.refusals["model"])
        assert config.current.n == 5
        assert config.refusals == {"malformed": 3, "unknown-key": 1, "rolled-back": 1, "model": 1}
        it.a.configures(7)
        await it.until(lambda: config.current.n == 7)


@told
async def test_what_it_dies_of_within_its_bake_time_is_not_run_again(it: Kit) -> None:
    """The death of a process is played by a disk that takes nothing of its farewell."""
    await deliver_first(it)
    async with it.open() as config:
        it.a.configures(6)
        await it.until(lambda: config.current.n == 6)
        await it.until(lambda: it.a.stage == "applied 6")  # told once it is on disk
        it.disk.full = True
    it.disk.full = False
    async with it.open() as config:
        await it.sleep(5)
        assert (config.current.n, it.a.stage) == (6, "applied 6")
        it.disk.full = True
    it.disk.full = False
    async with it.open() as config:
        await it.sleep(5)
        assert (config.current.n, it.a.stage) == (5, "poisoned 6")
        it.a.configures(7)
        await it.until(lambda: config.current.n == 7)


# ── newer roots ────────────────────────────────────────────────────────────────────────────────

SECOND = r.root(2, config=(r.SECOND_CONFIG,))
THIRD = r.root(3, r.ROOT_KEY, r.SECOND_ROOT, root=(r.SECOND_ROOT,), config=(r.SECOND_CONFIG,))
FOURTH = r.root(4, r.SECOND_ROOT, root=(r.SECOND_ROOT,), config=(r.THIRD_CONFIG,))


@told
async def test_roots_are_walked_and_kept_and_a_start_offline_goes_on_from_there(it: Kit) -> None:
    await deliver_first(it)
    it.a.configures(6, key=r.THIRD_CONFIG)
    for version, data in ((4, FOURTH), (3, THIRD), (2, SECOND)):
        it.a.says(wire.root_topic(version), data)
    async with it.open(bake_s=0.0) as config:
        await it.until(lambda: config.current.n == 6, within=3)
        assert config.refusals.total() == 0
    assert [link.data for link in load_identity(it.state).chain[1:]] == [SECOND, THIRD, FOURTH]
    async with it.open(mqtt_url="none:") as config:
        assert config.current.n == 6


@told
async def test_at_a_broker_that_gives_wildcards_nothing_retained_every_root_is_found_by_name(
    it: Kit,
) -> None:
    await deliver_first(it)
    it.a.gives_to_wildcards = False
    newest = 9  # further than is subscribed ahead
    for version in range(2, newest + 1):
        key = r.THIRD_CONFIG if version == newest else r.SECOND_CONFIG
        it.a.says(wire.root_topic(version), r.root(version, config=(key,)))
    it.a.configures(6, key=r.THIRD_CONFIG)
    async with it.open(bake_s=0.0) as config:
        await it.until(lambda: config.current.n == 6, within=3)
        assert config.refusals.total() == 0
        (session,) = it.a.sessions
        assert wire.root_topic(newest + 3) in session.filters
        assert len(session.filters) == len(set(session.filters)) == 6 + newest + 2
        it.a.says(wire.root_topic(newest + 1), r.root(newest + 1, config=(r.SECOND_CONFIG,)))
        it.a.configures(7, key=r.SECOND_CONFIG)
        await it.until(lambda: config.current.n == 7, within=3)
        assert wire.root_topic(newest + 4) in session.filters


@told
async def test_what_a_revoked_key_signed_goes_on_also_after_a_restart_and_says_so(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await connect(it)
        it.a.says(wire.root_topic(2), SECOND)
        await it.until(lambda: config.freshness == "stale (signer-revoked)")
        assert config.current.n == 5
        it.a.configures(6)
        await it.until(lambda: config.refusals["unknown-key"])
    async with it.open() as config:
        assert config.current.n == 5
        await it.until(lambda: config.freshness == "stale (signer-revoked)")
        it.a.configures(6, key=r.SECOND_CONFIG)
        it.a.vouches(6, 2)
        await it.until(lambda: config.freshness == "fresh")
        assert config.current.n == 6


@told
async def test_a_root_that_is_not_on_disk_is_not_acted_on(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await connect(it)
        it.disk.full = True
        it.a.says(wire.root_topic(2), SECOND)
        it.a.configures(6, key=r.SECOND_CONFIG)
        await it.sleep(30)
        assert config.current.n == 5
        assert load_identity(it.state).root.version == 1
        it.disk.full = False
        await it.until(lambda: config.current.n == 6, within=3)
    assert load_identity(it.state).root.version == 2


@told
async def test_an_unknown_key_is_said_half_a_second_later_and_not_at_the_next_tick(
    it: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    await deliver_first(it)
    async with it.open():
        await connect(it)
        for n in range(3):
            await it.sleep(1.3)
            caplog.clear()
            it.a.configures(6 + n, key=m.STRANGER)
            began = it.time()
            await it.until(lambda: "refused" in caplog.text, every=0.02)
            assert ROOT_MAY_FOLLOW_S <= it.time() - began < ROOT_MAY_FOLLOW_S + 0.2


# ── a full disk ────────────────────────────────────────────────────────────────────────────────


@told
async def test_a_full_disk_delays_a_change_and_loses_none(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        it.disk.full = True
        it.a.configures(6)
        await it.sleep(30)
        assert (config.current.n, it.disk.refused > 10) == (5, True)
        it.disk.full = False
        await it.until(lambda: config.current.n == 6, within=3)


@told
async def test_a_full_disk_at_the_end_of_a_hold_delays_the_change_and_does_not_lose_it(
    it: Kit,
) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await connect(it)
        with config.hold():
            it.a.configures(6)
            await it.sleep(1)
            it.disk.full = True
        await it.sleep(30)
        assert (config.current.n, it.disk.refused > 10) == (5, True)
        it.disk.full = False
        await it.until(lambda: config.current.n == 6, within=3)


@told
async def test_a_full_disk_keeps_nobody_from_starting_or_leaving(it: Kit) -> None:
    await deliver_first(it)
    it.a.configures(6)
    async with it.open() as config:
        await it.until(lambda: config.current.n == 6)  # on trial: the next start has to note it
    it.disk.full = True
    began = it.time()
    async with it.open(mqtt_url="none:") as config:
        assert config.current.n == 6
    assert it.time() - began < 3


# ── leaving ────────────────────────────────────────────────────────────────────────────────────


@told
async def test_the_last_word_to_every_broker_is_gone(it: Kit) -> None:
    await deliver_first(it)
    async with it.open(mqtt_url="mqtt://a,mqtt://b"):
        await it.until(lambda: it.a.receipts and it.b.receipts)
        assert not it.a.last.gone
        assert not it.b.last.gone
    for broker in (it.a, it.b):
        assert broker.last.gone
        assert broker.sessions == []
        assert broker.last.running is not None
        assert broker.last.running.revision == 5


@told
async def test_a_broker_that_never_acknowledges_holds_up_leaving_for_a_second(it: Kit) -> None:
    await deliver_first(it)
    it.a.acknowledges = False
    async with it.open():
        await it.sleep(5)
        left = it.time()
    assert it.time() - left < 1.5


@told
async def test_what_the_body_raises_comes_out_as_it_is(it: Kit) -> None:
    await deliver_first(it)
    mine = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with it.open():
            await it.until(lambda: it.a.receipts)
            raise mine
    assert caught.value is mine
    assert it.a.last.gone


@told
async def test_a_group_that_the_body_raises_is_not_taken_apart(it: Kit) -> None:
    mine = ExceptionGroup("mine", [LookupError("one")])
    it.a.is_up = False
    with pytest.raises(ExceptionGroup) as caught:
        async with it.open():
            raise mine
    assert caught.value is mine


@told
async def test_what_is_raised_before_the_first_configuration_came_is_told_from_it(it: Kit) -> None:
    """A wrong option of ours and a failing network never look alike."""
    it.a.failure = RuntimeError("a bug in the transport")
    with pytest.raises(RuntimeError, match="a bug in the transport"):
        async with it.open():
            await it.forever()


@told
async def test_a_bug_in_our_background_ends_the_block_with_that_very_error(it: Kit) -> None:
    await deliver_first(it)
    with pytest.raises(RuntimeError, match="a bug in the transport"):
        async with it.open():
            await it.until(lambda: it.a.sessions)
            it.a.failure = RuntimeError("a bug in the transport")
            it.a.drops_all()
            await it.forever()


@told
async def test_a_cancelled_service_leaves_in_order(it: Kit) -> None:
    await deliver_first(it)
    left = list[str]()

    async def serve(_: Any) -> None:
        async with it.open() as config:
            try:
                async for _change in config.changes():
                    pytest.fail("nothing changed")
            finally:
                left.append("the body")

    assert await it.cancelled(serve, after=30)
    assert left == ["the body"]
    assert it.a.last.gone
    assert it.a.sessions == []


@told
async def test_cancelling_ends_a_callback_that_is_still_at_it(it: Kit) -> None:
    await deliver_first(it)
    ended = list[str]()

    async def load(_: Any) -> None:
        try:
            await it.forever()
        finally:
            ended.append("the callback")

    async def serve(_: Any) -> None:
        async with it.open(apply=load):
            await it.until(lambda: it.a.sessions)
            it.a.configures(6)
            await it.forever()

    assert await it.cancelled(serve, after=30)
    assert ended == ["the callback"]
    it.a.is_up = False
    async with it.open() as config:  # nobody said yes to it
        assert config.current.n == 5
    it.a.is_up = True
    async with it.open() as config:  # but it was no death either: it is asked about again
        await it.until(lambda: config.current.n == 6)
        assert not config.refusals


@told
async def test_cancelled_while_it_waits_for_the_first_it_never_opens(it: Kit) -> None:
    it.a.is_up = False

    async def serve(_: Any) -> None:
        async with it.open():
            pytest.fail("it must not open")

    assert await it.cancelled(serve, after=1)


@told
async def test_it_can_be_opened_again_and_again(it: Kit) -> None:
    await deliver_first(it)
    for _ in range(5):
        async with it.open() as config:
            assert config.current.n == 5
    orders = [receipt.order for receipt in it.a.receipts if not receipt.gone]
    assert orders == sorted(set(orders))


# ── stale ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", ["report", "warn", "stop"])
@told
async def test_past_max_stale_only_stop_stops_the_service(it: Kit, policy: Any) -> None:
    await deliver_first(it)
    it.a.configures(5)
    it.a.vouches(5, 2)

    async def serve() -> None:
        async with it.open(max_stale_s=60.0, on_stale=policy) as config:
            await it.sleep(85)
            assert config.freshness == "stale (no-beacon)"
            await it.sleep(120)

    began = it.time()
    if policy == "stop":
        with pytest.raises(ConfigurationStale, match=r"stt-worker: stale \(no-beacon\)"):
            await serve()
        assert 90 <= it.time() - began <= 94
        assert it.a.last.gone
    else:
        await serve()
        assert it.a.last.freshness == "stale (no-beacon)"


@told
async def test_beacons_keep_it_fresh_and_a_withheld_configuration_is_noticed(it: Kit) -> None:
    await deliver_first(it)
    with pytest.raises(ConfigurationStale, match="withheld"):
        async with it.open(max_stale_s=1.0, on_stale="stop") as config:
            for seq in range(2, 20):
                it.a.vouches(5, seq)
                await it.sleep(10)
                assert config.freshness == "fresh"
            began = it.time()
            for seq in range(20, 30):
                it.a.vouches(6, seq)
                await it.sleep(10)
    assert it.time() - began < 60


# ── brokers ────────────────────────────────────────────────────────────────────────────────────


@told
async def test_a_lost_connection_is_made_again_and_the_will_is_taken_back(it: Kit) -> None:
    await deliver_first(it)
    async with it.open() as config:
        await it.until(lambda: it.a.receipts)
        it.a.drops_all()
        assert it.a.last.gone
        it.a.configures(6)
        await it.until(lambda: config.current.n == 6)
        await it.until(lambda: not it.a.last.gone)
        assert len(set(it.a.client_ids)) == 1  # the broker may know it again


@told
async def test_a_broker_that_is_down_for_long_is_asked_at_most_every_30_s(it: Kit) -> None:
    await deliver_first(it)
    it.a.is_up = False
    async with it.open() as config:
        await it.sleep(300)
        early = len(it.a.client_ids)
        await it.sleep(300)
        # jitter: half of it on average
        assert 300 / 30 <= len(it.a.client_ids) - early <= 300 / 30 * 4
        it.a.is_up = True
        it.a.configures(6)
        await it.until(lambda: config.current.n == 6, within=31)


@told
async def test_the_newest_that_any_broker_has_is_what_runs_and_it_is_asked_once(it: Kit) -> None:
    await deliver_first(it)
    asked = list[int]()
    it.a.configures(4)  # an old one that came back from a backup
    it.b.configures(6)
    async with it.open(
        mqtt_url="mqtt://a,mqtt://b", apply=lambda change: asked.append(change.new.n)
    ) as config:
        await it.until(lambda: config.current.n == 6)
        it.a.configures(6)
        it.b.drops_all()
        await it.until(lambda: it.b.sessions)
        it.b.is_up = False
        it.b.drops_all()
        it.a.configures(7)
        await it.until(lambda: config.current.n == 7)
        await it.until(lambda: it.a.stage == "healthy 7")
    assert asked == [6, 7]


@told
async def test_each_broker_holds_a_receipt_that_only_ever_rises(it: Kit) -> None:
    await deliver_first(it)
    async with it.open(mqtt_url="mqtt://a,mqtt://b") as config:
        for revision in range(6, 16):
            (it.a if revision % 2 else it.b).configures(revision)
            await it.until(lambda at=revision: config.current.n == at)  # type: ignore[misc]
            if revision % 4 == 0:
                it.a.drops_all()
        await it.until(lambda: it.a.stage == it.b.stage == "healthy 15")
    for broker in (it.a, it.b):
        live = [receipt.order for receipt in broker.receipts if not receipt.gone]
        assert live == sorted(set(live))
        assert broker.receipts[-1].order == max(receipt.order for receipt in broker.receipts)


@told
async def test_overrides_go_up_by_name(it: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_WORKER_WHISPER_MODEL", "hunter2")
    await deliver_first(it)
    async with it.open() as config:
        await it.until(lambda: it.a.receipts)
        assert (config.overrides, it.a.last.overrides) == (("whisper_model",),) * 2
        assert config.current.whisper_model == "hunter2"
        assert config.explain("whisper_model").shadowed == "base.en"
    assert b"hunter2" not in b"".join(it.a.retained.values())


@told
async def test_it_asks_for_its_own_topics_and_nobody_elses(it: Kit) -> None:
    async with it.open(first_wait_s=1.0) as config:
        (session,) = it.a.sessions
        assert set(session.filters) == {
            m.TOPIC, wire.SNAPSHOT_TOPIC, wire.KEEPALIVE_TOPIC, wire.ROOTS_FILTER,
            wire.sealed_topic(m.SERVICE, config.instance),
            *map(wire.root_topic, (2, 3, 4)),
            wire.schema_topic(m.SERVICE, published_schema(Settings).digest),
        }  # fmt: skip
