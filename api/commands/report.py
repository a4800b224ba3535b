"""`config-manager report`: who ran what, when; written by a server, and verified by anybody who has the trust root."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from config_manager.api.commands.options import FILE, asks_a_server, file_of
from config_manager.api.commands.output import Shown, clean, show_what_can_be_shown, table
from config_manager.api.commands.remote import Server
from config_manager.api.commands.states import in_words
from config_manager.config.errors import ReportBroken, RootRefused, SettingsInvalid

if TYPE_CHECKING:
    from config_manager.storage.decisions.report_checks import Verdict

_PATH = ("api", "v1", "reports")
_MOST_BYTES = 256 * 1024 * 1024
_WANTED = ("SERVICE", "WANTED", "FROM", "TO", "BY", "REASON")
_RAN = ("SERVICE", "INSTANCE", "RAN", "STATE", "FROM", "TO", "PROOF")
UNPROVED = (
    "times are those of the instance's own clock, and of the server's for what was wanted",
    "an instance that lies about itself runs what it likes",
    "receipts that were removed, or never came, leave holes; what they said is not known",
)
"""What no report proves, in words."""


def _unless_subcommand(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def alone(**options: Any) -> None:
        if click.get_current_context().invoked_subcommand is None:
            command(**options)

    return alone


@click.group(invoke_without_command=True, subcommand_metavar="| verify FILE --root ROOT")
@_unless_subcommand
@asks_a_server
@click.option("--at", metavar="TIME", help="Of this moment, such as 2026-01-31T12:00:00Z.")
@click.option("--from", "begin", metavar="TIME", help="Of a span: its beginning.")
@click.option("--to", "end", metavar="TIME", help="Its end, now or before.")
@click.option("--service", metavar="NAME", help="Only of this service.")
@click.option("--out", type=FILE, help="A new file. [standard output]")
def report(
    server: Server,
    as_json: bool,
    at: str | None,
    begin: str | None,
    end: str | None,
    service: str | None,
    out: Path | None,
) -> None:
    """Write who ran what, when, and who wanted it: signed, with the evidence beside it.

    Whoever has the trust root verifies it anywhere, without a server: `report verify`. The evidence is what
    instances signed and the rows of the audit, which name everything that was changed meanwhile, whichever the
    service. Needs an administrator's token.

    \b
      config-manager report --at 2026-01-31T12:00:00Z --out noon.json
      config-manager report --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z \\
          --service stt-worker --out january.json
      config-manager report verify january.json --root root.json
    """
    if (at is None) == (begin is None or end is None) or (at is not None and (begin or end)):
        raise SettingsInvalid("give --at, or --from and --to: a moment or a span")
    if out is not None and out.exists():
        raise SettingsInvalid(f"--out: {out} is there already")
    query: dict[str, str | None] = {"at": at, "from": begin, "to": end, "service": service}
    value = server.ask("GET", *_PATH, holds="report evidence", query=query).value
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    if out is None:
        sys.stdout.buffer.write(data)
        return
    from config_manager.config.files import replacing

    with file_of("--out: ", out), replacing(out) as file:
        file.write(data)
    _written(out, data, value).show(as_json=as_json)


def _written(out: Path, data: bytes, value: Any) -> Shown:
    """What it says, checked with the root that it brings itself."""
    root = json.dumps(value["evidence"]["roots"][-1]).encode()
    verdict = _verify(data, root, f"the newest root in {out}")
    lines = (
        *_lines(verdict),
        "",
        f"{out} has {len(data)} bytes. Whoever has the trust root (trust/root.json) verifies it:",
        f"  config-manager report verify {out} --root root.json",
    )
    return Shown({"out": str(out), "bytes": len(data), **_value(verdict)}, lines, _error(verdict))


@report.command()
@click.argument("file", type=FILE)
@click.option("--root", type=FILE, required=True, help="The trust root that you pinned.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify(file: Path, root: Path, as_json: bool) -> None:
    """Check a report with the trust root alone, and show what it proves.

    Every signature is checked, from the pinned root on: the root's later versions, the report, each receipt by the
    key that the audit gives to its instance, and the audit up to a beacon. Then the report is worked out again from
    its evidence. Exit code 5 if anything is altered, or claimed without evidence.

    \b
    PROOF says how far a line is proved:
      between    the instance said so before and after, and none of its receipts between is missing
      last-said  it said so before, and nothing proves until when
      none       no receipt tells of this time

    \b
      config-manager report verify january.json --root root.json
      config-manager report verify january.json --root root.json --json | jq .holes
    """
    show_what_can_be_shown()
    with file_of("", file):
        if file.stat().st_size > _MOST_BYTES:
            raise SettingsInvalid(f"{file}: no report is over {_MOST_BYTES >> 20} MiB")
        data = file.read_bytes()
    with file_of("--root: ", root):
        pinned = root.read_bytes()
    verdict = _verify(data, pinned, f"--root: {root}")
    Shown(_value(verdict), _lines(verdict), _error(verdict)).show(as_json=as_json)


def _verify(data: bytes, pinned: bytes, named: str) -> Verdict:
    from config_manager.config.trust import Distrust
    from config_manager.storage.decisions.report_checks import verify as verify_report

    try:
        return verify_report(data, pinned)
    except Distrust as error:
        raise RootRefused(f"{named}: {error}") from None


def _error(verdict: Verdict) -> ReportBroken | None:
    if verdict.ok:
        return None
    first, more = verdict.findings[0], len(verdict.findings) - 1
    also = f" (and {more} more)" if more else ""
    return ReportBroken(clean(f"{first.step}: {first.detail}{also}"))


def _value(verdict: Verdict) -> dict[str, Any]:
    about = verdict.report
    return {
        "ok": verdict.ok,
        "findings": [one._asdict() for one in verdict.findings],
        "from": about and about.begin,
        "to": about and about.end,
        "made_at": about and about.made_at,
        "made_by": about and about.made_by,
        "root_version": verdict.root_version,
        "audit_rows": list(verdict.rows),
        "services": verdict.claims,
        "holes": [one._asdict() for one in verdict.holes],
        "notes": list(verdict.notes),
        "unproved": list(UNPROVED),
    }


def _lines(verdict: Verdict) -> Iterator[str]:
    about = verdict.report
    if about is not None:
        first, last = verdict.rows
        rows = f"rows {first} to {last} of the audit" if last else "no row of the audit"
        yield clean(
            f"Report of {about.begin} to {about.end}, made at {about.made_at} by {about.made_by}; root "
            f"version {verdict.root_version}, {rows}"
        )
    for one in verdict.findings:
        yield clean(f"NOT PROVED, {one.step}: {one.detail}")
    if verdict.findings and verdict.claims:
        yield "What is left of its evidence says:"
    yield from _told(_WANTED, _wanted(verdict.claims))
    yield from _told(_RAN, _ran(verdict.claims))
    for hole in verdict.holes:
        missing = "1 receipt is" if hole.missing == 1 else f"{hole.missing} receipts are"
        yield clean(
            f"hole: {hole.service}/{hole.instance}: {missing} missing between {_dotted(hole.before)} and "
            f"{_dotted(hole.behind)}"
        )
    for note in verdict.notes:
        yield clean(f"open: {note}")
    if verdict.claims:
        yield "What no report proves:"
        for text in UNPROVED:
            yield f"  {text}"


def _told(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield from table(header, rows)
        yield ""


def _wanted(services: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            service,
            f"r{each['revision']}",
            _time(each["from"]),
            _time(each["to"]),
            each["by"],
            each["reason"] or "",
        )
        for service, one in services.items()
        for each in one["wanted"]
    ]


def _ran(services: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            service,
            instance,
            "?" if each["proof"] == "none" else _running(each["revision"]),
            "?" if each["state"] is None else in_words(each["state"]),
            _time(each["from"]),
            _time(each["to"]),
            each["proof"],
        )
        for service, one in services.items()
        for instance, told in one["instances"].items()
        for each in told["segments"]
    ]


def _running(revision: int | None) -> str:
    return "defaults" if revision is None else f"r{revision}"


def _time(text: str | None) -> str:
    return "" if text is None else text[:23].replace("T", " ")


def _dotted(order: tuple[int, int]) -> str:
    return f"{order[0]}.{order[1]}"
