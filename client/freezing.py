"""What is delivered is immutable, and stays an instance of the service's own class.

Two tasks that look at `current` must see the same, so nobody may assign to a delivered model or to a
model within it. The class is the user's: no subclass stands in for it, so that registries, unions, own
`__hash__` and `__slots__`, and validators that assign work as they do without us. Instead a delivered
instance is marked, and its class refuses to assign to marked instances; every other instance of the
class is as it was. A copy, pickled or not, is marked too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

from pydantic import BaseModel
from pydantic_core import ValidationError

M = TypeVar("M", bound=BaseModel)

_FIELDS_SET = "__pydantic_fields_set__"

_guarded: WeakSet[type[BaseModel]] = WeakSet()
"""Classes that refuse to assign to marked instances."""


class _Mark(set[str]):
    """Pydantic's set of the fields that were given; its type says that the instance was delivered.

    It is the one slot of a model that is copied and pickled with it, and that no comparison, dump or
    `repr` looks at.
    """

    def __init__(self, names: set[str], model: type[BaseModel]) -> None:
        super().__init__(names)
        self._model = model

    def __reduce__(self) -> tuple[Any, ...]:
        return _marked, (set(self), self._model)


def _marked(names: set[str], model: type[BaseModel]) -> set[str]:
    return _Mark(names, model) if _guard(model) else names


def freeze(values: M) -> M:
    """Make a model immutable, and the models within it: as values, in lists, in mappings.

    A model that is `frozen` by its own configuration is left as it is. So is one whose class takes no
    attributes. Returns `values`.
    """
    _freeze(values, set())
    return values


def _freeze(value: Any, seen: set[int]) -> None:
    if not isinstance(value, BaseModel | Mapping | list | tuple | set | frozenset):
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseModel):
        _mark(value)
        for inner in (*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()):
            _freeze(inner, seen)
    else:
        for inner in value.values() if isinstance(value, Mapping) else value:
            _freeze(inner, seen)


def _mark(values: BaseModel) -> None:
    model = type(values)
    if not model.model_config.get("frozen") and _guard(model):
        names = values.__pydantic_fields_set__
        object.__setattr__(values, _FIELDS_SET, _Mark(names, model))


def _is_marked(values: BaseModel) -> bool:
    try:
        return type(object.__getattribute__(values, _FIELDS_SET)) is _Mark
    except AttributeError:  # it is being made
        return False


def _guard(model: type[BaseModel]) -> bool:
    """Whether the class refuses to assign to marked instances, from now on at the latest."""
    if model in _guarded:
        return True
    with suppress(AttributeError, TypeError):  # a metaclass that takes no attributes
        _refuse_assignments(model)
        _guarded.add(model)
        return True
    return False


def _refuse_assignments(model: type[BaseModel]) -> None:
    assign: Callable[[Any, str, Any], None] = model.__setattr__
    delete: Callable[[Any, str], None] = model.__delattr__

    def __setattr__(self: BaseModel, name: str, value: Any) -> None:  # noqa: N807
        if _is_marked(self) and _is_value(self, name):
            raise _frozen(self, name, value)
        assign(self, name, value)

    def __delattr__(self: BaseModel, name: str) -> None:  # noqa: N807
        if _is_marked(self) and _is_value(self, name):
            raise _frozen(self, name, None)
        delete(self, name)

    def __hash__(self: BaseModel) -> int:  # noqa: N807
        """Of what can't change; another instance of a class without a hash has none."""
        if not _is_marked(self):
            raise TypeError(f"unhashable type: {type(self).__name__!r}")
        return hash((type(self), *(self.__dict__.get(key) for key in type(self).model_fields)))

    setattr(model, "__setattr__", __setattr__)  # noqa: B010  mypy takes no method for another
    setattr(model, "__delattr__", __delattr__)  # noqa: B010
    if model.__hash__ is None:
        setattr(model, "__hash__", __hash__)  # noqa: B010


def _is_value(values: BaseModel, name: str) -> bool:
    """Whether it is one of the configuration's values: neither private nor a property."""
    if name in type(values).model_fields:
        return True
    return values.__pydantic_extra__ is not None and (
        not name.startswith("_") and not hasattr(type(values), name)
    )


def _frozen(values: BaseModel, name: str, value: Any) -> ValidationError:
    """As pydantic says it of a model that is frozen by its own configuration."""
    return ValidationError.from_exception_data(
        type(values).__name__, [{"type": "frozen_instance", "loc": (name,), "input": value}]
    )
