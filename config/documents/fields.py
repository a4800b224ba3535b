"""Reading a signed payload field by field, and what is wrong with one that does not fit its type.

Writers serialise a document once and sign those bytes. Readers parse only bytes whose signature they
checked (`config.trust`). They ignore fields they don't know, unless `critical` names one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar, get_type_hints

from config_manager.config import strict_json
from config_manager.config.strict_json import JsonObject, is_list, is_object

D = TypeVar("D")

_MAX_DEPTH = strict_json.MAX_DEPTH + 1
"""A document nests a request's values one level further down."""


class NotADocument(ValueError):
    """A payload that verified but does not have its type's fields; the message names the field."""


class UnknownCritical(ValueError):
    """The payload's `critical` names a field that this version does not understand."""


def members(document: Any) -> JsonObject:
    """A document's own fields, in the order of its class, values as they are."""
    return {name: getattr(document, name) for name in document.__slots__}


class Fields:
    """Reads typed fields out of a verified payload, and says which one is wrong (NotADocument)."""

    def __init__(self, value: JsonObject, where: str = "") -> None:
        self._value = value
        self._where = where

    @classmethod
    def parse(cls, payload: bytes, document: Any, *, with_format: bool = False) -> Fields:
        """The payload of a document (a dataclass with slots, which are the fields it knows).

        with_format: the payload also has a `format`, which is 1. Raises NotADocument, UnknownCritical.
        """
        try:
            value = strict_json.loads_object(
                payload, max_depth=_MAX_DEPTH, max_integer=strict_json.MAX_INTEGER_ONCE_SIGNED
            )
        except strict_json.NotStrictJson as error:
            raise NotADocument(str(error)) from None
        fields = cls(value)
        known = {*document.__slots__, "critical", *(("format",) if with_format else ())}
        if unknown := [name for name in fields.texts("critical") if name not in known]:
            raise UnknownCritical(f"critical names {unknown[0][:64]!r}, unknown to this version")
        if with_format and fields.integer("format") != 1:
            raise NotADocument("format: expected 1")
        return fields

    @classmethod
    def of(cls, value: Any, where: str) -> Fields:
        """The fields of an object inside a payload. where: its place, for the message."""
        if not is_object(value):
            raise NotADocument(f"{where}: expected an object")
        return cls(value, where + ".")

    def read(self, document: Callable[..., D], **readers: Reader) -> D:
        """A document of this class, each field read by its type, or by the reader of its name."""
        return document(
            **{
                name: (readers.get(name) or _READERS[hint])(self, name)
                for name, hint in _hints(document).items()
            }
        )

    def place(self, name: str) -> str:
        """Where this member is, for a message."""
        return self._where + name

    def _wrong(self, name: str, expected: str) -> NotADocument:
        return NotADocument(f"{self.place(name)}: expected {expected}")

    def present(self, name: str) -> bool:
        return self._value.get(name) is not None

    def inside(self, name: str) -> Fields | None:
        """The fields of an object that may be null or absent."""
        return Fields.of(self._value[name], name) if self.present(name) else None

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if self.present(name) else None

    def integer(self, name: str) -> int:
        return self.number(self._value.get(name), name)

    def integers(self, name: str) -> dict[str, int]:
        """An object whose members are all integers."""
        return {key: self.number(value, name) for key, value in self.object(name).items()}

    def number(self, value: Any, name: str) -> int:
        """This value out of the member `name`, as an integer."""
        if type(value) is not int or not 0 <= value <= strict_json.MAX_INTEGER:
            raise self._wrong(name, "an integer of 0 to 2^53 - 1")
        return value

    def boolean(self, name: str) -> bool:
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def object(self, name: str) -> JsonObject:
        value = self._value.get(name)
        if not is_object(value):
            raise self._wrong(name, "an object")
        return value

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of objects; an absent one is empty."""
        value = self._value.get(name, [])
        if not is_list(value):
            raise self._wrong(name, "a list of objects")
        return tuple(Fields.of(item, self.place(name)) for item in value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; an absent one is empty."""
        value = self._value.get(name, [])
        if not is_list(value) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of strings")
        return tuple(value)

    def base64(self, name: str) -> bytes:
        text = self.text(name)
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise NotADocument(f"{self.place(name)} is not base64") from None


_hints = cache(get_type_hints)

Reader: TypeAlias = Callable[[Fields, str], Any]
"""Reads the field of this name."""

_READERS: Mapping[Any, Reader] = {
    str: Fields.text,
    str | None: Fields.optional_text,
    int: Fields.integer,
    bool: Fields.boolean,
    tuple[str, ...]: Fields.texts,
    JsonObject: Fields.object,
}
