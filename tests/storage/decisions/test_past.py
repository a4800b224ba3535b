"""What a service was at any revision, from whatever checkpoints there are: a database of before has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from config_manager.config import strict_json
from config_manager.config.errors import Refusal
from config_manager.config.secret import Secret
from config_manager.storage.decisions import past
from config_manager.storage.decisions.intents import (
    Delete,
    DeleteSecret,
    Intent,
    NewEpoch,
    Patch,
    Put,
    SetSecret,
)
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.state import Checkpoint, HistoryQuery
from tests.kit import stores as m

FEW = 3
"""Versions from one checkpoint to the next, so that a short story has all the ways back and forth."""

values = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.integers(0, 1) | st.just(1.0), max_size=3
)
names = st.sampled_from(["one", "two"])
secrets = st.sampled_from(["pin", "key"])
stories = st.lists(
    st.one_of(
        st.builds(Put, service=names, values=values),
        st.builds(Put, service=names, values=values),
        st.builds(Patch, service=names, patch=values),
        st.builds(Delete, service=names),
        st.builds(NewEpoch, services=st.dictionaries(names, values, min_size=1)),
        st.builds(SetSecret, service=names, name=secrets, value=st.just(Secret("1234"))),
        st.builds(DeleteSecret, service=names, name=secrets),
    ),
    min_size=8,
    max_size=24,
)


class SomeCheckpoints(MemoryStore):
    """It has whichever checkpoints it is given."""

    def __init__(self) -> None:
        super().__init__(m.FIRST_EPOCH, m.VOUCHING)
        self.all: list[Checkpoint] = []
        self.kept: Sequence[bool] = ()

    def checkpoints(
        self, service: str, revision: int
    ) -> tuple[Checkpoint | None, Checkpoint | None]:
        kept = [one for one, is_kept in zip(self.all, self.kept, strict=False) if is_kept]
        mine = [one for one in kept if one.service == service]
        below = [one for one in mine if one.revision <= revision]
        above = [one for one in mine if one.revision > revision]
        return (below[-1] if below else None), (above[0] if above else None)


def text(stored: dict[str, Any]) -> bytes:
    """1, 1.0 and true are equal to Python."""
    return strict_json.dumps(dict(sorted(stored.items())))


@m.STEADY
@given(stories, st.lists(st.booleans(), max_size=24), st.data())
def test_any_revision_is_told_from_any_checkpoints_or_none(
    story: list[Intent], kept: list[bool], data: st.DataObject
) -> None:
    store = SomeCheckpoints()
    hand = m.Hand(store)
    model: list[dict[str, Checkpoint]] = [{}]
    for intent in story:
        try:
            change = hand.write(intent).change
        except Refusal:  # nothing to delete; a secret where a value is
            continue
        now = [Checkpoint.of(state) for state in change.services]
        store.all += now
        model.append({**model[-1], **{one.service: one for one in now}})
    store.kept = kept
    committed = m.committed_in(store)
    revision = data.draw(st.integers(0, len(model) - 1))
    for service in ("one", "two"):
        wanted = model[revision].get(service)
        with mock.patch.object(past, "VERSIONS_A_CHECKPOINT", FEW):
            then = past.as_of(store, service, revision, committed.services.get(service))
        if wanted is None or then is None:
            assert (wanted, then) == (None, None)
            continue
        assert then.entry.revision == wanted.revision
        assert (then.deleted, sorted(then.secrets)) == (wanted.deleted, list(wanted.secrets))
        assert text(then.stored) == text(wanted.stored)


def test_a_database_without_checkpoints_tells_its_past_from_now_backward() -> None:
    store = SomeCheckpoints()
    hand = m.Hand(store)
    for number in range(200):
        hand.write(Put(service="a", values={"x": number, f"k{number % 7}": number}))
    now = m.committed_in(store).services["a"]
    for revision in (1, 63, 64, 65, 66, 130, 199, 200):
        then = past.as_of(store, "a", revision, now)
        assert then is not None
        assert then.stored == {"x": revision - 1, f"k{(revision - 1) % 7}": revision - 1}


def test_little_is_read_for_a_revision_of_many() -> None:
    store = MemoryStore(m.FIRST_EPOCH, m.VOUCHING)
    hand = m.Hand(store)
    for number in range(400):
        hand.write(Put(service="a", values={"x": number}))
    now, read = m.committed_in(store).services["a"], 0
    history = store.history

    def counted(query: HistoryQuery) -> Any:
        nonlocal read
        page = history(query)
        read += len(page.entries)
        return page

    with mock.patch.object(store, "history", counted):
        for revision in (3, 70, 200, 399):
            then = past.as_of(store, "a", revision, now)
            assert then is not None
            assert then.stored == {"x": revision - 1}
            assert read <= 2 * 64 + 1, revision
            read = 0
