"""Instances' schemas: kept, adopted by themselves where that breaks nothing, and adapted to."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey
from pydantic import SecretStr

from config_manager.actors import learning_schemas
from config_manager.actors.system import System, running_system
from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Receipt
from config_manager.config.names import Epoch
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.strict_json import dumps_sorted
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World
from config_manager.storage.decisions.shapes import INSTANCE_SCHEMA, row
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.memory_store import MemoryStore
from tests.actors.test_delivering import GOOD, enrol
from tests.actors.test_statuses import make
from tests.kit.asgi import TOKEN, Caller
from tests.kit.desk import MemoryBroker

NUMBER = {"type": "number"}


def closed(**properties: Any) -> bytes:
    return dumps_sorted({"type": "object", "properties": properties, "additionalProperties": False})


NARROW = closed(open={"type": "boolean", "default": False})
WIDE = closed(
    open={"type": "boolean", "default": False},
    level={"type": "number", "default": 1},
)
OTHER = closed(shut={"type": "boolean", "default": True})


def receipt(name: str, schema: bytes, key: SigningKey | None, seq: int = 1, **more: Any) -> bytes:
    what: Receipt = make(
        seq, service="door", instance=name, schema=wire.digest(schema), running=None, **more
    )
    payload = what.to_bytes()
    if key is None:
        return Envelope(wire.RECEIPT, payload, (Signature("a" * 64, bytes(64)),)).to_bytes()
    message = wire.signed_bytes(wire.RECEIPT, payload)
    sig = Signature(wire.keyid(bytes(key.verify_key)), key.sign(message).signature)
    return Envelope(wire.RECEIPT, payload, (sig,)).to_bytes()


class Doors:
    """The service `door`, whose instances speak through a broker in memory."""

    def __init__(self, system: System, broker: MemoryBroker) -> None:
        self.system, self.broker = system, broker
        self.rest = Caller(system)

    def publishes(self, schema: bytes, service: str = "door") -> None:
        self.broker.takes(wire.schema_topic(service, wire.digest(schema)), schema)

    def runs(self, name: str, schema: bytes, *, is_enrolled: bool = True, seq: int = 1) -> None:
        key = SigningKey(hashlib.sha256(name.encode()).digest()) if is_enrolled else None
        self.broker.takes(wire.status_topic("door", name), receipt(name, schema, key, seq))

    @property
    def kept(self) -> set[str]:
        return {
            key.partition("/")[2] for key in self.system.view.committed.registered(INSTANCE_SCHEMA)
        }

    @property
    def active(self) -> str | None:
        found = row(self.system.view.committed, "door")
        return None if found is None else found["digest"]

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            await trio.sleep(0.01)

    async def settled(self) -> None:
        """What was said so far has been looked at, once more than needed."""
        await trio.sleep(2 * learning_schemas._LOOK_S)  # noqa: SLF001


@asynccontextmanager
async def doors(
    directory: Path, broker: MemoryBroker | None = None, *, dev: bool = False
) -> AsyncIterator[Doors]:
    settings = Settings(
        data_dir=directory / "data", mqtt_url="mqtt://broker.test", bootstrap_token=SecretStr(TOKEN)
    )
    if dev:
        settings.mark_dev()
    store, there = (
        MemoryStore(Epoch(1, "00000000-0000-4000-8000-000000000000")),
        broker or MemoryBroker(),
    )

    def open_store(keys: Any, **_: Any) -> MemoryStore:
        store.vouching = Vouching(keys.instance_key)
        return store

    with trio.fail_after(20):
        async with running_system(
            settings,
            catalogue=SAMPLE_CATALOGUE,
            transport=there,
            world=World(),
            open_store=open_store,
        ) as system:
            yield Doors(system, there)


async def test_what_an_enrolled_instance_was_built_with_becomes_the_services_schema(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as door:
        await enrol(door.rest, "ada", GOOD.encode())
        door.publishes(NARROW)
        door.runs("ada", NARROW)
        await door.until(lambda: door.active == wire.digest(NARROW))
        told = (await door.rest.ask("GET", "/api/v1/schemas/door")).json
        assert (told["source"], told["by"]) == ("instance", "config-manager")
        assert told["reason"] == "ada was built with it"
        assert (await door.rest.ask("PUT", "/api/v1/config/door", {"open": 1})).status == 422
        # it is checked, and its defaults are filled in
        assert (await door.rest.ask("GET", "/api/v1/config/door")).json["config"] == {"open": False}


async def test_two_builds_side_by_side_settle_on_the_wider_one_whichever_comes_first(
    tmp_path: Path,
) -> None:
    for number, order in enumerate(((NARROW, WIDE), (WIDE, NARROW))):
        async with doors(tmp_path / str(number)) as door:
            for name, schema in zip(("ada", "bob"), order, strict=True):
                await enrol(door.rest, name, GOOD.encode())
                door.publishes(schema)
                door.runs(name, schema)
            await door.until(lambda: len(door.kept) == 2)
            await door.until(lambda: door.active == wire.digest(WIDE))
            await door.settled()
            assert door.active == wire.digest(WIDE)


async def test_a_schema_that_breaks_what_is_stored_stays_a_candidate(tmp_path: Path) -> None:
    async with doors(tmp_path) as door:
        await door.rest.ask("PUT", "/api/v1/config/door", {"open": "half"})
        await enrol(door.rest, "ada", GOOD.encode())
        door.publishes(NARROW)
        door.runs("ada", NARROW)
        await door.until(lambda: door.kept)
        await door.settled()
        assert door.active is None
        told = (await door.rest.ask("GET", "/api/v1/schemas/door/instances")).json
        [one] = told["instance_schemas"]
        assert (one["candidate"], one["instances"]) == (True, ["ada"])


async def test_what_somebody_put_is_never_replaced_by_itself(tmp_path: Path) -> None:
    async with doors(tmp_path) as door:
        await door.rest.ask("PUT", "/api/v1/schemas/door", {"type": "object"})
        put = door.active
        await enrol(door.rest, "ada", GOOD.encode())
        door.publishes(WIDE)
        door.runs("ada", WIDE)
        await door.until(lambda: door.kept)
        await door.settled()
        assert door.active == put


async def test_who_never_enrolled_makes_a_candidate_in_memory_alone(tmp_path: Path) -> None:
    async with doors(tmp_path) as door:
        door.runs("eve", NARROW, is_enrolled=False)
        door.publishes(NARROW)
        await door.until(lambda: door.system.schemas.candidates("door"))
        await door.settled()
        assert (door.kept, door.active) == (set(), None)
        told = (await door.rest.ask("GET", "/api/v1/schemas/door/instances")).json
        [one] = told["instance_schemas"]
        assert (one["digest"], one["candidate"]) == (wire.digest(NARROW), True)
        absent = await door.rest.ask("GET", "/api/v1/schemas/door")
        assert (absent.status, wire.digest(NARROW) in absent.json["detail"]) == (404, True)
        adopted = await door.rest.ask(
            "POST", "/api/v1/schemas/door/adopt", {"digest": one["digest"]}
        )
        assert adopted.status == 201
        assert door.active == wire.digest(NARROW)


async def test_with_dev_any_instance_counts(tmp_path: Path) -> None:
    async with doors(tmp_path, dev=True) as door:
        door.runs("eve", NARROW, is_enrolled=False)
        door.publishes(NARROW)
        await door.until(lambda: door.active == wire.digest(NARROW))


async def test_code_with_another_schema_is_adapted_to_by_a_revision_that_says_nothing_new(
    tmp_path: Path,
) -> None:
    async with doors(tmp_path) as door:
        answer = (await door.rest.ask("PUT", "/api/v1/config/door", {"open": True, "x": 1})).json
        await enrol(door.rest, "ada", GOOD.encode())
        door.publishes(NARROW)
        door.runs("ada", NARROW)
        await door.until(lambda: door.system.view.committed.revision > answer["revision"])
        update = ConfigUpdate.parse(door.system.view.committed.services["door"].payload)
        assert (update.content, update.config) == (str(answer["revision"]), {"open": True, "x": 1})
        [variant] = update.variants
        assert (variant.config, variant.schemas) == ({"open": True}, (wire.digest(NARROW),))
        [entry, _] = (await door.rest.ask("GET", "/api/v1/config/door/history")).json["entries"]
        assert (entry["action"], entry["by"], entry["changes"]) == ("adapt", "config-manager", [])


@pytest.mark.parametrize(
    "payload",
    [
        dumps_sorted({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}),
        b'{"type": "object"}',
    ],
)
async def test_a_schema_of_malice_is_counted_and_hurts_nobody(
    tmp_path: Path, payload: bytes
) -> None:
    async with doors(tmp_path, dev=True) as door:
        door.publishes(payload)
        door.runs("eve", payload, is_enrolled=False)
        await door.until(lambda: door.system.schemas.refused == 1)
        door.publishes(NARROW)
        door.runs("bob", NARROW, is_enrolled=False)
        await door.until(lambda: door.active == wire.digest(NARROW))
        assert door.kept == {wire.digest(NARROW)}
