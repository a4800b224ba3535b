"""Whether one schema takes everything that another takes: a proof, or "not proved". Pure.

The only module that asks the library's experimental calls. A proof that may take long is not tried: time goes
with what both schemas hold, times each other, and regular expressions are the dearest.
"""

from __future__ import annotations

from typing import Any, Literal

import jsonschema_rs

from config_manager.config.strict_json import is_list, is_object
from config_manager.storage.decisions.schema_vocabulary import ANNOTATIONS, subschemas

Answer = Literal["yes", "no", "unknown"]

_MOST_PARTS = 300
"""Subschemas and choices of one schema."""
_MOST_BRANCHES = 20
"""Schemas in `anyOf`, `allOf`, `not` and their like, of one schema: they multiply."""
_MOST_PATTERNS = 2
_LONGEST_PATTERN = 100
_REGEX_BYTES = 64 * 1024
_OF_A_PATTERN = 30
_OF_ONE_COMPARISON = 6_000
"""What all proofs of one comparison may cost: parts + branches² + 30 for a regular expression. Beyond that
nothing is proved. 6,000 take less than a second, whatever they are made of."""
_FAILED = (ValueError, jsonschema_rs.canonical.CanonicalizationError)
_BRANCHING = frozenset({"allOf", "anyOf", "else", "if", "not", "oneOf", "then", "dependentSchemas"})


class Proofs:
    """The proofs of one comparison, which share what they may cost."""

    def __init__(self) -> None:
        self._left = _OF_ONE_COMPARISON

    def covers(self, new: Any, old: Any) -> Answer:
        """Whether `new` takes everything that `old` takes. Both: without `$ref` and annotations (`bare`)."""
        of_new, of_old = _cost(new), _cost(old)
        if of_new is None or of_old is None or of_new + of_old > self._left:
            return "unknown"
        self._left -= of_new + of_old
        try:
            answer = str(_canonical(new).covers(_canonical(old)))
        except _FAILED:
            return "unknown"
        return "yes" if answer == "yes" else "no" if answer == "no" else "unknown"


def bare(schema: Any) -> Any:
    """A schema without annotations, which take no value away."""
    if not is_object(schema):
        return schema
    kept: dict[str, Any] = {
        keyword: value
        for keyword, value in schema.items()
        if keyword not in ANNOTATIONS and not keyword.startswith("x-")
    }
    for keyword, path, item in subschemas(schema):
        if len(path) == 1:
            kept[keyword] = bare(item)
            continue
        inner = kept[keyword]
        if inner is schema[keyword]:
            inner = kept[keyword] = inner.copy()
        inner[path[1]] = bare(item)
    return kept


def _canonical(schema: Any) -> Any:
    return jsonschema_rs.canonicalize(
        schema,
        draft=jsonschema_rs.Draft202012,
        validate_formats=True,
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES),
    )


def _cost(schema: Any) -> int | None:
    """What a proof with this schema costs; None if it is too dear to be tried."""
    parts = branches = patterns = 0
    waiting: list[tuple[str, Any]] = [("", schema)]
    while waiting:
        keyword, one = waiting.pop()
        parts += 1
        branches += keyword in _BRANCHING
        if not is_object(one):
            continue
        own = [one["pattern"]] if isinstance(one.get("pattern"), str) else []
        own += one.get("patternProperties", ())
        patterns += len(own)
        choices = one.get("enum")
        parts += len(choices) if is_list(choices) else 0
        if (
            parts > _MOST_PARTS
            or branches > _MOST_BRANCHES
            or patterns > _MOST_PATTERNS
            or any(len(pattern) > _LONGEST_PATTERN for pattern in own)
        ):
            return None
        waiting += [(below, item) for below, _, item in subschemas(one)]
    return parts + branches**2 + _OF_A_PATTERN * patterns
