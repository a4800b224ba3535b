"""The API as OpenAPI 3.1, derived from the routes, from what stands beside each handler, and from the
models of bodies and answers. Only what no type says is written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from config_manager.api.rest.models import INTEGER, KEY, TEXT
from config_manager.api.rest.operations import Operation, Route
from config_manager.api.rest.parameters import Parameter, Query
from config_manager.api.rest.problems import Problem, names_of
from config_manager.config.access import able
from config_manager.config.strict_json import JsonObject

Schemas = Mapping[Any, JsonObject]
"""model → its schema; of one with a name, a reference to it"""

_STRICT = (
    "any JSON that every reader takes alike: at most 32 levels deep, no member twice in an object, "
    "integers within ±(2^53 - 1), no NaN, no Infinity, and neither a NUL nor a lone surrogate in a text"
)
_BY_HAND: Mapping[str, JsonObject] = {
    # in words: generators make nothing usable of a schema that contains itself
    "Value": {"description": f"A value: {_STRICT}."},
    "Values": {
        "description": (
            f"A service's values, by key. A value is {_STRICT} (400 otherwise). A key is a lower-case "
            "letter, then at most 62 of a-z, 0-9 and '_' (422 otherwise). What the service's schema does "
            "not allow is 422, and `errors` names each value that is wrong."
        ),
        "type": "object",
        "propertyNames": KEY,
        "additionalProperties": {},
    },
    "JsonSchema": {
        "description": (
            "A JSON Schema (2020-12) of a service's values: an object with `properties`, and beside them "
            "`required`, `dependentRequired`, `allOf` of `if` and `then`, `x-compare` and `$defs`. A key may have "
            "`x-level`, `x-unit`, `x-secret`, `x-restart-required`, `x-allowed` and `x-was`. At most 64 KiB, 32 "
            "levels and 500 keys; a `$ref` leads to its own `$defs`. What is not of this form is 422 "
            "`schema-invalid`."
        ),
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"const": "object"}},
    },
}

_ABOUT = """\
Everything is JSON in UTF-8. A call needs `Authorization: Bearer <token>` unless it says otherwise; the
first start of a server wrote a token to `keys/admin.token` in its data directory.

Every answer carries `X-Request-ID`: the caller's, or a new one. The same id is in the log, the MQTT
message, the history, and the service that applied the change.

A refusal is `application/problem+json` (RFC 9457). The last segment of its `type` is a stable name, and
`GET /problems/{name}` explains it. Clients should expect types that they do not know."""
_TAGS = {
    "config": "Configurations: read, written, taken back, and what was changed when",
    "schemas": "Schemas: what a service's values look like, version by version",
    "changes": "Changes of all services, and the trace of each: when it was where",
    "plans": "Plans: what a change would do, kept, and applied as it was shown",
    "secrets": "Secrets: stored encrypted, delivered sealed, and never in an answer but `reveal`",
    "tokens": "Tokens: who may call what",
    "devices": "Instances that enrolled, and which secrets they can read",
    "status": "What each instance runs, beside what it should run",
    "drift": "Who does not run what they should",
    "watch": "What happens, told while it happens",
    "trust": "The trust root: which keys sign what",
    "reports": "Who ran what and when, with its evidence, to be verified anywhere",
    "notifications": "Notifications: who is told what happens, by webhooks",
    "audit": "Who did what, in rows that are chained to each other",
    "server": "The server itself: how it is, and what it says of its API",
}
_DONE = {200: "Done", 201: "Made", 202: "Begun", 304: "What the caller has is what is there"}
_HEADERS: Mapping[str, JsonObject] = {
    "X-Request-ID": {"description": "the request's id; in logs it is `request_id`", "schema": TEXT},
    "ETag": {
        "description": "the revision in quotes, for `If-Match` and `If-None-Match`",
        "schema": {"type": "string", "pattern": '^"[0-9]{1,16}"$'},
    },
    "Retry-After": {"description": "in seconds", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "how to log in: Bearer", "schema": TEXT},
    **{
        name: {"description": "what is taken instead", "schema": TEXT}
        for name in ("Accept", "Accept-Patch", "Accept-Encoding")
    },
}
_WITH: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    415: ("Accept", "Accept-Patch", "Accept-Encoding"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
"""The headers of a status's problems, beside those of every answer."""
_UNSUPPORTED = 415


@cache
def openapi(routes: tuple[Route, ...]) -> JsonObject:
    """The OpenAPI 3.1 document of these routes; nobody may change it."""
    described = [route for route in routes if route.operation.summary is not None]
    schemas, named = _schemas_of(route.operation for route in described)
    paths: dict[str, JsonObject] = {}
    refused: set[int] = set()
    for route in described:
        operation = _operation(route, route.operation, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
        refused |= {int(status) for status, one in operation["responses"].items() if "$ref" in one}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "config-manager",
            "version": "1",
            "summary": "Signed, live-changeable settings for a fleet of small services",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # relative to this document, so that it also holds behind a proxy with a path prefix
        "servers": [{"url": ".", "description": "the server that this document came from"}],
        "security": [{"token": []}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that `POST /api/v1/tokens` or the first start made",
                }
            },
            "schemas": {**_BY_HAND, **named},
            "headers": dict(_HEADERS),
            "responses": {
                f"Problem{status}": _problem(status, schemas[Problem]) for status in sorted(refused)
            },
        },
    }


# ── operations ─────────────────────────────────────────────────────────────────────────────────


def _operation(route: Route, described: Operation, schemas: Schemas) -> JsonObject:
    responses: JsonObject = {}
    for status, model in described.answers.items():
        content = None if model is None else schemas[model]
        if (
            described.events
        ):  # OpenAPI 3.1 has no words for them: a text, and beside it what stands in each
            events = {name: schemas[one] for name, one in described.events.items()}
            content = {**schemas[str], "x-events": events}
        responses[str(status)] = _answer(status, content, described)
    parameters = _parameters(route)
    for status in sorted(_problems(route, has_parameters=bool(parameters))):
        refused = {"$ref": f"#/components/responses/Problem{status}"}
        responses.setdefault(str(status), refused)
    found: JsonObject = {
        "operationId": _in_camel_case(described.handle.__name__),
        "summary": described.summary,
        "description": "\n\n".join(filter(None, (described.description, _who_may(route)))),
        "tags": [_tag(route)],
        "responses": responses,
    }
    if parameters:
        found["parameters"] = parameters
    if described.body is not None:
        content = {described.media_type: {"schema": schemas[described.body]}}
        found["requestBody"] = {"required": not described.optional_body, "content": content}
    if route.needs is None:
        found["security"] = []
    return found


def _tag(route: Route) -> str:
    first, *others = route.path.removeprefix("/").split("/")
    return others[1] if first == "api" else "server"


def _who_may(route: Route) -> str:
    if route.needs is None:
        return "Needs no token."
    roles = ", ".join(f"`{role}`" for role in able(route.needs))
    of_service = " that is for this service" if "{service}" in route.path else ""
    return f"Needs a token{of_service} with the role {roles}.".replace(", `admin`", " or `admin`")


def _answer(status: int, schema: JsonObject | None, described: Operation) -> JsonObject:
    said: JsonObject = {
        "description": _DONE.get(status, "Not ok"),
        "headers": _headers("X-Request-ID", *(("ETag",) if described.tagged else ())),
    }
    return said if schema is None else {**said, "content": {described.produces: {"schema": schema}}}


def _problem(status: int, schema: JsonObject) -> JsonObject:
    names = ", ".join(f"`{name}`" for name in names_of(status))
    return {
        "description": f"Refused: {names}. What went wrong and what to do is in `detail`.",
        "headers": _headers("X-Request-ID", *_WITH.get(status, ())),
        "content": {"application/problem+json": {"schema": schema}},
    }


def _headers(*names: str) -> JsonObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problems(route: Route, *, has_parameters: bool) -> set[int]:
    """The statuses of refusals. 403 is always among them: --dev answers it to pages of other sites, and to proxies."""
    described = route.operation
    problems = {403, *described.problems}
    if route.needs is not None:
        problems |= {400, 401, 429}
    elif has_parameters:
        problems.add(400)
    if described.body is not None:
        problems |= {400, _UNSUPPORTED}
    if route.method != "GET":
        problems |= {413, 422, 503, 504, 507}
    return problems


def _parameters(route: Route) -> list[JsonObject]:
    in_path = route.in_path
    others = [one for one in route.operation.takes if one not in in_path]
    return [
        {
            "name": one.name,
            "in": one.is_in,
            **({"required": True} if _is_required(one) else {}),
            "schema": one.schema,
            "description": one.description,
        }
        for one in (*in_path, *others)
    ]


def _is_required(one: Parameter) -> bool:
    return one.is_in == "path" or (isinstance(one, Query) and one.required)


def _in_camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


# ── models ─────────────────────────────────────────────────────────────────────────────────────


def _schemas_of(operations: Iterable[Operation]) -> tuple[Schemas, JsonObject]:
    """The schema of every model, and those that have a name, by it."""
    models: dict[Any, None] = {Problem: None}
    for one in operations:
        models |= dict.fromkeys([*one.answers.values(), *one.events.values(), one.body])
    found, named = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models if model is not None],
        schema_generator=_Generator,
        ref_template="#/components/schemas/{model}",
    )
    return {model: schema for (model, _), schema in found.items()}, named["$defs"]


class _Generator(GenerateJsonSchema):
    """Pydantic's, without the titles, and the defaults that are for our own code. A model's docstring is
    its description."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name).strip("_").removesuffix("Answer")

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def sort(self, value: JsonObject, parent_key: str | None = None) -> JsonObject:  # noqa: ARG002
        return value

    def int_schema(self, schema: core_schema.IntSchema) -> JsonObject:  # noqa: ARG002
        return dict(INTEGER)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonObject:
        return self.generate_inner(schema["schema"])

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonObject:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonObject:
        return _untitled(super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonObject:
        return _untitled(super().dataclass_schema(schema))


def _untitled(schema: JsonObject) -> JsonObject:
    return {key: value for key, value in schema.items() if key != "title"}
