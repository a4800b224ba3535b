"""`config-manager plan | apply | plans`: what a change would do, and exactly that change."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from config_manager.api.commands.configs import assignment
from config_manager.api.commands.forecasts import service_lines
from config_manager.api.commands.options import (
    HISTORY_REASON,
    WAIT,
    json_object_in,
    shows_an_answer,
    waiting,
)
from config_manager.api.commands.output import Shown, clean, table
from config_manager.api.commands.remote import Server
from config_manager.api.commands.schemas import difference_lines
from config_manager.api.commands.values_files import read_values
from config_manager.config.errors import SettingsInvalid

_PATH = ("api", "v1", "plans")
_PLAN = "id state services instances warnings base expires_at"
_ID = re.compile(r"p-[0-9a-f]{12}")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


# ── what is wished for ─────────────────────────────────────────────────────────────────────────


def _wishes(command: Callable[..., Shown]) -> Callable[..., Shown]:
    """The options that say what is to be planned; the command gets them as keywords for `_body`."""
    two = click.Tuple([str, str])
    for option in reversed(
        (
            click.option("--service", help="Whose values the one FILE holds."),
            click.option("--merge", is_flag=True, help="Merge files into what is stored."),
            click.option(
                "--set", "sets", type=two, multiple=True, metavar="SERVICE KEY=VALUE",
                help="One key; the others stay.",
            ),
            click.option(
                "--unset", "unsets", type=two, multiple=True, metavar="SERVICE KEY",
                help="Leave a key to its default.",
            ),
            click.option(
                "--schema", "schemas", type=two, multiple=True, metavar="SERVICE FILE",
                help="Make the schema in FILE (JSON) the active one.",
            ),
            click.option(
                "--allow-breaking", is_flag=True, help="Although a schema breaks something; needs --reason."
            ),
            click.option(
                "--allow-lossy", is_flag=True, help="Although x-was does not keep values apart."
            ),
            click.option("--last", is_flag=True, help="Take back the newest change."),
            click.option("--undo", type=click.IntRange(0), metavar="REV", help="Take back one change."),
            click.option(
                "--everything", type=click.IntRange(0), metavar="REV", help="Every service as of REV."
            ),
            HISTORY_REASON,
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _body(files: tuple[str, ...], wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Of `POST /api/v1/plans`. Raises SettingsInvalid."""
    values = _of_files(files, wishes["service"])
    rollback = _rollback(wishes)
    patch: dict[str, Any] = {}
    for service, text in wishes["sets"]:
        key, value = assignment(text)
        patch.setdefault(service, {})[key] = value
    for service, key in wishes["unsets"]:
        patch.setdefault(service, {})[key] = None
    if wishes["merge"]:
        patch = {name: {**one, **patch.pop(name, {})} for name, one in values.items()} | patch
        values = {}
    schemas = {
        service: json_object_in("--schema", _bytes_of(Path(path)))
        for service, path in wishes["schemas"]
    }
    if not (values or patch or schemas or rollback):
        raise SettingsInvalid(
            "nothing to plan: give FILE, --set, --unset, --schema, --last, --undo or --everything"
        )
    body = {
        "services": values,
        "patch": patch,
        "schemas": schemas,
        "rollback": rollback,
        "reason": wishes["reason"],
    }
    return {name: one for name, one in body.items() if one}


def _of_files(files: tuple[str, ...], service: str | None) -> dict[str, Any]:
    if service is not None and len(files) != 1:
        raise SettingsInvalid("--service names the service of one FILE")
    found: dict[str, Any] = {}
    for text in files:
        named, separator, path = text.partition("=")
        if not (separator and _SERVICE.fullmatch(named)):
            named, path = "", text
        name = service or named or ("" if path == "-" else Path(path).stem)
        if not _SERVICE.fullmatch(name):
            raise SettingsInvalid(
                f"{text}: whose values are they? The file's name says it (stt-worker.yaml), "
                "SERVICE=FILE, or --service SERVICE"
            )
        if name in found:
            raise SettingsInvalid(f"{text}: {name} has a file already")
        found[name] = read_values(Path(path))
    return found


def _rollback(wishes: Mapping[str, Any]) -> dict[str, Any] | None:
    asked: dict[str, Any] = {}
    if wishes["last"]:
        asked["last"] = True
    if wishes["undo"] is not None:
        asked["undo"] = wishes["undo"]
    if wishes["everything"] is not None:
        asked["to_revision"] = wishes["everything"]
    if len(asked) > 1:
        raise SettingsInvalid("--last, --undo or --everything: one of them")
    return asked or None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror or error}") from None


def _planned(server: Server, files: tuple[str, ...], wishes: Mapping[str, Any]) -> Any:
    query = {
        "allow_breaking": "true" if wishes["allow_breaking"] else None,
        "allow_lossy": "true" if wishes["allow_lossy"] else None,
    }
    body = _body(files, wishes)
    return server.ask("POST", *_PATH, holds=_PLAN, query=query, body=body).value


# ── plan, apply ────────────────────────────────────────────────────────────────────────────────


@click.command("plan")
@shows_an_answer
@click.argument("files", nargs=-1, metavar="[FILE]...")
@_wishes
def make_plan(server: Server, files: tuple[str, ...], **wishes: Any) -> Shown:
    """Show what a change would do, and keep exactly that for `config-manager apply`.

    A FILE (.json, .toml, .yaml) holds all values of the service that its name says; - is JSON from stdin.

    \b
      config-manager plan stt-worker.yaml tts-worker.toml
      config-manager plan --set stt-worker vad_threshold=0.3 --reason "too many false starts"
      config-manager plan --schema stt-worker new.json --set stt-worker vad_mode=soft
      config-manager plan --last
      config-manager apply p-7c1e03ab52d9

    Per key it shows what instances get before and after; then each live instance: hot, with its next restart, or
    refused by the schema that it was built with, and what its own environment decides.

    A plan is good for 24 hours and used once. If somebody changes what it was worked out from, it can't be applied
    any more (exit 7): plan again.
    """
    plan = _planned(server, files, wishes)
    return Shown(plan, _plan_lines(plan))


@click.command("apply")
@shows_an_answer
@click.argument("plans", nargs=-1, metavar="ID|FILE...")
@_wishes
@WAIT
@click.option("--yes", is_flag=True, help="Do not ask, also at a terminal.")
def apply_plan(
    server: Server, plans: tuple[str, ...], wait: float | None, yes: bool, **wishes: Any
) -> Shown:
    """Apply a plan: all of it in one revision, or nothing.

    With files or options it plans as `config-manager plan` does, shows that, asks at a terminal, and applies it.

    \b
      config-manager apply p-7c1e03ab52d9 --wait 5
      config-manager apply stt-worker.yaml tts-worker.toml --reason "quieter"
    """
    first = plans[0] if plans else ""
    if _ID.fullmatch(first):
        others = any(one for name, one in wishes.items() if name not in ("reason", "undo"))
        if len(plans) > 1 or others or wishes["undo"] is not None:
            raise SettingsInvalid("a plan is applied as it is: give its ID alone")
        return _applied(server, first, wishes["reason"], wait, [])
    if first.startswith("p-") and not Path(first).suffix:
        raise SettingsInvalid(f"{first}: no ID of a plan; `config-manager plans` lists them")
    plan = _planned(server, plans, wishes)
    lines = list(_plan_lines(plan, is_kept=False))
    if sys.stdin.isatty() and not yes:
        for line in lines:
            click.echo(line, err=True)
        click.confirm("Apply this?", abort=True, err=True)
        lines = []
    return _applied(server, plan["id"], None, wait, lines)


def _applied(
    server: Server, plan_id: str, reason: str | None, wait: float | None, lines: list[str]
) -> Shown:
    body = {} if reason is None else {"reason": reason}
    answer = server.post(
        *_PATH, plan_id, "apply", holds="plan revision services", body=body, **waiting(wait)
    )
    return Shown(answer, [*lines, *_applied_lines(answer)])


# ── plans ──────────────────────────────────────────────────────────────────────────────────────


class _ListByDefault(click.Group):
    """Without a command it lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("plans", cls=_ListByDefault)
def plans() -> None:
    """Look at the plans that are kept, the newest 100.

    \b
      config-manager plans
      config-manager plans show p-7c1e03ab52d9
      config-manager plans delete p-7c1e03ab52d9
    """


@plans.command("list")
@shows_an_answer
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Rows.")
def list_plans(server: Server, limit: int) -> Shown:
    """List plans, newest first."""
    answer = server.get(*_PATH, holds="plans next_after", limit=str(limit))
    rows = (
        (
            one["id"],
            one["state"],
            one["created_at"][:19].replace("T", " "),
            one["by"],
            _named(one["services"]),
            one["reason"] or "",
        )
        for one in answer["plans"]
    )
    return Shown(answer, table(("PLAN", "STATE", "AT", "BY", "SERVICES", "REASON"), rows))


@plans.command("show")
@shows_an_answer
@click.argument("plan_id", metavar="ID")
def show_plan(server: Server, plan_id: str) -> Shown:
    """Show a plan as it was made, and whether it can be applied."""
    plan = server.get(*_PATH, plan_id, holds=_PLAN)
    return Shown(plan, _plan_lines(plan))


@plans.command("delete")
@shows_an_answer
@click.argument("plan_id", metavar="ID")
@HISTORY_REASON
def delete_plan(server: Server, plan_id: str, reason: str | None) -> Shown:
    """Let go of a plan. What it wrote stays."""
    answer = server.delete(*_PATH, plan_id, holds="id", reason=reason)
    return Shown(answer, [clean(f"{answer['id']} is gone")])


# ── in words ───────────────────────────────────────────────────────────────────────────────────


def _plan_lines(plan: Mapping[str, Any], *, is_kept: bool = True) -> Iterator[str]:
    for service in plan["services"]:
        name = service["service"]
        yield from service_lines(
            service, [one for one in plan["instances"] if one["service"] == name]
        )
    for one in plan.get("schemas", ()):
        yield clean(f"{one['service']}  schema {one['digest'][:12]} becomes active")
        yield from (f"  {line}" for line in difference_lines(one))
    for name in plan.get("kept", ()):
        yield clean(f"{name}: was not there then, and stays as it is")
    for one in plan["warnings"]:
        yield clean(f"warning: {one['pointer'][1:]}: {one['detail']}")
    if is_kept:
        yield clean(_about(plan))


def _about(plan: Mapping[str, Any]) -> str:
    base = max(plan["base"]["revisions"].values(), default=0)
    about = f"plan {plan['id']}  base: revision {base}"
    until = plan["expires_at"][:16].replace("T", " ")
    match plan["state"]:
        case "applied":
            return f"{about}  applied as revision {plan['applied']['revision']}"
        case "expired":
            return f"{about}  was good until {until}"
        case "failed":
            moved = ", ".join(f"{one['service']} by {one['by']}" for one in plan["moved"])
            return f"{about}  can't be applied any more: changed since: {moved}"
        case _:
            return f"{about}  good until {until}  config-manager apply {plan['id']}"


def _applied_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    for one in answer.get("schemas", ()):
        yield clean(f"{one['service']}: schema version {one['version']} is active")
    if not answer["services"]:
        yield f"no value changes: the revision stays {answer['revision']}"
        return
    held = "a broker holds it" if answer["propagation"] == "confirmed" else "on its way"
    verb = "is" if len(answer["services"]) == 1 else "are"
    yield clean(f"{_named(answer['services'])} {verb} at revision {answer['revision']}; {held}")


def _named(services: list[str]) -> str:
    more = f" and {len(services) - 4} more" if len(services) > 4 else ""  # noqa: PLR2004
    return ", ".join(services[:4]) + more
