"""The operator commands' HTTP client: a token, one request at a time, errors of ours.

Standard library and click alone, so that a command answers at once and loads no server.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from config_manager.api.commands.output import clean
from config_manager.config.errors import ServerSays, ServerUnreachable, SettingsInvalid
from config_manager.config.http_opener import opener_for

DEFAULT_URL = "http://127.0.0.1:8081"
_TIMEOUT_S = 30.0
"""Longer than the server takes for anything but `?wait=`."""
_EVENTS = "text/event-stream"
_TOKEN = re.compile(r"[!-~]+")
_UNAUTHORISED = 401
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
        """ca_file: the authorities of an https server's certificate, instead of the system's.

        Raises SettingsInvalid if url, token or file can't be such.
        """
        parts = _split(url)
        if token is not None and not _TOKEN.fullmatch(token):
            raise SettingsInvalid("the token is empty or has characters that no token has")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._opener = opener_for(parts, ca_file, _NoRedirects())

    def get(self, *path: str, holds: str = "", **query: str | None) -> Any:
        """The JSON at a path of these segments. holds, raises: as `ask`."""
        return self.ask("GET", *path, holds=holds, query=query).value

    def pages(
        self,
        *path: str,
        holds: str,
        along: Literal["next_before", "next_after"],
        **query: str | None,
    ) -> Iterator[Any]:
        """Every page of a list, each from where the one before ended. along: the member that says where. holds, raises:
        as `ask`."""
        place: str | None = None
        while True:
            query[along.removeprefix("next_")] = place
            page = self.get(*path, holds=f"{holds} {along}", **query)
            yield page
            if page[along] is None:
                return
            place = str(page[along])

    def post(self, *path: str, holds: str, body: Any = None, **query: str | None) -> Any:
        """The JSON that is answered. holds, body, raises: as `ask`."""
        return self.ask("POST", *path, holds=holds, query=query, body=body).value

    def delete(self, *path: str, holds: str, **query: str | None) -> Any:
        """The JSON that is answered. holds, raises: as `ask`."""
        return self.ask("DELETE", *path, holds=holds, query=query).value

    def health(self) -> Any:
        """`GET /health`, whether it says 200 or 503. Raises as `ask`."""
        request = urllib.request.Request(f"{self.url}/health")  # noqa: S310  http(s), see __init__
        status, _, content = self._exchange(request)
        if status >= _BAD_REQUEST and b'"ok"' not in content:
            raise self._error(status, content)
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
        the members by which an answer of ours is known, with spaces between.

        Raises ServerSays for any answer but 2xx, and ServerUnreachable if none came, or none of ours.
        """
        request = self._request(method, path, query or {}, headers or {})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        status, received, content = self._exchange(request)
        if not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
            raise self._error(status, content)
        return Reply(status, self._told(content, holds), received)

    def stream(
        self,
        *path: str,
        query: Mapping[str, str | None],
        headers: Mapping[str, str],
        silence_s: float,
    ) -> Iterator[str]:
        """The lines of a stream of events as they come, until it ends. silence_s: the longest that is waited for one.
        query, raises: as `ask`."""
        request = self._request("GET", path, query, {**headers, "Accept": _EVENTS})
        try:
            with self._opener.open(request, timeout=silence_s) as answer:
                if answer.headers.get_content_type() != _EVENTS:
                    raise self.another_program()
                for line in answer:
                    yield line.decode().rstrip("\r\n")
        except urllib.error.HTTPError as error:
            with error:
                raise self._error(error.code, error.read()) from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise self._no_answer(error) from None

    def _request(
        self,
        method: str,
        path: Sequence[str],
        query: Mapping[str, str | None],
        headers: Mapping[str, str],
    ) -> urllib.request.Request:
        url = "/".join([self.url, *(quote(segment, safe="") for segment in path)])
        given = {name: value for name, value in query.items() if value is not None}
        if given:
            url += "?" + urlencode(given)
        request = urllib.request.Request(url, method=method)  # noqa: S310  http(s), see __init__
        request.add_header("Accept", "application/json")
        if self._token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        for name, value in headers.items():
            request.add_header(name, value)
        return request

    def _exchange(self, request: urllib.request.Request) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of whatever answers."""
        try:
            try:
                answer: http.client.HTTPResponse = self._opener.open(
                    request, timeout=self._timeout_s
                )
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, {}, error.read()
            with answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return answer.status, headers, answer.read()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise self._no_answer(error) from None

    def _no_answer(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            f"no answer from {self.url} ({_plainly(error)}); is `config-manager serve` running "
            "there? --url says where else"
        )

    def another_program(self) -> ServerUnreachable:
        """What to raise if something answers, but not as we would."""
        return ServerUnreachable(
            f"what answers at {self.url} is no config-manager; --url says where one is"
        )

    def _told(self, content: bytes, holds: str) -> Any:
        """The JSON of an answer. If a member is missing, now or when the command looks for it, this raises
        ServerUnreachable: another program has the port."""
        another = self.another_program()

        class Told(dict[str, Any]):
            def __missing__(self, key: str) -> Any:
                raise another

        try:
            value = json.loads(content, object_hook=Told)
        except (ValueError, RecursionError):
            raise another from None
        if not isinstance(value, Told) or not all(name in value for name in holds.split()):
            raise another
        return value

    def _error(self, status: int, content: bytes) -> ServerSays:
        """The error of an answer, from its problem document (RFC 9457) if it has one."""
        try:
            problem = json.loads(content)
            name, detail = problem["type"].rpartition("/")[2], problem["detail"]
            more = [
                ": ".join(filter(None, (item["pointer"], item["detail"])))
                for item in problem.get("errors", ())
            ]
            text = "\n  ".join([detail, *more])
        except (ValueError, LookupError, TypeError, AttributeError):
            return ServerSays(
                f"the server answered {status}, and not in our words", "no-problem", status
            )
        if status == _UNAUTHORISED:
            text = (
                "the server does not know this token"
                if self._token
                else "the server wants a token: CONFIG_MANAGER_TOKEN, or --token-file FILE; the "
                "server's first start wrote one to keys/admin.token in its data directory"
            )
        return ServerSays(clean(text, keep="\n"), clean(name), status)


def _split(url: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if is_http and not (parts.query or parts.fragment or "@" in parts.netloc):
            return parts
    raise SettingsInvalid("--url: expected http://host:port or https://host:port")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The server never redirects; another program might, and must not get the token."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _plainly(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "it took too long"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
