"""The operator commands' way to a server: options, token, one request at a time, errors of ours.

Standard library and click alone, so that a command answers at once and loads no server.
"""

from __future__ import annotations

import functools
import http.client
import io
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click

from config_manager.config.errors import ServerSays, ServerUnreachable, SettingsInvalid
from config_manager.config.this_machine import is_this_machine

DEFAULT_URL = "http://127.0.0.1:8081"
_TIMEOUT_S = 30.0
"""Longer than the server takes for anything but `?wait=`."""
_TOKEN = re.compile(r"[!-~]+")
_BAD_REQUEST = 400


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx answer: its JSON, and its headers by lower-case name."""

    status: int
    value: Any
    headers: Mapping[str, str]


class Server:
    """One config-manager, over REST."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        ca_file: Path | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """ca_file: whom to believe about an https server, instead of the system's authorities.

        Raises SettingsInvalid where url, token or file can't be such.
        """
        try:
            parts = urlsplit(url)
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            fine = False
        if not fine or parts.query or parts.fragment or "@" in parts.netloc:
            raise SettingsInvalid("--url: expected http://host:port or https://host:port")
        if token is not None and not _TOKEN.fullmatch(token):
            raise SettingsInvalid("the token is empty or has characters that no token has")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise SettingsInvalid(f"--ca-file {ca_file}: {error.strerror or error}") from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        if is_this_machine(parts.hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, *path: str, holds: str = "", **query: str | None) -> Any:
        """The JSON at a path of these segments. holds, raises: as `ask`."""
        return self.ask("GET", *path, holds=holds, query=query).value

    def health(self) -> Any:
        """`GET /health`, whether it says 200 or 503. Raises as `ask`."""
        request = urllib.request.Request(f"{self.url}/health")  # noqa: S310  http(s), see __init__
        try:
            try:
                with self._opener.open(request, timeout=self._timeout_s) as response:
                    content, status = response.read(), response.status
            except urllib.error.HTTPError as answer:
                with answer:
                    content, status = answer.read(), answer.code
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ServerUnreachable(
                f"no healthy answer from {self.url} ({_plainly(error)}); is `config-manager serve` "
                "running there? --url says where else"
            ) from None
        if status >= _BAD_REQUEST and b'"ok"' not in content:
            raise _said(status, content, has_token=bool(self._token))
        return self._told(content, holds="ok revision outbox_depth reasons broker cache_available")

    def ask(
        self,
        method: str,
        *path: str,
        holds: str = "",
        query: Mapping[str, str | None] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request. query: what is None is left out. body: sent as JSON unless it is None. holds:
        the members of the answer that show whose it is, with spaces between.

        Raises ServerSays for any answer but 2xx, and ServerUnreachable where none came, or none of
        ours.
        """
        url = "/".join([self.url, *(quote(segment, safe="") for segment in path)])
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            url += "?" + urlencode(given)
        request = urllib.request.Request(url, method=method)  # noqa: S310  http(s), see __init__
        request.add_header("Accept", "application/json")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self._token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        return self._send(request, holds)

    def _send(self, request: urllib.request.Request, holds: str) -> Reply:
        try:
            try:
                response = self._opener.open(request, timeout=self._timeout_s)
            except urllib.error.HTTPError as answer:
                with answer:
                    raise _said(answer.code, answer.read(), has_token=bool(self._token)) from None
            with response:
                content = response.read()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ServerUnreachable(
                f"no answer from {self.url} ({_plainly(error)}); is `config-manager serve` running "
                "there? --url says where else"
            ) from None
        headers = {k.lower(): v for k, v in response.headers.items()}
        return Reply(response.status, self._told(content, holds), headers)

    def _told(self, content: bytes, holds: str) -> Any:
        """The JSON of an answer. A member that it should have and has not is ServerUnreachable,
        also when it is looked for later: another program has the port."""

        class Told(dict[str, Any]):
            def __missing__(told, key: str) -> Any:  # noqa: N805  self is the Server
                raise self._another()

        try:
            value = json.loads(content, object_hook=Told)
        except (ValueError, RecursionError):
            raise self._another() from None
        if not isinstance(value, Told) or not all(name in value for name in holds.split()):
            raise self._another()
        return value

    def _another(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"what answers at {self.url} is no config-manager; --url says where one is"
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The server never redirects; who does is somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _said(status: int, body: bytes, *, has_token: bool) -> ServerSays:
    """The error of an answer, from its problem document (RFC 9457) where it has one."""
    try:
        problem = json.loads(body)
        name, detail = problem["type"].rpartition("/")[2], problem["detail"]
        more = [f"{item['pointer']}: {item['detail']}" for item in problem.get("errors", ())]
        text = "\n  ".join([detail, *more])
    except (ValueError, LookupError, TypeError, AttributeError):
        return ServerSays(
            f"the server answered {status}, and not in our words", "no-problem", status
        )
    unauthorised = 401
    if status == unauthorised:
        text = (
            "the server does not know this token"
            if has_token
            else "the server wants a token: CONFIG_MANAGER_TOKEN, or --token-file FILE; the "
            "server's first start wrote one to keys/admin.token in its data directory"
        )
    return ServerSays(clean(text, keep="\n"), clean(name), status)


def _plainly(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "it took too long"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def clean(text: str, *, keep: str = "") -> str:
    """Text of others for a terminal: what is not printable is shown, not obeyed."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def read_token(token_file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The file's token, else CONFIG_MANAGER_TOKEN, else none. Raises SettingsInvalid."""
    if token_file is None:
        return environment.get("CONFIG_MANAGER_TOKEN") or None
    try:
        return token_file.read_text("ascii").strip()
    except OSError as error:
        raise SettingsInvalid(f"--token-file: {token_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"--token-file: {token_file} holds no token") from None


def asks_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every operator command has; it is called with `server` and `as_json`."""

    @click.option(
        "--url",
        default=DEFAULT_URL,
        envvar="CONFIG_MANAGER_URL",
        show_default=True,
        show_envvar=True,
        help="Where the server's REST listens.",
    )
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Holds the token. [CONFIG_MANAGER_TOKEN]",
    )
    @click.option(
        "--ca-file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="CONFIG_MANAGER_CA_FILE",
        show_envvar=True,
        help="The authority of an https server's certificate. [the system's]",
    )
    @click.option("--json", "as_json", is_flag=True, help="For programs.")
    @functools.wraps(command)
    def with_server(
        *, url: str, token_file: Path | None, ca_file: Path | None, **options: Any
    ) -> None:
        show_what_can_be_shown()
        try:
            command(server=Server(url, read_token(token_file), ca_file=ca_file), **options)
            sys.stdout.flush()
        except BrokenPipeError:
            # who read our output has read enough (`| head`); click would call that an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)

    return with_server


def show_what_can_be_shown() -> None:
    """A character that the output's encoding has not is shown escaped; it ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:
    """One line, or indented where a person looks on."""
    is_terminal = sys.stdout.isatty()
    click.echo(json.dumps(value, indent=2 if is_terminal else None))


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell; the last one is as long as it is."""
    table = [header, *(tuple(map(clean, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
