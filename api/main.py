"""The command `config-manager`. A command's module is imported when its name is typed, and not before."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from config_manager.api.start import begin
from config_manager.config.errors import ConfigManagerError, the_reason

_EXIT_UNEXPECTED = 1
_WITHOUT_EXTRA = ("client", "completion")


class LazyGroup(click.Group):
    """Imports a command's module when its name is typed: `client get` loads no server.

    Only these two work without the extra; every other command is the server's or its operators'.
    """

    lazy = {  # noqa: RUF012
        "audit": "config_manager.api.commands.audit:audit",
        "changes": "config_manager.api.commands.tracing:list_changes",
        "get": "config_manager.api.commands.configs:get_config",
        "set": "config_manager.api.commands.configs:set_config",
        "history": "config_manager.api.commands.configs:show_history",
        "diff": "config_manager.api.commands.past:diff_config",
        "drift": "config_manager.api.commands.drift:drift",
        "explain": "config_manager.api.commands.past:explain_config",
        "search": "config_manager.api.commands.past:search_configs",
        "rollback": "config_manager.api.commands.rollback:rollback_config",
        "client": "config_manager.client.commands.client:client",
        "completion": "config_manager.api.commands.completion:completion",
        "conformance": "config_manager.api.commands.conformance:conformance",
        "notifications": "config_manager.api.commands.notifications:notifications",
        "doctor": "config_manager.api.commands.doctor:doctor",
        "init": "config_manager.api.commands.data_dir:init",
        "recover": "config_manager.api.commands.data_dir:recover",
        "restore": "config_manager.api.commands.restore:restore",
        "rotate-db-key": "config_manager.api.commands.data_dir:rotate_db_key",
        "plan": "config_manager.api.commands.plans:make_plan",
        "apply": "config_manager.api.commands.plans:apply_plan",
        "plans": "config_manager.api.commands.plans:plans",
        "report": "config_manager.api.commands.report:report",
        "schema": "config_manager.api.commands.schemas:schema",
        "secret": "config_manager.api.commands.secrets:secret",
        "devices": "config_manager.api.commands.devices:devices",
        "trust": "config_manager.api.commands.trust:trust",
        "status": "config_manager.api.commands.status:status",
        "token": "config_manager.api.commands.tokens:token",
        "trace": "config_manager.api.commands.tracing:trace",
        "watch": "config_manager.api.commands.watch:watch",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        import importlib

        module, _, attribute = self.lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # not in get_command, which help and completion call for every command
        # who verifies a report needs no server, and may have none
        needs = args[:2] != ["report", "verify"] and args[0] in self.of_the_server(ctx)
        if not ctx.resilient_parsing and needs:
            from config_manager.api.extra import demand_server

            demand_server(args[0])
        return super().resolve_command(ctx, args)

    def of_the_server(self, ctx: click.Context) -> list[str]:
        """The commands that need the extra."""
        return [name for name in self.list_commands(ctx) if name not in _WITHOUT_EXTRA]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        server = self.of_the_server(ctx)
        widest = max(map(len, server))
        for heading, names in (
            ("Commands for services, and for your shell", _WITHOUT_EXTRA),
            ("Commands of the server, with config-manager[server]", server),
        ):
            rows = [
                (name.ljust(widest), command.get_short_help_str(formatter.width - widest - 6))
                for name in names
                if (command := self.get_command(ctx, name)) is not None
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="config-manager")
def cli() -> None:
    """Signed, live-changeable settings for a fleet of small services, over REST and MQTT.

    \b
    Try it on this machine, with nothing configured:
      config-manager serve --dev
      curl -X PUT http://127.0.0.1:8081/api/v1/config/stt-worker \\
           -H 'Content-Type: application/json' -d '{"whisper_model": "base.en"}'

    \b
    Exit codes: 0 done, 1 unexpected error, 2 bad command line or settings, 3 database or key can't
    be opened, or the disk fails, 4 data directory in use, 5 refused (not authorised, or verification failed),
    6 not found, 7 conflict, or open drift (`drift`).
    """


@cli.command()
@click.option(
    "--dev", is_flag=True, default=None, help="For your own machine: loopback only, no token."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, readable=False),  # we tell what is wrong, and what helps
    help="Database, keys, cache. [./data]",
)
@click.option(
    "--bind", metavar="HOST:PORT", help="Where REST listens; port 0 chooses. [127.0.0.1:8081]"
)
@click.option(
    "--mqtt-url",
    metavar="URL[,URL]",
    help="mqtt://[user[:password]@]host:port, mqtts://…, ws://…, wss://…, auto:[PORT], none:. [auto:]",
)
@click.option(
    "--tls-cert-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Serve HTTPS with this PEM chain; read again when it changes.",
)
@click.option(
    "--tls-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Its key. [in the certificate's file]",
)
@click.option(
    "--allow-plain-http",
    is_flag=True,
    default=None,
    help="Plain HTTP though others can reach the bind: something in front does TLS.",
)
@click.option(
    "--trusted-proxies",
    metavar="ADDRESS[,NETWORK]",
    help="Reverse proxies whose X-Forwarded-For, -Proto and -Prefix are believed. [none]",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="https://host[:port][/prefix]: where callers find it; wins over these headers.",
)
@click.option(
    "--home-assistant",
    metavar="off|read",
    help="read: be a device in the Home Assistant that listens on these brokers. [off]",
)
@click.option(
    "--db-key-file", type=click.Path(path_type=Path), help="64 hex digits. [<data>/keys/db.key]"
)
@click.option(
    "--credentials-dir",
    type=click.Path(path_type=Path),
    help="Key files from elsewhere, read-only: db.key, secrets.key, … [systemd's $CREDENTIALS_DIRECTORY]",
)
@click.option("--heartbeat-seconds", type=float, help="Period of keepalive and beacon. [10]")
@click.option(
    "--receipts-keep", metavar="TIME", help="How long every receipt of an instance is kept. [90d]"
)
@click.option(
    "--otlp-url",
    metavar="URL",
    help="Send traces there: the base of a collector, to which /v1/traces is added. [none]",
)
@click.option("--writes-per-minute", type=int, help="Limit on each token's writes. [none]")
@click.option(
    "--log-format", type=click.Choice(["json", "console"]), help="[json; console with --dev]"
)
@click.option("--json", "as_json", is_flag=True, help="The same as --log-format json.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[info]"
)
def serve(as_json: bool, **flags: Any) -> None:
    """Run the service in the foreground until SIGTERM or SIGINT.

    Each option but the token is also an environment variable, such as CONFIG_MANAGER_DATA_DIR, and
    may stand in a `.env` file, which has the lowest precedence. The admin token comes from
    CONFIG_MANAGER_BOOTSTRAP_TOKEN, or is made at the first start and written to
    <data>/keys/admin.token.
    """
    from config_manager.api.commands.local import disk_explained, import_structlog_alone

    import_structlog_alone()
    from config_manager.config.dumps import forbid_dumps

    forbid_dumps(children=True)
    from config_manager.config.settings import load_settings

    if as_json:
        flags["log_format"] = "json"
    settings = load_settings(**flags)
    from config_manager.api.serving import run  # after them: a mistake is told in half the time

    with disk_explained(settings.data_dir):
        run(settings)


def main() -> NoReturn:
    """The console script: errors become exit codes here, and nowhere else."""
    begin()  # again, for a caller that did not come through `api/start.py`
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BaseExceptionGroup as group:  # nurseries wrap what passes them
        _end(the_reason(group, ConfigManagerError, OSError))
    except BrokenPipeError:
        from config_manager.api.commands.output import end_without_reader

        end_without_reader()
    except Exception as error:  # noqa: BLE001  the last frame: say what happened and leave
        _end(error)
    sys.exit(code if isinstance(code, int) else 0)


def _end(error: BaseException) -> NoReturn:
    """One line and its exit code for an error of ours; a traceback and 1 for any other."""
    if isinstance(error, OSError):
        from config_manager.api.commands.local import file_explained

        error = file_explained(error) or error
    if not isinstance(error, ConfigManagerError):
        traceback.print_exc()
        sys.exit(_EXIT_UNEXPECTED)
    line = " ".join(error.detail.splitlines())
    click.echo(f"config-manager: {line} [{error.description.name}]", err=True)
    sys.exit(error.description.exit_code)


if __name__ == "__main__":
    main()
