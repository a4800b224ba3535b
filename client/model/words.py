"""Text that others wrote, made fit for receipts and log lines: valid, short, and without secrets.

Anybody may have written the words of an exception: a callback, a validator, a library. They end up in a
retained receipt, which is signed but not encrypted, and in the service's log.
"""

from __future__ import annotations

import base64
import html
import json
import re
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import cast
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import ValidationError

from config_manager.client.model.guarded import attempt
from config_manager.client.model.values import is_secret, parts_of, revealed
from config_manager.config.secret import MASK

MOST_CHARACTERS = 500
"""In one reason: as much as an operator reads."""

MOST_READ = 20_000
"""Characters of a text that are looked at; the rest is cut off first."""

_MOST_MEMBERS = 5
"""So many members of an exception group are quoted."""

_WINDOW = 10
"""So many characters of a secret count as the whole secret: pydantic, say, quotes its two ends."""

_LEAST_OF_BASE64 = 4
"""Characters of base64 without its edges: with fewer, words that are no secret would be masked."""


def spelt(words: object, *, at_most: int = MOST_CHARACTERS) -> str:
    """`str(words)` as every JSON reader takes it, cut. It never raises, whatever `__str__` does.

    Surrogates (a file's name that is not UTF-8) and control characters become U+FFFD.
    """
    text = words if isinstance(words, str) else _text_of(words)
    fit = "".join("\ufffd" if _is_unfit(one) else one for one in text[:MOST_READ])
    return fit if len(fit) <= at_most else fit[: at_most - 1] + "…"


def _is_unfit(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character not in "\n\t"
    return unicodedata.bidirectional(character) in _TURNS


_TURNS = frozenset(["LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"])
"""Characters that turn the direction of a line, so that it would read as another one."""


def _text_of(words: object) -> str:
    unreadable = "(its words can't be read)"
    return attempt(lambda: str(words), unreadable)


class Secrets:
    """Secret values that no words may hold."""

    def __init__(self, values: Iterable[str | bytes] = ()) -> None:
        self._lots: tuple[_Lot, ...] = (_Lot(frozenset(values)),)

    def __or__(self, other: Secrets) -> Secrets:
        both = Secrets()
        both._lots = tuple(dict.fromkeys(self._lots + other._lots))
        return both

    @classmethod
    def of(cls, *places: object, also: Iterable[str | bytes] = ()) -> Secrets:
        """What pydantic's secret types hold anywhere in there, and `also`."""
        return cls([*also, *(one for place in places for one in secrets_in(place))])

    def without(self, text: str) -> str:
        """The text with a mask for each secret in it, and for each longer piece of one."""
        text = text[:MOST_READ]
        hidden = bytearray(len(text))
        for lot in self._lots:
            lot.hide(text, hidden)
        return masked(text, hidden, MASK)

    def words_of(self, error: BaseException) -> str:
        """What an exception says, for a receipt: its type, and its words without secrets. For a group, what its
        members say."""
        leaves, name = leaves_of(error), name_of(error)
        if isinstance(error, BaseExceptionGroup):
            return spelt("; ".join(map(self.words_of, leaves[:_MOST_MEMBERS])))
        if isinstance(error, ValidationError):
            return spelt(self.without(f"{name}: {_in_short(error)}"))
        return spelt(self.without(f"{name}: {_text_of(error)}".removesuffix(": ")))

    def traceback_of(self, error: BaseException) -> str:
        """An exception's traceback, for the log."""
        lines = attempt(lambda: "".join(traceback.format_exception(error)), name_of(error))
        return spelt(self.without(lines[-MOST_READ:]), at_most=MOST_READ)


def name_of(error: BaseException) -> str:
    """The name of its type, if that can be asked for."""
    return spelt(attempt(lambda: type(error).__name__, "an exception"))


def leaves_of(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups within it; of any other exception, that one alone."""
    leaves: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting += reversed(cast("BaseExceptionGroup[BaseException]", one).exceptions)
        else:
            leaves.append(one)
    return leaves


def masked(text: str, hidden: bytes | bytearray, mask: str) -> str:
    """The text with one mask for each run of characters whose byte in `hidden` is 1."""
    said: list[str] = []
    end = 0
    for run in re.finditer(b"\x01+", hidden):
        said += (text[end : run.start()], mask)
        end = run.end()
    return "".join([*said, text[end:]])


class _Lot:
    """Secrets that came together. Their pieces are made once, when the first text is masked, and shared by each
    `Secrets` that they are merged into."""

    def __init__(self, values: frozenset[str | bytes]) -> None:
        self._values = values

    @cached_property
    def pieces(self) -> Mapping[int, set[str]]:
        """Every piece of every spelling, by its length: a text is scanned once for each length, however
        many secrets there are."""
        pieces: dict[int, set[str]] = {}
        for spelling in {one for value in self._values for one in _spellings(value) if one}:
            size = min(len(spelling), _WINDOW)
            pieces.setdefault(size, set()).update(
                spelling[at : at + size] for at in range(len(spelling) - size + 1)
            )
        return pieces

    def hide(self, text: str, hidden: bytearray) -> None:
        """Mark where a secret, or a piece of it as long as the window, stands in the text."""
        for size, pieces in self.pieces.items():
            for at in range(len(text) - size + 1):
                if text[at : at + size] in pieces:
                    hidden[at : at + size] = b"\x01" * size


def _spellings(value: str | bytes) -> Iterator[str]:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    if not text:
        return
    raw = value if isinstance(value, bytes) else text.encode(errors="replace")
    # a secret may be the URL of a connection, with a password in it
    password = attempt(lambda: urlsplit(text).password, None)
    if password:
        yield from (password, unquote(password))
    yield from (
        text,
        repr(raw)[2:-1],
        raw.hex(),
        html.escape(text),
        repr(text)[1:-1],
        json.dumps(text)[1:-1],
        base64.b64encode(raw).decode(),
    )
    yield from _within_base64(raw)
    for escaped in (
        quote(text, errors="replace"),
        quote(text, "", errors="replace"),
        quote_plus(text, errors="replace"),
    ):
        yield escaped
        yield re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), escaped)


def _within_base64(raw: bytes) -> Iterator[str]:
    """As it stands in the base64 of something longer, such as `user:secret` in `Authorization: Basic`.

    A character of base64 is six bits. The characters at the two ends hold bits of the neighbours, too.
    """
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        own = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6].decode()
        if len(own) >= _LEAST_OF_BASE64:
            yield from (own, own.translate(_URLSAFE))


_URLSAFE = str.maketrans("+/", "-_")


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
    """What pydantic's secret types hold anywhere in there, however deep."""
    found: list[str | bytes] = []
    _collect(value, found, set(), within_secret=False)
    return found


def texts_in(value: object) -> list[str | bytes]:
    """Every text in a value, and its numbers as they are spelt. A secret type may hold a whole object."""
    found: list[str | bytes] = []
    _collect(value, found, set(), within_secret=True)
    return found


def _collect(
    value: object, found: list[str | bytes], seen: set[int], *, within_secret: bool
) -> None:
    if value is None or isinstance(value, bool) or id(value) in seen:
        return
    if isinstance(value, str | bytes):
        if within_secret:
            found.append(value)
        return
    seen.add(id(value))
    if is_secret(value):
        inside = seen if within_secret else set[int]()
        _collect(revealed(value), found, inside, within_secret=True)
        return
    parts = parts_of(value)
    if parts is None and within_secret:
        found.append(_text_of(value))
    for inner in parts or ():
        _collect(inner, found, seen, within_secret=within_secret)
