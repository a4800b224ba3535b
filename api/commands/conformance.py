"""`conformance`: whether a client, in whatever language, believes what it should and nothing else."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from config_manager.api.commands.local import run_alone
from config_manager.api.commands.output import Shown, show_what_can_be_shown, table
from config_manager.config.errors import NotConformant, SettingsInvalid

if TYPE_CHECKING:
    from config_manager.api.conformance.cases import Result
    from config_manager.api.conformance.groups import Group


@click.command()
@click.option(
    "--setup",
    metavar="COMMAND",
    default="",
    help="Run once for each new state directory, before the client: what pins the root.",
)
@click.option("--only", metavar="GROUP", multiple=True, help="This group of cases, and no other.")
@click.option("--skip", metavar="GROUP", multiple=True, help="Not this group.")
@click.option("--list", "lists", is_flag=True, help="Name the groups and cases, and play none.")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new directory: messages of the cases that failed, state directories, logs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("client", nargs=-1, type=click.UNPROCESSED)
def conformance(
    setup: str,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    lists: bool,
    keep: Path | None,
    as_json: bool,
    client: tuple[str, ...],
) -> None:
    """Play test vectors, attacks, restarts and freshness against a CLIENT, and print a table.

    Starts brokers and publishers of its own; nothing else is needed. The client follows one service, and
    prints a JSON object a line, as `config-manager client run` does: applied, refused, deleted, stale, fresh.
    What it has to be told stands in its command line, or in its environment (CONFORMANCE_STATE, …):

    \b
      {mqtt_url}   the broker               {service}    the service to follow
      {root}       file with the root       {instance}   this instance's name
      {state}      its own directory, empty at first

    \b
      config-manager conformance -- ./my-client {mqtt_url} {root} {state} {service}
      config-manager conformance \\
        --setup 'config-manager client trust init --state {state} --root {root}' \\
        -- config-manager client run --state {state} --service {service} \\
             --instance {instance} --mqtt-url {mqtt_url}

    A case is safe if nothing was applied that the publisher did not want. It passes if the client said so
    with the right reason, too. Exit 5 if one failed, 2 if the client does not start.
    """
    show_what_can_be_shown()
    from config_manager.api.conformance.groups import chosen

    groups = chosen(only, skip)
    if lists:
        _listed(groups).show(as_json=as_json)
        return
    if not client:
        raise click.UsageError("which client? … -- COMMAND")
    to_set_up = _words(setup)
    with _place(keep) as directory:
        results = _played(client, to_set_up, groups, directory, keep)
        _shown(results, client, keep).show(as_json=as_json)


def _words(setup: str) -> list[str]:
    """Raises SettingsInvalid."""
    try:
        return shlex.split(setup)
    except ValueError as error:
        raise SettingsInvalid(f"--setup {setup}: {error}") from None


def _listed(groups: Sequence[Group]) -> Shown:
    import time

    cases = [case for group in groups for case in group.cases(time.time())]
    rows = [(case.group, case.name, case.expected) for case in cases]
    lines = [*table(("group", "case", "expected"), rows), "", f"{len(cases)} cases"]
    return Shown([case._asdict() for case in cases], lines)


@contextlib.contextmanager
def _place(keep: Path | None) -> Generator[Path]:
    """The directory for everything, gone afterwards if it is not kept. Raises SettingsInvalid."""
    import tempfile

    if keep is None:
        # a client that is killed may write something still
        with tempfile.TemporaryDirectory(
            prefix="config-manager-", ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise SettingsInvalid(f"--keep {keep}: it is there already; name a new directory") from None
    except OSError as error:
        raise SettingsInvalid(f"--keep {keep}: {error.strerror or error}") from None
    yield keep


def _played(
    client: Sequence[str],
    setup: Sequence[str],
    groups: Sequence[Group],
    directory: Path,
    keep: Path | None,
) -> list[Result]:
    from config_manager.api.conformance import report
    from config_manager.api.conformance.client_process import Command
    from config_manager.api.conformance.running import play
    from config_manager.config.world import World

    world = World()
    cases = sum(1 for group in groups for _ in group.cases(world.clock.now()))
    progress = _progress(cases)

    def tell(result: Result) -> None:
        progress(result)
        if keep is not None and result.failed:
            report.keep(result, keep)

    command = Command(tuple(client), tuple(setup))
    results = run_alone(
        lambda: _unless_stopped(lambda: play(command, groups, directory.absolute(), world, tell))
    )
    if results is None:
        raise click.Abort
    return results


async def _unless_stopped(
    work: Callable[[], Awaitable[list[Result]]],
) -> list[Result] | None:
    """None: a signal said to stop; clients and brokers are gone by then."""
    import trio

    from config_manager.config.ending import SIGNALS

    results: list[Result] | None = None
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            results = await work()
            nursery.cancel_scope.cancel()
    return results


def _progress(cases: int) -> Callable[[Result], None]:
    """A line on a terminal that says how far it is."""
    played = failed = 0

    def tell(result: Result) -> None:
        nonlocal played, failed
        played += 1
        failed += result.failed
        if sys.stderr.isatty():
            done = f"{played} of {cases}, {failed} failed: {result.case.group}"
            sys.stderr.write(f"\r\033[K{done}" if played < cases else "\r\033[K")
            sys.stderr.flush()

    return tell


def _shown(results: Sequence[Result], client: Sequence[str], keep: Path | None) -> Shown:
    from config_manager.api.conformance import report
    from config_manager.api.conformance.cases import totals

    failed = totals(results).failed
    error = NotConformant(f"{failed} of {len(results)} cases failed") if failed else None
    value = report.to_object(results, client)
    return Shown(value, report.to_lines(results, keep), error)
