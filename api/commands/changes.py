"""Values and what changed of them, as commands print it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config_manager.api.commands.output import clean

Change = Mapping[str, Any]
"""As REST answers it: {"key", "old", "new"} and perhaps "nulls", which names the sides that are a null."""

_SHOWN = 60
"""Characters of a value in a table."""


def shown(value: Any) -> str:
    """A value in a table; `-` for None."""
    text = "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def side(change: Change, which: str) -> str:
    """The value before (`old`) or after (`new`); `-` if there was none."""
    return "null" if which in change.get("nulls", ()) else shown(change[which])


def change_lines(changes: Sequence[Change]) -> Iterator[str]:
    """A line for what goes, and one for what comes."""
    for change in changes:
        for mark, which in (("-", "old"), ("+", "new")):
            if change[which] is not None or which in change.get("nulls", ()):
                yield clean(f"{mark} {change['key']} = {side(change, which)}")
    if not changes:
        yield "no difference"
