"""Which version this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from config_manager.config.names import OUR_ID


@cache
def our_version() -> str:
    """`unknown` if it runs from a copied tree."""
    try:
        return version(OUR_ID)
    except PackageNotFoundError:
        return "unknown"
