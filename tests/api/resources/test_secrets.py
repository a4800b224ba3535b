"""Secrets over REST: set, listed, deleted; shown only for a reason that is on record first."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
import trio.testing
from pydantic import SecretStr

from config_manager.actors.actor import Context
from config_manager.actors.messages import Write
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import running_system
from config_manager.api.server.routes import ROUTES
from config_manager.config.names import Epoch
from config_manager.config.secret import Secret
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.intents import SetSecret
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.sql.sql_store import SqlStore
from config_manager.storage.state import Commit, Committed, RegistryRow
from config_manager.storage.store import DatabaseUnavailable, DiskFull, Finish
from tests.kit.asgi import TOKEN, Answer, Caller
from tests.kit.stores import committed_in

SECRETS = "/api/v1/secrets"
PIN = SECRETS + "/door/pin"
VALUE = "conspicuous-1234"
BECAUSE = {"reason": "the lock was changed"}


class Watched(MemoryStore):
    """A store whose commit can be held up, or fail."""

    def __init__(self) -> None:
        super().__init__(Epoch(1, "00000000-0000-4000-8000-000000000000"))
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.committing = threading.Event()
        self.refuse: DatabaseUnavailable | None = None

    def begin(self, changes: Sequence[Commit]) -> Finish:
        keep = super().begin(changes)

        def finish() -> None:
            self.committing.set()
            if not self.may_commit.wait(10):
                raise AssertionError("held up for 10 s")
            if self.refuse is not None:
                raise self.refuse
            keep()

        return finish


class House:
    """The application, and the store under it."""

    def __init__(self, rest: Caller, store: Watched) -> None:
        self.rest = rest
        self.store = store
        self.ask = rest.ask

    async def set(self, value: str = VALUE, service: str = "door", name: str = "pin") -> Answer:
        body = {"service": service, "name": name, "value": value}
        answer = await self.ask("POST", SECRETS, body)
        assert answer.status == 201, answer.body
        return answer

    async def reveal(self, path: str = PIN, **more: Any) -> Answer:
        return await self.ask("POST", path + "/reveal", {**BECAUSE, **more})

    def audited(self) -> list[dict[str, Any]]:
        return [orjson.loads(row.body) for row in self.store.audit()]


@asynccontextmanager
async def system_on(directory: Path, store: Any) -> AsyncIterator[Caller]:
    settings = Settings(
        data_dir=directory / "data", mqtt_url="none:", bootstrap_token=SecretStr(TOKEN)
    )
    async with running_system(
        settings,
        catalogue=SAMPLE_CATALOGUE,
        transport=AiomqttTransport(),
        world=World(),
        open_store=store,
    ) as system:
        yield Caller(system)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store = Watched()
    async with system_on(tmp_path, lambda *_, **__: store) as rest:
        yield House(rest, store)


# ── revealing ──────────────────────────────────────────────────────────────────────────────────


async def test_a_reveal_shows_the_value_and_the_audit_says_who_when_and_why(house: House) -> None:
    await house.set()
    answer = await house.reveal()
    assert answer.status == 200
    assert answer.json["value"] == VALUE
    assert (answer.json["service"], answer.json["name"], answer.json["version"]) == (
        "door", "pin", 1,
    )  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"
    row = house.audited()[-1]
    assert (row["action"], row["by"], row["reason"]) == (
        "secret.reveal", "bootstrap", "the lock was changed",
    )  # fmt: skip
    assert row["details"] == {"service": "door", "name": "pin", "version": 1}
    assert row["correlation_id"] == answer.headers["x-request-id"]
    assert VALUE not in str(house.audited())


async def test_each_reveal_is_a_row_of_its_own_and_no_revision(house: House) -> None:
    await house.set()
    before = len(house.audited())
    for _ in range(3):
        await house.reveal()
    assert [row["action"] for row in house.audited()[before:]] == ["secret.reveal"] * 3
    assert committed_in(house.store).revision == 1


async def test_an_older_version_can_be_shown_by_its_number(house: House) -> None:
    for value in ("first", "second", "third"):
        await house.set(value)
    assert [(await house.reveal(version=n)).json["value"] for n in (1, 2, 3)] == [
        "first", "second", "third",
    ]  # fmt: skip
    assert (await house.reveal()).json["version"] == 3
    assert (await house.reveal(version=4)).status == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": " \n\t"}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"reason": 7}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({"reason": "because", "version": 0}, "/version"),
        ({"reason": "because", "version": True}, "/version"),
        ({"reason": "because", "version": "1"}, "/version"),
        ({"reason": "because", "version": 1.5}, "/version"),
        ({"reason": "because", "value": "x"}, "/value"),
    ],
)
async def test_without_a_reason_nothing_is_shown_and_nothing_is_audited(
    house: House, body: dict[str, Any], pointer: str
) -> None:
    await house.set()
    before = house.audited()
    answer = await house.ask("POST", PIN + "/reveal", body)
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert VALUE.encode() not in answer.body
    assert house.audited() == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (SECRETS + "/door/other", 404),
        (SECRETS + "/window/pin", 404),
        (SECRETS + "/Door/pin", 400),
        (SECRETS + "/door/%ff", 400),
        (SECRETS + "/door/..%2fpin", 404),
        (SECRETS + "/epoch/pin", 400),
    ],
)
async def test_what_is_not_there_is_not_shown(house: House, path: str, status: int) -> None:
    await house.set()
    for method, at, body in (
        ("POST", path + "/reveal", BECAUSE),
        ("GET", path, None),
        ("DELETE", path, None),
    ):
        assert (await house.ask(method, at, body)).status == status, (method, at)


async def test_the_value_does_not_leave_before_its_audit_row_is_committed(house: House) -> None:
    await house.set()
    answers: list[Answer] = []

    async def reveal() -> None:
        answers.append(await house.reveal())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            house.store.committing.clear()
            house.store.may_commit.clear()
            try:
                nursery.start_soon(reveal)
                await trio.to_thread.run_sync(house.store.committing.wait)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert answers == []
                assert house.audited()[-1]["action"] == "secret"
            finally:
                house.store.may_commit.set()
    assert answers[0].json["value"] == VALUE
    assert house.audited()[-1]["action"] == "secret.reveal"


@pytest.mark.parametrize(
    ("error", "status"), [(DatabaseUnavailable("drill"), 503), (DiskFull("drill"), 507)]
)
async def test_where_the_audit_row_can_not_be_committed_nothing_is_shown(
    house: House, error: DatabaseUnavailable, status: int
) -> None:
    await house.set()
    before = house.audited()
    house.store.refuse = error
    answer = await house.reveal()
    assert answer.status == status
    assert VALUE.encode() not in answer.body
    assert house.audited() == before


async def test_where_sqlcipher_refuses_the_audit_row_nothing_is_shown(tmp_path: Path) -> None:
    stores: list[SqlStore] = []

    def open_store(keys: Any, *, catalogue: Any, world: World) -> SqlStore:
        stores.append(
            SqlStore.open(
                tmp_path / "data" / "config.db",
                keys.db_key,
                vouching=Vouching(keys.instance_key),
                epoch_id=world.randomness.uuid(),
                at="2027-01-15T08:00:00.000Z",
                fresh=not stores,
            )
        )
        return stores[-1]

    async with system_on(tmp_path, open_store) as rest:
        body = {"service": "door", "name": "pin", "value": VALUE}
        assert (await rest.ask("POST", SECRETS, body)).status == 201
        assert (await rest.ask("POST", PIN + "/reveal", BECAUSE)).json["value"] == VALUE
        stores[-1]._writer.execute("PRAGMA query_only = ON")
        answer = await rest.ask("POST", PIN + "/reveal", BECAUSE)
        assert answer.status == 503
        assert VALUE.encode() not in answer.body


async def test_a_row_that_was_altered_is_said_to_be_and_the_service_goes_on(house: House) -> None:
    await house.set()
    (place,) = house.store._secrets
    sealed = house.store._secrets[place]
    house.store._secrets[place] = sealed._replace(ciphertext=bytes(len(sealed.ciphertext)))
    before = house.audited()
    answer = await house.reveal()
    assert (answer.status, answer.json["type"]) == (409, "/problems/secret-unreadable")
    assert house.audited() == before
    await house.set("anew")
    assert (await house.reveal()).json["value"] == "anew"


async def test_a_value_that_is_set_and_revealed_in_one_batch_is_shown(house: House) -> None:
    await house.set("old")
    got: dict[str, Answer] = {}

    async def ask(name: str, *request: Any) -> None:
        got[name] = await house.ask(*request)

    body = {"service": "door", "name": "pin", "value": "new"}
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            house.store.committing.clear()
            house.store.may_commit.clear()
            try:
                nursery.start_soon(ask, "first", "PUT", "/api/v1/config/other", {})
                await trio.to_thread.run_sync(house.store.committing.wait)
                nursery.start_soon(ask, "set", "POST", SECRETS, body)
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.start_soon(ask, "reveal", "POST", PIN + "/reveal", BECAUSE)
                await trio.testing.wait_all_tasks_blocked(0.05)
            finally:
                house.store.may_commit.set()
    assert got["set"].json["version"] == 2
    assert (got["reveal"].json["version"], got["reveal"].json["value"]) == (2, "new")


# ── listing ────────────────────────────────────────────────────────────────────────────────────


async def test_the_list_has_names_versions_and_ages_and_never_a_value(house: House) -> None:
    for value in (VALUE, VALUE + "2"):
        await house.set(value)
    await house.set(VALUE, "window", "alarm")
    answer = await house.ask("GET", SECRETS)
    assert [(e["service"], e["name"], e["version"], e["kept"]) for e in answer.json["secrets"]] == [
        ("door", "pin", 2, 2),
        ("window", "alarm", 1, 1),
    ]
    assert all(0 <= entry["age_s"] < 60 for entry in answer.json["secrets"])
    assert all(entry["rotate"] is None for entry in answer.json["secrets"])
    of_one = await house.ask("GET", SECRETS + "?service=window")
    assert [entry["name"] for entry in of_one.json["secrets"]] == ["alarm"]
    versions = await house.ask("GET", PIN)
    assert [v["version"] for v in versions.json["versions"]] == [1, 2]
    for shown in (answer, of_one, versions):
        assert VALUE.encode() not in shown.body


class Mark:
    """What revoking a device does to what it could read."""

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        row = RegistryRow("secret-mark", "door/pin", {"why": "door/kitchen was revoked"})
        return administered(before, on, "device.revoke", {}, (row,), None)


async def test_a_mark_is_shown_until_the_secret_is_set_anew(house: House) -> None:
    await house.set()
    await house.rest.system.storing.ask(Write(Mark(), Terms("test")), Context("id"))
    assert (await house.ask("GET", PIN)).json["rotate"] == {"why": "door/kitchen was revoked"}
    await house.set("anew")
    assert (await house.ask("GET", PIN)).json["rotate"] is None


# ── deleting ───────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_secret_is_gone_from_everywhere_but_the_masked_history(
    house: House,
) -> None:
    for value in (VALUE, VALUE + "2"):
        await house.set(value)
    answer = await house.ask("DELETE", PIN + "?reason=no+longer+used")
    assert (answer.status, answer.json["deleted"], answer.json["revision"]) == (200, True, 3)
    assert (await house.ask("GET", SECRETS)).json == {"secrets": []}
    assert (await house.reveal()).status == 404
    assert (await house.reveal(version=1)).status == 404
    assert (await house.ask("DELETE", PIN)).status == 404
    assert house.store.secret_versions() == []
    history = (await house.ask("GET", "/api/v1/config/door/history")).json["entries"]
    assert [(e["action"], e["changes"]) for e in history] == [
        ("secret-delete", [{"key": "pin", "old": "********", "new": None, "masked": True}]),
        ("secret", [{"key": "pin", "old": "********", "new": "********", "masked": True}]),
        ("secret", [{"key": "pin", "old": None, "new": "********", "masked": True}]),
    ]
    assert history[0]["reason"] == "no longer used"
    config = (await house.ask("GET", "/api/v1/config/door")).json["config"]
    assert config == {}


async def test_the_version_number_goes_on_after_a_deletion(house: House) -> None:
    for value in ("one", "two"):
        await house.set(value)
    await house.ask("DELETE", PIN)
    assert (await house.set("three")).json["version"] == 3
    assert (await house.reveal()).json["value"] == "three"
    assert (await house.reveal(version=1)).status == 404


async def test_a_deletion_leaves_the_services_values_and_its_other_secrets(house: House) -> None:
    await house.ask("PUT", "/api/v1/config/door", {"volume": 3})
    await house.set()
    await house.set("other", name="code")
    await house.ask("DELETE", PIN)
    state = committed_in(house.store).services["door"]
    assert (state.stored, state.secrets) == ({"volume": 3}, {"code": 1})
    assert (await house.reveal(SECRETS + "/door/code")).json["value"] == "other"


async def test_a_deleted_service_stays_deleted_when_its_secret_goes(house: House) -> None:
    await house.set()
    await house.ask("DELETE", "/api/v1/config/door")
    assert (await house.ask("DELETE", PIN)).status == 200
    assert (await house.ask("GET", "/api/v1/config/door")).status == 404


async def test_a_dry_run_deletes_nothing(house: House) -> None:
    await house.set()
    assert (await house.ask("DELETE", PIN + "?dry_run=true")).json["dry_run"] is True
    assert (await house.reveal()).json["value"] == VALUE


async def test_a_repeated_deletion_with_its_key_answers_the_same_revision(house: House) -> None:
    await house.set()
    once, again = [
        await house.ask("DELETE", PIN, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert (once.status, once.json["revision"]) == (again.status, again.json["revision"])


# ── who may ────────────────────────────────────────────────────────────────────────────────────

CALLS: dict[str, Callable[[House], Any]] = {
    "list": lambda h: h.ask("GET", SECRETS),
    "get": lambda h: h.ask("GET", PIN),
    "reveal": lambda h: h.reveal(),
    "delete": lambda h: h.ask("DELETE", PIN),
}


@pytest.mark.parametrize("call", CALLS)
async def test_without_a_token_nothing_is_said(house: House, call: str) -> None:
    await house.set()
    ask = house.rest.ask

    async def anonymous(*request: Any) -> Answer:
        return await ask(*request, token=None)

    house.ask = anonymous  # type: ignore[assignment]
    assert (await CALLS[call](house)).status == 401


def test_every_call_of_secrets_needs_their_role() -> None:
    needs = {route.needs for route in ROUTES if route.path.startswith(SECRETS)}
    assert needs <= {"secrets", "admin"}


async def test_a_narrowed_token_sees_only_its_own_services_secrets(house: House) -> None:
    await house.set()
    await house.set(service="window", name="alarm")
    wanted = {"name": "doors", "role": "secrets", "services": ["door*"]}
    token = (await house.ask("POST", "/api/v1/tokens", wanted)).json["token"]
    listed = await house.ask("GET", SECRETS, token=token)
    assert [entry["service"] for entry in listed.json["secrets"]] == ["door"]
    assert (await house.ask("GET", SECRETS + "?service=window", token=token)).status == 403
    shown = await house.ask("POST", PIN + "/reveal", BECAUSE, token=token)
    assert shown.json["value"] == VALUE
    assert house.audited()[-1]["by"] == "doors"
    other = SECRETS + "/window/alarm"
    assert (await house.ask("POST", other + "/reveal", BECAUSE, token=token)).status == 403


async def test_a_secret_prints_as_nothing_in_every_message_that_carries_it(house: House) -> None:
    await house.set()
    sealed = house.store.secret_versions()
    write = Write(SetSecret(service="door", name="pin", value=Secret(VALUE)), Terms("x"))
    said = repr(write) + repr(sealed)
    assert VALUE not in said
