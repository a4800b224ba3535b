"""The testing kit's `Config`: everything is the real one's but where its messages come from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TypeVar, cast

from pydantic import BaseModel

from config_manager.client.drivers.threads import Config
from config_manager.client.rules.todo import Change

if TYPE_CHECKING:
    from config_manager.client.drivers.opening import OptionArguments
    from config_manager.client.testing import FakePublisher

M = TypeVar("M", bound=BaseModel)


class FakeConfig(Config[M]):
    def __init__(
        self,
        publisher: FakePublisher,
        model: type[M],
        apply: Callable[[Change[M]], None] | None,
        options: OptionArguments,
    ) -> None:
        super().__init__(model, apply=apply, **options)
        self._publisher = publisher
        self._given = options
        self._while_open = ExitStack()

    def open(self) -> Self:
        with ExitStack() as stack:
            opened, options = stack.enter_context(self._publisher.host(self._given, None))
            self._seams = {"connect": opened.connect, "world": options.pop("world")}
            self._options = cast("OptionArguments", options)
            super().open()
            stack.enter_context(self._publisher.listening(opened))
            self._while_open = stack.pop_all()
        return self

    def close(self) -> None:
        super().close()
        if not self._is_forked_away:  # the directory is the parent process's
            self._while_open.close()
