"""What is stored and does not fit, for `GET /health`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config_manager.actors.actor import ActorStates
from config_manager.actors.health import HealthBoard
from config_manager.actors.misfits import Misfits
from config_manager.actors.views import CommittedView, Confirmations
from config_manager.config.catalogue import Catalogue, schema_digest
from config_manager.storage.decisions.intents import Delete, Put
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.shapes import SCHEMA, Shapes
from config_manager.storage.state import Committed
from tests.kit import stores as m

NUMBER = {"type": "number"}


def schema(*keys: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(keys, NUMBER)}


def shaped(committed: Committed, **schemas: dict[str, Any]) -> Committed:
    """With these schemas active, whatever is stored."""
    rows = {
        service: {"schema": one, "digest": schema_digest(one), "version": 1, "source": "put"}
        for service, one in schemas.items()
    }
    return replace(committed, registry={SCHEMA: {**committed.registered(SCHEMA), **rows}})


class Watched:
    """The misfits of a view, and the health that tells them."""

    def __init__(self, committed: Committed) -> None:
        self.view = CommittedView(committed)
        self._misfits = Misfits(self.view, Shapes(Catalogue()))

    def after(self, committed: Committed) -> list[str]:
        self.view.replace(committed)
        return self._misfits.reasons()


def test_it_names_the_services_and_keys_and_is_silent_once_they_fit() -> None:
    lamp = m.after(Put(service="lamp", values={"a": "x", "b": 1}), Put(service="calm", values={}))
    it = Watched(lamp)
    assert it.after(lamp) == []
    narrow = shaped(lamp, lamp=schema("a", "b"), calm=schema("a"))
    assert it.after(narrow) == ["lamp: its schema does not take what is stored of a"]
    wide = {"type": "object", "properties": {"a": {"type": "string"}, "b": NUMBER}}
    assert it.after(shaped(narrow, lamp=wide)) == []
    assert it.after(narrow) != []
    mended = m.decide(lamp, Put(service="lamp", values={"a": 2, "b": 1})).change.after
    assert it.after(shaped(mended, lamp=schema("a", "b"))) == []
    assert it.after(narrow) != []
    gone = m.decide(lamp, Delete(service="lamp")).change.after
    assert it.after(shaped(gone, lamp=schema("a", "b"))) == []


def test_many_keys_are_a_few_and_a_count() -> None:
    keys = [f"k{n}" for n in range(8)]
    lamp = m.after(Put(service="lamp", values=dict.fromkeys(keys, "x")))
    (line,) = Watched(lamp).after(shaped(lamp, lamp=schema(*keys)))
    assert line.endswith("stored of k0, k1, k2, k3, k4 and 3 more")


def test_a_change_of_one_service_judges_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Any] = []
    judge = CompiledSchema.errors

    def errors(self: CompiledSchema, stored: Any, *more: Any) -> Any:
        judged.append(stored)
        return judge(self, stored, *more)

    monkeypatch.setattr(CompiledSchema, "errors", errors)
    services = {f"s{n}": schema("a") for n in range(20)}
    fleet = shaped(m.after(*(Put(service=name, values={"a": 1}) for name in services)), **services)
    it = Watched(fleet)
    assert it.after(fleet) == []
    assert len(judged) == 20
    judged.clear()
    stored = replace(fleet.services["s3"], stored={"a": "x"})
    changed = replace(fleet, services={**fleet.services, "s3": stored})
    assert it.after(changed) == ["s3: its schema does not take what is stored of a"]
    assert it.after(changed) != []
    assert judged == [{"a": "x"}]


def test_health_is_ok_and_names_ten_of_many_services() -> None:
    services = {f"s{n:02}": schema("a") for n in range(12)}
    fleet = shaped(m.after(*(Put(service=s, values={"a": "x"}) for s in services)), **services)
    view = CommittedView(fleet)
    misfits = Misfits(view, Shapes(Catalogue()))
    report = HealthBoard(
        view, Confirmations([]), ActorStates(), lambda: True, misfits.reasons
    ).report()
    assert report.ok
    assert len(report.reasons) == 11
    assert report.reasons[0].startswith("s00: ")
    assert report.reasons[-1] == "stored values that their schema does not take: 2 more"
