"""What the models of bodies and answers are made of, and the one reader of bodies.

All of them are pydantic models, which `api.rest.openapi` describes. An annotation adds what a type does not say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, core_schema

from config_manager.api.rest.request import ApiRequest
from config_manager.config.access import EVERY_SERVICE, is_pattern
from config_manager.config.errors import FieldError, InvalidName, InvalidValues
from config_manager.config.names import (
    InstanceName,
    ServiceName,
    parse_instance,
    parse_service,
    pointer,
)
from config_manager.config.strict_json import JsonObject

B = TypeVar("B", bound="Body")

_MOST_PATTERNS = 64
_MOST_UNKNOWN = 64
"""Unknown members of a body that a refusal names: it must not be many times as large as the body."""

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


def about(description: str) -> Any:
    """In an `Annotated`: what OpenAPI says of a member."""
    return Field(description=description)


HIDDEN: Any = Field(repr=False)
"""In an `Annotated`: the member is a secret, which no repr of the model shows."""


Time = Annotated[str, WithJsonSchema({**TEXT, "format": "date-time"})]
Name = Annotated[str, WithJsonSchema(NAME)]
Always = Annotated[Literal[True], WithJsonSchema({"type": "boolean", "description": "always true"})]
"""A constant only for us: openapi-generator's clients refuse an answer that has a constant boolean."""

# members that many answers have, told once
Revision = Annotated[int, about("the change's number: every accepted write takes the next one")]
Version = Annotated[int, about("how often this service was written; it goes on after a deletion")]
EpochId = Annotated[str, about("the epoch's id, a UUID")]
EpochSeq = Annotated[
    int,
    about(
        "the epoch's number: a new one begins when several services change as one, or after a restore"
    ),
]
CorrelationId = Annotated[
    str, about("the X-Request-ID of the change: the same in logs, messages, history and receipts")
]
By = Annotated[str, about("the name of the token that was used")]
Digest = Annotated[str, about("SHA-256, in hex, of the payload that was signed")]
KeyId = Annotated[str, about("SHA-256, in hex, of the raw public key")]

Values = Annotated[dict[str, Any], WithJsonSchema({"$ref": "#/components/schemas/Values"})]
"""A service's values, by key."""
Effective = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"$ref": "#/components/schemas/Value"},
            "description": "its values by key, defaults filled in; secrets are `********`",
        }
    ),
]


# ── answers ────────────────────────────────────────────────────────────────────────────────────


class Answer(BaseModel):
    """What a call answers. A member with a default is left out unless it was given.

    Members stand in the order of the bases from the last to the first, then of the class itself. In OpenAPI
    a model bears its class's name, without `Answer` at the end, and its docstring.
    """

    model_config = ConfigDict(
        frozen=True, from_attributes=True, hide_input_in_errors=True, defer_build=True
    )

    @classmethod
    def of(cls, thing: object, **others: Any) -> Self:
        """An answer about a thing. A required member that `others` does not give is the thing's attribute of that name."""
        names = [name for name, one in cls.model_fields.items() if one.is_required()]
        own = {name: getattr(thing, name) for name in names if name not in others}
        return cls.model_validate({**own, **others})


# ── bodies ─────────────────────────────────────────────────────────────────────────────────────


class SeveralWrong(ValueError):
    """Several things are wrong within one member; the pointers begin there."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__()
        self.errors = errors


class _WrongName(ValueError):
    def __init__(self, error: InvalidName) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """In an `Annotated`: how a member of a body is read, and what OpenAPI says of it.

    parse: from what the JSON holds (None if the member is required and left out) to its value. Raises
    ValueError, whose words say what was expected; `SeveralWrong`; or InvalidName, which is the answer (400)
    if it is the first thing that is wrong.
    """

    parse: Callable[[Any], Any]
    schema: JsonObject

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> JsonObject:
        return dict(self.schema)

    def _validate(self, value: Any) -> Any:
        try:
            return self.parse(value)
        except InvalidName as error:
            raise _WrongName(error) from None


class Body(BaseModel):
    """A body with these members and no others. REFUSED: the detail of its refusal. OpenAPI shows its
    docstring."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )
    REFUSED: ClassVar[str]


def read(request: ApiRequest, model: type[B]) -> B:
    """The body. Raises UnsupportedMediaType, MalformedRequest, and InvalidValues, which names every wrong
    member, and up to 64 unknown ones."""
    return parsed(request.json_object(), model)


def parsed(given: JsonObject, model: type[B]) -> B:
    """The same of an object in a body. Raises InvalidName, and InvalidValues with pointers into the object."""
    known = model.model_fields
    required = [name for name, one in known.items() if one.is_required()]
    unknown = list(islice((name for name in given if name not in known), _MOST_UNKNOWN))
    values = {name: value for name, value in given.items() if name in known}
    refusal: InvalidName | InvalidValues
    try:
        body = model.model_validate({**dict.fromkeys(required), **values})
    except ValidationError as error:
        refusal = _refusal(model, unknown, error.errors(include_url=False, include_input=False))
    else:
        if not unknown:
            return body
        refusal = _refusal(model, unknown, [])
    raise refusal  # out here, so that its context is not the ValidationError, which holds the values


def _refusal(
    model: type[Body], unknown: Sequence[str], errors: Sequence[ErrorDetails]
) -> InvalidName | InvalidValues:
    said = f"unknown; known: {', '.join(model.model_fields)}"
    strange = [FieldError(pointer(name), said) for name in unknown]
    wrong: list[FieldError] = []
    first_name: InvalidName | None = None
    for found in errors:
        at = pointer(str(found["loc"][0]))
        match found.get("ctx", {}).get("error"):
            case _WrongName(error=wrong_name):
                first_name = first_name or (None if wrong else wrong_name)
            case SeveralWrong(errors=inner):
                wrong += [FieldError(at + e.pointer, e.detail) for e in inner]
            case reason:
                wrong.append(FieldError(at, str(reason or _expected(model, found))))
    if first_name is not None and not strange:
        return first_name
    return InvalidValues(model.REFUSED, [*strange, *wrong])


def _expected(model: type[Body], error: ErrorDetails) -> str:
    """What pydantic itself found wrong, in our words."""
    if error["type"] == "literal_error":
        texts = get_args(model.model_fields[str(error["loc"][0])].annotation)
        return f"expected one of: {', '.join(texts)}"
    return "expected text"


# ── readers ────────────────────────────────────────────────────────────────────────────────────


def text(value: Any, expected: str = "expected text") -> str:
    if isinstance(value, str):
        return value
    raise ValueError(expected)


def in_base64(encoded: str, size: int) -> bytes:
    """`size` bytes from base64. Raises ValueError."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise ValueError(f"expected {size} bytes in base64")
    return data


Service = Annotated[ServiceName, Reader(lambda value: parse_service(text(value)), NAME)]
Instance = Annotated[InstanceName, Reader(lambda value: parse_instance(text(value)), NAME)]


def _parse_patterns(value: Any) -> tuple[str, ...]:
    patterns = cast("list[object]", value) if isinstance(value, list) else []
    if not 1 <= len(patterns) <= _MOST_PATTERNS:
        raise ValueError(f"expected a list of 1 to {_MOST_PATTERNS} patterns")
    wrong = [
        FieldError(pointer(index), "expected a service's name, `*` standing for any text: tts-*")
        for index, pattern in enumerate(patterns)
        if not isinstance(pattern, str) or not is_pattern(pattern)
    ]
    if wrong:
        raise SeveralWrong(wrong)
    return tuple(map(str, patterns))


_PATTERNS: JsonObject = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[a-z0-9*-]{1,63}$"},
    "minItems": 1,
    "maxItems": _MOST_PATTERNS,
    "description": "the services that it is for; `*` stands for any text",
}
ServicePatterns = Annotated[
    tuple[str, ...], Reader(_parse_patterns, {**_PATTERNS, "default": [*EVERY_SERVICE]})
]
ListedPatterns = Annotated[Sequence[str], WithJsonSchema(_PATTERNS)]
"""The same in an answer."""
