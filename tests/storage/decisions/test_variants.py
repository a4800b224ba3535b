"""Every message has values that each instance's own schema takes; and what follows from a new one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from config_manager.config import wire
from config_manager.config.catalogue import Effective, schema_text
from config_manager.config.documents.config_update import MAX_VARIANTS, ConfigUpdate, Variant
from config_manager.config.errors import TooLarge
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.changes import Revision
from config_manager.storage.decisions.instance_schemas import (
    MOST_OF_A_SERVICE,
    SEEN_AGAIN_S,
    Adapt,
    KeepInstanceSchema,
)
from config_manager.storage.decisions.instance_verdicts import refused_by, verdict
from config_manager.storage.decisions.intents import Put
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_changes import PutSchema
from config_manager.storage.decisions.schema_outlook import LiveInstance, outlook
from config_manager.storage.decisions.shapes import INSTANCE_SCHEMA, Shapes
from config_manager.storage.decisions.variants import REMEMBERED_S, given
from config_manager.storage.state import Committed, SchemaVersion, ServiceState
from tests.kit.stores import CATALOGUE, START, empty, equipped

NUMBER, TEXT = {"type": "number"}, {"type": "string"}
DAY_S = 24 * 3600.0


def closed(properties: dict[str, Any], **more: Any) -> CompiledSchema:
    return CompiledSchema(
        {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **more,
        }
    )


OLDEST = closed({"level": NUMBER})
OLD = closed({"light": {**NUMBER, "x-was": {"key": "level"}}})
NEW = closed({"brightness": {**NUMBER, "x-was": {"key": "light"}}, "colour": TEXT})


class Service:
    """One service, `lamp`, written and listened to."""

    def __init__(self) -> None:
        self.versions: list[SchemaVersion] = []
        self.shapes = Shapes(CATALOGUE, lambda _service: self.versions[::-1])
        self.state: Committed = empty()
        self.now = START

    def do(self, what: Any) -> Any:
        self.now += 1
        correlation_id = f"id-{self.now:.0f}"
        on = equipped(now=self.now, shapes=self.shapes, correlation_id=correlation_id)
        decided = what.decide(self.state, on)
        self.state = decided.change.after
        return decided.answer

    def put(self, **values: Any) -> ConfigUpdate:
        self.do(Put(service="lamp", values=values))
        return self.update

    def schema(self, shape: CompiledSchema) -> None:
        then = outlook(self.state, self.shapes, "lamp", shape)
        self.do(PutSchema(service="lamp", shape=shape, outlook=then, allow_breaking=True))
        text = schema_text(shape.schema).decode()
        self.versions.append(
            SchemaVersion("lamp", len(self.versions) + 1, shape.digest, text, "", "put")
        )

    def hears(self, shape: CompiledSchema) -> bool:
        return bool(self.do(KeepInstanceSchema("lamp", shape.digest, shape.schema)))

    @property
    def lamp(self) -> ServiceState:
        return self.state.services["lamp"]

    @property
    def update(self) -> ConfigUpdate:
        return ConfigUpdate.parse(self.lamp.payload)

    def taken(self, shape: CompiledSchema) -> JsonObject | None:
        """What code of this schema runs of the message; None if it turns it down."""
        values = given(self.lamp, shape.digest)
        return values.config if shape.reads(values) else None


def test_each_schema_gets_its_own_names_though_two_renames_lie_between() -> None:
    service = Service()
    for shape in (OLDEST, OLD, NEW):
        service.schema(shape)
        service.hears(shape)
    service.put(brightness=0.5, colour="red")
    assert service.taken(NEW) == {"brightness": 0.5, "colour": "red"}
    assert service.taken(OLD) == {"light": 0.5}
    assert service.taken(OLDEST) == {"level": 0.5}
    assert [one.schemas for one in service.update.variants] == [(OLD.digest,), (OLDEST.digest,)]


def test_a_service_whose_instances_told_nothing_has_messages_as_before() -> None:
    service = Service()
    service.schema(NEW)
    service.put(brightness=0.5)
    assert b"variants" not in service.lamp.payload


def test_who_takes_the_values_as_they_are_has_no_variant() -> None:
    service = Service()
    service.schema(NEW)
    service.hears(NEW)
    service.hears(CompiledSchema({"type": "object", "properties": {"brightness": NUMBER}}))
    service.put(brightness=0.5, colour="red")
    assert service.update.variants == ()


def test_open_code_would_read_its_own_default_after_a_rename_so_it_gets_a_variant() -> None:
    service = Service()
    old = CompiledSchema({"type": "object", "properties": {"level": {**NUMBER, "default": 1}}})
    service.schema(old)
    service.hears(old)
    service.schema(OLD)
    service.put(light=0.5)
    assert given(service.lamp, old.digest).config == {"level": 0.5}


def test_the_same_key_in_another_unit_is_converted_for_code_that_would_take_any_number() -> None:
    service = Service()
    old = CompiledSchema({"type": "object", "properties": {"wait": {**NUMBER, "x-unit": "ms"}}})
    in_seconds = {**NUMBER, "x-unit": "s", "x-was": {"multiply": [1, 1000]}}
    service.schema(old)
    service.hears(old)
    service.schema(CompiledSchema({"type": "object", "properties": {"wait": in_seconds}}))
    service.put(wait=2)
    assert given(service.lamp, old.digest).config == {"wait": 2000}


def test_without_an_active_schema_closed_code_gets_what_it_knows() -> None:
    service = Service()
    service.hears(OLDEST)
    service.put(level=0.5, other=1)
    assert service.taken(OLDEST) == {"level": 0.5}


def test_equal_values_share_a_variant_and_the_eight_seen_last_have_one() -> None:
    service = Service()
    twins = [
        closed({"a": {**NUMBER, "description": "one"}}),
        closed({"a": {**NUMBER, "description": "two"}}),
    ]
    others = [closed({f"k{n}": NUMBER}) for n in range(MAX_VARIANTS + 1)]
    for shape in (*others, *twins):
        service.hears(shape)
    service.put(a=1, b=True, **{f"k{n}": n for n in range(MAX_VARIANTS + 1)})
    variants = service.update.variants
    assert len(variants) == MAX_VARIANTS
    assert set(variants[0].schemas) == {one.digest for one in twins}
    assert [service.taken(one) is None for one in others] == [True, True, *[False] * 7]


def test_what_was_not_seen_for_thirty_days_has_no_variant() -> None:
    service = Service()
    service.hears(OLDEST)
    service.now += REMEMBERED_S - 10
    assert service.put(level=1, other=1).variants
    service.now += 10
    assert not service.put(level=1, other=1).variants


def test_a_value_that_no_variant_can_hold_is_named_by_whom_it_is_refused() -> None:
    service = Service()
    strict = closed({"level": {**NUMBER, "maximum": 1}})
    service.hears(strict)
    service.put(level=5)
    assert service.taken(strict) is None
    live = {"lamp": [LiveInstance("attic", True, strict.digest), LiveInstance("x", True, "")]}
    [found] = refused_by(service.state, service.shapes, [service.lamp], live)
    assert (found["service"], found["instance"]) == ("lamp", "attic")
    assert "level" in found["why"]


def test_variants_count_for_the_size_of_the_message() -> None:
    service = Service()
    service.hears(closed({"text": TEXT}))
    with pytest.raises(TooLarge):
        service.put(text="x" * 120_000, other=1)
    service.put(text="x" * 120_000)


def test_values_nest_in_a_variant_only_as_deep_as_every_reader_takes_them() -> None:
    service = Service()
    anything = closed({"a": {}})
    service.hears(anything)
    deep: Any = 1
    for _ in range(29):
        deep = [deep]
    assert service.put(a=deep, b=1).variants
    assert not service.put(a=[deep], b=1).variants


# ── a schema that turns up later ───────────────────────────────────────────────────────────────


def test_a_schema_that_turns_up_later_changes_nothing_for_anybody_else() -> None:
    service = Service()
    service.schema(NEW)
    service.hears(NEW)
    before = service.put(brightness=0.5)
    service.hears(OLD)
    assert service.do(Adapt("lamp")) is True
    after = service.update
    assert after.variants == (Variant((OLD.digest,), {"light": 0.5}, ()),)
    assert (after.config, after.defaulted, after.content) == (
        before.config,
        before.defaulted,
        before.content,
    )
    assert (after.revision, after.previous) == (
        before.revision + 1,
        wire.digest(before.to_bytes()),
    )
    assert service.do(Adapt("lamp")) is False
    assert service.update == after


def test_a_second_old_schema_that_turns_up_takes_nothing_from_the_first() -> None:
    service = Service()
    for shape in (OLDEST, OLD, NEW):
        service.schema(shape)
    service.put(brightness=0.5, colour="red")
    for shape in (OLDEST, OLD):
        service.hears(shape)
        assert service.do(Adapt("lamp"))
    assert service.taken(OLDEST) == {"level": 0.5}
    assert service.taken(OLD) == {"light": 0.5}
    assert service.taken(NEW) == {"brightness": 0.5, "colour": "red"}


def test_defaults_of_a_schema_that_came_meanwhile_do_not_slip_in_with_a_variant() -> None:
    service = Service()
    service.put(level=0.5)
    service.schema(closed({"level": NUMBER, "mode": {**TEXT, "default": "calm"}}))
    narrow = closed({"other": NUMBER})
    service.hears(narrow)
    assert service.do(Adapt("lamp")) is True
    assert service.update.config == {"level": 0.5}
    assert service.taken(narrow) == {}


def test_a_deleted_service_is_not_adapted() -> None:
    service = Service()
    service.hears(OLD)
    assert service.do(Adapt("lamp")) is False


# ── what is kept ───────────────────────────────────────────────────────────────────────────────


def test_one_that_is_seen_again_keeps_when_it_was_first_seen() -> None:
    service = Service()
    assert service.hears(OLD)
    first = service.state.registered(INSTANCE_SCHEMA)[f"lamp/{OLD.digest}"]
    service.now += DAY_S
    assert service.do(KeepInstanceSchema("lamp", OLD.digest, None))
    then = service.state.registered(INSTANCE_SCHEMA)[f"lamp/{OLD.digest}"]
    assert then["first_seen"] == first["first_seen"]
    assert then["last_seen"] > first["last_seen"]
    assert then["schema"] == OLD.schema
    assert service.state.audit_seq == 0  # bookkeeping


def test_the_one_seen_longest_ago_makes_room_but_not_within_a_day() -> None:
    service = Service()
    many = [closed({f"k{n}": NUMBER}) for n in range(MOST_OF_A_SERVICE + 1)]
    for shape in many[:-1]:
        assert service.hears(shape)
    assert not service.hears(many[-1])
    service.now += SEEN_AGAIN_S
    assert service.hears(many[-1])
    kept = {key.partition("/")[2] for key in service.state.registered(INSTANCE_SCHEMA)}
    assert kept == {one.digest for one in many[1:]}


def test_a_row_that_is_not_what_its_digest_says_counts_for_nothing() -> None:
    service = Service()
    service.do(KeepInstanceSchema("lamp", "ab" * 32, OLD.schema))
    assert service.put(level=1, other=2).variants == ()


# ── verdicts ───────────────────────────────────────────────────────────────────────────────────

LAMP = closed(
    {
        "level": {**NUMBER, "maximum": 10, "default": 1},
        "port": {**NUMBER, "x-restart-required": True},
    }
)


def values(**config: Any) -> Effective:
    return Effective(config, ())


@pytest.mark.parametrize(
    ("then", "runs", "overrides", "expected"),
    [
        (values(level=2), values(level=3), (), ("hot", "")),
        (values(level=2), values(level=2), (), ("same", "")),
        (values(level=1), None, (), ("same", "")),
        (values(port=2), values(port=1), (), ("restart", "a restart brings port")),
        (values(level=2), values(level=3), ("level",), ("same", "its environment decides level")),
        (
            values(level=2, port=2),
            values(level=3, port=1),
            ("level",),
            ("restart", "a restart brings port; its environment decides level"),
        ),
    ],
)
def test_an_instances_verdict(
    then: Effective, runs: Effective | None, overrides: tuple[str, ...], expected: tuple[str, str]
) -> None:
    assert verdict(LAMP, then, overrides, runs) == expected


def test_an_instance_refuses_with_a_reason_or_is_not_known() -> None:
    told = verdict(LAMP, values(level=11), (), values(level=1))
    assert told.verdict == "refuses"
    assert "level" in told.why
    told = verdict(LAMP, values(brightness=1, level=11), (), values(level=1))
    assert told.why.startswith("/level: "), "a key that it does not know could be left out"
    assert verdict(None, values(level=11), (), None).verdict == "unknown"
    assert verdict(LAMP, values(level=1), (), values(level=1), secrets=["pin"]).verdict == "hot"


def test_a_restored_service_keeps_its_variants_where_they_fit() -> None:
    service = Service()
    service.hears(OLDEST)
    service.put(level=1, other=2)
    on = equipped(now=service.now, shapes=service.shapes)
    state = service.state
    revision = Revision(state, on, service.shapes, state.epoch, state.revision + 1)
    change = revision.reissue({"lamp": {}}, (), lambda _after: {})
    [again] = change.services
    assert len(orjson.loads(again.payload)["variants"]) == 1
