"""What the command prints, and what it keeps of the cases that failed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from config_manager.api.commands.output import clean, table
from config_manager.api.conformance.cases import Result, totals
from config_manager.api.conformance.groups import GROUPS
from config_manager.api.conformance.running import file_name

_PAGE = "docs/wire.md"
_ABOUT = {group.name: group for group in GROUPS}


def to_object(results: Sequence[Result], command: Sequence[str]) -> dict[str, Any]:
    passed, failed, unsafe, skipped = totals(results)
    return {
        "client": list(command),
        "passed": passed,
        "failed": failed,
        "unsafe": unsafe,
        "not_played": skipped,
        "cases": [_one_as_object(result) for result in results],
    }


def _one_as_object(result: Result) -> dict[str, Any]:
    return {
        **result.case._asdict(),
        "got": result.got,
        "passed": result.passed,
        "unsafe": result.unsafe,
        "not_played": result.skipped,
        "section": _ABOUT[result.case.group].section,
        "said": list(result.said),
    }


def to_lines(results: Sequence[Result], kept: Path | None) -> Iterator[str]:
    """kept: where the messages of what failed are, or None."""
    for name, found in groupby(results, lambda result: result.case.group):
        yield f"{name}: {_ABOUT[name].about}"
        rows = [_row(result) for result in found]
        yield from (f"  {line}" for line in table(("", "case", "expected", "got", "safe"), rows))
        yield ""
    for result in results:
        if result.failed:
            yield from _explained(result, kept)
    passed, failed, unsafe, skipped = totals(results)
    yield f"{passed} passed, {failed} failed ({unsafe} unsafe), {skipped} not played"


def _row(result: Result) -> tuple[str, ...]:
    case = result.case
    if result.skipped is not None:
        return ("-", case.name, case.expected, f"not played: {result.skipped}", "")
    return (
        "✓" if result.passed else "✗",
        case.name,
        case.expected,
        result.got,
        "yes" if result.unsafe is None else "NO",
    )


def _explained(result: Result, kept: Path | None) -> Iterator[str]:
    case = result.case
    yield f"✗ {case.group}: {case.name}"
    yield f"  expected  {case.expected}"
    yield f"  got       {clean(result.got)}"
    if result.unsafe is not None:
        yield f"  unsafe    {clean(result.unsafe)}"
    yield f"  read      {_PAGE}, “{_ABOUT[case.group].section}”"
    where = "--keep DIR keeps them" if kept is None else str(kept_as(kept, result))
    yield f"  messages  {where}"
    yield ""


def kept_as(directory: Path, result: Result) -> Path:
    return directory / "failed" / f"{file_name(result.case)}.json"


def keep(result: Result, directory: Path) -> None:
    """What was sent in a case that failed, and what the client said. Raises OSError."""
    path = kept_as(directory, result)
    path.parent.mkdir(exist_ok=True)
    sent = [{"topic": topic, **_message(payload)} for topic, payload in result.sent]
    value = {**_one_as_object(result), "sent": sent}
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def _message(payload: bytes) -> dict[str, str]:
    try:
        return {"message": payload.decode()}
    except UnicodeDecodeError:
        return {"message_base64": base64.b64encode(payload).decode()}
