"""The client under test: its command line, and a process of it whose lines are read as they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from config_manager.api.commands.output import clean
from config_manager.api.conformance.cases import Line
from config_manager.config.errors import SettingsInvalid
from config_manager.config.settings import ENV_PREFIX

_SETUP_S = 60.0
_STOP_S = 10.0
_LONGEST_LINE = 1024 * 1024
_PREFIX = "CONFORMANCE_"


class Places(NamedTuple):
    """What a client has to be told. Each is `{name}` on the command line and CONFORMANCE_NAME beside it."""

    state: str
    service: str
    instance: str
    mqtt_url: str
    root: str

    def fill(self, argv: tuple[str, ...]) -> list[str]:
        filled = list(argv)
        for name, value in self._asdict().items():
            filled = [word.replace(f"{{{name}}}", value) for word in filled]
        return filled

    def environment(self) -> dict[str, str]:
        """Ours without what configures our own client by itself, and the places."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
        return {**clean, **{_PREFIX + k.upper(): v for k, v in self._asdict().items()}}


class Command(NamedTuple):
    """run: the client. setup: what is run once for each new directory, such as what pins the root; empty: nothing."""

    run: tuple[str, ...]
    setup: tuple[str, ...] = ()

    async def set_up(self, places: Places) -> None:
        """Raises SettingsInvalid if it can't be run, or does not end with 0."""
        if not self.setup:
            return
        argv = places.fill(self.setup)
        try:
            with trio.fail_after(_SETUP_S):
                done = await trio.run_process(
                    argv,
                    env=places.environment(),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
        except OSError as error:
            raise SettingsInvalid(f"--setup {argv[0]}: {error.strerror or error}") from None
        except trio.TooSlowError:
            raise SettingsInvalid(f"--setup {argv[0]} did not end within {_SETUP_S:g} s") from None
        if done.returncode != 0:
            said = clean((done.stderr or done.stdout).decode(errors="replace"), keep="\n").strip()
            last = said.splitlines()[-1] if said else "it said nothing"
            raise SettingsInvalid(f"--setup {argv[0]} ended with {done.returncode}: {last}")

    async def start(
        self,
        places: Places,
        errors: Path,
        nursery: trio.Nursery,
        heard: Callable[[Line], None],
        ended: Callable[[], None],
    ) -> ClientProcess:
        """errors: the file for its standard error. heard: is given each line. ended: is called after the last.
        Raises SettingsInvalid if it can't be run."""
        argv = places.fill(self.run)
        try:
            with errors.open("ab") as file:
                process = await trio.lowlevel.open_process(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    env=places.environment(),
                    start_new_session=True,  # what it starts ends with it
                )
        except OSError as error:
            raise SettingsInvalid(f"{argv[0]}: {error.strerror or error}") from None
        client = ClientProcess(process, heard, ended)
        nursery.start_soon(client.read)
        return client


class ClientProcess:
    """One start of the client."""

    def __init__(
        self, process: trio.Process, heard: Callable[[Line], None], ended: Callable[[], None]
    ) -> None:
        self._process = process
        self._heard = heard
        self._tell_ended = ended
        self.ended = trio.Event()
        """set once it has ended and everything that it said was read"""

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    async def read(self) -> None:
        """Until it ends, and with it what it started."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_what_it_left)
            await self._read()

    async def _end_what_it_left(self) -> None:
        """Else that may hold standard output open, and hear the broker for ever."""
        await self._process.wait()
        with suppress(ProcessLookupError):  # nothing, as a rule
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        try:
            with suppress(trio.BrokenResourceError):
                async for piece in self._process.stdout:
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._take(line)
                    if len(rest) > _LONGEST_LINE:
                        rest = b""  # none of what it should say
            await self._process.wait()
        finally:
            self.ended.set()
            self._tell_ended()

    def _take(self, line: bytes) -> None:
        """What is no JSON object with an event is a line for people."""
        with suppress(ValueError, RecursionError):
            value: Any = json.loads(line)
            if isinstance(value, dict) and "event" in value:
                self._heard(value)  # pyright: ignore[reportUnknownArgumentType]

    async def stop(self) -> None:
        """In order; by force if that takes too long."""
        self._signal(signal.SIGTERM)
        with trio.move_on_after(_STOP_S):
            await self.ended.wait()
        await self.kill()

    async def kill(self) -> None:
        """At once, with what it started."""
        self._signal(signal.SIGKILL)
        with trio.CancelScope(shield=True), trio.move_on_after(_STOP_S):
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
