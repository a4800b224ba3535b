"""Plans as decisions: when one can be applied, and who could make another of it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config_manager.config.errors import NotFound, PlanExpired, PlanStale, PlanUsed
from config_manager.storage.decisions.intents import Delete, Put
from config_manager.storage.decisions.planning import Wish, planned
from config_manager.storage.decisions.plans import GOOD_S, ApplyPlan, MakePlan, view
from config_manager.storage.sql import database
from config_manager.storage.state import Committed, KeptPlan
from config_manager.storage.store import Store
from tests.kit import stores as m


def made(store: Store, **wish: Any) -> KeptPlan:
    before = m.committed_in(store)
    comes_to = planned(before, m.equipped(), m.SHAPES, Wish(**wish), {})
    number = f"00000000-0000-4000-8000-{before.audit_seq:012}"
    on = m.equipped(reason="why", epoch_id=number)
    change = MakePlan(planned=comes_to).decide(before, on).change
    store.commit([change])
    return change.plans[0]


def apply(store: Store, plan: KeptPlan, *, at: float = m.START) -> Committed:
    on = replace(m.equipped(now=at), stored=store)
    change = ApplyPlan(id=plan.id).decide(m.committed_in(store), on).change
    store.commit([change])
    return change.after


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with closing(m.open_sql(tmp_path / "config.db")) as opened:
        yield opened


def test_a_plan_is_good_for_24_hours(store: Store) -> None:
    plan = made(store, services={"door": {"volume": 3}})
    late = m.START + GOOD_S
    with pytest.raises(PlanExpired):
        apply(store, plan, at=late)
    now = m.committed_in(store)
    assert view(plan, now, m.SHAPES, late)["state"] == "expired"
    assert view(plan, now, m.SHAPES, late - 0.001)["state"] == "ready"
    assert apply(store, plan, at=late - 0.001).services["door"].stored == {"volume": 3}
    used = store.plan(plan.id)
    assert used is not None
    assert view(used, now, m.SHAPES, late)["state"] == "applied"
    with pytest.raises(PlanUsed):
        apply(store, plan)


def test_a_service_that_was_deleted_meanwhile_has_moved(store: Store) -> None:
    hand = m.Hand(store)
    hand.write(Put(service="a", values={"x": 1}))
    plan = made(store, patch={"a": {"x": 2}})
    hand.write(Delete(service="a"))
    with pytest.raises(PlanStale) as refused:
        apply(store, plan)
    [moved] = refused.value.moved
    assert (moved["was"], moved["is"], moved["by"]) == (1, 2, "ada")
    nobody = made(store, services={"b": {"x": 1}})
    hand.write(Put(service="b", values={"x": 1}))  # what was to be made is there
    with pytest.raises(PlanStale):
        apply(store, nobody)


@pytest.mark.parametrize("column", ["result", "shown", "base", "digest", "expires_at", "outcome"])
def test_a_plan_that_somebody_edited_in_the_database_counts_as_none(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "config.db"
    with closing(m.open_sql(path)) as store:
        plan = made(store, services={"door": {"volume": 3}})
    result = json.loads(plan.result)
    assert result["values"] == {"door": {"volume": 3}}
    with closing(database.connect(path, m.DB_KEY)) as thief:
        thief.execute(
            f"UPDATE plans SET {column} = replace(coalesce({column}, 'x'), '3', '9') || ' '"
        )
        thief.commit()
    with closing(m.open_sql(path, fresh=False)) as store, pytest.raises(NotFound):
        apply(store, plan)


def test_a_plan_names_what_a_model_gives_by_default(store: Store) -> None:
    plan = made(store, services={"door": {"volume": 5}})
    [service] = json.loads(plan.shown)["services"]
    assert [one["key"] for one in service["changes"]] == ["volume"]
    assert service["unchanged"] == []  # nobody had written it: everything is new
