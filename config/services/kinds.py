"""Kinds of values that several services share."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def url_of(*schemes: str) -> AfterValidator:
    """A URL with a host, of one of these schemes."""

    def check(text: str) -> str:
        try:
            url = urlsplit(text)
            good = url.scheme in schemes and bool(url.hostname) and (url.port or 1) > 0
        except ValueError:
            good = False
        if not good or any(c.isspace() or not c.isprintable() for c in text):
            raise ValueError(
                f"expected a URL that starts with {' or '.join(s + '://' for s in schemes)}"
            )
        return text

    return AfterValidator(check)


def _absolute(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError("expected an absolute path, such as /data/memory")
    return text


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
