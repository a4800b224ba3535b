"""The API as OpenAPI 3.1, derived from the routes, from what stands beside each handler, and from the
models of bodies and answers. Only what no type says is written here."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from config_manager.api.rest.models import (
    INTEGER,
    KEY,
    NO_NUL,
    TEXT,
    Body,
    ByHand,
    Schema,
    member_of,
)
from config_manager.api.rest.operations import Operation, Route
from config_manager.api.rest.parameters import INSTANCE, SERVICE, Parameter
from config_manager.api.rest.problems import Problem
from config_manager.config.strict_json import JsonObject

_VALUE: JsonObject = {"$ref": "#/components/schemas/Value"}
_BY_HAND: Mapping[str, JsonObject] = {
    "Value": {
        "description": "Any JSON that every reader takes alike, at most 32 levels deep",
        "anyOf": [
            {"type": ["null", "boolean"]},
            {"type": "number", "minimum": -(2**53), "maximum": 2**53},
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
_PLAIN: Mapping[Any, JsonObject] = {
    Any: {},
    object: {},
    str: TEXT,
    bool: {"type": "boolean"},
    int: INTEGER,
    float: {"type": "number"},
    type(None): {"type": "null"},
}
_UNSUPPORTED = 415


@cache
def openapi(routes: tuple[Route, ...]) -> JsonObject:
    """The OpenAPI 3.1 document of these routes; nobody may change it."""
    models = Models()
    problem = {
        "description": "What went wrong and what to do (RFC 9457)",
        "content": {"application/problem+json": {"schema": models.schema(Problem)}},
    }
    taken_instead = {
        name: {"schema": TEXT, "description": "what is taken instead"}
        for name in ("Accept", "Accept-Patch", "Accept-Encoding")
    }
    paths: dict[str, JsonObject] = {}
    for route in routes:
        if route.operation.summary is not None:
            described = _operation(route, route.operation, models)
            paths.setdefault(route.path, {})[route.method.lower()] = described
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
            "schemas": models.components,
            "responses": {
                "Problem": problem,
                "UnsupportedMediaType": {**problem, "headers": taken_instead},
            },
        },
    }


# ── operations ─────────────────────────────────────────────────────────────────────────────────


def _operation(route: Route, described: Operation, models: Models) -> JsonObject:
    responses: JsonObject = {}
    for status, model in described.answers.items():
        responses[str(status)] = _answer(status, model, models)
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
        found["parameters"] = [_parameter(one) for one in parameters]
    if described.body is not None:
        schema = models.schema(described.body, closed=True)
        content = {described.media_type: {"schema": schema}}
        found["requestBody"] = {"required": True, "content": content}
    if route.needs is None:
        found["security"] = []
    return found


def _answer(status: int, model: Any, models: Models) -> JsonObject:
    if model is None:
        return {"description": "What the caller has is what is there"}
    return {
        "description": "Done" if status < 300 else "Not ok",  # noqa: PLR2004
        "content": {"application/json": {"schema": models.schema(model)}},
    }


def _problems(route: Route, *, has_parameters: bool) -> set[int]:
    """The statuses of refusals. 403 is also for a stranger in --dev."""
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


def _parameters(route: Route) -> list[Parameter]:
    in_path: list[Parameter] = [
        one for one in (SERVICE, INSTANCE) if "{" + one.name + "}" in route.path.split("/")
    ]
    return [*in_path, *route.operation.takes]


def _parameter(parameter: Parameter) -> JsonObject:
    return {
        "name": parameter.name,
        "in": parameter.is_in,
        **({"required": True} if parameter.is_in == "path" else {}),
        "schema": parameter.schema,
        "description": parameter.description,
    }


def _in_camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


# ── models ─────────────────────────────────────────────────────────────────────────────────────


class Models:
    """The schemas of models. components: those that have a name, by it."""

    def __init__(self) -> None:
        self.components: dict[str, JsonObject] = dict(_BY_HAND)
        self._named: dict[str, Any] = {}

    def schema(self, hint: Any, *, closed: bool = False) -> JsonObject:
        """The schema of a type; of one with a name, a reference to it. closed: it takes no other members."""
        if hint in _PLAIN:
            return _PLAIN[hint]
        if is_typeddict(hint) or is_dataclass(hint) or _is_body(hint):
            return self._reference(hint, closed=closed)
        if hasattr(hint, "__supertype__"):  # a NewType
            return self.schema(hint.__supertype__)
        return self._generic(get_origin(hint), get_args(hint), closed=closed)

    def _generic(self, origin: Any, arguments: Sequence[Any], *, closed: bool) -> JsonObject:
        if origin is Annotated:
            return self._annotated(arguments[0], arguments[1:], closed=closed)
        if origin is Literal:
            return {"const": True} if arguments == (True,) else {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return self._union(arguments, closed=closed)
        first = self.schema(arguments[0], closed=closed)
        if origin in (list, tuple, collections.abc.Sequence):
            return {"type": "array", "items": first}
        if origin in (dict, collections.abc.Mapping):
            values = self.schema(arguments[1], closed=closed)
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        return first  # Required, NotRequired

    def _annotated(self, hint: Any, notes: Sequence[Any], *, closed: bool) -> JsonObject:
        for note in notes:
            if isinstance(note, ByHand):
                return {"$ref": f"#/components/schemas/{note.name}"}
        found = dict(self.schema(hint, closed=closed))
        for note in notes:
            if isinstance(note, Schema):
                found |= note.words
        return found

    def _union(self, members: Sequence[Any], *, closed: bool) -> JsonObject:
        """Mostly something or null."""
        schemas = [self.schema(one, closed=closed) for one in members]
        if len(schemas) == 2 and schemas[1] == {"type": "null"}:  # noqa: PLR2004
            kind = schemas[0].get("type")
            if isinstance(kind, str) and "const" not in schemas[0]:
                return {**schemas[0], "type": [kind, "null"]}
        return {"anyOf": schemas}

    def _reference(self, model: Any, *, closed: bool) -> JsonObject:
        name = model.__name__.strip("_")
        if self._named.setdefault(name, model) is not model:
            raise TypeError(f"two models are called {name}")
        if name not in self.components:
            self.components[name] = {}  # it may hold itself
            self.components[name] = self._object(model, closed=closed)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, model: Any, *, closed: bool) -> JsonObject:
        if _is_body(model):
            properties = {name: member_of(model, name).schema for name in model.model_fields}
            required = [name for name, one in model.model_fields.items() if one.is_required()]
            closed = True
        else:
            hints = get_type_hints(model, include_extras=True)
            names = [one.name for one in fields(model)] if is_dataclass(model) else list(hints)
            properties = {name: self.schema(hints[name], closed=closed) for name in names}
            optional = getattr(model, "__optional_keys__", ())
            required = [name for name in names if name not in optional]
        found: JsonObject = {"type": "object", "properties": properties, "required": required}
        return {**found, "additionalProperties": False} if closed else found


def _is_body(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Body)
