"""A JSON object in, an instance of the service's own model out, by the model's own rules.

The class itself is asked, and no subclass of it: validators that assign, `__init_subclass__`, `__slots__`
and unions of related models work as they do without the client.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Generic

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from config_manager.client.model.guarded import attempt
from config_manager.client.model.spelling import delivered_names, taken_under
from config_manager.client.model.type_walk import models_within
from config_manager.client.model.values import M, plain, value_of
from config_manager.config import strict_json
from config_manager.config.strict_json import JsonObject

_UNSPELT = object()


class Validator(Generic[M]):
    """Validates for one model, in one process."""

    def __init__(self, model: type[M]) -> None:
        self.model = model
        self.names = delivered_names(model)
        """other names under which a field may be delivered → its own"""
        # its fields go by their own names, as everything here spells them, whatever aliases they have
        has_alias = any(
            info.alias is not None or info.validation_alias is not None
            for info in model.model_fields.values()
        )
        self._by_name = True if has_alias else None
        self._spelt = {
            key: keys[0] for key, keys in taken_under(model).items() if isinstance(keys[0], str)
        }
        """the key that pydantic prefers for a field: a validator that runs before looks for that"""
        self._own_sources = has_own_sources(model)
        self._judges_defaults = bool(model.model_config.get("validate_default")) or any(
            info.validate_default for info in model.model_fields.values()
        )
        self.following = _keys_with(
            model, lambda info: bool(info.default_factory_takes_validated_data)
        )
        """keys whose factory takes the other values"""
        self._factories = _keys_with(model, _has_factory) - self.following
        self._within = _keys_with(
            model,
            lambda info: any(
                _keys_with(one, _has_factory) for one in models_within(info.annotation)
            ),
        )
        self._made: JsonObject = {}
        self._looked_at = set[str]()

    @property
    def made_anew(self) -> frozenset[str]:
        """Keys whose value may differ each time though the same was given: a factory within it makes a part, or
        what it makes can't be remembered."""
        return self._within | (self._looked_at - self._made.keys())

    def validate(self, given: JsonObject) -> M:
        """Raises whatever the model's own code raises. given: by the fields' own names.

        A default factory that makes another value each time is asked once in a process. Otherwise its key
        would change with every change.
        """
        made = {key: value for key, value in self._made.items() if key not in given}
        values = self.read({**made, **given})
        values.__pydantic_fields_set__.difference_update(made)
        news = self._factories - self._looked_at - given.keys()
        if news:
            self._looked_at |= news
            self._made |= self._made_anew(news, {**made, **given}, values)
        return values

    def incomplete(self) -> M:
        """An instance without any value."""
        empty = self.model.__new__(self.model)
        object.__setattr__(empty, "__dict__", {})
        object.__setattr__(empty, "__pydantic_fields_set__", set[str]())
        object.__setattr__(empty, "__pydantic_extra__", None)
        object.__setattr__(empty, "__pydantic_private__", None)
        return empty

    def read(self, given: JsonObject) -> M:
        """As `validate`, but what factories made is not remembered."""
        # as JSON, so that a strict model takes "2026-01-01" for a date as it would from a file
        spelt = {self._spelt.get(key, key): value for key, value in given.items()}
        data = strict_json.dumps(spelt)
        try:
            return self._validated(partial(self.model.__pydantic_validator__.validate_json, data))
        except ValidationError as error:
            items = error.errors(include_url=False, include_context=False, include_input=False)
            wrong = {str(item["loc"][0]) for item in items if item["loc"]}
            if not self._judges_defaults or wrong <= spelt.keys():
                raise
            # a default that is judged, such as a Path or a secret, may be no JSON
            mine = copy.deepcopy(spelt)  # a validator may change what it gets
            values = self._validated(
                partial(self.model.__pydantic_validator__.validate_python, mine, strict=False)
            )
            if wrong & spelt.keys():
                raise
            return values

    def _validated(self, validate: Callable[..., Any]) -> M:
        if not self._own_sources:
            values: M = validate(by_name=self._by_name)
            return values
        # its `__init__` would read the environment below what is given
        empty = self.model.__new__(self.model)
        validate(self_instance=empty, by_name=self._by_name)
        return empty

    def _made_anew(self, keys: frozenset[str], given: JsonObject, values: M) -> JsonObject:
        """What factories made that they would not make again, as JSON that reads back as the same."""
        again = self.read(given)
        spelled: JsonObject = {}
        for key in keys:
            if not attempt(partial(_same, values, again, key), True):
                said = attempt(partial(plain, value_of(values, key)), _UNSPELT)
                if said is not _UNSPELT:
                    spelled[key] = said
        if not spelled:
            return {}
        read_back = attempt(lambda: self.read({**spelled, **given}), None)
        return {
            key: value
            for key, value in spelled.items()
            if attempt(partial(_same, values, read_back, key), False)
        }


def _keys_with(model: type[BaseModel], is_meant: Callable[[FieldInfo], bool]) -> frozenset[str]:
    return frozenset(key for key, info in model.model_fields.items() if is_meant(info))


def _has_factory(info: FieldInfo) -> bool:
    return info.default_factory is not None


def complete(model: object, *, frames_up: int) -> None:
    """Resolve a model's forward references as pydantic does at its first use: by what the caller's
    function knows, too. frames_up: from whatever calls this to that function. Raises TypeError if it is
    no model."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        given = (
            model.__name__ if isinstance(model, type) else f"an instance of {type(model).__name__}"
        )
        raise TypeError(f"expected a class derived from pydantic's BaseModel, not {given}")
    if not model.__pydantic_complete__:
        attempt(
            lambda: model.model_rebuild(raise_errors=False, _parent_namespace_depth=frames_up + 5),
            None,
        )


def has_own_sources(model: type[BaseModel]) -> bool:
    """Whether it is a `BaseSettings`. If pydantic-settings was never imported, nothing is one."""
    settings = sys.modules.get("pydantic_settings")
    return settings is not None and issubclass(model, settings.BaseSettings)


def _same(one: BaseModel, other: BaseModel | None, key: str) -> bool:
    return other is not None and bool(value_of(one, key) == value_of(other, key))
