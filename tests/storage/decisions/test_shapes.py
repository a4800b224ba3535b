"""Which shape of a service is active, and what a service without one takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from config_manager.config.catalogue import Effective
from config_manager.config.errors import NotFound
from config_manager.storage.decisions.intents import Delete, Patch, Put
from config_manager.storage.decisions.shapes import effective
from tests.kit import stores as m
from tests.kit.documents import STEADY, json_objects


@STEADY
@given(json_objects)
def test_a_service_without_a_shape_takes_anything_and_fills_in_nothing(
    values: dict[str, Any],
) -> None:
    assert m.SHAPES.of(m.empty(), "somebody-else") is None
    assert effective(None, values) == Effective(values, ())
    assert m.SHAPES.secret_keys(m.empty(), "somebody-else") == frozenset()


def test_a_service_of_the_catalogue_is_there_before_anybody_has_written_it() -> None:
    assert m.SHAPES.is_known(m.empty(), "door")
    assert m.decide(m.empty(), Patch(service="door", patch={"volume": 3})).first
    assert not m.SHAPES.is_known(m.empty(), "anybody")
    with pytest.raises(NotFound):
        m.decide(m.empty(), Patch(service="anybody", patch={}))


def test_another_service_is_there_while_it_has_values() -> None:
    there = m.after(Put(service="anybody", values={"a": 1}))
    assert m.SHAPES.is_known(there, "anybody")
    assert not m.SHAPES.is_known(m.decide(there, Delete(service="anybody")).change.after, "anybody")
