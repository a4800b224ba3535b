"""What is different between two schemas, for whom it breaks something, and whether real validation agrees."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from config_manager.config.catalogue import Effective
from config_manager.config.errors import SchemaInvalid
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.migrating import variant
from config_manager.storage.decisions.schema_comparison import (
    Difference,
    compare,
    verdict,
)
from config_manager.storage.decisions.validators import compiled
from tests.kit.schemas import a_service, edited, objects

PAIRS, CHUNKS = 10_000, 20


def the_pair(seed: int) -> tuple[Random, CompiledSchema, CompiledSchema] | None:
    r = Random(seed)
    old = a_service(r)
    new = edited(r, old)
    try:
        return r, CompiledSchema(old), CompiledSchema(new)
    except SchemaInvalid:  # a change can leave a rule without its key
        return None


def independently(schema: CompiledSchema, *, closed: bool) -> Any:
    """Plain validation by the schema as it was written, and nothing of ours."""
    own = {**schema.schema, "additionalProperties": False} if closed else schema.schema
    return compiled(own)


def fits(validator: Any, schema: CompiledSchema, stored: dict[str, Any]) -> bool:
    config = {k: v["default"] for k, v in schema.schema["properties"].items() if "default" in v}
    config |= stored
    if not validator.is_valid(config):
        return False
    for rule in schema.schema.get("x-compare", ()):
        lower, upper = config.get(rule["lower"]), config.get(rule["upper"])
        numbers = all(type(one) in (int, float) for one in (lower, upper))
        if numbers and lower > upper:
            return False
    return True


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_that_is_called_ok_is_contradicted_by_real_validation(chunk: int) -> None:
    """Each pair in three directions, with values at every edge of both."""
    size = PAIRS // CHUNKS
    for seed in range(chunk * size, (chunk + 1) * size):
        pair = the_pair(seed)
        if pair is None:
            continue
        r, old, new = pair
        differences = compare(old, new)
        said = {one: verdict(differences, one) for one in ("stored", "new_code", "old_code")}
        values = [*objects(r, old.schema), *objects(r, new.schema)]
        writes_old, writes_new = (independently(one, closed=True) for one in (old, new))
        reads_old, reads_new = (independently(one, closed=False) for one in (old, new))
        context = (seed, old.schema, new.schema, [one.change for one in differences])
        for value in values:
            if (said["stored"] != "breaks" or said["new_code"] != "breaks") and fits(
                writes_old, old, value
            ):
                assert said["stored"] == "breaks" or fits(writes_new, new, value), (value, context)
                assert said["new_code"] == "breaks" or fits(reads_new, new, value), (value, context)
            if said["old_code"] != "breaks" and fits(writes_new, new, value):
                sent = Effective(value, ()) if fits(reads_old, old, value) else None
                sent = sent or variant(value, [new], old)
                assert sent is not None, (value, context)
