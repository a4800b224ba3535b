"""A new key for the secrets while they are used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from pydantic import SecretStr

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import running_system
from config_manager.config.names import Epoch
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.recovery import FILE, Recovery, open_sealed
from config_manager.storage.keys.secret_box import SecretBoxes, key_id_of
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.store import DatabaseUnavailable, DiskFull
from tests.kit.asgi import TOKEN, Caller, running

SECRETS = "/api/v1/secrets"
ROTATE = SECRETS + "/rotate-key"
EPOCH = Epoch(1, "00000000-0000-4000-8000-000000000000")


class Halting(MemoryStore):
    """Refuses to seal the next pages where it is told to; notes how large they were."""

    def __init__(self) -> None:
        super().__init__(EPOCH)
        self.pages: list[int] = []
        self.refuses_from_page = 1_000
        self.refusal: DatabaseUnavailable = DatabaseUnavailable("the disk is away")

    def reseal(self, sealed: Any) -> None:
        if len(self.pages) >= self.refuses_from_page:
            raise self.refusal
        self.pages.append(len(sealed))
        super().reseal(sealed)


def key_in(directory: Path, name: str = "secrets.key") -> bytes:
    return bytes.fromhex((directory / "data" / "keys" / name).read_text())


async def fill(rest: Caller, count: int) -> None:
    for number in range(count):
        body = {"service": "door", "name": "pin", "value": f"value-{number + 1}"}
        assert (await rest.ask("POST", SECRETS, body)).status == 201


async def revealed(rest: Caller, version: int) -> str:
    body = {"reason": "a look", "version": version}
    answer = await rest.ask("POST", SECRETS + "/door/pin/reveal", body)
    assert answer.status == 200, answer.body
    return str(answer.json["value"])


async def until(rest: Caller, state: str) -> dict[str, Any]:
    with trio.fail_after(20):
        while True:
            report: dict[str, Any] = (await rest.ask("GET", ROTATE)).json
            if report["state"] == state:
                return report
            await trio.sleep(0.01)


async def test_every_version_lies_under_the_new_key_and_the_old_one_is_gone(tmp_path: Path) -> None:
    store = Halting()
    async with running(tmp_path, lambda _: store) as system:
        rest = Caller(system)
        before = (await rest.ask("GET", ROTATE)).json
        old = key_in(tmp_path)
        assert (before["state"], before["key_id"]) == ("idle", key_id_of(old))
        await fill(rest, 101)
        begun = await rest.ask("POST", ROTATE + "?reason=somebody+left")
        assert begun.status == 202
        assert begun.json["total"] == 101
        done = await until(rest, "idle")
        new = key_in(tmp_path)
        assert new != old
        assert done["key_id"] == done["new_key_id"] == key_id_of(new)
        assert done["old_key_id"] == key_id_of(old)
        assert (done["done"], done["total"], done["unreadable"]) == (101, 101, 0)
        assert done["correlation_id"] == begun.headers["x-request-id"]
        assert store.pages == [100, 1]
        assert {row.key_id for row in store.secret_versions()} == {key_id_of(new)}
        assert sorted(p.name for p in (tmp_path / "data" / "keys").glob("secrets*")) == [
            "secrets.key"
        ]
        assert (tmp_path / "data" / "keys" / "secrets.key").stat().st_mode & 0o777 == 0o600
        assert [await revealed(rest, n) for n in (1, 101)] == ["value-1", "value-101"]
        rows = [orjson.loads(row.body) for row in store.audit()]
        said = [(r["action"], r["reason"]) for r in rows if r["action"].startswith("secrets.")]
        assert said == [("secrets.rotate-key", "somebody left"), ("secrets.rotate-key-done", None)]


async def test_cut_off_in_the_middle_both_keys_open_and_the_next_start_goes_on(
    tmp_path: Path,
) -> None:
    store = Halting()
    store.refuses_from_page = 1
    async with running(tmp_path, lambda _: store) as system:
        rest = Caller(system)
        await fill(rest, 101)
        old = key_in(tmp_path)
        begun = (await rest.ask("POST", ROTATE)).json
        blocked = await until(rest, "blocked")
        assert (blocked["done"], blocked["total"]) == (100, 101)
        assert blocked["to_do"]
    assert key_in(tmp_path) == old
    store.refuses_from_page = 1_000
    async with running(tmp_path, lambda _: store) as system:
        rest = Caller(system)
        done = await until(rest, "idle")
        assert done["correlation_id"] == begun["correlation_id"]
        assert key_in(tmp_path) != old
        assert [await revealed(rest, n) for n in (1, 101)] == ["value-1", "value-101"]


async def test_while_one_runs_another_post_answers_that_one_and_what_is_set_lies_under_the_new_key(
    tmp_path: Path,
) -> None:
    store = Halting()
    store.refuses_from_page, store.refusal = 0, DiskFull("no space left")
    async with running(tmp_path, lambda _: store) as system:
        rest = Caller(system)
        await fill(rest, 2)
        first = (await rest.ask("POST", ROTATE)).json
        assert "disk is full" in (await until(rest, "blocked"))["to_do"]
        assert "not rotated yet" in "".join((await rest.ask("GET", "/health")).json["reasons"])
        store.refuses_from_page = 1_000
        await fill(rest, 1)
        assert store.secret_versions()[-1].key_id == first["new_key_id"]
        assert await revealed(rest, 1) == "value-1"
        second = await rest.ask("POST", ROTATE)
        assert (second.status, second.json["correlation_id"]) == (202, first["correlation_id"])
        await until(rest, "idle")
        third = (await rest.ask("POST", ROTATE)).json
        assert third["old_key_id"] == first["new_key_id"]
        await until(rest, "idle")
        assert await revealed(rest, 3) == "value-1"


async def test_a_version_that_was_altered_keeps_the_old_key_until_it_is_deleted(
    tmp_path: Path,
) -> None:
    store = Halting()
    async with running(tmp_path, lambda _: store) as system:
        rest = Caller(system)
        await fill(rest, 2)
        old = key_in(tmp_path)
        (one, _) = store.secret_versions()
        store.reseal([one._replace(ciphertext=bytes(len(one.ciphertext)))])
        await rest.ask("POST", ROTATE)
        blocked = await until(rest, "blocked")
        assert (blocked["done"], blocked["unreadable"]) == (1, 1)
        assert "altered" in blocked["to_do"]
        assert key_in(tmp_path) == old
        assert await revealed(rest, 2) == "value-2"
        assert (await rest.ask("DELETE", SECRETS + "/door/pin")).status == 200
        await rest.ask("POST", ROTATE)
        assert (await until(rest, "idle"))["to_do"] is None
        assert key_in(tmp_path) != old


async def test_the_recovery_copy_has_the_new_key_before_its_first_use_and_only_it_at_the_end(
    tmp_path: Path,
) -> None:
    store = Halting()
    store.refuses_from_page = 0
    async with running(tmp_path, lambda _: store) as system:
        rest = Caller(system)
        await fill(rest, 1)
        recovery_key = Recovery(KeyRing.open(tmp_path / "data", World()), World()).begin().reveal()
        await rest.ask("POST", ROTATE)
        await until(rest, "blocked")
        sealed = open_sealed((tmp_path / "data" / FILE).read_bytes(), recovery_key)
        assert sealed["secrets.key"] == key_in(tmp_path)
        assert sealed["secrets.key.new"] == key_in(tmp_path, "secrets.key.new")
        store.refuses_from_page = 1_000
    async with running(tmp_path, lambda _: store) as system:
        await until(Caller(system), "idle")
        now = open_sealed((tmp_path / "data" / FILE).read_bytes(), recovery_key)
        assert now["secrets.key"] == sealed["secrets.key.new"] == key_in(tmp_path)
        assert "secrets.key.new" not in now


async def test_a_recovery_copy_that_was_altered_stops_the_rotation_before_it_begins(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        (tmp_path / "data" / FILE).write_text("{}")
        answer = await rest.ask("POST", ROTATE)
        assert (answer.status, answer.json["type"].rpartition("/")[2]) == (409, "conflict")
        assert FILE in answer.json["detail"]
        assert (await rest.ask("GET", ROTATE)).json["started_at"] is None


async def test_one_that_begins_while_the_last_one_is_tidied_up_keeps_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = SecretBoxes.keep_only
    slowly = 0.1

    def keep_only(boxes: SecretBoxes, key_id: str) -> None:
        time.sleep(slowly)  # in a thread; the other rotation begins meanwhile
        forget(boxes, key_id)

    monkeypatch.setattr(SecretBoxes, "keep_only", keep_only)
    async with running(tmp_path, lambda _: Halting()) as system:
        rest = Caller(system)
        await fill(rest, 1)
        for _ in range(3):
            assert (await rest.ask("POST", ROTATE)).status == 202
            done = await until(rest, "idle")
            assert done["key_id"] == done["new_key_id"]
        assert await revealed(rest, 1) == "value-1"


async def test_a_key_from_a_credentials_directory_is_rotated_to_the_one_that_is_put_beside_it(
    tmp_path: Path,
) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o700)
    store = Halting()

    def put(name: str, digits: str) -> None:
        (given / name).write_text(digits * 32)
        (given / name).chmod(0o600)

    put("secrets.key", "0a")
    settings = Settings(
        data_dir=tmp_path / "data",
        mqtt_url="none:",
        bootstrap_token=SecretStr(TOKEN),
        credentials_dir=given,
    )
    async with running_system(
        settings,
        catalogue=SAMPLE_CATALOGUE,
        transport=AiomqttTransport(),
        world=World(),
        open_store=lambda *_, **__: store,
    ) as system:
        rest = Caller(system)
        await fill(rest, 1)
        refused = await rest.ask("POST", ROTATE)
        assert refused.status == 409
        assert "secrets.key.new" in refused.json["detail"]
        assert [path.name for path in given.iterdir()] == ["secrets.key"]
        put("secrets.key.new", "0a")
        assert (await rest.ask("POST", ROTATE)).status == 409
        put("secrets.key.new", "0b")
        assert (await rest.ask("POST", ROTATE)).status == 202
        done = await until(rest, "idle")
        assert done["key_id"] == key_id_of(b"\x0b" * 32)
        assert "secrets.key.new" in done["to_do"]
        assert (given / "secrets.key").read_text() == "0a" * 32
        assert await revealed(rest, 1) == "value-1"
        assert (await rest.ask("POST", ROTATE)).status == 409
        (given / "secrets.key.new").rename(given / "secrets.key")
        put("secrets.key.new", "0c")
        assert (await rest.ask("POST", ROTATE)).status == 202
        await until(rest, "idle")
        assert await revealed(rest, 1) == "value-1"


@pytest.mark.parametrize("query", ["?wait=confirmed", "?dry_run=true"])
async def test_it_is_asked_for_with_a_reason_and_nothing_else(tmp_path: Path, query: str) -> None:
    async with running(tmp_path) as system:
        assert (await Caller(system).ask("POST", ROTATE + query)).status == 400


async def test_the_same_idempotency_key_begins_one_rotation(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        headers = {"Idempotency-Key": "once"}
        assert (await rest.ask("POST", ROTATE, headers=headers)).status == 202
        done = await until(rest, "idle")
        assert (await rest.ask("POST", ROTATE, headers=headers)).status == 409
        assert (await rest.ask("GET", ROTATE)).json == done
