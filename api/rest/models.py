"""What the models of bodies and answers are made of, and the one reader of bodies.

An answer is a `TypedDict`: it is made as a dictionary, checked by mypy, and costs nothing more when it is sent.
A body is a `Body`, a pydantic model whose members are read by functions of ours: every one that is wrong is
named by its JSON pointer. Both are what `api.rest.openapi` describes; an annotation adds what a type does not say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import core_schema

from config_manager.api.rest.request import ApiRequest
from config_manager.config.errors import FieldError, InvalidName, InvalidValues
from config_manager.config.names import parse_instance, parse_service, pointer
from config_manager.config.strict_json import JsonObject

B = TypeVar("B", bound="Body")

# ── schemas ────────────────────────────────────────────────────────────────────────────────────

INTEGER: JsonObject = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
TEXT: JsonObject = {"type": "string"}
NO_NUL: JsonObject = {"type": "string", "pattern": "^[^\\u0000]*$"}
NAME: JsonObject = {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9-]{0,62}$",
    "not": {"enum": ["epoch", "search", "config-manager"]},
}
KEY: JsonObject = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"}
KEY_32: JsonObject = {"type": "string", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"}
SIGNATURE: JsonObject = {"type": "string", "pattern": "^[A-Za-z0-9+/]{85}[AQgw]==$"}
DURATION: JsonObject = {"type": "string", "pattern": "^[1-9][0-9]{0,2}[smhdw]$"}


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """In an `Annotated`: what OpenAPI says of it beside what the type says."""

    words: JsonObject


@dataclass(frozen=True, slots=True, eq=False)
class ByHand:
    """In an `Annotated`: one of the schemas that no type says (`api.rest.openapi`)."""

    name: str


def about(description: str) -> Schema:
    return Schema({"description": description})


Time = Annotated[str, Schema({"format": "date-time"})]
Name = Annotated[str, Schema(NAME)]
Values = Annotated[dict[str, Any], ByHand("Values")]
"""A service's values, by key."""


# ── bodies ─────────────────────────────────────────────────────────────────────────────────────


class Wrong(ValueError):
    """Several things wrong within one member; pointers from there on."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__()
        self.errors = errors


class _WrongName(ValueError):
    def __init__(self, error: InvalidName) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """In an `Annotated`: how a member of a body is read, and what OpenAPI says of it.

    parse: from what the JSON holds (None if the member is required and left out) to its value. Raises
    ValueError, whose words say what was expected; `Wrong`; or InvalidName, which is the answer (400) if
    it is the first thing that is wrong.
    """

    parse: Callable[[Any], Any]
    schema: JsonObject

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: Any) -> Any:
        try:
            return self.parse(value)
        except InvalidName as error:
            raise _WrongName(error) from None


class Body(BaseModel):
    """A body with these members and no others. REFUSED: the detail of its refusal."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )
    REFUSED: ClassVar[str]


def read(request: ApiRequest, model: type[B]) -> B:
    """The body. Raises UnsupportedMediaType, MalformedRequest, and InvalidValues, which names every wrong
    member."""
    try:
        return model.model_validate(request.json_object())
    except ValidationError as error:
        refusal = _refusal(model, error)
    raise refusal  # without the other in its context: that one knows the values


def _refusal(model: type[Body], error: ValidationError) -> InvalidName | InvalidValues:
    unknown: list[FieldError] = []
    wrong: list[FieldError] = []
    first_name: InvalidName | None = None
    for one in error.errors(include_url=False, include_input=False):
        name = str(one["loc"][0])
        if one["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            unknown.append(FieldError(pointer(name), f"unknown; known: {known}"))
            continue
        match _reason(model, name) if one["type"] == "missing" else one["ctx"]["error"]:
            case _WrongName(error=wrong_name):
                first_name = first_name or (None if wrong else wrong_name)
            case Wrong(errors=errors):
                wrong += [FieldError(pointer(name) + e.pointer, e.detail) for e in errors]
            case reason:
                wrong.append(FieldError(pointer(name), str(reason)))
    if first_name is not None and not unknown:
        return first_name
    return InvalidValues(model.REFUSED, [*unknown, *wrong])


def _reason(model: type[Body], name: str) -> ValueError:
    """Why a required member can't be left out, in the words of its reader."""
    try:
        member_of(model, name).parse(None)
    except ValueError as error:
        return error
    return ValueError("expected a value")


def member_of(model: type[Body], name: str) -> Member:
    return next(one for one in model.model_fields[name].metadata if isinstance(one, Member))


# ── readers ────────────────────────────────────────────────────────────────────────────────────


def text(value: Any, expected: str = "expected text") -> str:
    if isinstance(value, str):
        return value
    raise ValueError(expected)


def as_object(value: Any, expected: str) -> JsonObject:
    if isinstance(value, dict):
        return value
    raise ValueError(expected)


def choice(*texts: str) -> Member:
    def parse(value: Any) -> Any:
        if value not in texts:
            raise ValueError(f"expected one of: {', '.join(texts)}")
        return value

    return Member(parse, {"enum": list(texts)})


def in_base64(encoded: str, size: int) -> bytes:
    """Exactly so many bytes."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise ValueError(f"expected {size} bytes in base64")
    return data


SERVICE_NAME = Member(lambda value: parse_service(text(value)), NAME)
INSTANCE_NAME = Member(lambda value: parse_instance(text(value)), NAME)
