"""`client run … -- COMMAND`: a program that knows nothing of us runs with its settings.

It gets them in its environment, or in files rendered from templates; when they change it is
restarted, or sent a signal. It starts as soon as there is a configuration: at once if one was kept. Its exit
code becomes that of `client run`, which stops it when a signal asks `client run` to stop.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from config_manager.client.commands.formats import fill_in, to_environment
from config_manager.client.rules.events import Applied
from config_manager.client.state.log import say
from config_manager.config.errors import SettingsInvalid
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World

if TYPE_CHECKING:
    from config_manager.client.drivers.follower import Follower

_STOP_WITHIN_S = 10.0


@dataclass(frozen=True)
class Wrapped:
    """What to run, and how it learns of changes.

    templates: template file → the file it becomes. on_change: the signal to send, or None to
    restart. prefix: of the variables, None for the service's own. secrets: whether the command gets
    them, too, where its settings go.
    """

    command: Sequence[str]
    templates: Mapping[Path, Path] = field(default_factory=dict[Path, Path])
    on_change: signal.Signals | None = None
    prefix: str | None = None
    secrets: bool = False


async def wrap(follower: Follower, wrapped: Wrapped, world: World) -> int:
    """Run the command until it ends by itself, or this is cancelled. Returns its exit code.

    Raises SettingsInvalid if a template does not fit at the first start, or the command can't be started.
    A later configuration that does not fit a template is logged, and not passed on.
    """
    child = _Child(follower.service, wrapped, world)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.follow_changes, follower)
            code = await child.ended()
            nursery.cancel_scope.cancel()
            return code
    finally:
        with trio.CancelScope(shield=True):
            await child.stop()
    raise AssertionError("the nursery's body returns")


def _is_loaders(name: str) -> bool:
    return name in ("PATH", "IFS", "ENV", "BASH_ENV") or name.startswith(
        ("LD_", "DYLD_", "PYTHON", "CONFIG_MANAGER_")
    )


class _Child:
    def __init__(self, service: str, wrapped: Wrapped, world: World) -> None:
        self._service = service
        self._say = partial(say, service=service)
        self._wrapped = wrapped
        self._world = world
        self._process: trio.Process | None = None
        self._restarting = False
        self._started = trio.Event()

    async def follow_changes(self, follower: Follower) -> None:
        running: JsonObject | None = None
        async for event in follower:
            if not isinstance(event, Applied):
                continue
            config = event.update.config
            if self._wrapped.secrets:  # asked for: they go where the command reads its settings
                opened = {name: one.reveal() for name, one in follower.secrets.items()}
                config = {**config, **opened}
            if config != running:
                running = config
                await self._give(running, event.update.revision)

    async def ended(self) -> int:
        """Until the command ended without our doing."""
        while True:
            await self._started.wait()
            process = self._process
            assert process is not None
            code = await process.wait()
            if process is self._process and not self._restarting:
                # as a shell says it: 128 + the signal that ended it
                return code if code >= 0 else 128 - code
            await trio.sleep(0.01)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with trio.move_on_after(_STOP_WITHIN_S):
                await self._process.wait()
            if self._process.returncode is None:
                self._say(logging.WARNING, "command killed")
                self._process.kill()
                await self._process.wait()

    async def _give(self, config: JsonObject, revision: int) -> None:
        wrapped = self._wrapped
        try:
            self._render(config)
        except SettingsInvalid as error:
            if self._process is None:
                raise
            detail = str(error)
            self._say(logging.ERROR, "change not passed on", revision=revision, detail=detail)
            return
        if self._process is not None and wrapped.on_change is not None:
            name = wrapped.on_change.name
            self._say(logging.INFO, "command signalled", revision=revision, signal=name)
            self._process.send_signal(wrapped.on_change)
            return
        self._restarting = True
        try:
            await self.stop()
            await self._start(config)
        finally:
            self._restarting = False
        self._say(logging.INFO, "command started", revision=revision)

    def _render(self, config: JsonObject) -> None:
        """All files or none, but for a disk that fails between them. Raises SettingsInvalid."""
        texts: dict[Path, str] = {}
        for template, target in self._wrapped.templates.items():
            try:
                texts[target] = fill_in(template.read_text("utf-8"), config)
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsInvalid(f"the template {template}: {error}") from None
        for target, text in texts.items():
            try:
                self._world.disk.write_atomic(target, text.encode(), mode=0o600)
            except OSError as error:
                raise SettingsInvalid(f"{target}: {error.strerror or error}") from None

    async def _start(self, config: JsonObject) -> None:
        settings = to_environment(self._service, config, self._wrapped.prefix)
        # the right to write a setting is not the right to choose what the command loads or finds
        for name in [n for n in settings if n in os.environ or _is_loaders(n)]:
            self._say(logging.WARNING, "setting not passed on", variable=name)
            del settings[name]
        try:
            self._process = await trio.lowlevel.open_process(
                list(self._wrapped.command),
                stdin=subprocess.DEVNULL,
                # an operator's tokens and our brokers' passwords are no business of the command
                env={k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
                | settings,
            )
        except OSError as error:
            raise SettingsInvalid(
                f"{self._wrapped.command[0]}: can't be started: {error.strerror or error}"
            ) from None
        self._started.set()
