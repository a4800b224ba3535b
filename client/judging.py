"""The one guarded way into code that the service's author wrote.

Validators, `model_post_init`, factories, `__eq__`, `__deepcopy__`, `__str__`, and whatever they call,
may raise anything. None of it may end a driver: what does not fit is refused as `model`, and what runs
goes on.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from config_manager.client.guarded import attempt, ends_the_program
from config_manager.client.words import Secrets, spelt


class DoesNotFit(ValueError):
    """The values are not what the service's own model takes; the message names each key. only_lacks:
    nothing is wrong but that there is no value for some. keys: the top-level ones that are wrong."""

    def __init__(
        self, words: str, *, only_lacks: bool = False, keys: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(words)
        self.only_lacks = only_lacks
        self.keys = keys


@contextmanager
def judging(model: type[BaseModel], secrets: Secrets) -> Iterator[None]:
    """Around code of the user's: whatever it raises is DoesNotFit.

    Of an exception that is no ValidationError only the type is said: its words may hold values.
    """
    try:
        yield
    except DoesNotFit:
        raise
    except BaseException as error:
        if ends_the_program(error):
            raise
        raise _does_not_fit(error, model, secrets) from None


def _does_not_fit(error: BaseException, model: type[BaseModel], secrets: Secrets) -> DoesNotFit:
    if isinstance(error, ValidationError):
        unfit = attempt(lambda: _invalid(error, secrets), None)  # it calls anybody's `__str__`
        if unfit is not None:
            return unfit
    key = attempt(lambda: _key_at_fault(error, model), None)
    name = spelt(type(error).__name__)
    return DoesNotFit(f"{key}: {name}" if key else name, keys=frozenset({key} if key else ()))


def _invalid(error: ValidationError, secrets: Secrets) -> DoesNotFit:
    items = error.errors(include_url=False, include_context=False)
    return DoesNotFit(
        spelt(secrets.without(in_words(error))),
        only_lacks=all(item["type"] == "missing" for item in items),
        keys=frozenset(str(item["loc"][0]) for item in items if item["loc"]),
    )


def _key_at_fault(error: BaseException, model: type[BaseModel]) -> str | None:
    """The field whose validator or factory raised: pydantic says it of a ValueError only."""
    keys = _keys_by_code(model)
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((keys[code] for code in frames if code in keys), None)


def _keys_by_code(model: type[BaseModel]) -> dict[CodeType, str]:
    """Which field each function of the model's judges; one that judges several is left out."""
    found: dict[CodeType, set[str]] = {}

    def note(function: Any, keys: Iterable[str]) -> None:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is not None:
            found.setdefault(code, set()).update(keys)

    def note_all(judge: type[BaseModel], key: str | None) -> None:
        for decorator in judge.__pydantic_decorators__.field_validators.values():
            note(decorator.func, [key] if key else decorator.info.fields)
        for name, field in judge.model_fields.items():
            note(field.default_factory, [key or name])
            for constraint in field.metadata:
                note(getattr(constraint, "func", None), [key or name])

    note_all(model, None)
    for key, field in model.model_fields.items():
        for inner in models_within(field.annotation) - {model}:
            note_all(inner, key)
    return {code: keys.pop() for code, keys in found.items() if len(keys) == 1 and "*" not in keys}


def models_within(annotation: Any) -> set[type[BaseModel]]:
    """The models that a type names, and those that they name."""
    found: set[type[BaseModel]] = set()
    waiting = [annotation]
    while waiting:
        kind = waiting.pop()
        waiting += get_args(kind)
        is_model = isinstance(kind, type) and not get_args(kind) and issubclass(kind, BaseModel)
        if is_model and kind not in found:
            found.add(kind)
            waiting += [field.annotation for field in kind.model_fields.values()]
    return found


def in_words(error: ValidationError, *, of: str | None = None) -> str:
    """Which key, and what is wrong with it; never the value, which may be a secret. of: only what is
    wrong with this key, which is not named."""
    said = []
    for item in error.errors(include_url=False, include_context=False):
        loc = item["loc"]
        if of is not None and loc[:1] != (of,):
            continue
        where = ".".join(str(part) for part in (loc if of is None else loc[1:]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "import_error":
            message = "cannot be imported"
        elif item["type"] in _QUOTING or item["type"] not in _PYDANTICS_OWN:
            message = _without(item["input"], message)
        said.append(f"{where}: {message}" if where else message)
    return "; ".join(said)


_QUOTING = ("union_tag_invalid", "value_error", "assertion_error")
"""Errors whose words may hold the value: a validator's author writes what he likes."""

_PYDANTICS_OWN = frozenset(get_args(ErrorType))


def _without(value: Any, message: str) -> str:
    said = {text for text in _texts(value) if text in message}
    for text in sorted(said, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", "…", message)
    return message


def _texts(value: Any) -> set[str]:
    """Every scalar in there, as a message would spell it."""
    if isinstance(value, BaseModel):
        return _texts(dict(value))
    if isinstance(value, Mapping):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return set().union(*map(_texts, value))
    return {text for text in (str(value), repr(value)) if text}
