"""`GET /api/v1/status` on a running system without a broker: receipts are handed to its board."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import SecretStr

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import System, running_system
from config_manager.api.rest.openapi import openapi
from config_manager.api.rest.request import Api, ApiRequest
from config_manager.api.server.pipeline import answer
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.names import Epoch
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World, rfc3339
from config_manager.storage.memory_store import MemoryStore
from tests.kit.documents import make_receipt

TOKEN = "a-token"
NOW = 1_800_000_000.0
STATUS = "/api/v1/status"


class Rest:
    """A running system, and its REST pipeline without the HTTP."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._api = Api(system, dev=False)

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = TOKEN
    ) -> tuple[int, Any]:
        headers = [(b"content-type", b"application/json")]
        if token is not None:
            headers.append((b"authorization", b"Bearer " + token.encode()))
        at, _, query = path.partition("?")
        content = b"" if body is None else json.dumps(body).encode()
        request = ApiRequest(method, at.encode(), query.encode(), headers, "192.0.2.1", content)
        given = await answer(request, self._api)
        return given.status, json.loads(given.body)

    async def put(self, service: str, values: dict[str, Any]) -> Running:
        """Write; what an instance that runs it would report."""
        status, _ = await self.ask("PUT", f"/api/v1/config/{service}", values)
        assert status in (200, 201)
        state = self.system.view.committed.services[service]
        return Running(state.epoch.seq, state.revision, state.digest)

    def report(
        self, running: Running | None, service: str = "stt-worker", **fields: Any
    ) -> Receipt:
        receipt = make_receipt(running, **{"service": service, "at": rfc3339(NOW), **fields})
        envelope = Envelope(wire.RECEIPT, receipt.to_bytes(), (Signature("a" * 64, bytes(64)),))
        topic = wire.status_topic(service, receipt.instance)
        self.system.statuses.take("A", topic, envelope.to_bytes(), retained=False, now=NOW)
        return receipt

    async def only(self) -> dict[str, Any]:
        status, body = await self.ask("GET", STATUS)
        assert status == 200
        (instance,) = body["instances"]
        shown: dict[str, Any] = instance
        return shown


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Rest]:
    settings = Settings(data_dir=directory, mqtt_url="none:", bootstrap_token=SecretStr(TOKEN))
    async with running_system(
        settings,
        catalogue=SAMPLE_CATALOGUE,
        transport=AiomqttTransport(),
        world=World(),
        open_store=lambda keys, *, catalogue, world: MemoryStore(Epoch(1, world.randomness.uuid())),
    ) as system:
        yield Rest(system)


def matches_openapi(body: Any) -> None:
    document = openapi(ROUTES)
    schema = {"$ref": "#/components/schemas/Status", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)


async def test_nobody_has_reported(tmp_path: Path) -> None:
    async with running(tmp_path) as rest:
        assert await rest.ask("GET", STATUS) == (200, {"instances": [], "refused": 0})


async def test_everything_that_a_receipt_says_is_shown_and_is_what_openapi_says(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as rest:
        runs = await rest.put("stt-worker", {"whisper_model": "small.en"})
        rest.report(
            runs,
            last_attempt=Attempt(9, "refused", "model: too large"),
            overrides=("language",),
            correlation_id="change-1",
        )
        rest.report(None, "nobody-wrote-it", source="defaults")
        rest.system.statuses.take("A", wire.status_topic("a", "b"), b"x", retained=False, now=NOW)
        status, body = await rest.ask("GET", STATUS)
        matches_openapi(body)
        assert status == 200
        assert body["refused"] == 1
        assert body["instances"][1] == {
            "service": "stt-worker",
            "instance": "kitchen",
            "enrolled": False,
            "wanted": {"revision": runs.revision, "digest": runs.digest},
            "running": {"epoch_seq": 1, "revision": runs.revision, "digest": runs.digest},
            "in_sync": True,
            "state": "claimed",
            "why": "it is not enrolled: nothing proves what it says",
            "state_since": body["instances"][1]["state_since"],
            "since": rfc3339(NOW),
            "received_at": rfc3339(NOW),
            "freshness": "fresh",
            "source": "broker",
            "overrides": ["language"],
            "last_attempt": {"revision": 9, "stage": "refused", "reason": "model: too large"},
            "library": "a test",
            "gone": False,
            "correlation_id": "change-1",
        }


async def test_in_sync_is_running_exactly_what_is_wanted_now(tmp_path: Path) -> None:
    async with running(tmp_path) as rest:
        rest.report(None, seq=1, source="defaults")
        assert (await rest.only())["in_sync"], "nothing is wanted and nothing runs"
        first = await rest.put("stt-worker", {"whisper_model": "small.en"})
        assert not (await rest.only())["in_sync"]
        rest.report(first, seq=2)
        assert (await rest.only())["in_sync"]
        second = await rest.put("stt-worker", {"whisper_model": "base.en"})
        assert not (await rest.only())["in_sync"]
        rest.report(Running(second.epoch_seq, second.revision, first.digest), seq=3)
        assert not (await rest.only())["in_sync"], "the number without the content"
        rest.report(Running(second.epoch_seq + 1, second.revision, second.digest), seq=4)
        assert not (await rest.only())["in_sync"], "of another epoch"
        rest.report(second, seq=5)
        assert (await rest.only())["in_sync"]
        rest.report(second, seq=6, gone=True)
        gone = await rest.only()
        assert (gone["in_sync"], gone["gone"]) == (False, True)


async def test_after_a_deletion_nothing_is_wanted_and_who_runs_on_is_not_in_sync(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as rest:
        rest.report(await rest.put("stt-worker", {}))
        status, _ = await rest.ask("DELETE", "/api/v1/config/stt-worker")
        assert status == 200
        shown = await rest.only()
        assert (shown["wanted"], shown["in_sync"]) == (None, False)
        matches_openapi({"instances": [shown], "refused": 0})


async def test_instances_are_sorted_and_one_service_can_be_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as rest:
        names = [("router", "b"), ("stt-worker", "a"), ("router", "a")]
        for service, instance in names:
            rest.report(None, service, instance=instance)
        for path, wanted in (
            (STATUS, sorted(names)),
            (f"{STATUS}?service=router", [("router", "a"), ("router", "b")]),
            (f"{STATUS}?service=unheard-of", []),
        ):
            status, body = await rest.ask("GET", path)
            assert status == 200
            assert [(i["service"], i["instance"]) for i in body["instances"]] == wanted


async def test_a_narrowed_token_sees_the_instances_of_its_own_services_alone(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as rest:
        for service in ("router", "stt-worker", "tts-worker"):
            rest.report(None, service)
        body = {"name": "ci", "role": "read", "services": ["*-worker", "nobody"]}
        _, made = await rest.ask("POST", "/api/v1/tokens", body)
        _, shown = await rest.ask("GET", STATUS, token=made["token"])
        assert [i["service"] for i in shown["instances"]] == ["stt-worker", "tts-worker"]


@pytest.mark.parametrize(
    "query", ["service=epoch", "service=A", "service=", "servce=a", "service=a&service=b"]
)
async def test_a_query_that_is_none_is_400(tmp_path: Path, query: str) -> None:
    async with running(tmp_path) as rest:
        status, problem = await rest.ask("GET", f"{STATUS}?{query}")
        assert (status, problem["status"]) == (400, 400)


async def test_a_token_is_needed_and_nothing_but_reading_is_possible(tmp_path: Path) -> None:
    async with running(tmp_path) as rest:
        rest.report(None)
        for token in (None, "another"):
            status, body = await rest.ask("GET", STATUS, token=token)
            assert (status, "instances" in body) == (401, False)
        for method in ("PUT", "POST", "DELETE"):
            assert (await rest.ask(method, STATUS))[0] == 405
