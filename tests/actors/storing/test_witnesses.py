"""What others know of how far we have come, and what in a store contradicts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config_manager.actors.messages import Witnessed
from config_manager.actors.storing.witnesses import Witnesses
from config_manager.config.audit import GENESIS, Head
from config_manager.config.names import Mark
from config_manager.storage.decisions.intents import NewEpoch, Put
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.state import Committed
from tests.kit.stores import FIRST_EPOCH, Hand, committed_in, empty

NOBODY = Head(0, GENESIS, "instance.json")
BROKER = "mqtt://broker.test"


@pytest.fixture
def store() -> MemoryStore:
    """At revision 3, with two services."""
    store = MemoryStore(FIRST_EPOCH)
    hand = Hand(store)
    for service, values in (("a", {"x": 1}), ("b", {}), ("a", {"x": 2})):
        hand.write(Put(service=service, values=values))
    return store


@pytest.fixture
def witnesses() -> Witnesses:
    return Witnesses(empty())


def against(witnesses: Witnesses, store: MemoryStore) -> str | None:
    return witnesses.contradiction(store, committed_in(store))


def heads(store: MemoryStore) -> list[str]:
    return [row.hash for row in store.audit()]


def earlier(store: MemoryStore) -> Committed:
    """As it was at revision 2."""
    before = MemoryStore(FIRST_EPOCH)
    hand = Hand(before)
    for service, values in (("a", {"x": 1}), ("b", {})):
        hand.write(Put(service=service, values=values))
    assert heads(before) == heads(store)[:2]
    return committed_in(before)


def test_who_knows_nothing_is_no_witness_and_contradicts_nothing(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    witnesses.at_start(Mark(0, 0), NOBODY, None)
    assert against(witnesses, store) is None


def test_what_is_as_far_as_everybody_knows_is_believed(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    committed = committed_in(store)
    witnesses.at_start(committed.mark, Head(3, heads(store)[2], "instance.json"), committed)
    assert against(witnesses, store) is None
    witnesses.at_start(Mark(1, 2), Head(2, heads(store)[1], "instance.json"), earlier(store))
    assert against(witnesses, store) is None, "witnesses are written after commits"


def test_what_is_behind_the_mark_of_instance_json_is_not(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    witnesses.at_start(Mark(1, 4), NOBODY, None)
    told = against(witnesses, store)
    assert told == "the database is at revision 3, but instance.json has seen revision 4"
    witnesses.at_start(Mark(2, 1), NOBODY, None)
    assert "instance.json has seen revision 1" in str(against(witnesses, store))


def test_nor_is_one_whose_audit_has_another_row_than_somebody_knows(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    witnesses.at_start(Mark(1, 3), Head(3, "f" * 64, "instance.json"), None)
    told = against(witnesses, store)
    assert told == "row 3 of its audit is not the one that instance.json knows"
    witnesses.at_start(Mark(1, 3), Head(9, "f" * 64, "instance.json"), None)
    assert "row 9 of its audit" in str(against(witnesses, store))


def test_the_cache_knows_services_and_what_is_in_memory_more_than_that(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    committed = committed_in(store)
    ahead = replace(committed.services["b"], revision=9)
    cached = replace(committed, services={**committed.services, "b": ahead})
    witnesses.at_start(Mark(0, 0), NOBODY, cached)
    assert "has b at revision 2, but it was at revision 9" in str(against(witnesses, store))
    gone = replace(committed.services["b"], service="c")
    witnesses.remember(replace(committed, services={"c": gone}))
    assert "has c at no revision" in str(against(witnesses, store))
    other = replace(committed.services["a"], digest="0" * 64)
    witnesses.remember(replace(committed, services={"a": other}))
    assert "revision 3 of a is another one" in str(against(witnesses, store))
    witnesses.remember(replace(committed, revision=7))
    assert "this server was at revision 7" in str(against(witnesses, store))


def test_a_broker_that_knows_a_row_is_asked_for_it_once(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    witnesses.hear(Witnessed(BROKER, Mark(1, 3), heads(store)[0]))
    assert against(witnesses, store) is None
    assert not witnesses._rows_elsewhere  # noqa: SLF001  what was found is not looked for again
    witnesses.hear(Witnessed(BROKER, Mark(1, 3), "f" * 64))
    for _ in range(2):
        assert "knows a row of its audit that is not here (ffff" in str(against(witnesses, store))


def test_a_broker_that_holds_more_than_we_ever_had_contradicts_for_good(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    witnesses.hear(Witnessed(BROKER, Mark(1, 5)))
    told = f"the database is at revision 3, but {BROKER} holds what we signed at revision 5"
    assert against(witnesses, store) == told
    witnesses.hear(Witnessed(BROKER, Mark(1, 4)))
    assert against(witnesses, store) == told, "a lower one takes nothing back"
    witnesses.hear(Witnessed(BROKER, beyond="a beacon made under root 2"))
    assert against(witnesses, store) == f"{BROKER} holds a beacon made under root 2"


def test_what_an_operator_gave_up_is_no_witness_any_more(
    witnesses: Witnesses, store: MemoryStore
) -> None:
    Hand(store).write(NewEpoch(services={"a": {}}))
    witnesses.accepted_epoch = 2
    witnesses.hear(Witnessed(BROKER, Mark(1, 900), "f" * 64, audit_epoch=1))
    assert against(witnesses, store) is None
    witnesses.hear(Witnessed(BROKER, Mark(2, 4), "e" * 64, audit_epoch=2))
    assert "eeee" in str(against(witnesses, store)), "but a twin that accepted it, too, is one"
