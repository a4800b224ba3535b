"""Every route, in one table: what the pipeline serves and what OpenAPI describes."""

from __future__ import annotations

from config_manager.api import configs, docs, health, history, secrets, status
from config_manager.api.endpoint import Route

_SERVICE = "/api/v1/config/{service}"

ROUTES = (
    Route("GET", "/health", health.get_health, public=True),
    Route("GET", "/api/v1/config", configs.list_configs),
    Route("POST", "/api/v1/config/epoch", configs.post_epoch),
    Route("GET", _SERVICE, configs.get_config),
    Route("PUT", _SERVICE, configs.put_config),
    Route("PATCH", _SERVICE, configs.patch_config),
    Route("DELETE", _SERVICE, configs.delete_config),
    # `epoch` is a reserved name, so these answer 400 like any other name that is none
    Route("GET", "/api/v1/config/epoch", configs.reserved_name),
    Route("PUT", "/api/v1/config/epoch", configs.reserved_name),
    Route("PATCH", "/api/v1/config/epoch", configs.reserved_name),
    Route("DELETE", "/api/v1/config/epoch", configs.reserved_name),
    Route("GET", _SERVICE + "/history", history.get_history),
    Route("GET", "/api/v1/config/epoch/history", configs.reserved_name),
    Route("POST", "/api/v1/secrets", secrets.post_secret),
    Route("GET", "/api/v1/status", status.get_status),
    Route("GET", "/api/v1/trust/root", health.get_root, public=True),
    Route("GET", "/api/v1/trust/roots/{version}", health.get_root_version, public=True),
    Route("GET", "/openapi.json", docs.get_openapi, public=True),
    Route("GET", "/docs", docs.get_docs, public=True),
    Route("GET", "/problems/{name}", docs.get_problem, public=True),
)
