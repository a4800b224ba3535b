"""The options that commands share, and what a command gets for them."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import click

from config_manager.api.commands.output import Shown, end_without_reader, show_what_can_be_shown
from config_manager.api.commands.remote import DEFAULT_URL, Server
from config_manager.config.durations import parse_duration
from config_manager.config.errors import SettingsInvalid
from config_manager.config.world import parse_rfc3339, rfc3339

FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)
AUDIT_REASON = click.option("--reason", help="Why, for the audit.")
HISTORY_REASON = click.option("--reason", help="Why, for the history.")
SINCE = click.option("--since", metavar="TIME", help="Such as 7d, or 2026-01-31T12:00:00Z.")
UNTIL = click.option("--until", metavar="TIME", help="As --since.")
WAIT = click.option(
    "--wait",
    type=click.FloatRange(0, 60),
    metavar="SECONDS",
    help="Wait until a broker holds it, at most so long.",
)

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")


def asks_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of every command that asks a server. The command gets `server` and `as_json`, and prints
    by itself."""

    @click.option(
        "--url",
        default=DEFAULT_URL,
        envvar="CONFIG_MANAGER_URL",
        show_default=True,
        show_envvar=True,
        help="Where the server's REST listens.",
    )
    @click.option("--token-file", type=FILE, help="Holds the token. [CONFIG_MANAGER_TOKEN]")
    @click.option(
        "--ca-file",
        type=FILE,
        envvar="CONFIG_MANAGER_CA_FILE",
        show_envvar=True,
        help="The authority of an https server's certificate. [the system's]",
    )
    @AS_JSON
    @functools.wraps(command)
    def with_server(
        *, url: str, token_file: Path | None, ca_file: Path | None, **options: Any
    ) -> None:
        show_what_can_be_shown()
        try:
            command(server=Server(url, read_token(token_file), ca_file=ca_file), **options)
            sys.stdout.flush()
        except BrokenPipeError:  # click would call that an error
            end_without_reader()

    return with_server


def shows_an_answer(command: Callable[..., Shown]) -> Callable[..., None]:
    """The same options, for a command that gets `server` and returns what is to be shown."""

    @functools.wraps(command)
    def and_shows_it(*, as_json: bool, **options: Any) -> None:
        command(**options).show(as_json=as_json)

    return asks_a_server(and_shows_it)


def waiting(seconds: float | None) -> dict[str, str | None]:
    """The query of `--wait`."""
    return {
        "wait": "confirmed" if seconds is not None else None,
        "timeout": str(seconds) if seconds is not None else None,
    }


def json_object_in(what: str, data: bytes) -> dict[str, Any]:
    """The JSON object that an option or argument gives. Raises SettingsInvalid."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SettingsInvalid(f"{what}: expected a JSON object")
    return cast("dict[str, Any]", value)


def moment(option: str, text: str | None) -> str | None:
    """What --since and --until take, in RFC 3339: a time, or how long ago. Raises SettingsInvalid."""
    if text is None:
        return None
    with suppress(ValueError):
        return rfc3339(max(0.0, time.time() - parse_duration(text)))
    try:
        parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise SettingsInvalid(
            f"{option}: expected a time such as 2026-01-31T12:00:00Z, or how long ago, such as 7d or 12h"
        ) from None
    return text


@contextmanager
def file_of(option: str, path: Path) -> Generator[None]:
    """An error of a file that an option or argument names; raised as SettingsInvalid. option: may be empty."""
    try:
        yield
    except OSError as error:
        raise SettingsInvalid(f"{option}{path}: {error.strerror or error}") from None


def read_token(token_file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The file's token, else CONFIG_MANAGER_TOKEN, else none. Raises SettingsInvalid."""
    if token_file is None:
        return environment.get("CONFIG_MANAGER_TOKEN") or None
    try:
        with file_of("--token-file: ", token_file):
            return token_file.read_text("ascii").strip()
    except UnicodeDecodeError:
        raise SettingsInvalid(f"--token-file: {token_file} holds no token") from None
