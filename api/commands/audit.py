"""`config-manager audit`: who did what, exported for those who have to check it, and verified."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from config_manager.api.commands.local import disk_explained
from config_manager.api.commands.options import FILE, asks_a_server, file_of, shows_an_answer
from config_manager.api.commands.output import Shown, clean, print_json, table
from config_manager.api.commands.remote import Server
from config_manager.config.audit import AuditFault, ChainCheck, ChainVerdict, Head
from config_manager.config.errors import AuditBroken, SettingsInvalid

if TYPE_CHECKING:
    from config_manager.config.documents.audit_export import AuditExport
    from config_manager.config.documents.root import Root
    from config_manager.config.wire import Envelope

_PATH = ("api", "v1", "audit")
_HEADER = ("ROW", "AT", "BY", "FROM", "ACTION", "WHAT", "REASON")
_PAGE = "1000"


class ChainedRow(NamedTuple):
    """A row of the audit, from a server or an export. body: its bytes, as they were hashed."""

    seq: int
    revision: int
    body: bytes
    hash: str


@click.group()
def audit() -> None:
    """See who did what, and prove that nobody has edited it since.

    Each row is chained to the one before it by its hash, and the newest hash is signed with every
    beacon: anybody who keeps one, or an export, can check all rows up to there.
    """


# ── list ───────────────────────────────────────────────────────────────────────────────────────


@audit.command("list")
@asks_a_server
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="Rows.")
@click.option("--after", type=click.IntRange(0), help="All rows after this number instead.")
def list_rows(server: Server, as_json: bool, last: int, after: int | None) -> None:
    """Show who did what, from where, when and why, oldest first.

    \b
      config-manager audit list --last 5
      config-manager audit list --after 0 --json | jq 'select(.body.by == "ci")'
    """
    if after is None:
        after = max(0, server.get(*_PATH, holds="rows", limit="1")["rows"] - last)
    rows = _rows_of(server, after)
    if as_json:
        for row in rows:
            print_json({**row._asdict(), "body": json.loads(row.body)})
        return
    for line in table(_HEADER, (_told(row.seq, json.loads(row.body)) for row in rows)):
        click.echo(line)


def _rows_of(server: Server, after: int, until: int | None = None) -> Iterator[ChainedRow]:
    """The server's rows after this one, page by page; up to `until`, or the newest one."""
    while until is None or after < until:
        page = server.get(*_PATH, holds="entries next_after", after=str(after), limit=_PAGE)
        for entry in page["entries"]:
            if until is None or entry["seq"] <= until:
                yield _row(entry)
        if page["next_after"] is None:
            return
        after = page["next_after"]


def _row(entry: Any) -> ChainedRow:
    """Raises LookupError, TypeError, AttributeError or ValueError if it is no row."""
    return ChainedRow(
        int(entry["seq"]), int(entry["revision"]), entry["body"].encode(), entry["hash"]
    )


def _told(seq: int, body: dict[str, Any]) -> tuple[str, ...]:
    if "services" in body:
        what = "; ".join(
            f"{service}: {', '.join(change[0] for change in changes) or 'nothing'}"
            for service, changes in body["services"].items()
        )
    else:
        what = ", ".join(f"{key} {_shortly(value)}" for key, value in body["details"].items())
    at = str(body["at"])[:19].replace("T", " ")
    client = body.get(
        "client", ""
    )  # not in what the server did by itself, nor in rows before 0.5.0
    return (str(seq), at, body["by"], client, body["action"], what, body["reason"] or "")


def _shortly(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ── verify ─────────────────────────────────────────────────────────────────────────────────────


class AuditReport(NamedTuple):
    """against: the heads that the rows were compared with, in words. not_audited: what is kept although no
    row of the audit vouches for it."""

    verdict: ChainVerdict
    against: str
    not_audited: list[dict[str, Any]]

    def lines(self) -> Iterator[str]:
        for one in self.not_audited:
            yield clean(f"{one['reason']}: {one['why']}")
        if self.verdict.ok:
            yield f"{self.verdict.rows} rows, each as it was written, compared with {self.against}"
            yield f"head: {self.verdict.head}"

    def error(self) -> AuditBroken | None:
        problem = self.verdict.problem
        if problem is None:
            return None
        is_of_a_row = problem.kind != "not-audited"
        where = f"row {problem.seq} ({problem.kind}): " if is_of_a_row else ""
        return AuditBroken(where + clean(problem.detail))


@audit.command()
@shows_an_answer
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    help="Of a server that is stopped: read its database.",
)
@click.option("--db-key-file", type=FILE, help="With --data-dir. [<data>/keys/db.key]")
@click.option("--file", type=FILE, help="An export; needs --root.")
@click.option("--root", type=FILE, help="The trust root that the export was signed under.")
@click.option("--contains", metavar="HASH", help="A head that you kept, of a beacon or an export.")
def verify(
    server: Server,
    data_dir: Path | None,
    db_key_file: Path | None,
    file: Path | None,
    root: Path | None,
    contains: str | None,
) -> Shown:
    """Check every row; name the first that was altered, removed or put elsewhere. Then compare what is
    kept with the rows: each configuration, its history, tokens and devices; name each that differs, and why.

    The running server compares with the head that its beacons sign; a stopped data directory with its
    own counter and with instance.json; an export with the head that was signed with it. Exit code 5
    if something is wrong.

    \b
      config-manager audit verify
      config-manager audit verify --data-dir ./data
      config-manager audit verify --file audit.jsonl --root root.json
    """
    if data_dir is not None and file is not None:
        raise SettingsInvalid("--data-dir and --file: give one of them")
    if (file is None) != (root is None):
        raise SettingsInvalid("--file and --root go together: an export, and who may sign it")
    if data_dir is not None:
        report = _judge_stopped(data_dir, db_key_file, contains)
    elif file is not None and root is not None:
        report = _judge_export(file, root, contains)
    else:
        report = _ask_for_report(server, contains)
    verdict, against, not_audited = report
    value = {"ok": verdict.ok, **asdict(verdict), "against": against, "not_audited": not_audited}
    return Shown(value, report.lines(), report.error())


def _ask_for_report(server: Server, contains: str | None) -> AuditReport:
    answer = server.get(*_PATH, "verify", holds="rows head problem", contains=contains)
    problem = answer["problem"] and AuditFault(**answer["problem"])
    return AuditReport(
        ChainVerdict(answer["rows"], answer["head"], problem),
        "the head that the server's beacons sign",
        answer.get("not_audited", []),  # a server of 0.2.0 says nothing of it
    )


def _judge_stopped(data_dir: Path, db_key_file: Path | None, contains: str | None) -> AuditReport:
    from config_manager.config.world import World
    from config_manager.storage.sql.stopped_audit import stopped_audit

    with (
        disk_explained(data_dir, is_in_use=True),
        stopped_audit(data_dir, World(), db_key_file=db_key_file) as kept,
    ):
        judged = kept.vouching.judge(
            kept.snapshot, kept.known, cached=kept.cached, contains=contains
        )
        known = [head.where for head in (kept.snapshot.head, *kept.known)]
    verdict = replace(judged.verdict, problem=judged.problem)
    return AuditReport(verdict, " and ".join(known), [one.to_object() for one in judged.foreign])


def _judge_export(file: Path, root_file: Path, contains: str | None) -> AuditReport:
    root = _read_root(root_file)
    with file_of("--file: ", file), file.open("rb") as lines:
        export = _signed_end(lines.readline(), root)
        check = ChainCheck(Head(export.rows, export.head, "its signature"), contains=contains)
        for number, line in enumerate(lines, 2):
            check.take(*_row_in(line, number))
    by, at = clean(export.exported_by), clean(export.exported_at)
    return AuditReport(check.finish(), f"what was signed when {by} exported it at {at}", [])


def _read_root(file: Path) -> Root:
    from config_manager.config.errors import RootRefused
    from config_manager.config.trust import Distrust, judge_root

    try:
        with file_of("--root: ", file):
            return judge_root(file.read_bytes(), None, time.time())
    except Distrust as error:
        raise RootRefused(f"--root: {file}: {error}") from None


def _signed_end(line: bytes, root: Root) -> AuditExport:
    from config_manager.config.trust import Distrust, judge_audit_export, open_envelope

    try:
        return judge_audit_export(open_envelope(line), root)
    except Distrust as error:
        raise AuditBroken(f"the first line, the export's signed end, is refused: {error}") from None


def _row_in(line: bytes, number: int) -> ChainedRow:
    try:
        return _row(json.loads(line))
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        raise AuditBroken(f"line {number} of the export is no row of the audit") from None


# ── export ─────────────────────────────────────────────────────────────────────────────────────


@audit.command()
@asks_a_server
@click.option("--out", type=FILE, help="A new file. [standard output]")
def export(server: Server, as_json: bool, out: Path | None) -> None:
    """Write every row up to now, with a signature over the last one: JSON, one object a line.

    The first line is the signed end, the others are the rows. It is checked while it is written; an
    audit that does not verify is not exported. `audit verify --file` checks it anywhere, with no
    server and no database.
    """
    from config_manager.config import wire
    from config_manager.config.documents.audit_export import AuditExport
    from config_manager.config.files import replacing

    envelope = wire.envelope_from_object(
        server.get(*_PATH, "export", holds="payloadType payload signatures")
    )
    end = AuditExport.parse(envelope.payload)
    if out is None:
        _write(_checked(server, end), envelope, sys.stdout.buffer)
        return
    if out.exists():
        raise SettingsInvalid(f"--out: {out} is there already")
    with file_of("--out: ", out), replacing(out) as file:
        _write(_checked(server, end), envelope, file)
    lines = (
        f"{end.rows} rows are in {out}; the last one's hash, {end.head}, is signed",
        "keep the trust root with it (config-manager trust export-root, or trust/root.json)",
    )
    Shown({"out": str(out), "rows": end.rows, "head": end.head}, lines).show(as_json=as_json)


def _checked(server: Server, end: AuditExport) -> Iterator[ChainedRow]:
    """The rows, and then AuditBroken if they are not what was signed."""
    check = ChainCheck(Head(end.rows, end.head, "the signed end"))
    for row in _rows_of(server, 0, end.rows):
        check.take(*row)
        yield row
    verdict = check.finish()
    if verdict.problem is not None:
        raise AuditBroken(
            f"row {verdict.problem.seq}: {verdict.problem.detail}; nothing is exported"
        )


def _write(rows: Iterable[ChainedRow], envelope: Envelope, file: IO[bytes]) -> None:
    file.write(envelope.to_bytes() + b"\n")
    for row in rows:
        value = {**row._asdict(), "body": row.body.decode()}
        file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
