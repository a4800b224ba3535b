"""Imports that would cost every start more than they give."""

from __future__ import annotations

import sys


def import_structlog_alone() -> None:
    """structlog imports rich if that is installed (amqtt brings it): 0.2 s of every start, for
    tracebacks that show local variables, which must never be printed here."""
    absent = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
    import structlog  # noqa: F401  # pyright: ignore[reportUnusedImport]

    if absent:
        del sys.modules["rich"]
