"""What was there at an earlier revision, whatever was written since."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config import strict_json
from config_manager.config.errors import NotFound
from config_manager.storage.decisions.rollback import NOT_THERE, Step, as_of, undone
from config_manager.storage.state import KeyChange, changed_keys
from tests.kit.stores import STEADY

Values = dict[str, Any]

_values = st.dictionaries(
    st.sampled_from("abc"),
    st.none() | st.booleans() | st.integers(0, 1) | st.just(1.0) | st.just("********"),
)
_written = st.lists(st.none() | _values, min_size=1, max_size=8)
"""What a service held at revisions 1, 2, …; None: it was deleted."""


def before(change: KeyChange) -> object:
    was_there = change.old is not None or "old" in change.nulls
    return change.old if was_there else NOT_THERE


def history(written: list[Values | None]) -> list[Step]:
    """Newest first."""
    steps = [
        Step(n, new is None, {c.key: before(c) for c in changed_keys(old or {}, new or {})})
        for n, (old, new) in enumerate(pairwise([None, *written]), 1)
    ]
    return steps[::-1]


def text(values: Values) -> bytes:
    """1, 1.0 and true are equal to Python."""
    return strict_json.dumps(dict(sorted(values.items())))


@STEADY
@given(_written, st.data())
def test_every_revision_is_told_from_what_is_there_now(
    written: list[Values | None], data: st.DataObject
) -> None:
    revision = data.draw(st.integers(1, len(written)))
    now, at = written[-1] or {}, 0 if written[-1] is None else len(written)
    then = written[revision - 1]
    if then is None:
        with pytest.raises(NotFound, match=f"door was deleted as of revision {revision}"):
            as_of("door", now, at, revision, history(written))
    else:
        assert text(as_of("door", now, at, revision, history(written))) == text(then)


@STEADY
@given(_written, _written)
def test_what_was_written_since_we_looked_is_left_out(
    written: list[Values | None], since: list[Values | None]
) -> None:
    last = written[-1] or {}
    written[-1] = last
    seen = as_of("door", last, len(written), len(written), history([*written, *since]))
    assert text(seen) == text(last)


@STEADY
@given(_values, _values)
def test_the_keys_that_differ_lead_from_the_one_to_the_other(old: Values, new: Values) -> None:
    changes = changed_keys(old, new)
    assert text(undone(new, [Step(2, False, {c.key: before(c) for c in changes})])) == text(old)
    assert (text(old) == text(new)) is (changes == ())


def test_history_is_read_only_as_far_back_as_needed() -> None:
    def steps() -> Iterator[Step]:
        yield Step(7, False, {"a": 1})
        yield Step(4, False, {"a": 0})
        pytest.fail("nobody needs what came before")

    assert as_of("door", {"a": 2}, 7, 5, steps()) == {"a": 1}


def test_before_the_first_write_there_is_nothing() -> None:
    with pytest.raises(NotFound, match="nobody had written door as of revision 2"):
        as_of("door", {"a": 1}, 3, 2, [Step(3, False, {"a": NOT_THERE})])
