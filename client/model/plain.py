"""A value as JSON that reads back as the same."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python


def plain(value: Any) -> Any:
    """As JSON; a secret as it is, which a dump shows as stars. Raises whatever the value's code raises."""
    if isinstance(value, BaseModel):
        return plain({**value.__dict__, **(value.__pydantic_extra__ or {})})
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if hasattr(type(value), "get_secret_value"):
        return plain(value.get_secret_value())
    return plain(value.value) if isinstance(value, Enum) else to_jsonable_python(value)
