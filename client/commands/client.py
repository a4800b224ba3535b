"""The `client` commands, for services that are not Python and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from config_manager.config.dumps import forbid_dumps

if TYPE_CHECKING:
    from config_manager.client.commands.formats import Format
    from config_manager.client.rules.kept import Kept
    from config_manager.config.secret import Secret


def _expanded(_: click.Context, __: click.Parameter, path: Path) -> Path:
    """No shell does it for what comes from the environment, nor after `--state=`."""
    from config_manager.client.state.places import expanded

    return expanded(path)


_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False, readable=False),  # our own words say more
    callback=_expanded,
    envvar="CONFIG_MANAGER_STATE_DIR",
    show_envvar=True,
    required=True,
    help="The instance's own directory: pinned root, keys, last-known-good files.",
)
_SERVICE = click.option(
    "--service", required=True, help="The service to follow, such as stt-worker."
)
_INSTANCE = click.option(
    "--instance", metavar="NAME", help="This instance's name. [made by trust init]"
)

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _or_in_env_file(context: click.Context, option: click.Parameter, value: str | None) -> str:
    """A variable of ours that the environment does not have may stand in `.env`."""
    if value:
        return value
    from config_manager.client.state import env_file

    said = env_file.ours_in({}, env_file.read(env_file.USUAL, is_named=False))
    found = said.get(str(cast("click.Option", option).envvar))
    if not found and not context.resilient_parsing:
        raise click.MissingParameter(ctx=context, param=option)
    return found or ""


@click.group()
def client() -> None:
    """Follow a service's configuration: for services that are not Python, and for scripts.

    \b
    The three steps:
      config-manager client trust init --state ./state --root data/trust/root.json
      config-manager client run --state ./state --service stt-worker --mqtt-url mqtt://localhost:1883
      config-manager client get --state ./state --service stt-worker
    """
    forbid_dumps()


@client.group()
def trust() -> None:
    """Whom this instance believes."""


@trust.command("init")
@_STATE
@click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    callback=_expanded,
    envvar="CONFIG_MANAGER_ROOT",
    show_envvar=True,
    required=True,
    help="The publisher's <data>/trust/root.json, or what GET /api/v1/trust/root answers.",
)
@_JSON
def trust_init(state: Path, root: Path, as_json: bool) -> None:
    """Pin the publisher's trust root, and make this instance's own keys.

    Again with the same root changes nothing; another root is refused (exit 5): to follow another
    publisher, use a new state directory. Fetch the root over a way you trust, once:

    \b
      curl -s http://127.0.0.1:8081/api/v1/trust/root > root.json
      config-manager client trust init --state ./state --root root.json
    """
    from config_manager.client.state.identity import trust_init as pin

    identity = pin(state, root)
    said = f"{identity.instance} trusts root {identity.root.version} ({state})"
    _say(said, as_json, instance=identity.instance, root_version=identity.root.version)


def _say(said: str, as_json: bool, **told: object) -> None:
    import json

    click.echo(json.dumps(told) if as_json else said)


@client.command()
@_STATE
@_SERVICE
@click.option(
    "--mqtt-url",
    metavar="URL[,URL]",
    envvar="CONFIG_MANAGER_MQTT_URL",  # a password on the command line is for everyone to see
    show_envvar=True,
    callback=_or_in_env_file,
    help="mqtt://[user[:password]@]host:port, mqtts://…, ws://… or wss://…; all are used. none: is offline. "
    "The variable may stand in .env. [required]",
)
@_INSTANCE
@click.option(
    "--render",
    "templates",
    metavar="TEMPLATE:FILE",
    multiple=True,
    help="Write FILE from TEMPLATE (${key} becomes its value) before COMMAND starts, and on changes.",
)
@click.option(
    "--on-change",
    metavar="restart|SIGNAL",
    default="restart",
    show_default=True,
    help="What COMMAND gets when its settings change: a restart, or a signal such as HUP.",
)
@click.option(
    "--prefix",
    metavar="TEXT",
    help="Of COMMAND's variables; '' for the bare keys. [the service: STT_WORKER_]",
)
@click.option(
    "--secrets",
    is_flag=True,
    help="Give COMMAND its secrets where its settings go. A file (--render) is the better place: "
    "an environment is inherited by whatever COMMAND starts.",
)
@click.option("--json", "as_json", is_flag=True, help="Nothing else: events are JSON anyway.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    state: Path,
    service: str,
    mqtt_url: str,
    instance: str | None,
    templates: tuple[str, ...],
    on_change: str,
    prefix: str | None,
    secrets: bool,
    as_json: bool,  # noqa: ARG001
    command: tuple[str, ...],
) -> None:
    """Follow a service: one JSON object a line on stdout per event, until SIGTERM or SIGINT.

    Starts from the last-known-good file at once, with no network at all; logs go to stderr. There is no
    bake time: a revision counts as proved when COMMAND got it, and is used again though COMMAND died.

    \b
      {"event":"applied","service":…,"epoch_seq":…,"revision":…,"config":{…},…}
      {"event":"refused","reason":"rolled-back","detail":…}    what runs is untouched
      {"event":"deleted",…}                                    what runs goes on
      {"event":"stale","reason":"no-beacon"}                   it may be out of date
      {"event":"fresh"}                                        it is what the publisher wants

    \b
    Act on each new configuration:
      config-manager client run --state ./state --service stt-worker \\
        --mqtt-url mqtt://localhost | jq --unbuffered -c 'select(.event == "applied") | .config'

    \b
    Or run a program that knows nothing of this, with its settings in its environment, restarted
    when they change; its output and its exit code are ours:
      config-manager client run --state ./state --service stt-worker \\
        --mqtt-url mqtt://localhost -- ./stt-server --port 9000
    """
    import sys

    from config_manager.client.commands import running

    running.log_to_stderr()
    if not command:
        for given, name in ((templates, "--render"), (prefix, "--prefix"), (secrets, "--secrets")):
            if given:
                raise click.UsageError(f"{name} needs a COMMAND: … -- ./my-service")
        running.until_the_end(running.run, state, service, mqtt_url, instance)
        return
    wrapped = running.wrapped(command, templates, on_change, prefix, secrets=secrets)
    where = (state, service, mqtt_url, instance)
    sys.exit(running.until_the_end(running.run_command, *where, wrapped))


@client.command()
@_STATE
@_SERVICE
@click.option(
    "--url",
    required=True,
    envvar="CONFIG_MANAGER_URL",
    show_envvar=True,
    help="The server's REST, such as https://config.local:8081.",
)
@click.option(
    "--token-file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Holds the one-time token of `devices token`; - asks for it, or reads standard input.",
)
@_INSTANCE
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="CONFIG_MANAGER_CA_FILE",
    show_envvar=True,
    help="The authority of an https server's certificate. [the system's]",
)
@_JSON
def enroll(
    state: Path,
    service: str,
    url: str,
    token_file: Path,
    instance: str | None,
    ca_file: Path | None,
    as_json: bool,
) -> None:
    """Enrol this instance, so that it receives its service's secrets.

    Sends the public halves of the keys that `trust init` made; the private ones never leave DIR. An
    administrator makes the token: config-manager devices token --service SERVICE.
    """
    from config_manager.client.commands.enrolling import enrol
    from config_manager.client.state.identity import check_enrollable, load_identity, note_enrolled
    from config_manager.config.names import parse_instance, parse_service
    from config_manager.config.world import World

    name = parse_service(service)
    identity = load_identity(state)
    as_instance = identity.instance if instance is None else parse_instance(instance)
    check_enrollable(state, World())
    at = enrol(identity, name, as_instance, url=url, token=_read_token(token_file), ca_file=ca_file)
    note_enrolled(state, name, as_instance, World())
    said = f"{name}/{as_instance} is enrolled since {at}; its secrets are on their way"
    _say(said, as_json, service=name, instance=as_instance, enrolled_at=at)


def _read_token(token_file: Path) -> Secret:
    import sys

    from config_manager.config.errors import SettingsInvalid
    from config_manager.config.secret import Secret

    if str(token_file) != "-":
        try:
            text = token_file.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsInvalid(f"--token-file {token_file}: {error}") from None
    elif sys.stdin.isatty():
        text = click.prompt("enrolment token", hide_input=True)
    else:
        text = sys.stdin.readline()
    if not text.strip():
        raise SettingsInvalid("the enrolment token is empty")
    return Secret(text.strip())


@client.command()
@_STATE
@_SERVICE
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "env", "toml", "yaml"]),
    default="json",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--prefix", metavar="TEXT", help="With env: '' for the bare keys. [STT_WORKER_]")
def get(state: Path, service: str, form: str, as_json: bool, prefix: str | None) -> None:
    """Print the configuration that a start would begin with, without any network.

    That is the one last applied. If a running process has still to prove itself with that, or one died
    of it, it is the one before. In both cases, and if it has not proved itself yet, stderr says so.

    Exit 6 if none was kept yet, 5 if the kept file does not verify.

    \b
      config-manager client get --state ./state --service stt-worker | jq -r .whisper_model
      . <(config-manager client get --state ./state --service stt-worker --format env)
    """

    from config_manager.client.commands.formats import render
    from config_manager.client.rules.choosing import chosen
    from config_manager.client.state.cache import Cache, KeptBroken
    from config_manager.client.state.claim import Onlooker
    from config_manager.client.state.identity import load_identity
    from config_manager.client.state.places import unreadable
    from config_manager.config.errors import NothingKept, RootRefused
    from config_manager.config.names import parse_service
    from config_manager.config.world import World

    world = World()
    name = parse_service(service)
    identity = load_identity(state, world)
    try:
        onlooker = Onlooker(state, name)
        cache = Cache(state, name, identity.file_key, identity.roots, world, onlooker)
        kept = cache.load()
    except KeptBroken as error:
        raise RootRefused(f"what was kept does not verify: {error}") from None
    except OSError as error:
        raise unreadable(state / f"{name}.lkg", state, error) from None
    remark = _remark(kept) if kept is not None else None
    if kept is None or kept.to_start_with is None:
        raise NothingKept(
            f"{state} keeps no configuration of {name} yet; "
            + (remark or "`config-manager client run` fetches it")
        )
    update = chosen(kept.to_start_with[0], kept.schema)
    if cache.is_the_one_before is not None:
        click.echo(f"{cache.is_the_one_before} (revision {update.revision})", err=True)
    if remark is not None:
        click.echo(f"revision {update.revision} is what a start begins with; {remark}", err=True)
    config = update.config
    chosen_form = cast("Format", "json" if as_json else form)
    click.echo(render(name, config, chosen_form, prefix), nl=False)


def _remark(kept: Kept) -> str | None:
    """What is kept beside the configuration to start with, or its doubt, in words; None if there is none."""
    if kept.tried_elsewhere is not None:
        return f"a running process has yet to prove itself with revision {kept.tried_elsewhere[0].revision}"
    if kept.trial is not None:
        before = f"revision {kept.running[0].revision}" if kept.running is not None else "none"
        if kept.died is not None:
            died = "the service died within its bake time, and it is tried again"
            return f"{died}; the last that proved itself is {before}"
        return f"it has not proved itself yet, the last that did is {before}"
    if kept.poison is not None:
        newest = kept.seen is not None and kept.seen.digest == kept.poison.digest
        died_of = f"revision {kept.seen.mark.revision}" if kept.seen and newest else "a newer one"
        return f"the service died within the bake time of {died_of}, which is not tried again"
    return None
