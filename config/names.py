"""Names and identifiers: parsed once at the edge, trusted afterwards."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

from config_manager.config.errors import FieldError, InvalidName, InvalidValues

OUR_ID = "config-manager"
"""This service's own id on MQTT; no other service may have this name."""

RESERVED = frozenset({"epoch", "search", OUR_ID})
"""Segments of our own URLs and topics, which no service or instance may be called."""

ServiceName = NewType("ServiceName", str)
InstanceName = NewType("InstanceName", str)
CorrelationId = NewType("CorrelationId", str)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,62}")
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Epoch(NamedTuple):
    """A generation of the whole fleet's configuration: `seq` orders, `id` (a UUID) names."""

    seq: int
    id: str


class Mark(NamedTuple):
    """How far a reader has come. Compares as clients must: by epoch first, then by revision."""

    epoch_seq: int
    revision: int


def parse_service(text: str) -> ServiceName:
    """A managed service's name; raises InvalidName (400)."""
    return ServiceName(_parse_name(text, "service"))


def parse_instance(text: str) -> InstanceName:
    """An instance's name; raises InvalidName (400)."""
    return InstanceName(_parse_name(text, "instance"))


def _parse_name(text: str, what: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidName(
            f"a {what} name is 1 to 63 of a-z, 0-9 and '-', and starts with a letter or digit"
        )
    if text in RESERVED:
        raise InvalidName(f"{text!r} is reserved; choose another {what} name")
    return text


def is_key(text: str) -> bool:
    """Whether `text` may be a top-level key of a configuration (and so a secret's name)."""
    return _KEY.fullmatch(text) is not None


def check_keys(values: dict[str, object]) -> None:
    """Raises InvalidValues (422), which names every top-level key outside the grammar."""
    bad = [key for key in values if not is_key(key)]
    if bad:
        raise InvalidValues(
            "some keys are not valid names",
            [
                FieldError(
                    pointer(key),
                    "a key is 1 to 63 of a-z, 0-9 and '_', and starts with a letter",
                )
                for key in bad
            ],
        )


def pointer(*segments: str | int) -> str:
    """An RFC 6901 JSON pointer."""
    return "".join("/" + str(s).replace("~", "~0").replace("/", "~1") for s in segments)


def accept_correlation_id(text: str | None) -> CorrelationId | None:
    """The X-Request-ID of a request, None if it is missing or invalid: then the server makes one."""
    if text is not None and _CORRELATION_ID.fullmatch(text):
        return CorrelationId(text)
    return None
