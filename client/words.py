"""Text that others wrote, made fit for receipts and log lines: it can be spelt, it is short, and it
holds no secret.

The words of an exception are anybody's: a callback's, a validator's, a library's. They end up in a
retained receipt that is signed but not encrypted, and in the service's log.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
import traceback
import unicodedata
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import BaseModel, ValidationError

from config_manager.client.guarded import attempt

MASK = "********"
"""What is shown in a secret's place."""

MOST_CHARACTERS = 500
"""Of one reason: as much as an operator reads."""

_MOST_READ = 20_000
"""Characters of somebody's text that are looked at; the rest is left out before."""

_MOST_MEMBERS = 5
"""Of an exception group, whose words are said."""

_WINDOW = 10
"""Characters of a secret that are as good as the whole of it: pydantic, say, quotes the two ends."""


def spelt(words: object, *, at_most: int = MOST_CHARACTERS) -> str:
    """`str(words)` as every JSON reader takes it, cut; whatever `__str__` does.

    Surrogates (a file's name that is not UTF-8) and control characters become U+FFFD.
    """
    text = words if isinstance(words, str) else _text_of(words)
    fit = "".join("\ufffd" if _is_unfit(one) else one for one in text[:_MOST_READ])
    return fit if len(fit) <= at_most else fit[: at_most - 1] + "…"


def _is_unfit(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character not in "\n\t"
    return unicodedata.bidirectional(character) in _TURNS


_TURNS = frozenset(["LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"])
"""Characters that turn the direction of a line: it would read as another one."""


def _text_of(words: object) -> str:
    unreadable = "(its words can't be read)"
    return attempt(lambda: str(words), unreadable)


class Secrets:
    """Secret values that no words may hold."""

    def __init__(self, values: Iterable[str | bytes] = ()) -> None:
        self._spellings: set[str] = set()
        for value in values:
            self._add(value)

    def __or__(self, other: Secrets) -> Secrets:
        both = Secrets()
        both._spellings = self._spellings | other._spellings
        return both

    @classmethod
    def of(cls, *places: object, also: Iterable[str | bytes] = ()) -> Secrets:
        """What pydantic's secret types hold anywhere in there, and `also`."""
        return cls([*also, *(one for place in places for one in secrets_in(place))])

    def _add(self, value: str | bytes) -> None:
        text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
        if not text:
            return
        raw = value if isinstance(value, bytes) else text.encode(errors="replace")
        password = attempt(lambda: urlsplit(text).password, None)  # of a connection's URL
        if password:
            self._spellings |= {password, unquote(password)}
        self._spellings |= {
            text,
            repr(raw)[2:-1],
            raw.hex(),
            html.escape(text),
            repr(text)[1:-1],
            json.dumps(text)[1:-1],
            base64.b64encode(raw).decode(),
        }
        for escaped in (
            quote(text, errors="replace"),
            quote(text, "", errors="replace"),
            quote_plus(text, errors="replace"),
        ):
            in_small = re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), escaped)
            self._spellings |= {escaped, in_small}

    def without(self, text: str) -> str:
        """The text with a mask for each secret in it, and for each longer piece of one."""
        text = text[:_MOST_READ]
        hidden = bytearray(len(text))
        for secret in self._spellings:
            _hide(text, secret, hidden)
        if not any(hidden):
            return text
        said: list[str] = []
        for index, character in enumerate(text):
            if not hidden[index]:
                said.append(character)
            elif not index or not hidden[index - 1]:
                said.append(MASK)
        return "".join(said)

    def words_of(self, error: BaseException) -> str:
        """What an exception says, for a receipt: its type, and its words without secrets. Of a group
        what its members say."""
        if isinstance(error, BaseExceptionGroup):
            return spelt("; ".join(self.words_of(one) for one in leaves_of(error)[:_MOST_MEMBERS]))
        name = name_of(error)
        if isinstance(error, ValidationError):
            return spelt(self.without(f"{name}: {_in_short(error)}"))
        return spelt(self.without(f"{name}: {_text_of(error)}".removesuffix(": ")))

    def traceback_of(self, error: BaseException) -> str:
        """An exception's traceback, for the log."""
        lines = attempt(lambda: "".join(traceback.format_exception(error)), name_of(error))
        return spelt(self.without(lines[-_MOST_READ:]), at_most=_MOST_READ)


def name_of(error: BaseException) -> str:
    """Its type's, if that can be asked."""
    return spelt(attempt(lambda: type(error).__name__, "an exception"))


def leaves_of(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, and in the groups within; one that is no group alone."""
    leaves: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else None
        if members is None:
            leaves.append(one)
        else:
            waiting[:0] = members
    return leaves


def _hide(text: str, secret: str, hidden: bytearray) -> None:
    """Mark where the secret, or a piece of it as long as the window, stands in the text."""
    size = min(len(secret), _WINDOW)
    pieces = {secret[at : at + size] for at in range(len(secret) - size + 1)}
    for at in range(len(text) - size + 1):
        if text[at : at + size] in pieces:
            hidden[at : at + size] = b"\x01" * size


def _in_short(error: ValidationError) -> str:
    """Where and what, never the input: pydantic's own text quotes it."""

    def said() -> str:
        items = error.errors(include_url=False, include_context=False, include_input=False)
        places = (".".join(map(str, item["loc"])) for item in items)
        return "; ".join(
            f"{place}: {item['msg']}".removeprefix(": ")
            for place, item in zip(places, items, strict=True)
        )

    return attempt(said, "does not fit")


def secrets_in(value: object) -> list[str | bytes]:
    """What the secrets in a configuration are: of pydantic's secret types, however deep."""
    found: list[str | bytes] = []
    _collect(value, found, set())
    return found


def _collect(value: object, found: list[str | bytes], seen: set[int]) -> None:
    if value is None or isinstance(value, str | bytes | int | float) or id(value) in seen:
        return
    seen.add(id(value))
    reveal = getattr(type(value), "get_secret_value", None)
    if reveal is not None:
        secret = reveal(value)
        found.append(secret if isinstance(secret, str | bytes) else _text_of(secret))
    elif isinstance(value, BaseModel):
        _collect({**value.__dict__, **(value.__pydantic_extra__ or {})}, found, seen)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for one in dataclasses.fields(value):
            _collect(getattr(value, one.name, None), found, seen)
    elif isinstance(value, Mapping):
        for inner in value.values():
            _collect(inner, found, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            _collect(inner, found, seen)
