"""What a value is made of: the one walk that masking, quoting and freezing have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from pydantic import BaseModel


def parts_of(value: object) -> Iterable[object] | None:
    """The values within a model, a dataclass, a mapping or a collection; None: it is none of these."""
    if isinstance(value, BaseModel):
        return [*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple | set | frozenset) else None
