"""What bodies and answers look like: the schemas of `api.openapi`."""

from __future__ import annotations

from typing import Any

from config_manager.config import wire
from config_manager.config.access import ROLES

INTEGER = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
TEXT = {"type": "string"}
OBJECT = {"type": "object"}
NO_NUL = {"type": "string", "pattern": "^[^\\u0000]*$"}
_VALUE = {"$ref": "#/components/schemas/Value"}
NAME = {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9-]{0,62}$",
    "not": {"enum": ["epoch", "search", "config-manager"]},
}
KEY = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"}
_KEY_32 = {"type": "string", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"}
_DURATION = {"type": "string", "pattern": "^[1-9][0-9]{0,2}[smhdw]$"}

_STAMP = {
    "service": NAME,
    "version": INTEGER,
    "revision": INTEGER,
    "config_epoch": TEXT,
    "epoch_seq": INTEGER,
    "updated_at": {"type": ["string", "null"], "format": "date-time"},
    "updated_by": {"type": ["string", "null"]},
}
_WRITTEN = {
    "correlation_id": TEXT,
    "propagation": {"enum": ["pending", "confirmed"]},
    "dry_run": {"type": "boolean"},
    "changes": {"type": "array", "items": {"$ref": "#/components/schemas/KeyChange"}},
}


_SECRET_ENTRY = {
    "service": NAME,
    "name": TEXT,
    "version": {**INTEGER, "description": "the newest"},
    "kept": {**INTEGER, "description": "how many versions are kept"},
    "updated_at": {"type": "string", "format": "date-time"},
    "age_s": {**INTEGER, "description": "since it was set, in seconds"},
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
    "name": TEXT,
    "role": _ROLE,
    "services": _PATTERNS,
    "created_at": _TIME_OR_NULL,
    "expires_at": _TIME_OR_NULL,
}


SCHEMAS: dict[str, Any] = {
    "Problem": _schema(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "request_id": TEXT,
            "errors": {
                "type": "array",
                "items": _schema({"pointer": TEXT, "detail": TEXT}),
            },
            "current_revision": INTEGER,
        },
        "type", "title", "status", "detail", "request_id",
    ),
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
    "KeyChange": _schema(
        {
            "key": TEXT,
            "old": {"description": "null: it was not there, unless `nulls` says otherwise"},
            "new": {"description": "null: it is not there, unless `nulls` says otherwise"},
            "nulls": {
                "type": "array",
                "items": {"enum": ["old", "new"]},
                "description": "which of the two is a value that is null",
            },
            "masked": {
                "type": "boolean",
                "description": "beside a mask: whether it stands for a secret, or is the value itself",
            },
        },
        "key", "old", "new",
    ),
    "Config": _schema(
        {**_STAMP, "config": OBJECT, "defaulted": {"type": "array", "items": TEXT}, **_WRITTEN},
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
                "propertyNames": NAME,
                "additionalProperties": {"$ref": "#/components/schemas/Values"},
                "minProperties": 1,
            },
            "reason": {**NO_NUL, "type": ["string", "null"], "maxLength": 500},
        },
        "services",
    ),
    "Epoch": _schema(
        {
            "config_epoch": TEXT,
            "epoch_seq": INTEGER,
            "revision": INTEGER,
            "services": {"type": "array", "items": NAME},
            **_WRITTEN,
        },
        "config_epoch", "epoch_seq", "revision", "services",
    ),
    "History": _schema(
        {
            "service": NAME,
            "entries": {
                "type": "array",
                "items": _schema(
                    {
                        "revision": INTEGER,
                        "version": INTEGER,
                        "config_epoch": TEXT,
                        "epoch_seq": INTEGER,
                        "at": {"type": "string", "format": "date-time"},
                        "by": TEXT,
                        "action": {"enum": ["put", "patch", "delete", "epoch", "secret", "secret-delete", "restore"]},
                        "reason": {"type": ["string", "null"]},
                        "correlation_id": TEXT,
                        "changes": {"type": "array", "items": {"$ref": "#/components/schemas/KeyChange"}},
                    }
                ),
            },
            "next_before": {"type": ["integer", "null"]},
        }
    ),
    "SecretRequest": _strict({"service": NAME, "name": KEY, "value": {**NO_NUL, "minLength": 1}}),
    "Secret": _schema(
        {
            "service": NAME,
            "name": TEXT,
            "version": INTEGER,
            "revision": INTEGER,
            "updated_at": {"type": "string", "format": "date-time"},
            **_WRITTEN,
        },
        "service", "name", "version", "revision", "updated_at",
    ),
    "TokenRequest": _strict(
        {
            "name": NAME,
            "role": _ROLE,
            "services": {**_PATTERNS, "default": ["*"]},
            "expires": {"anyOf": [_DURATION, {"type": "null"}], "examples": ["90d", "12h"], "description": "null: never"},
        },
        "name", "role",
    ),
    "MadeToken": _schema(
        {**_TOKEN, "token": {**TEXT, "description": "shown this once; only its hash is kept"}}
    ),
    "RevokedToken": _schema({"name": TEXT, "role": _ROLE, "revoked": {"const": True}}),
    "Tokens": _schema(
        {
            "tokens": {
                "type": "array",
                "items": _schema(
                    {**_TOKEN, "created_by": TEXT, "last_used_at": _TIME_OR_NULL, "expired": {"type": "boolean"}}
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
            "service": NAME,
            "name": TEXT,
            "deleted": {"const": True},
            "revision": INTEGER,
            "updated_at": {"type": "string", "format": "date-time"},
            **_WRITTEN,
        },
        "service", "name", "deleted", "revision", "updated_at",
    ),
    "KeyRotation": _schema(
        {
            "state": {"enum": ["idle", "running", "blocked"]},
            "done": {**INTEGER, "description": "versions under the new key"},
            "total": {**INTEGER, "description": "all versions"},
            "unreadable": {**INTEGER, "description": "versions that no key here opens"},
            "key_id": {**TEXT, "description": "of the key that seals now"},
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
            "service": NAME,
            "name": TEXT,
            "version": INTEGER,
            "updated_at": {"type": "string", "format": "date-time"},
            "value": TEXT,
        }
    ),
    "Audit": _schema(
        {
            "entries": {
                "type": "array",
                "items": _schema(
                    {
                        "seq": INTEGER,
                        "revision": INTEGER,
                        "hash": {**TEXT, "description": "SHA-256 of the hash before (hex) and the body"},
                        "body": {**TEXT, "description": "JSON, exactly as it was hashed"},
                    }
                ),
            },
            "rows": INTEGER,
            "head": TEXT,
            "next_after": {"type": ["integer", "null"]},
        }
    ),
    "AuditVerdict": _schema(
        {
            "ok": {"type": "boolean"},
            "rows": INTEGER,
            "head": TEXT,
            "problem": {
                "anyOf": [
                    _schema(
                        {
                            "seq": INTEGER,
                            "kind": {"enum": ["altered", "removed", "reordered", "head", "not-audited"]},
                            "detail": TEXT,
                        }
                    ),
                    {"type": "null"},
                ]
            },
            "not_audited": {
                "type": "array",
                "items": _schema({"reason": TEXT, "why": TEXT, "seq": INTEGER}),
                "description": "what is kept, or is missing, and no row vouches for; as in /health",
            },
        }
    ),
    "Status": _schema(
        {
            "instances": {"type": "array", "items": {"$ref": "#/components/schemas/Instance"}},
            "refused": {**INTEGER, "description": "messages that were no receipts, since the start"},
        }
    ),
    "ForgottenInstance": _schema(
        {
            "service": NAME,
            "instance": NAME,
            "forgotten": {"const": True},
            "away": {
                "type": "array", "items": TEXT,
                "description": "brokers that are not connected now: what they retain of it is emptied once they are",
            },
        }
    ),
    "Instance": _schema(
        {
            "service": NAME,
            "instance": NAME,
            "enrolled": {"type": "boolean", "description": "false: the rest is only claimed"},
            "wanted": {"anyOf": [_schema({"revision": INTEGER, "digest": TEXT}), {"type": "null"}]},
            "running": {
                "anyOf": [
                    _schema({"epoch_seq": INTEGER, "revision": INTEGER, "digest": TEXT}),
                    {"type": "null"},
                ]
            },
            "in_sync": {"type": "boolean", "description": "it is there and runs what is wanted"},
            "since": {"type": "string", "format": "date-time"},
            "received_at": {"type": "string", "format": "date-time"},
            "freshness": {"type": "string", "examples": ["fresh", "stale (no-beacon)"]},
            "source": {"type": "string", "examples": ["broker", "last-known-good", "defaults"]},
            "overrides": {
                "type": "array", "items": TEXT,
                "description": "keys that the instance's own environment decides",
            },
            "last_attempt": {
                "anyOf": [
                    _schema(
                        {
                            "revision": INTEGER, "stage": TEXT, "reason": _TEXT_OR_NULL,
                            "deaths": {**INTEGER, "description": "in a row, within its bake time; left out if none"},
                        },
                        "revision", "stage", "reason",
                    ),
                    {"type": "null"},
                ]
            },
            "library": TEXT,
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
            "broker": {"type": "object", "additionalProperties": TEXT},
            "config_epoch": TEXT,
            "epoch_seq": INTEGER,
            "revision": INTEGER,
            "outbox_depth": INTEGER,
            "actors": {"type": "object", "additionalProperties": TEXT},
            "reasons": {"type": "array", "items": TEXT},
        }
    ),
    "EnrolmentTokenRequest": {
        "type": "object",
        "required": ["service"],
        "additionalProperties": False,
        "properties": {
            "service": NAME,
            "instance": {"anyOf": [NAME, {"type": "null"}], "description": "only this one; else whichever comes"},
            "expires": {**_DURATION, "description": "such as 30m; 1h"},
        },
    },
    "EnrolmentRequest": {
        "type": "object",
        "required": ["token", "service", "instance", "sign_public", "seal_public", "proof"],
        "additionalProperties": False,
        "properties": {
            "token": TEXT,
            "service": NAME,
            "instance": NAME,
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
        {"version": INTEGER, "adopted": {"type": "boolean"}, "roles": OBJECT}
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
            "payloadType": TEXT,
            "payload": TEXT,
            "signatures": {"type": "array", "items": _schema({"keyid": TEXT, "sig": TEXT})},
        }
    ),
}  # fmt: skip
