"""The `.env` file: lines that stand in for the environment where that says nothing.

It holds the service's own variables and ours (`CONFIG_MANAGER_…`), and is read once, at the start.
Nobody else in the client asks the environment for a variable of ours.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from config_manager.client.saying import say
from config_manager.client.validating import has_own_sources
from config_manager.config.errors import SettingsInvalid

OURS = "CONFIG_MANAGER_"
"""What our own variables begin with."""

USUAL = ".env"
"""The file that is read if no other is named. It may be missing, as it is on most machines."""

Lines = Mapping[str, str | None]
"""A name without `=` has the value None."""


def ours_in(environment: Mapping[str, str], lines: Lines) -> dict[str, str]:
    """The environment, and our variables from `.env` that it does not have. An empty one it has."""
    from_file = {
        name: value for name, value in lines.items() if name.startswith(OURS) and value is not None
    }
    return {**from_file, **environment}


def read_for(model: type[BaseModel], option: Path | str | None) -> dict[str, str | None]:
    """What `.env` holds. option: the file that the caller named, None for none.

    A `BaseSettings` may name other files, and their encoding; the caller's word beats its own. Raises
    SettingsInvalid for a file that can't be read.
    """
    if option is None:
        return {}
    settings: Mapping[str, Any] = model.model_config if has_own_sources(model) else {}
    encoding = settings.get("env_file_encoding") or "utf-8"
    if Path(option) != Path(USUAL):
        return read(option, encoding, is_named=True)
    files = settings.get("env_file") or USUAL
    lines: dict[str, str | None] = {}
    for file in [files] if isinstance(files, str | os.PathLike) else files:
        found = _higher_up(Path(file), settings.get("env_file_depth") or 0)
        lines.update(read(found, encoding, is_named=False))
    return lines


def read(path: Path | str, encoding: str = "utf-8", *, is_named: bool) -> dict[str, str | None]:
    """One file. is_named: the caller counts on it, so that it is said if it is missing."""
    file = Path(path).expanduser()
    try:
        what = _what_is(file)
        if what == "missing":
            what = "there is no such file" if is_named else "nothing"
        if what not in ("file", "nothing"):
            say(logging.WARNING, ".env not read", file=str(file), detail=what)
        if what != "file":
            return {}
        from dotenv import dotenv_values

        # with `-sig` a byte order mark is no part of the first name
        is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        return dotenv_values(file, encoding="utf-8-sig" if is_utf8 else encoding)
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror or error}") from None
    except LookupError:
        raise SettingsInvalid(f"{path}: no such encoding: {encoding}") from None
    except UnicodeError:
        raise SettingsInvalid(f"{path}: not {encoding.upper()}") from None


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
    file = file.expanduser()
    if file.is_absolute() or os.path.lexists(file):
        return file
    above = (parent / file for parent in islice(Path.cwd().parents, depth))
    return next((other for other in above if other.exists()), file)
