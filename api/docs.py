"""The API described: OpenAPI 3.1 made from the words of the contract, a page, the problem types."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.problems import explanation, problem_type
from config_manager.config import strict_json, wire
from config_manager.config.access import ROLES
from config_manager.config.errors import DESCRIPTIONS, NotFound, Refused

_PAGE_CSP = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"


async def get_openapi(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(200, _openapi_bytes())


async def get_docs(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(
        200,
        _docs_page(),
        ((b"content-security-policy", _PAGE_CSP),),
        b"text/html; charset=utf-8",
    )


async def get_problem(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    found = explanation(request.params["name"])
    if found is None:
        raise NotFound("no problem of ours has this name")
    return json_response(found)


@cache
def _openapi_bytes() -> bytes:
    return strict_json.dumps(openapi())


@cache
def _docs_page() -> bytes:
    """The page with the document rendered into it: it needs no script and nothing from outside."""
    template = resources.files("config_manager.api.web").joinpath("docs.html").read_text("utf-8")
    return template.replace("<!-- operations -->", _operations_html()).encode()


def _operations_html() -> str:
    from html import escape

    parts: list[str] = []
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            answers = "".join(
                f"<tr><td>{escape(code)}</td><td>{escape(response['description'])}</td></tr>"
                for code, response in operation["responses"].items()
                if "$ref" not in response
            )
            refusals = ", ".join(
                _problem_links(int(code))
                for code, response in operation["responses"].items()
                if "$ref" in response
            )
            answers += f"<tr><td>refused</td><td>{refusals}</td></tr>" if refusals else ""
            parameters = "".join(
                f"<tr><td><code>{escape(p['name'])}</code> ({escape(p['in'])})</td>"
                f"<td>{escape(p['description'])}</td></tr>"
                for p in operation.get("parameters", [])
            )
            parts.append(
                f"<article><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
                f"<p>{escape(operation['summary'])}</p><table>{parameters}{answers}</table></article>"
            )
    return "\n".join(parts)


def _problem_links(status: int) -> str:
    """A status, and the problems that come with it; each leads to its explanation."""
    names = sorted(
        d.name
        for error, d in DESCRIPTIONS.items()
        if d.status == status and issubclass(error, Refused) and error is not Refused
    )
    links = " or ".join(f'<a href="{problem_type(name)}">{name}</a>' for name in names)
    return f"{status} {links}" if links else str(status)


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
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
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _SCHEMAS,
            "responses": {
                "Problem": {
                    "description": "What went wrong and what to do (RFC 9457)",
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
            },
        },
    }


_INTEGER = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_NO_NUL = {"type": "string", "pattern": "^[^\\u0000]*$"}
_VALUE = {"$ref": "#/components/schemas/Value"}
_NAME = {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9-]{0,62}$",
    "not": {"enum": ["epoch", "search", "config-manager"]},
}
_KEY = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"}
_KEY_32 = {"type": "string", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"}
_DURATION = {"type": "string", "pattern": "^[1-9][0-9]{0,2}[smhdw]$"}

_STAMP = {
    "service": _NAME,
    "version": _INTEGER,
    "revision": _INTEGER,
    "config_epoch": _TEXT,
    "epoch_seq": _INTEGER,
    "updated_at": {"type": ["string", "null"], "format": "date-time"},
    "updated_by": {"type": ["string", "null"]},
}
_WRITTEN = {
    "correlation_id": _TEXT,
    "propagation": {"enum": ["pending", "confirmed"]},
    "dry_run": {"type": "boolean"},
    "changes": {"type": "array", "items": {"$ref": "#/components/schemas/KeyChange"}},
}


_SECRET_ENTRY = {
    "service": _NAME,
    "name": _TEXT,
    "version": {**_INTEGER, "description": "the newest"},
    "kept": {**_INTEGER, "description": "how many versions are kept"},
    "updated_at": {"type": "string", "format": "date-time"},
    "age_s": {**_INTEGER, "description": "since it was set, in seconds"},
    "rotate": {
        "type": ["object", "null"],
        "description": "why it should be set anew, if it should",
    },
}


def _strict(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """Takes nothing else."""
    return {**_schema(properties, *required), "additionalProperties": False}


def _schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required or properties)}


_TEXT_OR_NULL = {"type": ["string", "null"]}
_TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
_ROLE = {"enum": list(ROLES)}
_PATTERNS = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[a-z0-9*-]{1,63}$"},
    "minItems": 1,
    "maxItems": 64,
    "description": "the services that it is for; `*` stands for any text",
}
_TOKEN = {
    "name": _TEXT,
    "role": _ROLE,
    "services": _PATTERNS,
    "created_at": _TIME_OR_NULL,
    "expires_at": _TIME_OR_NULL,
}


_SCHEMAS: dict[str, Any] = {
    "Problem": _schema(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "request_id": _TEXT,
            "errors": {
                "type": "array",
                "items": _schema({"pointer": _TEXT, "detail": _TEXT}),
            },
            "current_revision": _INTEGER,
        },
        "type", "title", "status", "detail", "request_id",
    ),
    "Value": {
        "description": "Any JSON that every reader takes alike, at most 32 levels deep",
        "anyOf": [
            {"type": ["null", "boolean"]},
            {"type": "number", "minimum": -(2**53), "maximum": 2**53},
            _NO_NUL,
            {"type": "array", "items": _VALUE},
            {"type": "object", "propertyNames": _NO_NUL, "additionalProperties": _VALUE},
        ],
    },
    "Values": {
        "description": "The service's values, by key",
        "type": "object",
        "propertyNames": _KEY,
        "additionalProperties": _VALUE,
    },
    "KeyChange": _schema({"key": _TEXT, "old": {}, "new": {}}),
    "Config": _schema(
        {**_STAMP, "config": _OBJECT, "defaulted": {"type": "array", "items": _TEXT}, **_WRITTEN},
        *_STAMP, "config", "defaulted",
    ),
    "ConfigList": _schema(
        {
            "services": {
                "type": "array",
                "items": _schema({k: _STAMP[k] for k in ("service", "revision", "version", "updated_at")}),
            }
        }
    ),
    "Deleted": _schema({**_STAMP, "deleted": {"const": True}, **_WRITTEN}, *_STAMP, "deleted"),
    "EpochRequest": _strict(
        {
            "services": {
                "type": "object",
                "propertyNames": _NAME,
                "additionalProperties": {"$ref": "#/components/schemas/Values"},
                "minProperties": 1,
            },
            "reason": {**_NO_NUL, "type": ["string", "null"], "maxLength": 500},
        },
        "services",
    ),
    "Epoch": _schema(
        {
            "config_epoch": _TEXT,
            "epoch_seq": _INTEGER,
            "revision": _INTEGER,
            "services": {"type": "array", "items": _NAME},
            **_WRITTEN,
        },
        "config_epoch", "epoch_seq", "revision", "services",
    ),
    "History": _schema(
        {
            "service": _NAME,
            "entries": {
                "type": "array",
                "items": _schema(
                    {
                        "revision": _INTEGER,
                        "version": _INTEGER,
                        "config_epoch": _TEXT,
                        "epoch_seq": _INTEGER,
                        "at": {"type": "string", "format": "date-time"},
                        "by": _TEXT,
                        "action": {"enum": ["put", "patch", "delete", "epoch", "secret", "secret-delete"]},
                        "reason": {"type": ["string", "null"]},
                        "correlation_id": _TEXT,
                        "changes": {"type": "array", "items": {"$ref": "#/components/schemas/KeyChange"}},
                    }
                ),
            },
            "next_before": {"type": ["integer", "null"]},
        }
    ),
    "SecretRequest": _strict({"service": _NAME, "name": _KEY, "value": {**_NO_NUL, "minLength": 1}}),
    "Secret": _schema(
        {
            "service": _NAME,
            "name": _TEXT,
            "version": _INTEGER,
            "revision": _INTEGER,
            "updated_at": {"type": "string", "format": "date-time"},
            **_WRITTEN,
        },
        "service", "name", "version", "revision", "updated_at",
    ),
    "TokenRequest": _strict(
        {
            "name": _NAME,
            "role": _ROLE,
            "services": {**_PATTERNS, "default": ["*"]},
            "expires": {"anyOf": [_DURATION, {"type": "null"}], "examples": ["90d", "12h"], "description": "null: never"},
        },
        "name", "role",
    ),
    "MadeToken": _schema(
        {**_TOKEN, "token": {**_TEXT, "description": "shown this once; only its hash is kept"}}
    ),
    "RevokedToken": _schema({"name": _TEXT, "role": _ROLE, "revoked": {"const": True}}),
    "Tokens": _schema(
        {
            "tokens": {
                "type": "array",
                "items": _schema(
                    {**_TOKEN, "created_by": _TEXT, "last_used_at": _TIME_OR_NULL, "expired": {"type": "boolean"}}
                ),
            }
        }
    ),
    "SecretList": _schema(
        {"secrets": {"type": "array", "items": {"$ref": "#/components/schemas/SecretEntry"}}}
    ),
    "SecretEntry": _schema(_SECRET_ENTRY),
    "SecretVersions": _schema(
        {
            **_SECRET_ENTRY,
            "versions": {
                "type": "array",
                "items": _schema({key: _SECRET_ENTRY[key] for key in ("version", "updated_at", "age_s")}),
            },
        }
    ),
    "SecretDeleted": _schema(
        {
            "service": _NAME,
            "name": _TEXT,
            "deleted": {"const": True},
            "revision": _INTEGER,
            "updated_at": {"type": "string", "format": "date-time"},
            **_WRITTEN,
        },
        "service", "name", "deleted", "revision", "updated_at",
    ),
    "KeyRotation": _schema(
        {
            "state": {"enum": ["idle", "running", "blocked"]},
            "done": {**_INTEGER, "description": "versions under the new key"},
            "total": {**_INTEGER, "description": "all versions"},
            "unreadable": {**_INTEGER, "description": "versions that no key here opens"},
            "key_id": {**_TEXT, "description": "of the key that seals now"},
            "old_key_id": _TEXT_OR_NULL,
            "new_key_id": _TEXT_OR_NULL,
            "started_at": _TIME_OR_NULL,
            "finished_at": _TIME_OR_NULL,
            "by": _TEXT_OR_NULL,
            "correlation_id": {**_TEXT_OR_NULL, "description": "of the request that began it"},
            "to_do": {**_TEXT_OR_NULL, "description": "what an operator has to do, where he has to"},
        }
    ),
    "RevealRequest": _strict(
        {
            "reason": {"type": "string", "maxLength": 500, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"},
            "version": {"type": ["integer", "null"], "minimum": 1, "maximum": 2**53 - 1},
        },
        "reason",
    ),
    "SecretValue": _schema(
        {
            "service": _NAME,
            "name": _TEXT,
            "version": _INTEGER,
            "updated_at": {"type": "string", "format": "date-time"},
            "value": _TEXT,
        }
    ),
    "Audit": _schema(
        {
            "entries": {
                "type": "array",
                "items": _schema(
                    {
                        "seq": _INTEGER,
                        "revision": _INTEGER,
                        "hash": {**_TEXT, "description": "SHA-256 of the hash before (hex) and the body"},
                        "body": {**_TEXT, "description": "JSON, exactly as it was hashed"},
                    }
                ),
            },
            "rows": _INTEGER,
            "head": _TEXT,
            "next_after": {"type": ["integer", "null"]},
        }
    ),
    "AuditVerdict": _schema(
        {
            "ok": {"type": "boolean"},
            "rows": _INTEGER,
            "head": _TEXT,
            "problem": {
                "anyOf": [
                    _schema(
                        {
                            "seq": _INTEGER,
                            "kind": {"enum": ["altered", "removed", "reordered", "head"]},
                            "detail": _TEXT,
                        }
                    ),
                    {"type": "null"},
                ]
            },
        }
    ),
    "Status": _schema(
        {
            "instances": {"type": "array", "items": {"$ref": "#/components/schemas/Instance"}},
            "refused": {**_INTEGER, "description": "messages that were no receipts, since the start"},
        }
    ),
    "Instance": _schema(
        {
            "service": _NAME,
            "instance": _NAME,
            "enrolled": {"type": "boolean", "description": "false: the rest is only claimed"},
            "wanted": {"anyOf": [_schema({"revision": _INTEGER, "digest": _TEXT}), {"type": "null"}]},
            "running": {
                "anyOf": [
                    _schema({"epoch_seq": _INTEGER, "revision": _INTEGER, "digest": _TEXT}),
                    {"type": "null"},
                ]
            },
            "in_sync": {"type": "boolean", "description": "it is there and runs what is wanted"},
            "since": {"type": "string", "format": "date-time"},
            "received_at": {"type": "string", "format": "date-time"},
            "freshness": {"type": "string", "examples": ["fresh", "stale (no-beacon)"]},
            "source": {"type": "string", "examples": ["broker", "last-known-good", "defaults"]},
            "overrides": {
                "type": "array", "items": _TEXT,
                "description": "keys that the instance's own environment decides",
            },
            "last_attempt": {
                "anyOf": [
                    _schema({"revision": _INTEGER, "stage": _TEXT, "reason": {"type": ["string", "null"]}}),
                    {"type": "null"},
                ]
            },
            "library": _TEXT,
            "gone": {"type": "boolean"},
            "correlation_id": {"type": ["string", "null"]},
        }
    ),
    "Health": _schema(
        {
            "ok": {"type": "boolean"},
            "mode": {"enum": ["normal", "read-only"]},
            "database_available": {"type": "boolean"},
            "cache_available": {"type": "boolean"},
            "broker": {"type": "object", "additionalProperties": _TEXT},
            "config_epoch": _TEXT,
            "epoch_seq": _INTEGER,
            "revision": _INTEGER,
            "outbox_depth": _INTEGER,
            "actors": {"type": "object", "additionalProperties": _TEXT},
            "reasons": {"type": "array", "items": _TEXT},
        }
    ),
    "EnrolmentTokenRequest": {
        "type": "object",
        "required": ["service"],
        "additionalProperties": False,
        "properties": {
            "service": _NAME,
            "instance": {"anyOf": [_NAME, {"type": "null"}], "description": "only this one; else whichever comes"},
            "expires": {**_DURATION, "description": "such as 30m; 1h"},
        },
    },
    "EnrolmentRequest": {
        "type": "object",
        "required": ["token", "service", "instance", "sign_public", "seal_public", "proof"],
        "additionalProperties": False,
        "properties": {
            "token": _TEXT,
            "service": _NAME,
            "instance": _NAME,
            "sign_public": {**_KEY_32, "description": "Ed25519, 32 bytes in base64"},
            "seal_public": {**_KEY_32, "description": "X25519, 32 bytes in base64"},
            "proof": {"type": "string", "pattern": "^[A-Za-z0-9+/]{85}[AQgw]==$", "description": "docs/wire.md says what is signed"},
        },
    },
    "RotateRequest": {
        "type": "object",
        "required": ["role"],
        "additionalProperties": False,
        "properties": {
            "role": {"enum": ["root", "config", "beacon"]},
            "overlap": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,2}[smhdw])$", "description": "how long the old key stays good: 24h; 0: not at all"},
        },
    },
    "SignerRequest": {
        "type": "object",
        "required": ["public"],
        "additionalProperties": False,
        "properties": {
            "public": {**_KEY_32, "description": "an Ed25519 public key, 32 bytes in base64"},
            "threshold": {"type": ["integer", "null"], "minimum": 1, "maximum": 3},
        },
    },
    "RevokeRequest": {
        "type": "object",
        "required": ["keyid"],
        "additionalProperties": False,
        "properties": {"keyid": {"type": "string", "pattern": "^[0-9a-f]{8,64}$", "description": "the key's id, or its first 8 digits"}},
    },
    "RootChange": _schema(
        {"version": _INTEGER, "adopted": {"type": "boolean"}, "roles": _OBJECT}
    ),
    "RootEnvelope": _strict(
        {
            "payloadType": {"const": wire.ROOT},
            "payload": {"type": "string", "pattern": "^([A-Za-z0-9+/]{4})*$"},
            "signatures": {
                "type": "array",
                "minItems": 1,
                "maxItems": 4,
                "items": _strict(
                    {
                        "keyid": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                        "sig": {"type": "string", "pattern": "^[A-Za-z0-9+/]{85}[AQgw]==$"},
                    }
                ),
            },
        }
    ),
    "Envelope": _schema(
        {
            "payloadType": _TEXT,
            "payload": _TEXT,
            "signatures": {"type": "array", "items": _schema({"keyid": _TEXT, "sig": _TEXT})},
        }
    ),
}  # fmt: skip


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, pattern: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "schema": schema, "description": description}


_SERVICE = {
    "name": "service",
    "in": "path",
    "required": True,
    "schema": _NAME,
    "description": "the service's name; epoch, search and config-manager are reserved",
}
_SECRET_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": _KEY,
    "description": "the secret's name",
}
_INSTANCE = {**_SERVICE, "name": "instance", "description": "the instance's name"}
_IF_MATCH = _header(
    "If-Match",
    '^("[0-9]{1,15}"|[*])$',
    "the revision you read, as its ETag; 412 if it is no longer that",
)
_IF_NONE_MATCH = _header(
    "If-None-Match",
    "^[*]$",
    "only if nobody has written it yet, else 412",
)
_REASON = _query(
    "reason",
    {**_NO_NUL, "maxLength": 500},
    "why, for history and audit",
)
_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "^[!-~]([ -~]{0,253}[!-~])?$",
    "repeat safely for 24 hours: the same key and body, the same revision",
)
_ADMINISTRATION = [_REASON, _IDEMPOTENCY_KEY]
_WRITE = [
    _query("dry_run", {"type": "boolean"}, "change nothing, answer what would change"),
    _query("wait", {"const": "confirmed"}, "answer once a broker holds it"),
    _query("timeout", {"type": "number", "minimum": 0, "maximum": 60}, "seconds to wait; 5"),
    _REASON,
    _IDEMPOTENCY_KEY,
]


def _operation(
    name: str,
    summary: str,
    answers: dict[str, str],
    problems: str,
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: tuple[str, str] | None = None,
    public: bool = False,
    media: str = "application/json",
) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for code, schema in answers.items():
        content = {"schema": {"$ref": f"#/components/schemas/{schema}"} if schema else _OBJECT}
        responses[code] = {
            "description": "Done" if code < "300" else "Not ok",
            "content": {media: content},
        }
    for code in sorted({*problems.split(), *(() if public else ("429",))}):
        responses[code] = {"$ref": "#/components/responses/Problem"}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = parameters
    if body:
        schema, body_media = body
        reference = {"$ref": f"#/components/schemas/{schema}"}
        operation["requestBody"] = {
            "required": True,
            "content": {body_media: {"schema": reference}},
        }
    if public:
        operation["security"] = []
    return operation


_WRITE_PROBLEMS = "400 401 403 412 413 415 422 503 504 507"
_ADMIN_PROBLEMS = "400 401 403 413 415 422 503 504 507"


def _paths() -> dict[str, Any]:
    write = [_SERVICE, _IF_MATCH, _IF_NONE_MATCH, *_WRITE]
    return {
        "/health": {
            "get": _operation(
                "health", "How the service is, and why it is not ok",
                {"200": "Health", "503": "Health"}, "400 403", public=True,
            )
        },
        "/api/v1/config": {
            "get": _operation("listConfigs", "Every service", {"200": "ConfigList"}, "400 401 403")
        },
        "/api/v1/config/epoch": {
            "post": _operation(
                "newEpoch", "Change several services at once, all or none, in a new epoch",
                {"200": "Epoch"}, _WRITE_PROBLEMS,
                parameters=_WRITE, body=("EpochRequest", "application/json"),
            )
        },
        "/api/v1/config/{service}": {
            "get": _operation(
                "getConfig", "A service's effective configuration; secrets are masked",
                {"200": "Config"}, "400 401 403 404",
                parameters=[
                    _SERVICE,
                    _query("view", {"enum": ["effective", "stored"]}, "stored: exactly what PUT takes"),
                ],
            ),
            "put": _operation(
                "putConfig", "Replace a service's stored values",
                {"200": "Config", "201": "Config"}, _WRITE_PROBLEMS,
                parameters=write, body=("Values", "application/json"),
            ),
            "patch": _operation(
                "patchConfig", "Merge into a service's stored values (RFC 7396)",
                {"200": "Config", "201": "Config"}, f"404 {_WRITE_PROBLEMS}",
                parameters=write, body=("Values", "application/merge-patch+json"),
            ),
            "delete": _operation(
                "deleteConfig", "Delete a service's configuration; its history stays",
                {"200": "Deleted"}, f"404 {_WRITE_PROBLEMS}", parameters=write,
            ),
        },
        "/api/v1/config/{service}/history": {
            "get": _operation(
                "getHistory", "Who changed what, when and why; newest first",
                {"200": "History"}, "400 401 403 404 503 504",
                parameters=[
                    _SERVICE,
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 500}, "entries; 50"),
                    _query("before", _INTEGER, "revisions below this one"),
                    _query("key", _KEY, "only revisions that changed this key"),
                    _query("since", {"type": "string", "format": "date-time"}, "not older than this"),
                    _query("until", {"type": "string", "format": "date-time"}, "not newer than this"),
                ],
            )
        },
        "/api/v1/secrets": {
            "post": _operation(
                "setSecret", "Store a secret; no answer ever shows it",
                {"200": "", "201": "Secret"}, _WRITE_PROBLEMS,
                parameters=_WRITE, body=("SecretRequest", "application/json"),
            ),
            "get": _operation(
                "listSecrets", "Names, versions and ages; never a value",
                {"200": "SecretList"}, "400 401 403 503 504",
                parameters=[_query("service", _NAME, "only this service's secrets")],
            ),
        },
        "/api/v1/secrets/rotate-key": {
            "get": _operation(
                "secretsKeyRotation", "How far the rotation of the secrets key is; the last one where none runs",
                {"200": "KeyRotation"}, "400 401 403",
            ),
            "post": _operation(
                "rotateSecretsKey", "Seal every secret anew under a new key, in the background; while one runs, that one",
                {"202": "KeyRotation"}, "400 401 403 409 413 422 503 504 507", parameters=_ADMINISTRATION,
            ),
        },
        "/api/v1/secrets/{service}/{name}": {
            "get": _operation(
                "getSecret", "One secret's versions and their ages; never a value",
                {"200": "SecretVersions"}, "400 401 403 404 503 504", parameters=[_SERVICE, _SECRET_NAME],
            ),
            "delete": _operation(
                "deleteSecret", "Delete every version of a secret; a revision of the service",
                {"200": "SecretDeleted"}, "400 401 403 404 413 422 503 504 507",
                parameters=[_SERVICE, _SECRET_NAME, *_WRITE],
            ),
        },
        "/api/v1/secrets/{service}/{name}/reveal": {
            "post": _operation(
                "revealSecret", "A secret's value, once the audit has who asked and why",
                {"200": "SecretValue"}, "400 401 403 404 409 413 415 422 503 504 507",
                parameters=[_SERVICE, _SECRET_NAME], body=("RevealRequest", "application/json"),
            )
        },
        "/api/v1/tokens": {
            "get": _operation(
                "listTokens", "Every token: what it may do, until when, when it was last used",
                {"200": "Tokens"}, "400 401 403",
            ),
            "post": _operation(
                "createToken", "Make a token; it is shown this once",
                {"201": "MadeToken"}, f"409 {_ADMIN_PROBLEMS}",
                parameters=_ADMINISTRATION, body=("TokenRequest", "application/json"),
            ),
        },
        "/api/v1/tokens/{name}": {
            "delete": _operation(
                "revokeToken", "End a token at once", {"200": "RevokedToken"}, "400 401 403 404 409 422 503 504 507",
                parameters=[
                    {"name": "name", "in": "path", "required": True, "schema": _TEXT,
                     "description": "the token's name"},
                    *_ADMINISTRATION,
                ],
            )
        },
        "/api/v1/audit": {
            "get": _operation(
                "getAudit", "Who did what, when and why, in order, each row chained to the one before",
                {"200": "Audit"}, "400 401 403 503 504",
                parameters=[
                    _query("after", _INTEGER, "rows after this number; 0"),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "rows at most; 100"),
                ],
            )
        },
        "/api/v1/audit/verify": {
            "get": _operation(
                "verifyAudit", "Check the whole chain against the head that the beacons sign",
                {"200": "AuditVerdict"}, "400 401 403 503 504",
                parameters=[_query("contains", {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                                   "a hash that you kept: the chain must hold it")],
            )
        },
        "/api/v1/audit/export": {
            "get": _operation(
                "exportAudit", "The signed end of the chain: with it, the rows up to there are an export",
                {"200": "Envelope"}, "400 401 403 503 504",
            )
        },
        "/api/v1/status": {
            "get": _operation(
                "status", "What each instance says it runs, beside what it should run",
                {"200": "Status"}, "400 401 403",
                parameters=[_query("service", _NAME, "only this service's instances")],
            )
        },
        "/api/v1/devices": {
            "get": _operation(
                "listDevices", "Every instance that enrolled, and which secrets it can read",
                {"200": ""}, "400 401 403",
            )
        },
        "/api/v1/devices/tokens": {
            "post": _operation(
                "allowEnrolment", "A one-time token with which an instance enrols; shown this once",
                {"201": ""}, f"409 {_ADMIN_PROBLEMS}",
                parameters=_ADMINISTRATION, body=("EnrolmentTokenRequest", "application/json"),
            )
        },
        "/api/v1/devices/enroll": {
            "post": _operation(
                "enrol", "An instance shows its one-time token and its public keys",
                {"201": ""}, f"409 429 {_ADMIN_PROBLEMS}",
                body=("EnrolmentRequest", "application/json"), public=True,
            )
        },
        "/api/v1/devices/{service}/{instance}": {
            "delete": _operation(
                "revokeDevice", "Deliver nothing more; its secrets are marked to be set anew",
                {"200": ""}, f"404 409 {_ADMIN_PROBLEMS}",
                parameters=[_SERVICE, _INSTANCE, _REASON],
            )
        },
        "/api/v1/trust/rotate": {
            "post": _operation(
                "rotateKey", "A new key for a role; a new version of the trust root",
                {"200": "RootChange", "202": "RootChange"}, f"409 {_ADMIN_PROBLEMS}",
                parameters=_ADMINISTRATION, body=("RotateRequest", "application/json"),
            )
        },
        "/api/v1/trust/signers": {
            "post": _operation(
                "addSigner", "One more root key, and how many of them have to sign",
                {"200": "RootChange", "202": "RootChange"}, f"409 {_ADMIN_PROBLEMS}",
                parameters=_ADMINISTRATION, body=("SignerRequest", "application/json"),
            )
        },
        "/api/v1/trust/revoke": {
            "post": _operation(
                "revokeKey", "Drop a key from the trust root at once",
                {"200": "RootChange", "202": "RootChange"}, f"404 409 {_ADMIN_PROBLEMS}",
                parameters=_ADMINISTRATION, body=("RevokeRequest", "application/json"),
            )
        },
        "/api/v1/trust/pending": {
            "get": _operation(
                "pendingRoot", "The root version that waits for signatures, and whose",
                {"200": ""}, "400 401 403",
            )
        },
        "/api/v1/trust/roots": {
            "post": _operation(
                "applyRoot", "Bring a root version that was signed elsewhere",
                {"200": "RootChange", "202": "RootChange"}, f"409 {_ADMIN_PROBLEMS}",
                parameters=_ADMINISTRATION, body=("RootEnvelope", "application/json"),
            )
        },
        "/api/v1/trust/root": {
            "get": _operation(
                "trustRoot", "The current trust root's envelope", {"200": "Envelope"}, "403", public=True
            )
        },
        "/api/v1/trust/roots/{version}": {
            "get": _operation(
                "trustRootVersion", "One version of the trust root", {"200": "Envelope"}, "400 403 404",
                public=True,
                parameters=[
                    {"name": "version", "in": "path", "required": True,
                     "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                     "description": "1 is the first"}
                ],
            )
        },
        "/problems/{name}": {
            "get": _operation(
                "problem", "What a problem's type means", {"200": ""}, "403 404", public=True,
                parameters=[
                    {"name": "name", "in": "path", "required": True, "schema": _TEXT,
                     "description": "the last segment of a problem's type"}
                ],
            )
        },
        "/openapi.json": {"get": _operation("openapi", "This document", {"200": ""}, "403", public=True)},
    }  # fmt: skip
