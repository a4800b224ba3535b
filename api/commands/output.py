"""What the operator commands print: JSON for programs, lines and tables for people."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import click

from config_manager.config.colours import wants_colours
from config_manager.config.errors import ConfigManagerError

_UNTIL = ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h"), (float("inf"), 86_400, "d"))
"""Up to how many seconds an age is told in which unit."""
_PLAIN: Mapping[str, str] = MappingProxyType({})
_NO_COLOURS: Mapping[str, Mapping[str, str]] = MappingProxyType({})


class Shown(NamedTuple):
    """What a command has to say.

    value: for programs, with --json. lines: for people; --json never asks for them. error: raised once
    either is printed.
    """

    value: Any
    lines: Iterable[str]
    error: ConfigManagerError | None = None

    def show(self, *, as_json: bool) -> None:
        if as_json:
            print_json(self.value)
        else:
            # all of them before the first is printed: making them may fail
            for line in list(self.lines):
                click.echo(line)
        if self.error is not None:
            raise self.error


def clean(text: str, *, keep: str = "") -> str:
    """Text of others for a terminal: what is not printable is shown, not obeyed."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def to_json(value: Any) -> str:
    """One line, or indented for a person at a terminal."""
    return json.dumps(value, indent=2 if sys.stdout.isatty() else None)


def print_json(value: Any) -> None:
    click.echo(to_json(value))


def table(
    header: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    colours: Mapping[str, Mapping[str, str]] = _NO_COLOURS,
) -> Iterator[str]:
    """Columns as wide as their widest cell; the last one is as long as it is. colours: column → cell → its colour, for
    a terminal that wants some."""
    cleaned = [header, *(tuple(map(clean, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    wanted = colours if wants_colours(sys.stdout) else _NO_COLOURS
    of_columns = [wanted.get(name, _PLAIN) for name in header]
    for row in cleaned:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        coloured = (
            _coloured(cell, of_column) for cell, of_column in zip(cells, of_columns, strict=True)
        )
        yield "  ".join(coloured).rstrip()


def _coloured(cell: str, colours: Mapping[str, str]) -> str:
    text = cell.rstrip()
    colour = colours.get(text)
    return cell if colour is None else click.style(text, fg=colour) + cell[len(text) :]


def age(seconds: float) -> str:
    """`90 s`, `3 d`. A negative age counts as 0: the server's clock may be ahead of ours."""
    unit_s, unit = next((unit_s, unit) for limit, unit_s, unit in _UNTIL if seconds < limit)
    return f"{int(max(0.0, seconds) // unit_s)} {unit}"


def show_what_can_be_shown() -> None:
    """A character that the output's encoding lacks is printed escaped, and does not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def end_without_reader() -> NoReturn:
    """Exit 0: the reader of our output has read enough (`| head`). What is left goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
