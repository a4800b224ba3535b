"""A value that must not show: it has no repr, no str, no pickle; only `reveal` opens it."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Holds a secret's text. Equality is by identity, so that no comparison can leak timing."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text. Say at the call why it is needed there."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(********)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
