"""Whether a stream's reader wants colours: only a terminal, and not if NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any


def wants_colours(stream: IO[Any] | None, environment: Mapping[str, str] = os.environ) -> bool:
    """stream: None if it was closed before we began."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return stream is not None and stream.isatty()
