"""When an instance may be forgotten, and what the board shows of it from then on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from config_manager.actors.forgetting import ForgetInstance
from config_manager.actors.receipt_reading import InstanceStatus
from config_manager.actors.statuses import (
    Leftover,
    NewlyRuns,
    NotTaken,
    StatusBoard,
)
from config_manager.actors.views import BrokerView
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Receipt
from config_manager.config.errors import NotFound, StillThere
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.decisions.changes import Occasion
from config_manager.storage.decisions.forgotten import forgotten
from config_manager.storage.decisions.intents import Delete, Put
from config_manager.storage.state import Committed
from tests.actors.test_statuses import NOW, TOPIC, make, running, seal
from tests.kit.stores import after, empty

DAY_S = 24 * 3600.0
MINUTE_S = 60.0


class Desk:
    """A board, what brokers tell it, and an operator who forgets."""

    def __init__(self, committed: Committed | None = None) -> None:
        self.committed = committed if committed is not None else empty()
        self.board = StatusBoard(forgotten=lambda *name: forgotten(self.committed, *name))
        self.brokers = [BrokerView("A", "connected"), BrokerView("B", "connected")]
        self.now = NOW

    def take(
        self, receipt: Receipt, *, retained: bool, broker: str = "A", key: str = "a"
    ) -> object:
        return self.board.take(
            broker, TOPIC, seal(receipt.to_bytes(), key=key), retained=retained, now=self.now
        )

    def live(self, receipt: Receipt, **how: Any) -> object:
        return self.take(receipt, retained=False, **how)

    def retained(self, receipt: Receipt, **how: Any) -> object:
        return self.take(receipt, retained=True, **how)

    async def forget(self) -> dict[str, Any]:
        what = ForgetInstance.of("stt-worker", "kitchen", self.board, self.brokers)
        done = what.decide(self.committed, Occasion("ada", None, self.now, "id"))
        self.committed = done.change.after
        return done.answer

    @property
    def shown(self) -> list[InstanceStatus]:
        return self.board.statuses()

    def restart(self) -> None:
        """What is committed stays; what brokers retain is read anew."""
        self.board = StatusBoard(forgotten=lambda *name: forgotten(self.committed, *name))


# ── when ───────────────────────────────────────────────────────────────────────────────────────


async def test_one_that_has_gone_is_forgotten_at_once() -> None:
    desk = Desk()
    desk.live(make(4))
    desk.live(make(5, gone=True))
    assert await desk.forget() == {
        "service": "stt-worker", "instance": "kitchen", "forgotten": True, "away": [],
    }  # fmt: skip
    assert desk.shown == []
    assert desk.committed.audit_seq == 1


async def test_one_of_which_nothing_is_known_is_not_found() -> None:
    with pytest.raises(NotFound, match="nothing is known of stt-worker/kitchen"):
        await Desk().forget()


async def test_one_that_is_there_is_still_there_and_the_refusal_says_what_to_do() -> None:
    desk = Desk()
    desk.live(make(4))
    desk.now += DAY_S - 1
    with pytest.raises(StillThere, match="15 s.*5 minutes") as refused:
        await desk.forget()
    assert rfc3339(NOW) in refused.value.detail
    assert rfc3339(NOW + DAY_S) in refused.value.detail
    assert len(desk.shown) == 1
    assert desk.committed.audit_seq == 0


async def test_one_that_died_with_its_broker_and_says_nothing_for_a_day_is_forgotten() -> None:
    desk = Desk()
    desk.live(make(4))
    desk.now += DAY_S
    await desk.forget()
    assert desk.shown == []


async def test_after_a_restart_a_receipt_counts_from_when_it_says_it_was_made() -> None:
    old, new = rfc3339(NOW - DAY_S), rfc3339(NOW - DAY_S + 1)
    desk = Desk()
    desk.retained(make(4, at=new))
    with pytest.raises(StillThere):
        await desk.forget()
    desk = Desk()
    desk.retained(make(4, at=old))
    await desk.forget()
    ahead = Desk()
    ahead.retained(make(4, at=rfc3339(NOW + 10 * DAY_S)))  # its clock is: never later than it came
    ahead.now += DAY_S
    await ahead.forget()


async def test_the_newest_thing_that_any_broker_told_counts() -> None:
    desk = Desk()
    desk.live(make(4), broker="A")
    desk.retained(make(5, at=rfc3339(NOW - 10 * DAY_S)), broker="B")  # its clock was set meanwhile
    with pytest.raises(StillThere):
        await desk.forget()


WRITTEN = after(Put(service="stt-worker", values={}), Put(service="stt-worker", values={}))
WRITTEN_AT = parse_rfc3339(WRITTEN.services["stt-worker"].updated_at)


async def unanswered(
    autojump_clock: MockClock,
    receipt: Receipt,
    *,
    committed: Committed = WRITTEN,
    for_s: float = 5 * MINUTE_S,
    connected_s: float = 5 * MINUTE_S,
    holds: int = 2,
) -> Desk:
    """An instance that said this when revision 2 was written, some time later."""
    desk = Desk(committed)
    desk.now = WRITTEN_AT
    desk.live(receipt)
    desk.now += for_s
    desk.brokers[0].since = trio.current_time()
    desk.brokers[0].holds["stt-worker"] = holds
    await trio.sleep(connected_s)
    return desk


@pytest.mark.parametrize(
    "receipt",
    [
        make(4, running=running(1), last_attempt=Attempt(1, "healthy")),
        make(4, running=None, last_attempt=None, source="defaults"),
    ],
    ids=["runs what was before", "runs its defaults"],
)
async def test_one_that_leaves_a_change_unanswered_is_forgotten(
    autojump_clock: MockClock, receipt: Receipt
) -> None:
    desk = await unanswered(autojump_clock, receipt)
    await desk.forget()
    assert desk.shown == []


BEHIND = make(4, running=running(1), last_attempt=Attempt(1, "healthy"))
DELETED = after(
    Put(service="stt-worker", values={}),
    Put(service="stt-worker", values={}),
    Delete(service="stt-worker"),
)


@pytest.mark.parametrize(
    ("receipt", "how"),
    [
        (BEHIND, {"for_s": 5 * MINUTE_S - 1}),
        (BEHIND, {"connected_s": 5 * MINUTE_S - 1}),
        (BEHIND, {"holds": 1}),
        (BEHIND, {"committed": DELETED, "holds": 3}),
        (make(4, running=running(1), last_attempt=Attempt(2, "received")), {}),
        (make(4, running=running(1), last_attempt=Attempt(2, "refused", "model")), {}),
        (make(4, running=running(2), last_attempt=None), {}),
        (make(4, running=running(3), last_attempt=None), {}),
    ],
    ids=["there was not time enough", "its broker came back just now", "its broker does not hold it",
         "it was deleted, which needs no answer", "it received it", "it refused it", "it runs it",
         "it is ahead of us"],
)  # fmt: skip
async def test_one_that_answered_or_could_not_is_still_there(
    autojump_clock: MockClock, receipt: Receipt, how: dict[str, Any]
) -> None:
    desk = await unanswered(autojump_clock, receipt, **how)
    with pytest.raises(StillThere):
        await desk.forget()


async def test_while_its_broker_is_away_only_the_day_counts(autojump_clock: MockClock) -> None:
    desk = await unanswered(autojump_clock, BEHIND)
    desk.brokers[0].state = "disconnected"
    with pytest.raises(StillThere):
        await desk.forget()
    desk.now += DAY_S
    assert (await desk.forget())["away"] == ["A"]


# ── what the board shows from then on ──────────────────────────────────────────────────────────


async def forgotten_desk(*said: Receipt) -> Desk:
    desk = Desk()
    for receipt in said or (make(4), make(3, gone=True)):
        desk.live(receipt)
    await desk.forget()
    return desk


async def test_a_broker_that_was_away_does_not_bring_it_back_also_after_a_restart() -> None:
    desk = await forgotten_desk()
    for _ in range(2):
        for old in (make(4), make(2), make(3, gone=True)):
            told = desk.retained(old, broker="B")
            assert told == Leftover("stt-worker", "kitchen")
            assert desk.shown == []
        desk.restart()


async def test_where_emptying_fails_the_next_reading_finds_it_again() -> None:
    desk = await forgotten_desk()
    for _ in range(3):
        assert isinstance(desk.retained(make(4), broker="B"), Leftover)


async def test_what_a_broker_had_told_already_is_found_there_all_the_same() -> None:
    desk = Desk()
    desk.retained(make(4), broker="B")
    desk.live(make(3, gone=True), broker="A")
    await desk.forget()
    assert isinstance(desk.retained(make(4), broker="B"), Leftover)


async def test_one_that_comes_back_is_shown_again_and_ends_as_any_other() -> None:
    desk = await forgotten_desk()
    assert isinstance(desk.live(make(2, boot_seq=2)), NewlyRuns)
    assert isinstance(desk.retained(make(4), broker="B"), Leftover), (
        "its old receipt is not its own"
    )
    assert not desk.shown[0].gone
    desk.live(make(1, boot_seq=2, gone=True))
    assert desk.shown[0].gone


async def test_one_that_was_only_quiet_is_shown_with_the_next_thing_it_says_and_ends() -> None:
    desk = Desk()
    desk.live(make(4))
    desk.now += DAY_S
    await desk.forget()
    desk.live(make(5))
    assert not desk.shown[0].gone
    desk.live(make(1, gone=True))
    assert desk.shown[0].gone


async def test_who_says_the_same_again_right_now_is_shown_and_stays() -> None:
    """A client in C that connects again may repeat its last receipt, and one whose state was put back
    from a backup counts from below."""
    for receipt in (make(4), make(1, boot_seq=0)):
        desk = await forgotten_desk()
        assert desk.shown == []
        desk.live(receipt)
        assert len(desk.shown) == 1
        desk.live(replace(receipt, seq=receipt.seq + 1))
        assert desk.shown[0].receipt.seq == receipt.seq + 1


async def test_the_late_will_of_one_that_was_forgotten_is_emptied() -> None:
    desk = Desk()
    desk.live(make(4))
    desk.now += DAY_S
    await desk.forget()
    assert isinstance(desk.live(make(1, gone=True)), Leftover)
    assert desk.shown == []


async def test_what_it_said_while_it_was_being_forgotten_is_not_dropped() -> None:
    desk = Desk()
    desk.live(make(4))
    desk.live(make(3, gone=True))
    what = ForgetInstance.of("stt-worker", "kitchen", desk.board, desk.brokers)
    done = what.decide(desk.committed, Occasion("ada", None, NOW, "id"))
    desk.live(make(1, boot_seq=2))
    desk.committed = done.change.after
    assert desk.shown[0].receipt.order == (2, 1)


async def test_of_garbage_on_its_topic_it_is_only_said_that_it_is_garbage() -> None:
    desk = await forgotten_desk()
    other = seal(replace(make(1), instance="hall").to_bytes())
    for payload in (b"x", other):
        told = desk.board.take("A", TOPIC, payload, retained=True, now=NOW)
        assert isinstance(told, NotTaken)
    assert desk.shown == []


async def test_its_place_on_a_full_board_is_free_at_once() -> None:
    desk = Desk()
    desk.board = StatusBoard(
        forgotten=lambda *name: forgotten(desk.committed, *name), max_instances=2
    )
    desk.live(make(4))
    desk.live(make(3, gone=True))
    hall = make(1, instance="hall", service="tts-worker")
    attic = make(1, instance="attic", service="router")
    for receipt, fits in ((hall, True), (attic, False)):
        topic = wire.status_topic(receipt.service, receipt.instance)
        told = desk.board.take("A", topic, seal(receipt.to_bytes()), retained=False, now=NOW)
        assert isinstance(told, NewlyRuns) == fits
    await desk.forget()
    desk.board.drop_forgotten("stt-worker", "kitchen")
    topic = wire.status_topic("router", "attic")
    told = desk.board.take("A", topic, seal(attic.to_bytes()), retained=False, now=NOW)
    assert isinstance(told, NewlyRuns)


async def test_a_strangers_claim_of_a_time_to_come_hides_nobody_for_longer_than_clocks_differ() -> (
    None
):
    """Who wrote it is not enrolled: any key may say any time."""
    desk = Desk()
    ghost = replace(make(1, 1, gone=True), at="9999-12-31T00:00:00.000Z")
    desk.live(ghost, key="b")
    await desk.forget()
    desk.restart()
    desk.now += 10 * MINUTE_S
    desk.retained(replace(make(1, 1), at=rfc3339(desk.now)), key="a")
    assert [status.keyid for status in desk.shown] != []
