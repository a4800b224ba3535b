"""A value that must not show, and what is shown in its place."""

from __future__ import annotations

from typing import NoReturn

MASK = "********"
"""What stands in a secret's place: in answers, history, logs and explanations. A caller sends it back to leave
the secret alone."""


class Secret:
    """Holds a secret's text; it has no repr, no str, no pickle, and only `reveal` opens it.

    Equality is by identity, so that no comparison can leak timing.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text. Say at the call why it is needed there."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
