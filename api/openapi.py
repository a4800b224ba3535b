"""The API as OpenAPI 3.1, in the words of the contract: which calls there are, and what they answer."""

from __future__ import annotations

from typing import Any

from config_manager.api.openapi_schemas import (
    INTEGER,
    KEY,
    NAME,
    NO_NUL,
    OBJECT,
    SCHEMAS,
    TEXT,
)

_PROBLEM = {
    "description": "What went wrong and what to do (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


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
            "schemas": SCHEMAS,
            "responses": {
                "Problem": _PROBLEM,
                "UnsupportedMediaType": {
                    **_PROBLEM,
                    "headers": {
                        name: {"schema": TEXT, "description": "what is taken instead"}
                        for name in ("Accept", "Accept-Patch", "Accept-Encoding")
                    },
                },
            },
        },
    }


_NOT_MODIFIED = "304"
_UNSUPPORTED = "415"


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, pattern: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "schema": schema, "description": description}


_SERVICE = {
    "name": "service",
    "in": "path",
    "required": True,
    "schema": NAME,
    "description": "the service's name; epoch, search and config-manager are reserved",
}
_SECRET_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": KEY,
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
_IF_WANTED = _header(
    "If-Match",
    '^("[0-9]{1,15}"|[*])$',
    "only this revision, as its ETag; 412 if it is another by now",
)
_IF_NEWER = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "the ETag of what you have, or several; 304 if one is what is there",
}
_REASON = _query(
    "reason",
    {**NO_NUL, "maxLength": 500},
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
    operation_id: str,
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
        if code == _NOT_MODIFIED:
            responses[code] = {"description": "What the caller has is what is there"}
            continue
        content = {"schema": {"$ref": f"#/components/schemas/{schema}"} if schema else OBJECT}
        responses[code] = {
            "description": "Done" if code < "300" else "Not ok",
            "content": {media: content},
        }
    for code in sorted({*problems.split(), *(() if public else ("429",))}):
        name = "UnsupportedMediaType" if code == _UNSUPPORTED else "Problem"
        responses[code] = {"$ref": f"#/components/responses/{name}"}
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "responses": responses,
    }
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
                {"200": "Config", "304": ""}, "400 401 403 404 412",
                parameters=[
                    _SERVICE,
                    _IF_WANTED,
                    _IF_NEWER,
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
                "getHistory", "Who changed what, when and why; newest first, at most 4 MiB at once",
                {"200": "History"}, "400 401 403 404 503 504",
                parameters=[
                    _SERVICE,
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 500}, "entries; 50"),
                    _query("before", INTEGER, "revisions below this one"),
                    _query("key", KEY, "only revisions that changed this key"),
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
                parameters=[_query("service", NAME, "only this service's secrets")],
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
                    {"name": "name", "in": "path", "required": True, "schema": TEXT,
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
                    _query("after", INTEGER, "rows after this number; 0"),
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
                parameters=[_query("service", NAME, "only this service's instances")],
            )
        },
        "/api/v1/status/{service}/{instance}": {
            "delete": _operation(
                "forgetInstance", "Forget an instance that is gone and will not come back; it stays enrolled",
                {"200": "ForgottenInstance"}, "400 401 403 404 409 422 503 504 507",
                parameters=[_SERVICE, _INSTANCE, *_ADMINISTRATION],
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
                    {"name": "name", "in": "path", "required": True, "schema": TEXT,
                     "description": "the last segment of a problem's type"}
                ],
            )
        },
        "/openapi.json": {"get": _operation("openapi", "This document", {"200": ""}, "403", public=True)},
    }  # fmt: skip
