"""The schema that a service was built with, on each broker that does not hold it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr

from config_manager.client.drivers.follower import Anything
from config_manager.client.model.published_schema import published_schema
from config_manager.config import strict_json, wire
from tests.kit import documents as m
from tests.kit.client_drivers import KITS, Kit, told
from tests.kit.client_story import Settings

SCHEMA = published_schema(Settings)
TOPIC = wire.schema_topic(m.SERVICE, SCHEMA.digest)


@pytest.fixture(params=KITS, ids=lambda kit: kit.name)
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    kit: Kit = request.param(tmp_path)
    return kit


@told
async def test_it_is_published_a_second_after_the_subscription_where_it_is_not_held(
    it: Kit,
) -> None:
    assert SCHEMA.payload is not None
    it.a.retained[TOPIC] = SCHEMA.payload
    writes = {"a": 0, "b": 0}
    for name, broker in it.brokers.items():

        def takes(topic: str, payload: bytes, *, retain: bool = True, name: str = name) -> None:
            writes[name] += topic == TOPIC
            type(it.brokers[name]).takes(it.brokers[name], topic, payload, retain=retain)

        broker.takes = takes  # type: ignore[method-assign]
    async with it.open(mqtt_url="mqtt://a,mqtt://b", first_wait_s=0.1):
        await it.sleep(0.8)
        assert writes == {"a": 0, "b": 0}
        await it.sleep(5)
        assert writes == {"a": 0, "b": 1}
        assert it.b.retained[TOPIC] == SCHEMA.payload
        assert it.b.last.schema == wire.digest(SCHEMA.payload) == SCHEMA.digest


@told
async def test_other_bytes_on_its_topic_are_replaced_and_decide_nothing(it: Kit) -> None:
    it.a.retained[TOPIC] = b"{}"
    async with it.open(first_wait_s=0.1) as config:
        await it.sleep(3)
        assert it.a.retained[TOPIC] == SCHEMA.payload
        assert config.refusals.total() == 0


def test_keys_are_spelt_as_delivered_and_say_what_the_model_and_the_call_say() -> None:
    class Service(BaseModel):
        DATABASE_URL: str
        rate: int = Field(16000, alias="sampleRate", json_schema_extra={"x-unit": "Hz"})
        pin: SecretStr | None = SecretStr("hunter2")
        token: str = Field("hunter2", json_schema_extra={"x-secret": True})

    said = published_schema(Service, frozenset({"rate"}))
    assert said.payload is not None
    schema = strict_json.loads_object(said.payload)
    assert said.digest == wire.digest(said.payload)
    assert set(schema["properties"]) == {"database_url", "rate", "pin", "token"}
    assert schema["required"] == ["database_url"]
    rate = schema["properties"]["rate"]
    assert (rate["x-unit"], rate["x-restart-required"], rate["default"]) == ("Hz", True, 16000)
    assert all(schema["properties"][key]["x-secret"] for key in ("pin", "token"))
    assert b"hunter2" not in said.payload
    assert published_schema(Service).digest != said.digest


def test_who_takes_anything_or_is_too_large_has_none_to_publish() -> None:
    class Large(BaseModel):
        text: str = "x" * wire.MAX_SCHEMA_BYTES

    assert published_schema(Anything).payload is None
    assert published_schema(Large).payload is None
    assert wire.is_digest(published_schema(Large).digest)
