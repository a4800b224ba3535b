"""`config-manager rollback`: a key, a service, one change, the newest one, or everything, as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from config_manager.api.commands.changes import Change, change_lines
from config_manager.api.commands.options import DRY_RUN, WAIT, shows_an_answer, waiting
from config_manager.api.commands.output import Shown, clean
from config_manager.api.commands.remote import Server
from config_manager.config.errors import ServerSays, SettingsInvalid

_PATH = ("api", "v1", "config")
_NOT_FOUND = 404
_MOST_NAMED = 12


@click.command("rollback")
@shows_an_answer
@click.argument("service", required=False)
@click.argument("revision", type=click.IntRange(0), required=False)
@click.option(
    "--last", is_flag=True, help="The newest change, whatever it was. Twice goes further."
)
@click.option(
    "--undo", type=click.IntRange(0), metavar="REV", help="One change, though others came after it."
)
@click.option(
    "--everything", type=click.IntRange(0), metavar="REV", help="Every service as of REV."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Only this key; with --undo: also if it was written since.",
)
@click.option("--reason", help="Why, for the history. [which rollback it is]")
@click.option("--yes", is_flag=True, help="Do not ask, also at a terminal.")
@WAIT
@DRY_RUN
def rollback_config(
    server: Server,
    service: str | None,
    revision: int | None,
    last: bool,
    undo: int | None,
    everything: int | None,
    keys: tuple[str, ...],
    reason: str | None,
    yes: bool,
    wait: float | None,
    dry_run: bool,
) -> Shown:
    """Take something back: a new revision with what was there, so nothing is lost.

    \b
      config-manager rollback --last                     # the newest change, of however many services
      config-manager rollback stt-worker 12              # a service as of revision 12
      config-manager rollback stt-worker 12 --key vad_threshold
      config-manager rollback --undo 45                  # one change in the middle
      config-manager rollback --everything 40            # every service as of revision 40

    It shows first what would change of the effective values, what today's schema does not take any more (then
    nothing is written: exit 7), and which instances get other values. At a terminal it asks. Secrets stay as they
    are, and a service that was not there then is kept.
    """
    given = [service is not None, last, undo is not None, everything is not None]
    if sum(given) != 1 or (service is not None) != (revision is not None):
        raise SettingsInvalid("give SERVICE REVISION, --last, --undo REV or --everything REV")
    if keys and (last or everything is not None):
        raise SettingsInvalid("--key: only with SERVICE REVISION or --undo")
    order = _Order.of(server, service, revision, undo, everything, keys, reason)
    preview = order.ask(dry_run="true")
    lines = list(_preview_lines(preview))
    if dry_run:
        refused = preview.get("errors", ())
        error = _refusal(refused) if refused else None
        return Shown(preview, [*lines, "nothing was changed"], error)
    is_refused = bool(preview.get("errors"))  # the server says so once it is asked in earnest
    if sys.stdin.isatty() and not yes and not is_refused:
        for line in lines:
            click.echo(line, err=True)
        click.confirm("Take this back?", abort=True, err=True)
        lines = []
    answer = order.exactly(preview).ask(**waiting(wait))
    return Shown(answer, [*lines, _done(answer)])


@dataclass(frozen=True, slots=True)
class _Order:
    """path: behind that of configurations. headers: what has to be true for it to be done."""

    server: Server
    path: tuple[str, ...]
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @classmethod
    def of(
        cls,
        server: Server,
        service: str | None,
        revision: int | None,
        undo: int | None,
        everything: int | None,
        keys: tuple[str, ...],
        reason: str | None,
    ) -> _Order:
        body: dict[str, Any] = {}
        if keys:
            body["keys"] = list(keys)
        if reason is not None:
            body["reason"] = reason
        if service is not None:
            held = {"If-Match": f'"{_revision_of(server, service)}"'}
            return cls(server, (service, "rollback"), {**body, "to_revision": revision}, held)
        path = ("epoch", "rollback")
        if everything is not None:
            return cls(server, path, {**body, "to_revision": everything}, {})
        return cls(
            server, path, {**body, **({"last": True} if undo is None else {"undo": undo})}, {}
        )

    def exactly(self, preview: Mapping[str, Any]) -> _Order:
        """What was shown, even if somebody writes in between: `last` is another change by then."""
        if "last" not in self.body:
            return self
        body = {name: value for name, value in self.body.items() if name != "last"}
        return _Order(self.server, self.path, {**body, "undo": preview["undone"]}, self.headers)

    def ask(self, **query: str | None) -> Any:
        return self.server.ask(
            "POST",
            *_PATH,
            *self.path,
            holds="revision",
            query=query,
            body=self.body,
            headers=self.headers,
        ).value


def _revision_of(server: Server, service: str) -> int:
    """0 if there is nothing, for now."""
    try:
        answer = server.get(*_PATH, service, holds="revision")
    except ServerSays as error:
        if error.status != _NOT_FOUND:
            raise
        return 0
    return int(answer["revision"])


# ── in words ───────────────────────────────────────────────────────────────────────────────────


def _preview_lines(preview: Mapping[str, Any]) -> Iterator[str]:
    if preview.get("undone") is not None:
        yield f"takes back revision {preview['undone']}"
    changes: list[Change] = preview["changes"]
    if "service" in preview:
        yield from change_lines(changes)
    else:
        for service in preview["services"]:
            yield clean(f"{service}:")
            for line in change_lines([one for one in changes if one["service"] == service]):
                yield f"  {line}"
    for service in preview.get("kept", ()):
        yield clean(f"{service}: was not there then, and stays as it is")
    for one in preview.get("warnings", ()):
        yield clean(f"warning: {one['pointer']}: {one['detail']}")
    yield from _instances(preview.get("instances", ()))


def _instances(instances: Any) -> Iterator[str]:
    instances = [one for one in instances if one["verdict"] != "same"]
    if instances:
        names = [f"{one['service']}/{one['instance']}" for one in instances[:_MOST_NAMED]]
        more = f" and {len(instances) - _MOST_NAMED} more" if len(instances) > _MOST_NAMED else ""
        yield clean(f"instances that get other values: {', '.join(names)}{more}")


def _refusal(errors: Any) -> ServerSays:
    said = "\n  ".join(f"{one['pointer']}: {one['detail']}" for one in errors)
    return ServerSays(
        clean(f"it would be refused: today's schema does not take\n  {said}", keep="\n"),
        "rollback-refused",
        409,
    )


def _done(answer: Mapping[str, Any]) -> str:
    held = "a broker holds it" if answer["propagation"] == "confirmed" else "on its way"
    whose = answer["service"] if "service" in answer else ", ".join(answer["services"])
    many = "is" if "service" in answer or len(answer["services"]) == 1 else "are"
    return clean(f"{whose} {many} at revision {answer['revision']}; {held}")
