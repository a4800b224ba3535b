"""Words without the value that they quote: a validator's author may write anything.

The value and the words may each be as large as a configuration, and this runs in the service's event loop.
So the words are cut first, and read once.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from itertools import islice
from posixpath import commonprefix

from config_manager.client.model.values import parts_of
from config_manager.client.model.words import MOST_READ, masked

_MOST_PARTS = 100_000
"""In a value. One configuration can't deliver more, but a validator may make more of it."""

_MOST_TOKENS = 32
"""In a text that is looked up as a whole. A longer text is recognised by its head."""

_TOKEN = re.compile(r"\w+|\W")


def without(value: object, words: str) -> str:
    """The words with `…` for each scalar of the value that stands in them, not within a word."""
    texts = _texts(value)
    if texts is None:
        return "its words are left out: they may quote a value too large to be looked for"
    return _Quoted(texts).masked_in(words)


def _texts(value: object) -> set[str] | None:
    """Every scalar in there, as a message would spell it; None: there are too many."""
    texts: set[str] = set()
    waiting: list[object] = [value]
    parts = 0
    while waiting:
        one = waiting.pop()
        inner = None if is_dataclass(one) else parts_of(one)  # a message spells that as a whole
        if inner is None:
            texts.update((str(one), repr(one)))
        else:
            waiting.extend(inner)
        parts += 1
        if parts + len(waiting) > _MOST_PARTS:
            return None
    return texts - {""}


class _Quoted:
    """Texts to be looked for, all at once, by the number of their tokens: words, or single others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole: dict[int, set[str]] = {}
        self._by_head: dict[str, list[str]] = {}
        for text in texts:
            tokens = [found.group() for found in islice(_TOKEN.finditer(text), _MOST_TOKENS + 1)]
            if len(tokens) <= _MOST_TOKENS:
                self._whole.setdefault(len(tokens), set()).add(text)
            else:
                head = "".join(tokens[:_MOST_TOKENS])
                self._by_head.setdefault(head, []).append(text[:MOST_READ])
        for same_head in self._by_head.values():
            same_head.sort()
        self._sizes = sorted(self._whole, reverse=True)

    def masked_in(self, words: str) -> str:
        read = words[:MOST_READ]
        starts = [found.start() for found in _TOKEN.finditer(read)]
        is_cut = len(words) > MOST_READ
        # a text that the cut goes through can't be recognised: it begins among the last few tokens, which
        # are left out, or all of its head is there
        count = max(len(starts) - (_MOST_TOKENS if is_cut else 0), 0)
        end = starts[count] if is_cut else len(read)
        starts.append(len(read))
        hidden = bytearray(len(read))
        at = 0
        while at < count:
            begin = starts[at]
            # not within a word, unless what stands before is left out
            is_within = begin > 0 and not hidden[begin - 1] and _is_word(read[begin - 1])
            stop = begin if is_within else self._end_of_one(read, starts, at)
            hidden[begin:stop] = b"\x01" * (stop - begin)
            at += 1
            while at < count and starts[at] < stop:
                at += 1
        return masked(read[:end], hidden[:end], "…") + ("…" if is_cut else "")

    def _end_of_one(self, read: str, starts: Sequence[int], at: int) -> int:
        """Where the longest text ends that begins with this token; where the token begins, if none does."""
        begin = starts[at]
        if self._by_head and at + _MOST_TOKENS < len(starts):
            longer = self._by_head.get(read[begin : starts[at + _MOST_TOKENS]])
            if longer is not None:
                return begin + _agreeing(longer, read[begin:])
        for size in self._sizes:
            if at + size < len(starts):
                stop = starts[at + size]
                goes_on = stop < len(read) and _is_word(read[stop])
                if not goes_on and read[begin:stop] in self._whole[size]:
                    return stop
        return begin


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _agreeing(texts: list[str], words: str) -> int:
    """How many characters the words begin with of one of these texts, which are sorted."""
    near = bisect(texts, words)
    return max(len(commonprefix([text, words])) for text in texts[max(near - 1, 0) : near + 1])
