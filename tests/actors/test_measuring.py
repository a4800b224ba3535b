"""What is counted and timed of a change on its way to brokers and instances; the clock is the test's."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from config_manager.actors.actor import Actor, Context, Full, Request, RestartPolicy, answering
from config_manager.actors.measuring import Measures
from config_manager.actors.views import BrokerView
from config_manager.config.documents.receipt import Attempt
from config_manager.storage.state import Commit
from tests.kit.instances import Fleet


class Measured:
    """A fleet whose changes, read-backs and receipts are measured, as the system connects them."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.measures = Measures()
        self.fleet.confirmations.on_confirmed.append(self.measures.confirmed)
        self.fleet.statuses.on_receipt.append(self.measures.heard)
        self.fleet.enrol("door", "ada")
        self.fleet.enrol("door", "bob")

    def commit(self, revision: int) -> None:
        before = self.fleet.view.committed
        self.fleet.commit("door", revision)
        after = self.fleet.view.committed
        change = Commit(before, after, (after.services["door"],), (), None, None)
        self.measures.committed([change], 0.002)

    def hear(self, instance: str, revision: int, stage: str) -> None:
        attempt = Attempt(revision, stage)  # type: ignore[arg-type]
        self.fleet.hear("door", instance, revision, last_attempt=attempt)

    def stages(self) -> dict[str, int]:
        words = ("received", "applied", "healthy", "refused", "none", "other")
        return {word: n for word in words if (n := self.measures.receipts.value(word))}

    @property
    def confirmed(self) -> tuple[int, float]:
        """How many, and seconds in all."""
        return self.measures.confirm_seconds.count(), self.measures.confirm_seconds.sum()

    @property
    def applied(self) -> tuple[int, float]:
        return self.measures.apply_seconds.count(), self.measures.apply_seconds.sum()


async def test_a_change_is_timed_to_the_first_broker_that_gives_it_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, other = Measured(), BrokerView("mqtt://b")
    confirmations = one.fleet.confirmations
    one.fleet.confirm("door", 6)
    assert one.confirmed == (0, 0.0), "nobody knows when that was committed"
    one.commit(7)
    await trio.sleep(0.25)
    one.fleet.confirm("door", 7)
    await trio.sleep(60)
    one.fleet.confirm("door", 7)
    confirmations.note(other, "door", 7)
    assert one.confirmed == (1, 0.25)
    one.commit(8)
    one.commit(9)
    await trio.sleep(1)
    one.fleet.confirm("door", 8)
    one.fleet.confirm("door", 9)
    assert one.confirmed == (2, 1.25), "the newest counts"


async def test_a_change_is_timed_to_each_enrolled_instance_that_runs_it_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one = Measured()
    one.hear("ada", 6, "healthy")
    one.commit(7)
    await trio.sleep(0.5)
    one.hear("ada", 7, "received")
    assert one.applied == (0, 0.0)
    one.hear("ada", 7, "applied")
    await trio.sleep(0.5)
    one.hear("ada", 7, "healthy")
    one.hear("bob", 7, "healthy")  # its `applied` was written over before we heard it
    one.hear("a-stranger", 7, "applied")
    assert one.applied == (2, 1.5)
    one.commit(8)
    await trio.sleep(2)
    one.hear("ada", 7, "healthy")
    one.hear("bob", 8, "refused")
    assert one.applied == (2, 1.5)
    one.hear("ada", 8, "applied")
    assert one.applied == (3, 3.5)


async def test_a_stage_that_no_version_of_ours_knows_becomes_no_label(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one = Measured()
    one.fleet.hear("door", "ada", None)
    for stage in ("chosen-by-them", "another", "applied", "refused"):
        one.hear("ada", 7, stage)
    assert one.stages() == {"none": 1, "other": 2, "applied": 1, "refused": 1}
    assert "chosen" not in "\n".join(one.measures.receipts.lines())


class Ping(Request[int]):
    pass


async def test_who_waits_is_counted_until_it_is_handled_or_gives_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    goes_on = trio.Event()

    async def handle(_request: Ping, _context: Context) -> int:
        await goes_on.wait()
        return 1

    actor = Actor("slow", answering(handle), RestartPolicy(mailbox=2, grace=1))
    async with actor.running(), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(actor.ask, Ping(), Context("patient"))
            await trio.testing.wait_all_tasks_blocked()
        assert (actor.waiting, actor.most_waiting) == (2, 3 - 1), "one is handled"
        with pytest.raises(Full):
            await actor.ask(Ping(), Context("hurried", trio.current_time() + 1))
        with trio.move_on_after(1):
            await actor.ask(Ping(), Context("leaves"))
        assert (actor.waiting, actor.most_waiting) == (2, 3)
        goes_on.set()
    assert actor.waiting == 0
