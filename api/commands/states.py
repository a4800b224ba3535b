"""The states of an instance in words, the worst first."""

from __future__ import annotations

WORDS = {
    "foreign": "not ours",
    "refused": "refused",
    "late": "late",
    "stale": "stale",
    "waiting": "waiting",
    "pending": "on the way",
    "overridden": "overridden",
    "silent": "silent",
    "claimed": "unproven",
    "in-line": "in line",
}
_BAD, _IN_DOUBT = ("foreign", "refused", "late", "stale"), ("waiting", "silent", "claimed")
COLOURS = {
    **{WORDS[state]: "red" for state in _BAD},
    **{WORDS[state]: "yellow" for state in _IN_DOUBT},
    WORDS["in-line"]: "green",
}
"""By word."""
RANK = {state: rank for rank, state in enumerate(WORDS)}


def in_words(state: str) -> str:
    """A later server's may have none: then as it is."""
    return WORDS.get(state, state)
