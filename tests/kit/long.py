"""What says the same many times over: a few of them in the suite, all of them in the torture."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

LONG = pytest.mark.torture


def few_in_the_suite(every: Iterable[Any], few: Collection[Any]) -> list[Any]:
    """`parametrize`'s values; tuples are several arguments."""
    return [
        one
        if one in few
        else pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=LONG)
        for one in every
    ]
