"""The API as OpenAPI 3.1, derived from the routes, from what stands beside each handler, and from the
models of bodies and answers. Only what no type says is written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from config_manager.api.rest.models import INTEGER, KEY, NO_NUL, TEXT
from config_manager.api.rest.operations import Operation, Route
from config_manager.api.rest.parameters import INSTANCE, SERVICE
from config_manager.api.rest.problems import Problem
from config_manager.config.strict_json import MAX_INTEGER, JsonObject

Schemas = Mapping[Any, JsonObject]
"""model → its schema; of one with a name, a reference to it"""

_VALUE: JsonObject = {"$ref": "#/components/schemas/Value"}
_BY_HAND: Mapping[str, JsonObject] = {
    "Value": {
        "description": "Any JSON that every reader takes alike, at most 32 levels deep",
        "anyOf": [
            {"type": ["null", "boolean"]},
            {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
            NO_NUL,
            {"type": "array", "items": _VALUE},
            {"type": "object", "propertyNames": NO_NUL, "additionalProperties": _VALUE},
        ],
    },
    "Values": {
        "description": "The service's values, by key",
        "type": "object",
        "propertyNames": KEY,
        "additionalProperties": _VALUE,
    },
}
_UNSUPPORTED = 415


@cache
def openapi(routes: tuple[Route, ...]) -> JsonObject:
    """The OpenAPI 3.1 document of these routes; nobody may change it."""
    described = [route for route in routes if route.operation.summary is not None]
    schemas, named = _schemas_of(route.operation for route in described)
    problem = {
        "description": "What went wrong and what to do (RFC 9457)",
        "content": {"application/problem+json": {"schema": schemas[Problem]}},
    }
    taken_instead = {
        name: {"schema": TEXT, "description": "what is taken instead"}
        for name in ("Accept", "Accept-Patch", "Accept-Encoding")
    }
    paths: dict[str, JsonObject] = {}
    for route in described:
        operation = _operation(route, route.operation, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "config-manager",
            "version": "1",
            "summary": "Signed, live-changeable settings for a fleet of small services",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_BY_HAND, **named},
            "responses": {
                "Problem": problem,
                "UnsupportedMediaType": {**problem, "headers": taken_instead},
            },
        },
    }


# ── operations ─────────────────────────────────────────────────────────────────────────────────


def _operation(route: Route, described: Operation, schemas: Schemas) -> JsonObject:
    responses: JsonObject = {}
    for status, model in described.answers.items():
        responses[str(status)] = _answer(status, model, schemas)
    parameters = _parameters(route)
    for status in sorted(_problems(route, has_parameters=bool(parameters))):
        name = "UnsupportedMediaType" if status == _UNSUPPORTED else "Problem"
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{name}"})
    found: JsonObject = {
        "operationId": _in_camel_case(described.handle.__name__),
        "summary": described.summary,
        "responses": responses,
    }
    if parameters:
        found["parameters"] = parameters
    if described.body is not None:
        content = {described.media_type: {"schema": schemas[described.body]}}
        found["requestBody"] = {"required": True, "content": content}
    if route.needs is None:
        found["security"] = []
    return found


def _answer(status: int, model: Any, schemas: Schemas) -> JsonObject:
    if model is None:
        return {"description": "What the caller has is what is there"}
    return {
        "description": "Done" if status < 300 else "Not ok",  # noqa: PLR2004
        "content": {"application/json": {"schema": schemas[model]}},
    }


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
    in_path = [one for one in (SERVICE, INSTANCE) if f"{{{one.name}}}" in route.path.split("/")]
    return [
        {
            "name": one.name,
            "in": one.is_in,
            **({"required": True} if one.is_in == "path" else {}),
            "schema": one.schema,
            "description": one.description,
        }
        for one in (*in_path, *route.operation.takes)
    ]


def _in_camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


# ── models ─────────────────────────────────────────────────────────────────────────────────────


def _schemas_of(operations: Iterable[Operation]) -> tuple[Schemas, JsonObject]:
    """The schema of every model, and those that have a name, by it."""
    models: dict[Any, None] = {Problem: None}
    for one in operations:
        models |= dict.fromkeys([*one.answers.values(), one.body])
    found, named = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models if model is not None],
        schema_generator=_Generator,
        ref_template="#/components/schemas/{model}",
    )
    return {model: schema for (model, _), schema in found.items()}, named["$defs"]


class _Generator(GenerateJsonSchema):
    """Pydantic's, without the titles, and the defaults and docstrings that are for our own code."""

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
        return _bare(super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonObject:
        return _bare(super().dataclass_schema(schema))


def _bare(schema: JsonObject) -> JsonObject:
    return {key: value for key, value in schema.items() if key not in ("title", "description")}
