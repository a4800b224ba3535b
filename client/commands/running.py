"""`client run`: a line per event, or a command that gets its settings."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, assert_never

import click
import trio

from config_manager.client.commands.wrapping import Wrapped, wrap
from config_manager.client.drivers.trio_driver import follow
from config_manager.client.rules.events import Applied, Deleted, Fresh, News, Refused, Stale
from config_manager.config import strict_json
from config_manager.config.descriptors import guard_stderr
from config_manager.config.ending import ENDING, SIGNALS
from config_manager.config.json_lines import JsonLines
from config_manager.config.world import World


def log_to_stderr() -> None:
    guard_stderr()
    logging.basicConfig(level=logging.INFO, handlers=[JsonLines(sys.stderr)])


async def run(state: Path, service: str, mqtt_url: str, instance: str | None) -> None:
    async with (
        _until_signalled() as scope,
        follow(service, state_dir=state, mqtt_url=mqtt_url, instance=instance) as follower,
    ):
        async for event in follower:
            line = strict_json.dumps(to_line(service, event)) + b"\n"
            try:
                # in a thread: a slow reader of the pipe must not stop the following
                await trio.to_thread.run_sync(_write, line, abandon_on_cancel=True)
            except BrokenPipeError:  # the reader left: no more lines are needed
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                scope.cancel()


def wrapped(
    command: tuple[str, ...],
    templates: tuple[str, ...],
    on_change: str,
    prefix: str | None,
    *,
    secrets: bool,
) -> Wrapped:
    pairs: dict[Path, Path] = {}
    for given in templates:
        template, separator, target = given.partition(":")
        if not separator or not template or not target:
            raise click.UsageError(f"--render {given}: expected TEMPLATE:FILE")
        pairs[Path(template)] = Path(target)
    signals: signal.Signals | None = None
    if on_change != "restart":
        try:
            signals = signal.Signals["SIG" + on_change.upper().removeprefix("SIG")]
        except KeyError:
            raise click.UsageError(
                f"--on-change {on_change}: expected restart, or a signal such as HUP"
            ) from None
    return Wrapped(command, pairs, signals, prefix, secrets)


async def run_command(
    state: Path, service: str, mqtt_url: str, instance: str | None, wrapped: Wrapped
) -> int:
    async with (
        _until_signalled(),
        follow(service, state_dir=state, mqtt_url=mqtt_url, instance=instance) as follower,
    ):
        return await wrap(follower, wrapped, World())
    return 0  # stopped by a signal


def until_the_end(function: Any, *arguments: Any) -> Any:
    try:
        return trio.run(function, *arguments)
    finally:
        ENDING.over()


@asynccontextmanager
async def _until_signalled() -> AsyncGenerator[trio.CancelScope]:
    """The body, cancelled by SIGTERM or SIGINT, or by cancelling the scope."""
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    ENDING.heed()
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            yield nursery.cancel_scope
            nursery.cancel_scope.cancel()


def _write(line: bytes) -> None:
    """Past Python's own buffer: its lock, held by a thread that waits for a reader, would abort the
    interpreter's end."""
    while line:
        line = line[os.write(1, line) :]


def to_line(service: str, event: News) -> dict[str, Any]:
    """An event as the object that `run` prints."""
    match event:
        case Applied(update, _, source, signer_revoked):
            line: dict[str, Any] = {
                "event": "applied",
                "service": service,
                "epoch_seq": update.epoch_seq,
                "revision": update.revision,
                "correlation_id": update.correlation_id,
                "config": update.config,
                "source": source,
            }
            return {**line, "signer_revoked": True} if signer_revoked else line
        case Refused(reason, detail):
            return {"event": "refused", "reason": reason, "detail": detail}
        case Deleted(update):
            return {
                "event": "deleted",
                "service": service,
                "epoch_seq": update.epoch_seq,
                "revision": update.revision,
                "correlation_id": update.correlation_id,
            }
        case Stale(reason):
            return {"event": "stale", "reason": reason}
        case Fresh():
            return {"event": "fresh"}
        case _ as unreachable:  # an event that is no news must not pass for any
            assert_never(unreachable)
