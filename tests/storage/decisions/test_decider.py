"""A batch decided by itself: what a later write knows of an earlier one that is not in the store yet."""

from __future__ import annotations

from typing import Any

import pytest

from config_manager.config.errors import Conflict, IdempotencyMismatch, NotFound
from config_manager.config.secret import Secret
from config_manager.storage.decisions.decider import Decider
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.intents import Delete, DeleteSecret, Put, SetSecret
from config_manager.storage.decisions.secret_values import RevealSecret
from config_manager.storage.decisions.terms import Idempotency, Terms
from config_manager.storage.decisions.tokens import CreateToken, RevokeToken
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.state import Commit
from tests.kit import stores as m

DAY_S = 24 * 3600.0
ASKED = Idempotency("ada once", b"request")
OTHER = Idempotency("ada once", b"another request")


class Batch:
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(m.FIRST_EPOCH)
        self.changes: list[Commit] = []
        tools = m.equipped().tools
        self.decider = Decider(tools, m.committed_in(self.store), self.store)

    def decide(
        self,
        what: Decidable[Any],
        once: Idempotency | None = None,
        *,
        dry_run: bool = False,
        now: float = m.START,
    ) -> Any:
        terms = Terms("ada", None, once, dry_run)
        answer, change = self.decider.decide(what, terms, now=now, correlation_id="id")
        if change is not None:
            self.changes.append(change)
        return answer

    def committed(self) -> MemoryStore:
        self.store.commit(self.changes)
        return self.store


def test_each_is_decided_on_the_one_before() -> None:
    batch = Batch()
    first = batch.decide(Put(service="a", values={"x": 1}))
    second = batch.decide(Put(service="a", values={"x": 2}))
    assert (first.state.revision, first.first) == (1, True)
    assert (second.state.revision, second.first) == (2, False)
    assert batch.changes[1].before is batch.changes[0].after


def test_a_dry_run_and_a_refusal_leave_nothing_behind() -> None:
    batch = Batch()
    assert batch.decide(Put(service="a", values={}), ASKED, dry_run=True).state.revision == 1
    with pytest.raises(NotFound):
        batch.decide(Delete(service="a"), ASKED)
    assert batch.changes == []
    assert batch.decide(Put(service="a", values={}), ASKED).state.revision == 1


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_repetition_is_answered_again_and_another_request_is_refused(
    is_committed: bool,
) -> None:
    batch = Batch()
    put = Put(service="a", values={"x": 1})
    batch.decide(put, ASKED)
    if is_committed:
        batch = Batch(batch.committed())
    known = len(batch.changes)
    again = batch.decide(put, ASKED)
    assert (again.state.revision, again.replayed, len(batch.changes)) == (1, True, known)
    with pytest.raises(IdempotencyMismatch):
        batch.decide(Put(service="a", values={"x": 2}), OTHER)
    with pytest.raises(IdempotencyMismatch):
        batch.decider.refuse_repetition(OTHER, now=m.START)
    with pytest.raises(Conflict):
        batch.decider.refuse_repetition(ASKED, now=m.START)


def test_a_key_stands_for_its_answer_for_a_day() -> None:
    batch = Batch()
    batch.decide(Put(service="a", values={}), ASKED)
    for later_s, replayed in ((DAY_S, True), (DAY_S + 1, False)):
        later = Batch(batch.store if later_s > DAY_S else batch.committed())
        answer = later.decide(Put(service="a", values={}), ASKED, now=m.START + later_s)
        assert answer.replayed is replayed


def test_what_may_be_answered_only_once_is_not_answered_again() -> None:
    batch = Batch()
    for name in ("root", "ci"):
        once = Idempotency(f"ada {name}", b"request")
        create = CreateToken(name, name, "admin", ("*",), None)
        batch.decide(create, once)
        with pytest.raises(Conflict, match="this was done"):
            batch.decide(create, once)
    revoked = batch.decide(RevokeToken("ci"), ASKED)
    assert batch.decide(RevokeToken("ci"), ASKED) == revoked


def test_a_secret_is_shown_as_the_batch_leaves_it() -> None:
    before = Batch()
    before.decide(SetSecret(service="door", name="pin", value=Secret("1")))
    batch = Batch(before.committed())
    show = RevealSecret(service="door", name="pin")
    assert batch.decide(show).value.reveal() == "1"
    batch.decide(SetSecret(service="door", name="pin", value=Secret("2")))
    assert batch.decide(show).value.reveal() == "2"
    batch.decide(DeleteSecret(service="door", name="pin"))
    batch.decide(SetSecret(service="door", name="pin", value=Secret("3")))
    assert batch.decide(show).value.reveal() == "3"
    for gone in (1, 2):
        with pytest.raises(NotFound):
            batch.decide(RevealSecret(service="door", name="pin", version=gone))
