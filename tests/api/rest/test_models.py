"""Bodies and answers are what their models say: every answer, to its last member, whichever way it came."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import traceback
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from nacl.signing import SigningKey

from config_manager.api.resources.devices import EnrolmentRequest, EnrolmentToken
from config_manager.api.resources.secrets import SecretRequest, SecretValue
from config_manager.api.resources.tokens import MadeToken
from config_manager.api.rest.models import read
from config_manager.api.rest.openapi import openapi
from config_manager.api.rest.request import ApiRequest
from config_manager.api.server.paths import find
from config_manager.api.server.routes import ROUTES
from config_manager.config.errors import InvalidValues
from tests.kit.asgi import Caller, running

A, STT = "/api/v1/config/a", "/api/v1/config/stt-worker"
SECRETS, TRUST = "/api/v1/secrets", "/api/v1/trust"
MERGE = {"Content-Type": "application/merge-patch+json"}
KEY = base64.b64encode(bytes(range(32))).decode()

CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", A, None),  # 404
    ("PUT", A + "?dry_run=true", {"x": 1}),
    ("PUT", A, {"x": 1, "y": None, "z": [1.5, {"a": "é"}]}),
    ("PUT", A, {"x": 2}),
    ("PUT", STT, {"vad_threshold": 0.25}),
    ("PATCH", A, {"w": 3}),
    ("PATCH", A + "?dry_run=true", {"x": None}),
    ("GET", A, None),
    ("GET", A + "?view=stored", None),
    ("GET", STT, None),
    ("GET", "/api/v1/config/llm-worker", None),
    ("GET", "/api/v1/config", None),
    ("POST", "/api/v1/config/epoch", {"services": {"b": {"x": 1}}}),
    ("POST", "/api/v1/config/epoch?dry_run=true", {"services": {"b": {"x": 2}}}),
    ("POST", SECRETS + "?dry_run=true", {"service": "a", "name": "pin", "value": "1"}),
    ("POST", SECRETS, {"service": "a", "name": "pin", "value": "1"}),
    ("GET", SECRETS, None),
    ("GET", SECRETS + "/a/pin", None),
    ("POST", SECRETS + "/a/pin/reveal", {"reason": "a test"}),
    ("DELETE", SECRETS + "/a/pin?dry_run=true", None),
    ("DELETE", SECRETS + "/a/pin", None),
    ("GET", SECRETS + "/rotate-key", None),
    ("POST", SECRETS + "/rotate-key", None),
    ("GET", A + "/history", None),
    ("GET", "/api/v1/changes", None),
    ("GET", "/api/v1/changes?limit=1", None),
    ("GET", "/api/v1/changes/1", None),
    ("DELETE", A + "?dry_run=true", None),
    ("DELETE", A, None),
    ("POST", "/api/v1/tokens", {"name": "ci", "role": "read", "expires": "1h"}),
    ("GET", "/api/v1/tokens", None),
    ("DELETE", "/api/v1/tokens/ci", None),
    ("POST", "/api/v1/devices/tokens", {"service": "a"}),
    ("GET", "/api/v1/devices", None),
    ("GET", "/api/v1/status", None),
    ("GET", "/api/v1/audit", None),
    ("GET", "/api/v1/audit/verify", None),
    ("GET", "/api/v1/audit/export", None),
    ("GET", TRUST + "/pending", None),
    ("GET", TRUST + "/root", None),
    ("GET", TRUST + "/roots/1", None),
    ("POST", TRUST + "/rotate", {"role": "beacon"}),
    ("GET", "/problems/busy", None),
    # refused
    ("POST", SECRETS, {"service": "a"}),
    ("PUT", A, {"X": 1}),
]


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Caller]:
    async with running(tmp_path) as system:
        yield Caller(system)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_every_answer_has_the_members_of_its_model_and_no_others(
    tmp_path: Path, fast_path: bool
) -> None:
    described = closed(openapi(ROUTES))
    async with running(tmp_path) as system:
        rest = Caller(system, fast_path=fast_path)
        for method, target, body in CALLS:
            answer = await rest.ask(
                method, target, body, headers=MERGE if method == "PATCH" else {}
            )
            route = find(target.partition("?")[0].encode()).routes[method]
            operation = described["paths"][route.path][method.lower()]
            if answer.headers["content-type"] == "application/problem+json":
                schema = {"$ref": "#/components/schemas/Problem"}
            else:
                content = operation["responses"][str(answer.status)]["content"]
                schema = content["application/json"]["schema"]
            whole = {**schema, "components": described["components"]}
            jsonschema.Draft202012Validator(whole).validate(answer.json), (method, target)


IN_ORDER: list[tuple[str, str, Any, str]] = [
    (
        "POST",
        "/api/v1/config/epoch",
        {"services": {"a": {"x": 1}}},
        "config_epoch epoch_seq revision services correlation_id propagation",
    ),
    (
        "POST",
        "/api/v1/config/epoch?dry_run=true",
        {"services": {"a": {"x": 1}}},
        "config_epoch epoch_seq revision services dry_run changes effective instances",
    ),
    (
        "POST",
        SECRETS,
        {"service": "a", "name": "pin", "value": "1"},
        "service name version revision updated_at correlation_id propagation",
    ),
    ("GET", SECRETS + "/a/pin", None, "service name version kept updated_at age_s rotate versions"),
    (
        "DELETE",
        SECRETS + "/a/pin",
        None,
        "service name deleted revision updated_at correlation_id propagation",
    ),
    (
        "DELETE",
        A,
        None,
        (
            "service deleted version revision config_epoch epoch_seq updated_at updated_by "
            "correlation_id propagation"
        ),
    ),
]


async def test_members_stand_in_the_order_of_earlier_versions(rest: Caller) -> None:
    for method, target, body, members in IN_ORDER:
        answer = await rest.ask(method, target, body)
        assert list(answer.json) == members.split(), (method, target)
        for version in answer.json.get("versions", ()):
            assert list(version) == ["version", "updated_at", "age_s"]


def closed(schema: Any) -> Any:
    """Without members that it does not name."""
    if isinstance(schema, dict):
        more = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
        return {name: closed(value) for name, value in schema.items()} | more
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        (TRUST + "/rotate", {"role": "x", "overlap": 1, "z/": 0}, ["/z~1", "/role", "/overlap"]),
        (TRUST + "/signers", {"threshold": "2"}, ["/public", "/threshold"]),
        (TRUST + "/revoke", {}, ["/keyid"]),
        (
            "/api/v1/devices/enroll",
            {"token": 1, "service": "a", "instance": "k", "sign_public": KEY[1:], "proof": ""},
            ["/token", "/sign_public", "/seal_public", "/proof"],
        ),
        (
            "/api/v1/tokens",
            {"name": "-", "services": ["a", 1, "B"], "expires": "soon"},
            ["/name", "/role", "/services/1", "/services/2", "/expires"],
        ),
        (
            "/api/v1/config/epoch",
            {"services": {"a": 1, "b/": 2}, "reason": 3},
            ["/services/a", "/services/b~1", "/reason"],
        ),
    ],
)
async def test_every_member_that_is_wrong_is_named(
    rest: Caller, path: str, body: dict[str, Any], pointers: list[str]
) -> None:
    answer = await rest.ask("POST", path, body)
    assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-values")
    assert [error["pointer"] for error in answer.json["errors"]] == pointers


async def test_a_name_that_is_none_is_refused_as_that_if_it_is_the_first_thing_that_is_wrong(
    rest: Caller,
) -> None:
    async def ask(body: dict[str, Any]) -> str:
        return str((await rest.ask("POST", "/api/v1/devices/tokens", body)).json["type"])

    assert await ask({"service": "BAD", "expires": "soon"}) == "/problems/invalid-name"
    assert await ask({"service": 1, "instance": "BAD"}) == "/problems/invalid-values"
    assert await ask({"service": "BAD", "more": 1}) == "/problems/invalid-values"


@pytest.mark.parametrize("path", ["/api/v1/devices/enroll", "/api/v1/tokens"])
async def test_of_many_unknown_members_only_some_are_named(rest: Caller, path: str) -> None:
    body = {f"{number:x}": 0 for number in range(1_500)}
    answer = await rest.ask("POST", path, body)  # the first one takes no token
    pointers = [error["pointer"] for error in answer.json["errors"]]
    assert pointers[:64] == [f"/{number:x}" for number in range(64)]
    assert len(pointers) <= 64 + 6
    assert len(answer.body) < len(json.dumps(body))


def test_a_secret_is_not_in_the_repr_of_its_model() -> None:
    secret = "cfgmgr_distinctive"
    names = {"service": "a", "instance": "k", "name": "ci", "updated_at": "now", "version": 1}
    times = {"created_at": "now", "expires_at": "then"}
    usable = base64.b64encode(SigningKey(bytes(32)).verify_key.encode()).decode()
    proof = base64.b64encode(bytes(64)).decode()
    keys = {"sign_public": usable, "seal_public": KEY, "proof": proof}
    token = {**names, **times, "role": "read", "services": ["*"], "token": secret}
    asked = {"token": secret, "service": "a", "instance": "k", **keys}
    shown = [
        SecretValue.model_validate({**names, "value": secret}),
        MadeToken.model_validate(token),
        EnrolmentToken.model_validate(token),
        EnrolmentRequest.model_validate(asked),
    ]
    assert [repr(model) for model in shown if secret in repr(model)] == []
    assert all(secret in json.dumps(model.model_dump(), default=repr) for model in shown)


def test_a_refused_body_is_not_in_what_is_raised() -> None:
    body = json.dumps({"service": 1, "name": 2, "value": "sk-distinctive"}).encode()
    headers = [(b"content-type", b"application/json")]
    with pytest.raises(InvalidValues) as caught:
        read(ApiRequest("POST", b"/", b"", headers, None, body), SecretRequest)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "distinctive" not in "".join(traceback.format_exception(caught.value))


# ── the description ────────────────────────────────────────────────────────────────────────────


RELEASED = Path(__file__).resolve().parents[2] / "data"
DESCRIBED = """
import json
try:
    from config_manager.api.openapi import openapi  # until 0.3.0
except ModuleNotFoundError:
    from config_manager.api.rest.openapi import openapi
    from config_manager.api.server.routes import ROUTES
    print(json.dumps(openapi(ROUTES)))
else:
    print(json.dumps(openapi()))
"""


@pytest.mark.parametrize(
    "wheel", sorted(RELEASED.glob("*/*.whl")), ids=lambda path: path.parent.name
)
def test_nothing_that_a_released_version_described_is_lost(wheel: Path, tmp_path: Path) -> None:
    # unpacked: from within the wheel Python would import today's code
    zipfile.ZipFile(wheel).extractall(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", DESCRIBED], check=True, env=env, capture_output=True, cwd="/"
    )
    before, now = set(named(json.loads(said.stdout))), set(named(openapi(ROUTES)))
    assert len(before) > 300
    assert before - now == set()


def named(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every operation, parameter, status, media type, schema and member."""
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            yield path, verb, operation["operationId"]
            for parameter in operation.get("parameters", ()):
                yield path, verb, parameter["in"], parameter["name"]
            for status, response in operation["responses"].items():
                yield path, verb, status, *response.get("content", ())
            yield path, verb, "body", *operation.get("requestBody", {"content": ()})["content"]
    for name, schema in document["components"]["schemas"].items():
        yield ("schema", name)
        for member in schema.get("properties", ()):
            yield "schema", name, member
        for member in schema.get("required", ()):
            yield "schema", name, "required", member


def test_every_operation_parameter_answer_and_schema_says_what_it_is() -> None:
    document = openapi(ROUTES)
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            assert operation["summary"], (path, verb)
            assert operation["description"], (path, verb)
            assert set(operation["tags"]) <= tags, (path, verb)
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (path, verb, parameter["name"])
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
    for status, response in document["components"]["responses"].items():
        assert "`" in response["description"], f"{status} names its problems"
    assert {tag for one in operations_of(document) for tag in one["tags"]} == tags


def operations_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for operations in document["paths"].values() for one in operations.values()]


def test_no_schema_contains_itself_and_no_boolean_is_a_constant() -> None:
    """Generators make nothing usable of either."""
    schemas = openapi(ROUTES)["components"]["schemas"]

    def named_in(schema: Any, seen: tuple[str, ...]) -> None:
        if isinstance(schema, list):
            for one in schema:
                named_in(one, seen)
        elif isinstance(schema, dict):
            assert not isinstance(schema.get("const"), bool), seen
            for member, value in schema.items():
                if member == "$ref":
                    name = value.rpartition("/")[2]
                    assert name not in seen, seen
                    named_in(schemas[name], (*seen, name))
                else:
                    named_in(value, seen)

    for name, schema in schemas.items():
        named_in(schema, (name,))
