"""Tokens over REST, on a running system: made, used, expired, revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config.world import parse_rfc3339
from tests.kit.asgi import Answer, Caller, running

TOKENS = "/api/v1/tokens"
DOOR = "/api/v1/config/door"


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Caller]:
    async with running(tmp_path) as system:
        yield Caller(system)


async def make(rest: Caller, **body: Any) -> Answer:
    return await rest.ask("POST", TOKENS, {"name": "ci", "role": "write", **body})


async def names(rest: Caller) -> list[str]:
    return [one["name"] for one in (await rest.ask("GET", TOKENS)).json["tokens"]]


def is_as_described(name: str, body: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": openapi(ROUTES)["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)


async def test_a_made_token_is_shown_once_works_and_its_name_is_who_did_it(rest: Caller) -> None:
    made = await make(rest, services=["d*"], expires="90d")
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    is_as_described("MadeToken", made.json)
    assert made.json["services"] == ["d*"]
    lasts = parse_rfc3339(made.json["expires_at"]) - parse_rfc3339(made.json["created_at"])
    assert round(lasts) == 90 * 86_400
    written = await rest.ask("PUT", DOOR, {}, token=made.json["token"])
    assert (written.status, written.json["updated_by"]) == (201, "ci")
    listed = await rest.ask("GET", TOKENS)
    is_as_described("Tokens", listed.json)
    assert made.json["token"].encode() not in listed.body
    shown = {one["name"]: one for one in listed.json["tokens"]}
    assert (shown["ci"]["created_by"], shown["ci"]["expired"]) == ("bootstrap", False)


async def test_without_services_and_an_end_it_is_for_all_and_for_ever(rest: Caller) -> None:
    made = (await make(rest)).json
    assert (made["services"], made["expires_at"]) == (["*"], None)


async def test_a_revoked_token_is_unknown_to_the_next_request(rest: Caller) -> None:
    token = (await make(rest)).json["token"]
    assert (await rest.ask("PUT", DOOR, {}, token=token)).status == 201
    revoked = await rest.ask("DELETE", TOKENS + "/ci")
    assert (revoked.status, revoked.json["name"]) == (200, "ci")
    is_as_described("RevokedToken", revoked.json)
    assert (await rest.ask("PUT", DOOR, {}, token=token)).status == 401
    assert await names(rest) == ["bootstrap"]
    assert (await rest.ask("DELETE", TOKENS + "/ci")).status == 404


async def test_the_name_of_a_token_is_taken_until_it_is_revoked(rest: Caller) -> None:
    first = (await make(rest)).json["token"]
    taken = await make(rest, role="admin")
    assert (taken.status, taken.json["type"]) == (409, "/problems/conflict")
    assert (await rest.ask("GET", TOKENS, token=first)).status == 403


async def test_nobody_locks_himself_out(rest: Caller) -> None:
    assert (await rest.ask("DELETE", TOKENS + "/bootstrap")).status == 409
    other = (await make(rest, role="admin")).json["token"]
    assert (await rest.ask("DELETE", TOKENS + "/bootstrap", token=other)).status == 200
    assert (await rest.ask("GET", TOKENS)).status == 401


async def test_a_narrowed_administrator_makes_no_tokens(rest: Caller) -> None:
    narrow = (await make(rest, role="admin", services=["d*"])).json["token"]
    for method, path in (("GET", TOKENS), ("POST", TOKENS), ("DELETE", TOKENS + "/ci")):
        answer = await rest.ask(method, path, {"name": "x", "role": "admin"}, token=narrow)
        assert answer.status == 403
    assert (await rest.ask("PUT", DOOR, {}, token=narrow)).status == 201


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"name": "A"}, ["/name"]),
        ({"name": "admin"}, ["/name"]),
        ({"name": None}, ["/name"]),
        ({"role": "root"}, ["/role"]),
        ({"role": ["read"]}, ["/role"]),
        ({"services": []}, ["/services"]),
        ({"services": "tts-*"}, ["/services"]),
        ({"services": None}, ["/services"]),
        ({"services": ["a"] * 65}, ["/services"]),
        ({"services": ["tts-*", "T", 3]}, ["/services/1", "/services/2"]),
        ({"expires": "soon"}, ["/expires"]),
        ({"expires": 90}, ["/expires"]),
        ({"token": "mine", "name": ""}, ["/token", "/name"]),
    ],
)
async def test_each_thing_that_is_wrong_is_named_and_nothing_is_made(
    rest: Caller, body: dict[str, Any], pointers: list[str]
) -> None:
    refused = await make(rest, **body)
    assert refused.status == 422
    assert [error["pointer"] for error in refused.json["errors"]] == pointers
    assert await names(rest) == ["bootstrap"]


async def test_a_reason_is_for_the_audit_and_has_a_limit(rest: Caller) -> None:
    assert (await rest.ask("DELETE", TOKENS + "/x?reason=" + "a" * 501)).status == 400
    assert (await rest.ask("DELETE", TOKENS + "/x?dry_run=true")).status == 400
