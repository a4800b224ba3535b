"""A request and an answer as the handlers see them, whether they came through plain ASGI or through Quart.

`api.server.pipeline` wraps both ways in the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from pydantic import BaseModel

from config_manager.actors.actor import Context
from config_manager.actors.system import System
from config_manager.api.rest.forwarded import ReverseProxies
from config_manager.api.rest.limits import FAILED_LOGINS, MOST_ADDRESSES, MOST_WRITERS
from config_manager.api.rest.rate_limits import Limiter, RateLimit, Standing
from config_manager.api.rest.streams import Stream, Streams
from config_manager.api.rest.token_index import TokenIndex
from config_manager.config import strict_json
from config_manager.config.access import ANYBODY, Grant
from config_manager.config.errors import (
    FieldError,
    InvalidValues,
    MalformedRequest,
    UnsupportedMediaType,
)
from config_manager.config.strict_json import JsonObject

if TYPE_CHECKING:
    from config_manager.api.rest.operations import Route

JSON = b"application/json"
NO_STORE = ((b"cache-control", b"no-store"),)
"""For answers that are true only now, or that nobody but the caller may see."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes work with."""

    system: System
    dev: bool
    tokens: TokenIndex = field(default_factory=TokenIndex)
    bodies: dict[str, tuple[object, object, ApiResponse]] = field(
        default_factory=dict[str, "tuple[object, object, ApiResponse]"]
    )
    """service → (the state, its schema's row, the GET answer made of them): a body is made once per revision"""
    failed_logins: Limiter = field(
        default_factory=lambda: Limiter(
            RateLimit("failed-logins", FAILED_LOGINS, 60), most_keys=MOST_ADDRESSES
        )
    )
    writes: Limiter | None = None
    """by token; None: no limit"""
    proxies: ReverseProxies = field(default_factory=ReverseProxies)
    routes: tuple[Route, ...] = ()
    """every call, for what describes them"""
    streams: Streams = field(default_factory=Streams)


def writes_limited_to(per_minute: int) -> Limiter:
    return Limiter(RateLimit("writes", per_minute, 60), most_keys=MOST_WRITERS)


@dataclass
class ApiRequest:
    """One request. headers: lower-case names, as they came. client_host: the caller's address. peer, scheme: of
    the connection; at its other end may be a proxy (`api.rest.forwarded`).

    The pipeline fills in the rest, from `correlation_id` on. admitted: it has been through `admit`.
    asked: when it came, in Unix seconds. traceparent: the caller's, else ours. route: what is asked, found once. params: the path's. grant: who asks. token_hash: of the caller's
    token. refusal: what stands against it. standing: where the caller stands with a limit that was
    asked, for the answer's headers.
    """

    method: str
    raw_path: bytes
    raw_query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    client_host: str | None
    body: bytes = b""
    peer: str | None = None
    scheme: str = "http"
    correlation_id: str = ""
    deadline: float = float("inf")
    asked: float | None = None
    traceparent: str = ""
    admitted: bool = False
    route: Route | None = None
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    grant: Grant = ANYBODY
    token_hash: str | None = None
    refusal: Exception | None = None
    standing: Standing | None = None

    @property
    def by(self) -> str:
        return self.grant.name

    @property
    def context(self) -> Context:
        return Context(self.correlation_id, self.deadline, self.asked, self.traceparent or None)

    def header(self, name: bytes) -> str | None:
        """The header's value as Latin-1; the first one if there are several."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    @cached_property
    def query(self) -> Mapping[str, str]:
        """Raises MalformedRequest if a name occurs twice or the text does not parse."""
        if not self.raw_query:
            return {}
        try:
            pairs = parse_qsl(
                self.raw_query.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                max_num_fields=20,
                errors="strict",
            )
        except (ValueError, UnicodeError):
            raise MalformedRequest("the query string does not parse") from None
        query = dict(pairs)
        if len(query) != len(pairs):
            raise MalformedRequest("a query parameter stands twice")
        if any("\0" in value for value in query.values()):
            raise MalformedRequest("a NUL in the query string")
        return query

    def allow_query(self) -> None:
        """Raises MalformedRequest if there is a query parameter that the route does not take."""
        if not self.raw_query:
            return
        assert self.route is not None
        names = [one.name for one in self.route.operation.takes if one.is_in == "query"]
        unknown = [name for name in self.query if name not in names]
        if unknown:
            known = ", ".join(names) or "none"
            raise MalformedRequest(f"unknown query parameter {unknown[0][:64]!r}; known: {known}")

    def json_object(self, media_type: str = "application/json") -> JsonObject:
        """The body. Raises UnsupportedMediaType, MalformedRequest, InvalidValues."""
        for name, coding in self.headers:
            if name == b"content-encoding" and coding.strip().lower() not in (b"", b"identity"):
                raise UnsupportedMediaType(
                    f"Content-Encoding: {coding.decode('latin-1')[:64]} is not taken; send it plain",
                    {"Accept-Encoding": "identity"},
                )
        given = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if given != media_type:
            raise UnsupportedMediaType(
                f"send it as Content-Type: {media_type}, not {given[:64] or 'without one'}",
                {"Accept-Patch" if self.method == "PATCH" else "Accept": media_type},
            )
        try:
            value = strict_json.loads(self.body)
        except strict_json.NotStrictJson as error:
            raise MalformedRequest(f"the body: {error}") from None
        if isinstance(value, dict):
            return cast("JsonObject", value)
        raise InvalidValues(
            "the body is JSON, but not an object", [FieldError("", "expected a JSON object")]
        )


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """An answer but for the headers that every answer carries. stream: what follows, in place of a body."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = JSON
    stream: Stream | None = None


def json_response(
    value: Any, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> ApiResponse:
    """An answer in JSON. Members of a model that were not given are left out."""
    shown = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
    return ApiResponse(status, strict_json.dumps(shown), headers)
