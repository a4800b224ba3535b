"""The `.env` file: lines that stand in for the environment where that says nothing.

It holds the service's own variables and ours (`CONFIG_MANAGER_…`), and is read once, at the start.
Nobody else in the client asks the environment for a variable of ours.

The file and the environment may be written by different people. So no variable of the environment is filled
into ours, which name a broker to speak to, and ours move no state directory that the environment names.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from config_manager.client.model.validating import has_own_sources
from config_manager.client.state.log import say
from config_manager.client.state.places import expanded
from config_manager.config.errors import SettingsInvalid

OURS = "CONFIG_MANAGER_"
"""What our own variables begin with."""

USUAL = ".env"
"""The file that is read if no other is named. It may be missing, as it is on most machines."""


class _Unsaid(str):
    __slots__ = ()


UNSAID = _Unsaid(USUAL)
"""The default of `env_file=`: a `BaseSettings` then says for itself which files it has, or none."""

Lines = Mapping[str, str | None]
"""A name without `=` has the value None."""


def ours_in(environment: Mapping[str, str], lines: Lines) -> dict[str, str]:
    """The environment, and our variables from `.env` that it does not have. An empty one it has."""
    from_file = {
        name: value for name, value in lines.items() if name.startswith(OURS) and value is not None
    }
    if environment.get("STATE_DIRECTORY"):  # systemd's word is the environment's, too
        from_file.pop(f"{OURS}STATE_DIR", None)
    return {**from_file, **environment}


def read_for(model: type[BaseModel], option: Path | str | None) -> dict[str, str | None]:
    """What `.env` holds. option: the file that the caller named, None for none, UNSAID if they named none.

    A `BaseSettings` names its own files, or none, and their encoding; the caller's word beats its own.
    Raises SettingsInvalid for a file that can't be read.
    """
    if option is None:
        return {}
    settings: Mapping[str, Any] = (
        model.model_config if has_own_sources(model) else {"env_file": USUAL}
    )
    encoding = settings.get("env_file_encoding") or "utf-8"
    if not isinstance(option, _Unsaid):
        return read(option, encoding, is_named=Path(option) != Path(USUAL))
    files = found(settings.get("env_file"), settings.get("env_file_depth") or 0)
    return read_all(files, encoding)


def found(files: Any, depth: int) -> list[Path]:
    """The files that a `BaseSettings` names in its `env_file`."""
    named: Iterable[Any] = [files] if isinstance(files, str | os.PathLike) else files or []
    return [_higher_up(Path(file), depth) for file in named]


def read_all(files: Iterable[Path], encoding: str) -> dict[str, str | None]:
    """The last that has a name wins."""
    lines: dict[str, str | None] = {}
    for file in files:
        lines.update(read(file, encoding, is_named=False))
    return lines


def read(path: Path | str, encoding: str = "utf-8", *, is_named: bool) -> dict[str, str | None]:
    """One file. is_named: the caller counts on it, so that it is said if it is missing."""
    file = expanded(path)
    try:
        what = _what_is(file)
        if what == "missing":
            what = "there is no such file" if is_named else "nothing"
        if what not in ("file", "nothing"):
            say(logging.WARNING, ".env not read", file=str(file), detail=what)
        if what != "file":
            return {}
        # with `-sig` a byte order mark is no part of the first name
        is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        # once: a pipe has it only once
        text = file.read_text(encoding="utf-8-sig" if is_utf8 else encoding)
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror or error}") from None
    except LookupError:
        raise SettingsInvalid(f"{path}: no such encoding: {encoding}") from None
    except UnicodeError:
        raise SettingsInvalid(f"{path}: not {encoding.upper()}") from None
    return _parsed(text, file)


def _parsed(text: str, file: Path) -> dict[str, str | None]:
    """In the service's own variables `${NAME}` becomes a variable's value. In ours it stays what it is: else a line of
    the file would send any secret of the environment to a broker of its choice."""
    from dotenv import dotenv_values

    lines = dotenv_values(stream=io.StringIO(text))
    if OURS not in text.upper():  # parsing twice would log twice what can't be parsed
        return lines
    for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items():
        if name.upper().startswith(OURS):
            if value != lines[name]:
                told = {"file": str(file), "name": name}
                detail = "${…} is not filled in in a variable of ours: write it out"
                say(logging.WARNING, ".env taken as written", **told, detail=detail)
            lines[name] = value
    return lines


def _what_is(file: Path) -> str:
    """`file`, `missing`, `nothing`, or in words what can't be read. Raises OSError."""
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a link to a file that is not there" if file.is_symlink() else "missing"
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):  # a shell's <(command) is a pipe
        return "file"
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "nothing" if file == Path(os.devnull) else "a device"


def _higher_up(file: Path, depth: int) -> Path:
    """The file, else the first of that name in so many directories above the working one."""
    file = expanded(file)
    if not depth or file.is_absolute() or os.path.lexists(file):
        return file
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working directory was removed
        return file
    above = (parent / file for parent in islice(here.parents, depth))
    return next((other for other in above if other.exists()), file)
