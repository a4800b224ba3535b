"""Runs a model's own code, and says to an operator what it raised: which key is wrong, and never the value.

Validators, `model_post_init`, factories, `__eq__`, `__deepcopy__`, `__str__`, and whatever they call,
may raise anything. None of it may end a driver: what does not fit is refused as `model`, and what runs
goes on. For a question to which there is another answer, use `guarded.attempt`.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import CodeType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from config_manager.client.model import quoted
from config_manager.client.model.guarded import attempt, ends_the_program
from config_manager.client.model.spelling import delivered_names
from config_manager.client.model.type_walk import models_within
from config_manager.client.model.words import MOST_READ, Secrets, name_of, spelt


class DoesNotFit(ValueError):
    """The values are not what the service's own model takes; the message names each key.

    only_lacks: nothing is wrong but that some keys have no value. keys: the top-level ones that are wrong.
    """

    def __init__(
        self, words: str, *, only_lacks: bool = False, keys: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(words)
        self.only_lacks = only_lacks
        self.keys = keys


@contextmanager
def judging(model: type[BaseModel], secrets: Secrets) -> Generator[None]:
    """Around code of the user's: raises DoesNotFit for whatever that raises.

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
    unfit = attempt(lambda: _invalid(error, model, secrets), None)  # it calls anybody's `__str__`
    if unfit is not None:
        return unfit
    key = attempt(lambda: _key_at_fault(error, model), None)
    name = name_of(error)
    return DoesNotFit(f"{key}: {name}" if key else name, keys=frozenset({key} if key else ()))


def _invalid(error: BaseException, model: type[BaseModel], secrets: Secrets) -> DoesNotFit | None:
    """None: it is no ValidationError."""
    if not isinstance(error, ValidationError):
        return None
    items = error.errors(include_url=False, include_context=False)
    return DoesNotFit(
        spelt(secrets.without(in_words(error, model))),
        only_lacks=all(item["type"] == "missing" for item in items),
        keys=frozenset(place_of(item, model)[0] for item in items if item["loc"]),
    )


def place_of(item: ErrorDetails, model: type[BaseModel]) -> tuple[str, ...]:
    """Where an error is, by the field's own name, whatever alias its value came under."""
    place = tuple(str(part) for part in item["loc"])
    if not place:
        return ()
    return (delivered_names(model).get(place[0], place[0]), *place[1:])


def _key_at_fault(error: BaseException, model: type[BaseModel]) -> str | None:
    """The field whose validator or factory raised: pydantic says it of a ValueError only."""
    keys = _keys_by_code(model)
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((keys[code] for code in frames if code in keys), None)


def _keys_by_code(model: type[BaseModel]) -> dict[CodeType, str]:
    """Which field each function of the model's judges; one that judges several is left out."""
    found: dict[CodeType, set[str]] = {}
    judges: list[tuple[type[BaseModel], str | None]] = [(model, None)]
    for key, field in model.model_fields.items():
        inner = models_within(field.annotation)
        judges += [(judge, key) for judge in inner if judge is not model]
    for judge, outer in judges:
        validators = judge.__pydantic_decorators__.field_validators.values()
        judged: list[tuple[Any, Iterable[str]]] = [
            (one.func, one.info.fields) for one in validators
        ]
        for name, field in judge.model_fields.items():
            functions = (getattr(constraint, "func", None) for constraint in field.metadata)
            judged += [(function, (name,)) for function in (field.default_factory, *functions)]
        for function, keys in judged:
            code = getattr(getattr(function, "__func__", function), "__code__", None)
            if code is not None:
                found.setdefault(code, set()).update([outer] if outer else keys)
    return {code: keys.pop() for code, keys in found.items() if len(keys) == 1 and "*" not in keys}


def in_words(error: ValidationError, model: type[BaseModel], *, of: str | None = None) -> str:
    """Which key, and what is wrong with it; never the value, which may be a secret. of: only what is
    wrong with this key, which is not named."""
    said: list[str] = []
    length = 0
    for item in error.errors(include_url=False, include_context=False):
        loc = place_of(item, model)
        if of is not None and loc[:1] != (of,):
            continue
        where = ".".join(str(part) for part in (loc if of is None else loc[1:]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "import_error":
            message = "cannot be imported"
        elif item["type"] in _QUOTING or item["type"] not in _PYDANTICS_OWN:
            message = quoted.without(item["input"], message)
        said.append(f"{where}: {message}" if where else message)
        length += len(said[-1])
        if length > MOST_READ:  # enough for a reader; each item may quote as much again
            break
    return "; ".join(said)


_QUOTING = ("union_tag_invalid", "value_error", "assertion_error")
"""Errors whose words may hold the value: a validator's author may write anything."""

_PYDANTICS_OWN = frozenset(get_args(ErrorType))
