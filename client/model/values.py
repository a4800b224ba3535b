"""What a value is made of: the one walk that masking, quoting, freezing and comparing have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

M = TypeVar("M", bound=BaseModel)
"""A service's own model."""


def parts_of(value: object) -> Iterable[object] | None:
    """The values within a model, a dataclass, a mapping or a collection; None: it is none of these."""
    if isinstance(value, BaseModel):
        return [*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).values()
    if isinstance(value, list | tuple | set | frozenset):
        return cast("Collection[object]", value)
    return None


def is_secret(value: object) -> bool:
    """Whether its type is one of pydantic's secret types."""
    return hasattr(type(value), "get_secret_value")


def revealed(secret: object) -> object:
    """What one of pydantic's secret types holds."""
    return cast("Any", type(secret)).get_secret_value(secret)


def plain(value: object) -> Any:
    """As JSON that reads back as the same; a secret as it is, which a dump shows as stars. Raises whatever
    the value's code raises."""
    if isinstance(value, BaseModel):
        return plain({**value.__dict__, **(value.__pydantic_extra__ or {})})
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in cast("Mapping[Any, object]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in cast("Collection[object]", value)]
    if is_secret(value):
        return plain(revealed(value))
    return plain(value.value) if isinstance(value, Enum) else to_jsonable_python(value)


def value_of(values: BaseModel, key: str, otherwise: Any = None) -> Any:
    """A field's value, or an extra key's, without the model's own `__getattr__` and its warnings."""
    held: Mapping[str, Any] = values.__dict__
    if key in held:
        return held[key]
    return (values.__pydantic_extra__ or {}).get(key, otherwise)


def keys_of(values: BaseModel) -> list[str]:
    """The model's fields, and the extra keys that it took."""
    return [*type(values).model_fields, *(values.__pydantic_extra__ or {})]
