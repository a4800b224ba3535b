"""Every route with every role, narrowed and not, and without a token: who gets in.

A route that is added to api/server/routes.py fails here until EXPECTED says who may call it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from config_manager.api.server.routes import ROUTES
from config_manager.config.access import Need, Role
from tests.kit.asgi import TOKEN, Caller, running

Body = dict[str, Any] | None
Scope = Literal["anybody", "service", "some", "every"]
"""
anybody   needs no token
service   the path names the service: a token narrowed to others is refused
some      a narrowed token gets in; it sees, or may name, only its own services (tested below)
every     concerns every service: no narrowed token gets in
"""


class Expected(NamedTuple):
    need: Need | None
    scope: Scope


EXPECTED: dict[str, Expected] = {
    "GET /health": Expected(None, "anybody"),
    "GET /metrics": Expected("read", "every"),
    "GET /api/v1/config": Expected("read", "some"),
    "POST /api/v1/config/epoch": Expected("write", "some"),
    "GET /api/v1/config/{service}": Expected("read", "service"),
    "PUT /api/v1/config/{service}": Expected("write", "service"),
    "PATCH /api/v1/config/{service}": Expected("write", "service"),
    "DELETE /api/v1/config/{service}": Expected("write", "service"),
    "GET /api/v1/config/epoch": Expected("read", "some"),
    "PUT /api/v1/config/epoch": Expected("write", "some"),
    "PATCH /api/v1/config/epoch": Expected("write", "some"),
    "DELETE /api/v1/config/epoch": Expected("write", "some"),
    "GET /api/v1/config/{service}/history": Expected("read", "service"),
    "GET /api/v1/config/epoch/history": Expected("read", "some"),
    "GET /api/v1/config/{service}/diff": Expected("read", "service"),
    "GET /api/v1/config/{service}/explain": Expected("read", "service"),
    "POST /api/v1/config/{service}/rollback": Expected("write", "service"),
    "POST /api/v1/config/epoch/rollback": Expected("write", "some"),
    "GET /api/v1/config/search": Expected("read", "some"),
    "PUT /api/v1/config/search": Expected("write", "some"),
    "PATCH /api/v1/config/search": Expected("write", "some"),
    "DELETE /api/v1/config/search": Expected("write", "some"),
    "GET /api/v1/schemas": Expected("read", "some"),
    "GET /api/v1/schemas/{service}": Expected("read", "service"),
    "PUT /api/v1/schemas/{service}": Expected("write", "service"),
    "DELETE /api/v1/schemas/{service}": Expected("write", "service"),
    "GET /api/v1/schemas/{service}/history": Expected("read", "service"),
    "GET /api/v1/schemas/{service}/diff": Expected("read", "service"),
    "GET /api/v1/schemas/{service}/instances": Expected("read", "service"),
    "POST /api/v1/schemas/{service}/adopt": Expected("write", "service"),
    "GET /api/v1/secrets": Expected("secrets", "some"),
    "POST /api/v1/secrets": Expected("secrets", "some"),
    "GET /api/v1/secrets/rotate-key": Expected("admin", "every"),
    "POST /api/v1/secrets/rotate-key": Expected("admin", "every"),
    "GET /api/v1/secrets/{service}/{name}": Expected("secrets", "service"),
    "DELETE /api/v1/secrets/{service}/{name}": Expected("secrets", "service"),
    "POST /api/v1/secrets/{service}/{name}/reveal": Expected("secrets", "service"),
    "GET /api/v1/plans": Expected("read", "some"),
    "POST /api/v1/plans": Expected("write", "some"),
    "GET /api/v1/plans/{id}": Expected("read", "some"),
    "DELETE /api/v1/plans/{id}": Expected("write", "some"),
    "POST /api/v1/plans/{id}/apply": Expected("write", "some"),
    "GET /api/v1/changes": Expected("read", "some"),
    "GET /api/v1/changes/{id}": Expected("read", "some"),
    "GET /api/v1/tokens": Expected("admin", "every"),
    "POST /api/v1/tokens": Expected("admin", "every"),
    "DELETE /api/v1/tokens/{name}": Expected("admin", "every"),
    "GET /api/v1/notifications": Expected("admin", "every"),
    "POST /api/v1/notifications": Expected("admin", "every"),
    "DELETE /api/v1/notifications/{name}": Expected("admin", "every"),
    "POST /api/v1/notifications/{name}/test": Expected("admin", "every"),
    "GET /api/v1/audit": Expected("admin", "every"),
    "GET /api/v1/audit/verify": Expected("admin", "every"),
    "GET /api/v1/audit/export": Expected("admin", "every"),
    "GET /api/v1/reports": Expected("admin", "every"),
    "GET /api/v1/drift": Expected("read", "some"),
    "GET /api/v1/drift/events": Expected("read", "some"),
    "GET /api/v1/status": Expected("read", "some"),
    "GET /api/v1/watch": Expected("read", "some"),
    "DELETE /api/v1/status/{service}/{instance}": Expected("admin", "service"),
    "GET /api/v1/devices": Expected("admin", "every"),
    "POST /api/v1/devices/tokens": Expected("admin", "every"),
    "POST /api/v1/devices/enroll": Expected(None, "anybody"),
    "DELETE /api/v1/devices/{service}/{instance}": Expected("admin", "service"),
    "GET /api/v1/trust/root": Expected(None, "anybody"),
    "GET /api/v1/trust/roots/{version}": Expected(None, "anybody"),
    "POST /api/v1/trust/roots": Expected("admin", "every"),
    "GET /api/v1/trust/pending": Expected("admin", "every"),
    "POST /api/v1/trust/rotate": Expected("admin", "every"),
    "POST /api/v1/trust/signers": Expected("admin", "every"),
    "POST /api/v1/trust/revoke": Expected("admin", "every"),
    "GET /openapi.json": Expected(None, "anybody"),
    "GET /docs": Expected(None, "anybody"),
    "GET /problems/{name}": Expected(None, "anybody"),
}

MAY: dict[Role, set[Need]] = {
    "read": {"read"},
    "write": {"read", "write"},
    "secrets": {"read", "secrets"},
    "admin": {"read", "write", "secrets", "admin"},
}
SERVICE = "stt-worker"
NARROWED = {"full": ["*"], "own": ["stt-*"], "other": ["tts-*"]}
"""full: every service. own: to patterns that SERVICE fits. other: to patterns that it does not fit."""

_FILLED = {"service": SERVICE, "version": "1", "instance": "kitchen"}


def path_of(route: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: _FILLED.get(m[1], "nothing-of-this-name"), route)


def gets_in(expected: Expected, role: Role, narrowed: str) -> bool:
    if expected.need is None:
        return True
    if expected.need not in MAY[role]:
        return False
    match expected.scope:
        case "service":
            return narrowed != "other"
        case "every":
            return narrowed == "full"
        case _:
            return True


class People:
    """A running system, and a token of every kind."""

    def __init__(self, rest: Caller) -> None:
        self.rest = rest
        self.tokens: dict[tuple[Role, str], str] = {}

    async def invite(self) -> None:
        for role in MAY:
            for narrowed, services in NARROWED.items():
                body = {"name": f"{role}-{narrowed}", "role": role, "services": services}
                made = await self.rest.ask("POST", "/api/v1/tokens", body)
                self.tokens[role, narrowed] = made.json["token"]

    async def ask(
        self, role: Role, narrowed: str, method: str, path: str, body: Any = None
    ) -> tuple[int, Any]:
        answer = await self.rest.ask(method, path, body, token=self.tokens[role, narrowed])
        return answer.status, answer.json


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with running(tmp_path) as system:
        people = People(Caller(system))
        await people.invite()
        yield people


def test_every_route_says_here_who_may_call_it() -> None:
    assert {f"{route.method} {route.path}": route.needs for route in ROUTES} == {
        name: expected.need for name, expected in EXPECTED.items()
    }


@pytest.mark.parametrize("name", EXPECTED)
async def test_each_role_gets_in_where_the_table_says_and_nowhere_else(
    people: People, name: str
) -> None:
    expected = EXPECTED[name]
    method, _, route = name.partition(" ")
    path = path_of(route)
    body: Body = None if method == "GET" else {}
    for (role, narrowed), token in people.tokens.items():
        answer = await people.rest.ask(method, path, body, token=token)
        got_in = answer.status not in (401, 403)
        assert got_in == gets_in(expected, role, narrowed), (role, narrowed, answer.body)
        if not got_in:
            assert answer.status == 403
            assert answer.json["type"] == "/problems/forbidden"
    for stranger in (None, "not-a-token", ""):
        answer = await people.rest.ask(method, path, body, token=stranger)
        assert (answer.status not in (401, 403)) == (expected.need is None)
        if expected.need is not None:
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_fast_path_and_quart_ask_the_same(people: People) -> None:
    slow = Caller(people.rest.system, fast_path=False)
    path = f"/api/v1/config/{SERVICE}"
    for method in ("GET", "PUT"):
        for token in people.tokens.values():
            body: Body = None if method == "GET" else {}
            one = await people.rest.ask(method, path, body, token=token)
            other = await slow.ask(method, path, body, token=token)
            assert (one.status in (401, 403)) == (other.status in (401, 403))


# ── narrowing where the path names no service ──────────────────────────────────────────────────


async def test_a_list_shows_a_narrowed_token_its_own_services_alone(people: People) -> None:
    for narrowed, count in (("full", None), ("own", 1), ("other", 1)):
        _, body = await people.ask("read", narrowed, "GET", "/api/v1/config")
        listed = {one["service"] for one in body["services"]}
        assert count is None or len(listed) == count
        assert (SERVICE in listed) == (narrowed != "other")


async def test_an_epoch_takes_only_services_that_are_all_ones_own(people: People) -> None:
    both: Body = {"services": {"stt-worker": {}, "tts-worker": {}}}
    status, problem = await people.ask("write", "own", "POST", "/api/v1/config/epoch", both)
    assert (status, "tts-worker" in problem["detail"]) == (403, True)
    assert people.rest.system.view.committed.revision == 0
    alone: Body = {"services": {"stt-worker": {}}}
    assert (await people.ask("write", "own", "POST", "/api/v1/config/epoch", alone))[0] == 200


async def test_a_secret_is_set_only_where_it_is_ones_own(people: People) -> None:
    body = {"service": "door", "name": "pin", "value": "1234"}
    assert (await people.ask("secrets", "own", "POST", "/api/v1/secrets", body))[0] == 403
    assert (await people.ask("admin", "other", "POST", "/api/v1/secrets", body))[0] == 403
    assert (await people.ask("secrets", "full", "POST", "/api/v1/secrets", body))[0] == 201


async def test_a_status_can_be_asked_for_only_of_ones_own(people: People) -> None:
    path = "/api/v1/status?service=" + SERVICE
    assert (await people.ask("read", "own", "GET", path))[0] == 200
    assert (await people.ask("read", "other", "GET", path))[0] == 403


async def test_a_refusal_tells_nothing_of_whether_the_service_exists(people: People) -> None:
    assert (await people.rest.ask("PUT", "/api/v1/config/door", {}, token=TOKEN)).status == 201
    for path in ("/api/v1/config/door", "/api/v1/config/no-such-door"):
        status, problem = await people.ask("read", "own", "GET", path)
        assert status == 403
        assert problem["detail"].replace("no-such-door", "door").endswith("not for door")
