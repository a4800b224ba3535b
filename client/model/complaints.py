"""What a service's model has against values that are not merged yet, by key.

Only what the model says of a key counts. That another value is missing, or that the whole does not fit
together, is judged once all layers are there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from config_manager.client.model.judging import DoesNotFit, in_words, judging, place_of
from config_manager.client.model.validating import Validator
from config_manager.client.model.words import Secrets
from config_manager.config.strict_json import JsonObject

_LONG = 8
"""Characters of a text that no sentence of a validator has by chance."""

_LISTS = frozenset({"list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"})
_OBJECTS = frozenset(
    {"dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"}
)


class Complaint(NamedTuple):
    """words: never the value. wants: an example, if a list or an object is wanted."""

    words: str
    wants: str | None = None

    @property
    def with_hint(self) -> str:
        return f"{self.words}; write JSON, such as {self.wants}" if self.wants else self.words


def complaints_about(given: JsonObject, model: type[BaseModel]) -> dict[str | None, Complaint]:
    """By the fields' own names; None: the model's own code raised, and it is unknown for which field."""
    hidden = Secrets(
        text for text in given.values() if isinstance(text, str) and len(text) >= _LONG
    )
    try:
        with judging(model, hidden):
            return _by_key(given, model, hidden)
    except DoesNotFit as unfit:
        keys: frozenset[str | None] = unfit.keys or frozenset({None})
        return {key: Complaint(str(unfit).removeprefix(f"{key}: ")) for key in keys}


def _by_key(
    given: JsonObject, model: type[BaseModel], hidden: Secrets
) -> dict[str | None, Complaint]:
    try:
        Validator(model).read(given)
    except ValidationError as error:
        wrong: dict[str, set[str]] = {}
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            if item["loc"] and item["type"] != "missing":
                wrong.setdefault(place_of(item, model)[0], set()).add(item["type"])
        return {
            key: Complaint(hidden.without(in_words(error, model, of=key)), _example_for(types))
            for key, types in wrong.items()
        }
    return {}


def _example_for(error_types: set[Any]) -> str | None:
    """JSON of the kind that is wanted, if an error says that a list or an object is."""
    if error_types & _LISTS:
        return '["a","b"]'
    return '{"a": 1}' if error_types & _OBJECTS else None
