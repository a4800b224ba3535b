"""The packages that `pip install config-manager` leaves out, and what a command says that needs them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import IO, Any

import click

SERVER = (
    "amqtt",
    "h11",
    "hypercorn",
    "jsonschema-rs",
    "quart",
    "quart-trio",
    "sqlcipher3",
    "structlog",
)
"""The packages of `config-manager[server]` in pyproject.toml. Here too, because reading what was
installed takes longer than a command should; a test compares the two."""


class ExtraMissing(click.ClickException):
    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"config-manager: {self.message}", file=file, err=file is None)


def demand_server(command: str) -> None:
    """Raises ExtraMissing if a package is not installed. None is imported here: if one is there and
    broken, a traceback says more than the advice to install it."""
    missing = [package for package in SERVER if not _is_there(package.replace("-", "_"))]
    if missing:
        raise ExtraMissing(
            f"{command} needs the server's packages: pip install 'config-manager[server]' "
            f"(missing: {', '.join(missing)})"
        )


def _is_there(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None  # an uninstalled one may leave its folder
