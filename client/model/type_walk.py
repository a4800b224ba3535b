"""The types that a field's type names, however deep: in containers, models, dataclasses, typed dicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from config_manager.client.model.guarded import attempt


def types_within(annotation: Any) -> list[Any]:
    """Each once; the type itself comes first."""
    found: list[Any] = []
    waiting = [annotation]
    while waiting:
        kind = waiting.pop()
        if any(kind is one for one in found):
            continue
        found.append(kind)
        waiting += get_args(kind)
        waiting += _members(kind)
    return found


def models_within(annotation: Any) -> list[type[BaseModel]]:
    """The models among them."""
    return [kind for kind in types_within(annotation) if _is_model(kind)]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and not get_args(kind) and issubclass(kind, BaseModel)


def _members(kind: Any) -> Iterable[Any]:
    if _is_model(kind):
        return [field.annotation for field in kind.model_fields.values()]
    if alias := getattr(kind, "__value__", None):  # a TypeAliasType
        return [alias]
    # a typed dict of typing_extensions is none for typing; a named tuple has `_fields`
    is_structure = dataclasses.is_dataclass(kind) or any(
        hasattr(kind, name) for name in ("__total__", "_fields")
    )
    if isinstance(kind, type) and is_structure:
        # asking for them evaluates them, from Python 3.14 on
        written: list[Any] = attempt(
            lambda: list(getattr(kind, "__annotations__", {}).values()), []
        )
        return attempt(lambda: list(get_type_hints(kind, include_extras=True).values()), written)
    return []
