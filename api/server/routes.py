"""Every route, and what its caller must be allowed. A new call is one line here, and its handler's module."""

from __future__ import annotations

from config_manager.api.pages import docs as docs_page
from config_manager.api.resources import (
    audit,
    configs,
    devices,
    docs,
    health,
    history,
    schema_changes,
    schemas,
    secrets,
    secrets_rotation,
    status,
    tokens,
    trust,
)
from config_manager.api.rest.operations import Route

_SERVICE = "/api/v1/config/{service}"
_SCHEMAS = "/api/v1/schemas"
_SECRETS = "/api/v1/secrets"

ROUTES = (
    Route("GET", "/health", health.health, None),
    Route("GET", "/api/v1/config", configs.list_configs, "read"),
    Route("POST", "/api/v1/config/epoch", configs.new_epoch, "write"),
    Route("GET", _SERVICE, configs.get_config, "read"),
    Route("PUT", _SERVICE, configs.put_config, "write"),
    Route("PATCH", _SERVICE, configs.patch_config, "write"),
    Route("DELETE", _SERVICE, configs.delete_config, "write"),
    # `epoch` is a reserved name, so these answer 400 like any invalid name
    Route("GET", "/api/v1/config/epoch", configs.reserved_name, "read"),
    Route("PUT", "/api/v1/config/epoch", configs.reserved_name, "write"),
    Route("PATCH", "/api/v1/config/epoch", configs.reserved_name, "write"),
    Route("DELETE", "/api/v1/config/epoch", configs.reserved_name, "write"),
    Route("GET", _SERVICE + "/history", history.get_history, "read"),
    Route("GET", "/api/v1/config/epoch/history", configs.reserved_name, "read"),
    Route("GET", _SCHEMAS, schemas.list_schemas, "read"),
    Route("GET", _SCHEMAS + "/{service}", schemas.get_schema, "read"),
    Route("PUT", _SCHEMAS + "/{service}", schema_changes.put_schema, "write"),
    Route("DELETE", _SCHEMAS + "/{service}", schema_changes.delete_schema, "write"),
    Route("GET", _SCHEMAS + "/{service}/history", schemas.schema_history, "read"),
    Route("GET", _SCHEMAS + "/{service}/diff", schemas.schema_diff, "read"),
    Route("GET", _SCHEMAS + "/{service}/instances", schemas.instance_schemas, "read"),
    Route("POST", _SCHEMAS + "/{service}/adopt", schema_changes.adopt_schema, "write"),
    Route("GET", "/api/v1/tokens", tokens.list_tokens, "admin"),
    Route("POST", "/api/v1/tokens", tokens.create_token, "admin"),
    Route("DELETE", "/api/v1/tokens/{name}", tokens.revoke_token, "admin"),
    Route("GET", _SECRETS, secrets.list_secrets, "secrets"),
    Route("POST", _SECRETS, secrets.set_secret, "secrets"),
    Route("GET", _SECRETS + "/rotate-key", secrets_rotation.secrets_key_rotation, "admin"),
    Route("POST", _SECRETS + "/rotate-key", secrets_rotation.rotate_secrets_key, "admin"),
    Route("GET", _SECRETS + "/{service}/{name}", secrets.get_secret, "secrets"),
    Route("DELETE", _SECRETS + "/{service}/{name}", secrets.delete_secret, "secrets"),
    Route("POST", _SECRETS + "/{service}/{name}/reveal", secrets.reveal_secret, "secrets"),
    Route("GET", "/api/v1/audit", audit.get_audit, "admin"),
    Route("GET", "/api/v1/audit/verify", audit.verify_audit, "admin"),
    Route("GET", "/api/v1/audit/export", audit.export_audit, "admin"),
    Route("GET", "/api/v1/devices", devices.list_devices, "admin"),
    Route("POST", "/api/v1/devices/tokens", devices.allow_enrolment, "admin"),
    Route("POST", "/api/v1/devices/enroll", devices.enrol, None),
    Route("DELETE", "/api/v1/devices/{service}/{instance}", devices.revoke_device, "admin"),
    Route("GET", "/api/v1/status", status.status, "read"),
    Route("DELETE", "/api/v1/status/{service}/{instance}", status.forget_instance, "admin"),
    Route("GET", "/api/v1/trust/root", trust.trust_root, None),
    Route("GET", "/api/v1/trust/roots/{version}", trust.trust_root_version, None),
    Route("POST", "/api/v1/trust/roots", trust.apply_root, "admin"),
    Route("GET", "/api/v1/trust/pending", trust.pending_root, "admin"),
    Route("POST", "/api/v1/trust/rotate", trust.rotate_key, "admin"),
    Route("POST", "/api/v1/trust/signers", trust.add_signer, "admin"),
    Route("POST", "/api/v1/trust/revoke", trust.revoke_key, "admin"),
    Route("GET", "/openapi.json", docs.openapi, None),
    Route("GET", "/docs", docs_page.page, None),
    Route("GET", "/problems/{name}", docs.problem, None),
)
