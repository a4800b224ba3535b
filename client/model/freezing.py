"""What is delivered is immutable, and stays an instance of the service's own class.

Two tasks that look at `current` must see the same, so no code may assign to a delivered model or to a
model within it. The class is the user's: no subclass stands in for it, so registries, unions, own
`__hash__` and `__slots__`, and validators that assign work as they do without the client. Instead a
delivered instance is marked, and its class refuses to assign to marked instances. Every other instance of
the class is as it was. A copy, pickled or not, is marked too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from pydantic import BaseModel
from pydantic_core import ValidationError

from config_manager.client.model.guarded import attempt
from config_manager.client.model.values import M, parts_of

_FIELDS_SET = "__pydantic_fields_set__"

_guarded: WeakSet[type[BaseModel]] = WeakSet()
"""Classes that refuse to assign to marked instances."""


class _Mark(set[str]):
    """Pydantic's set of the fields that were given; its type says that the instance was delivered.

    It is the one slot of a model that is copied and pickled with it, and that no comparison, dump or
    `repr` looks at. With `revalidate_instances` pydantic hands it to another instance, too, which was not
    delivered: only its owner is marked. A copy's is owned by the first that is asked about it.
    """

    def __init__(
        self, names: set[str], model: type[BaseModel], owner: BaseModel | None = None
    ) -> None:
        super().__init__(names)
        self._model = model
        self._owner = id(owner) if owner is not None else None

    def marks(self, values: BaseModel) -> bool:
        if self._owner is None:
            self._owner = id(values)
        return self._owner == id(values)

    def __repr__(self) -> str:
        return repr(set(self))

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
    parts = parts_of(value)
    if parts is None or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseModel):
        _mark(value)
    for inner in parts:
        _freeze(inner, seen)


def _mark(values: BaseModel) -> None:
    model = type(values)
    if not model.model_config.get("frozen") and _guard(model):
        names = values.__pydantic_fields_set__
        object.__setattr__(values, _FIELDS_SET, _Mark(names, model, values))


def _is_marked(values: BaseModel) -> bool:
    try:
        names = object.__getattribute__(values, _FIELDS_SET)
    except AttributeError:  # the instance is still being made
        return False
    return type(names) is _Mark and names.marks(values)


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
    assign: Callable[[Any, str, Any], None] | None = model.__dict__.get("__setattr__")
    delete: Callable[[Any, str], None] | None = model.__dict__.get("__delattr__")

    # if the class has none of its own, the next in the order of the instance's class has its turn:
    # a class derived from this one may have mixed another in

    def __setattr__(self: BaseModel, name: str, value: Any) -> None:  # noqa: N807
        if _is_marked(self) and _is_value(self, name):
            if _holds(self, name, value):  # a validator that derives it, when the model is given on
                return
            raise _frozen(self, name, value)
        if assign is not None:
            assign(self, name, value)
        else:
            super(model, self).__setattr__(name, value)

    def __delattr__(self: BaseModel, name: str) -> None:  # noqa: N807
        if _is_marked(self) and _is_value(self, name):
            raise _frozen(self, name, None)
        if delete is not None:
            delete(self, name)
        else:
            super(model, self).__delattr__(name)

    setattr(model, "__setattr__", __setattr__)  # noqa: B010  mypy takes no method for another
    setattr(model, "__delattr__", __delattr__)  # noqa: B010
    if model.__hash__ is None and model.__eq__ is BaseModel.__eq__:
        _give_hash(model)


def _give_hash(model: type[BaseModel]) -> None:
    def __hash__(self: BaseModel) -> int:  # noqa: N807
        """Of what can't change; another instance of a class without a hash has none."""
        if _is_marked(self):
            return hash((type(self), *(self.__dict__.get(key) for key in type(self).model_fields)))
        inherited: Callable[[], int] | None = super(model, self).__hash__
        if inherited is None:
            raise TypeError(f"unhashable type: {type(self).__name__!r}")
        return inherited()

    setattr(model, "__hash__", __hash__)  # noqa: B010


def _holds(values: BaseModel, name: str, value: Any) -> bool:
    held = values.__dict__.get(name, _frozen)
    return held is value or attempt(
        lambda: type(held) is type(value) and bool(held == value), False
    )


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
