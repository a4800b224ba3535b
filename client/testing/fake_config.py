"""The testing kit's `Config`: everything but the source of its messages is the real one's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self, TypeVar

from pydantic import BaseModel

from config_manager.client.drivers.threads import Config
from config_manager.client.rules.todo import Change
from config_manager.client.testing.fake_wire import OpenInstance
from config_manager.config.world import World

if TYPE_CHECKING:
    from config_manager.client.drivers.opening import OptionArguments

M = TypeVar("M", bound=BaseModel)

Host = Callable[
    ["OptionArguments", int | None],
    AbstractContextManager[tuple[OpenInstance, "OptionArguments"]],
]
Listening = Callable[[OpenInstance], AbstractContextManager[None]]


class FakeConfig(Config[M]):
    """host: what gives it an instance and its options. listening: in it deliveries wait for it."""

    def __init__(
        self,
        model: type[M],
        apply: Callable[[Change[M]], None] | None,
        options: OptionArguments,
        host: Host,
        listening: Listening,
        world: World,
    ) -> None:
        super().__init__(model, apply=apply, world=world, **options)
        self._given = options
        self._host = host
        self._listening = listening
        self._while_open = ExitStack()

    def open(self) -> Self:
        with ExitStack() as stack:
            opened, self._options = stack.enter_context(self._host(self._given, None))
            self._connect = opened.connect
            super().open()
            stack.enter_context(self._listening(opened))
            self._while_open = stack.pop_all()
        return self

    def close(self) -> None:
        super().close()
        if not self._is_forked_away:  # the directory is the parent process's
            self._while_open.close()
