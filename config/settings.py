"""The service's own settings: flags over environment over `.env` over defaults (README).

Units are in the names. A value that does not parse stops the start: `SettingsInvalid`, exit 2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dotenv.parser import parse_stream
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from config_manager.config.brokers import parse_mqtt_urls
from config_manager.config.durations import parse_duration
from config_manager.config.errors import SettingsInvalid
from config_manager.config.http_target import HttpTarget, parse_http_target
from config_manager.config.reverse_proxies import parse_public_url, parse_trusted_proxies
from config_manager.config.this_machine import is_loopback

ENV_PREFIX = "CONFIG_MANAGER_"
_ENV_FILE = ".env"
_MAX_PORT = 65535


class Bind(NamedTuple):
    """Where REST listens; port 0 chooses a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


class Settings(BaseSettings):
    """What `config-manager serve` runs with."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=_ENV_FILE,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
    )

    data_dir: Path = Path("./data")
    bind: str = "127.0.0.1:8081"
    mqtt_url: str = "auto:"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    allow_plain_http: bool = False
    trusted_proxies: str = ""
    public_url: str | None = None
    db_key_file: Path | None = None
    credentials_dir: Path | None = None
    bootstrap_token: SecretStr | None = None
    heartbeat_seconds: float = Field(default=10.0, ge=0.1, le=3600)
    receipts_keep: str = "90d"
    otlp_url: str | None = None
    writes_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    home_assistant: Literal["off", "read"] = "off"
    log_format: Literal["json", "console"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    _dev: bool = PrivateAttr(default=False)

    @property
    def dev(self) -> bool:
        """Only the flag `--dev` sets it: neither a variable nor a stray `.env` may open the door."""
        return self._dev

    def mark_dev(self) -> None:
        """For the flag `--dev`."""
        self._dev = True

    @field_validator("data_dir", "db_key_file", "credentials_dir", "tls_cert_file", "tls_key_file")
    @classmethod
    def _home_is_meant(cls, value: Path | None) -> Path | None:
        """A `~` in a `.env` or a unit file is not expanded by any shell."""
        try:
            return None if value is None else value.expanduser()
        except RuntimeError as error:
            raise ValueError(f"{value}: whose home that is can't be told") from error

    @field_validator("bind")
    @classmethod
    def _bind_parses(cls, value: str) -> str:
        parse_bind(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_parse(cls, value: str) -> str:
        parse_trusted_proxies(value)
        return value

    @field_validator("receipts_keep")
    @classmethod
    def _receipts_keep_parses(cls, value: str) -> str:
        parse_duration(value)
        return value

    @field_validator("otlp_url")
    @classmethod
    def _otlp_url_parses(cls, value: str | None) -> str | None:
        if value is not None:
            parse_http_target(value, plain=True)
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url_parses(cls, value: str | None) -> str | None:
        return None if value is None else str(parse_public_url(value))

    @field_validator("home_assistant", mode="before")
    @classmethod
    def _nothing_is_controlled(cls, value: object) -> object:
        if value == "control":
            raise ValueError(
                "control is not there yet: nothing can be switched from Home Assistant; take read"
            )
        return value

    @field_validator("bootstrap_token")
    @classmethod
    def _token_is_sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError(
                    "a token is printable ASCII without spaces: it travels in a header"
                )
        return value

    @property
    def receipts_keep_s(self) -> int:
        """How long every receipt is kept; then the first and the last of each segment."""
        return parse_duration(self.receipts_keep)

    @property
    def otlp_target(self) -> HttpTarget | None:
        """The collector's base. Plain http is taken: a collector is near, and a trace holds names, never a value."""
        return None if self.otlp_url is None else parse_http_target(self.otlp_url, plain=True)

    @property
    def bind_address(self) -> Bind:
        return parse_bind(self.bind)


def parse_bind(text: str) -> Bind:
    """`HOST:PORT` or `[V6]:PORT`; raises ValueError."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit():
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8081")
    if len(port) > len(str(_MAX_PORT)) or int(port) > _MAX_PORT:
        raise ValueError(f"a port is 0 to {_MAX_PORT}")
    return Bind(host, int(port))


def load_settings(*, dev: bool = False, **flags: Any) -> Settings:
    """Settings from flags (None means not given), environment and `.env`; raises SettingsInvalid."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        _check_env_file(Path(_ENV_FILE))
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0])
        what = f"--{name.replace('_', '-')}" if name in given else f"{ENV_PREFIX}{name.upper()}"
        raise SettingsInvalid(f"{what}: {first['msg'].removeprefix('Value error, ')}") from None
    except (OSError, UnicodeDecodeError) as error:  # `.env` is the only file that is read here
        raise SettingsInvalid(f".env: cannot be read: {error}") from None
    if settings.credentials_dir is None and (theirs := os.environ.get("CREDENTIALS_DIRECTORY")):
        settings = settings.model_copy(update={"credentials_dir": Path(theirs)})  # systemd's
    directory = settings.credentials_dir
    if directory is not None and not os.path.isdir(directory):  # noqa: PTH112  never raises
        raise SettingsInvalid(f"CONFIG_MANAGER_CREDENTIALS_DIR: {directory} is no directory")
    if dev:
        settings.mark_dev()
    if dev and not settings.bind_address.is_loopback:
        raise SettingsInvalid(
            f"--dev listens on loopback only, not on {settings.bind}; "
            "leave --dev out to serve other machines (then a token is needed)"
        )
    _check_transport(settings)
    parse_mqtt_urls(settings.mqtt_url)  # before anything is made
    return settings


def _check_env_file(path: Path) -> None:
    """Refuse a line that does not parse: skipped in silence, it could start a server on a new, empty data directory.

    The message never shows the line, which may be a token. Raises SettingsInvalid, OSError, UnicodeDecodeError.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in parse_stream(file):
            ours = (line.key or "").upper().startswith(ENV_PREFIX)
            if line.error or (ours and line.value is None):
                text = line.original.string  # the empty lines before it are part of it
                empty = text[: len(text) - len(text.lstrip())].count("\n")
                raise SettingsInvalid(
                    f"{path}: line {line.original.line + empty} does not parse: expected NAME=VALUE, with "
                    "every quote closed"
                )


def _check_transport(settings: Settings) -> None:
    """Raises SettingsInvalid if secrets would travel in the clear without anybody having said so."""
    if settings.tls_key_file is not None and settings.tls_cert_file is None:
        raise SettingsInvalid(
            "CONFIG_MANAGER_TLS_KEY_FILE: give the certificate, too: CONFIG_MANAGER_TLS_CERT_FILE"
        )
    if (
        not settings.bind_address.is_loopback
        and settings.tls_cert_file is None
        and not settings.allow_plain_http
    ):
        raise SettingsInvalid(
            f"CONFIG_MANAGER_BIND: on {settings.bind} tokens and configurations would travel in the "
            "clear; give --tls-cert-file and --tls-key-file, or say --allow-plain-http where "
            "something in front does TLS"
        )
