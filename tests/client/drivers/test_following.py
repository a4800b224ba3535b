from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from config_manager.actors.mqtt.port import BrokerUnavailable, Message
from config_manager.client import Applied, Fresh, follow, trust_init
from config_manager.client.drivers import driver
from config_manager.config import wire
from tests.kit import documents as m


class FakeBroker:
    """A broker in memory that drops each connection once its retained messages were read."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.published: dict[str, bytes] = {}
        self.connections = 0

    @asynccontextmanager
    async def connect(self, address: Any, **_: Any) -> AsyncIterator[FakeBroker]:
        self.connections += 1
        yield self

    async def subscribe(self, *filters: str) -> None:
        self.filters = filters

    async def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        self.published[topic] = payload
        await trio.lowlevel.checkpoint()

    async def messages(self) -> AsyncIterator[Message]:
        for topic, payload in list(self.retained.items()):
            yield Message(topic, payload, retained=True)
        await trio.sleep(0.01)
        raise BrokerUnavailable("dropped")


async def test_follows_reconnects_and_starts_again_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_BACKOFF_S", 0.01)
    (tmp_path / "root").write_bytes(m.root_bytes())
    trust_init(tmp_path / "state", tmp_path / "root")
    broker: Any = FakeBroker()
    broker.retained = {
        m.TOPIC: m.update_bytes(5),
        wire.SNAPSHOT_TOPIC: m.snapshot_bytes({m.SERVICE: m.entry(5)}, 1),
    }
    where: dict[str, Any] = {"state_dir": tmp_path / "state"}
    with trio.fail_after(10):
        async with follow(m.SERVICE, mqtt_url="mqtt://x", transport=broker, **where) as follower:
            assert isinstance(await anext(follower), Applied)
            assert isinstance(await anext(follower), Fresh)
            broker.retained[m.TOPIC] = m.update_bytes(6)
            again = await anext(follower)
            assert isinstance(again, Applied)
            assert (again.update.revision, broker.connections > 1) == (6, True)
        async with follow(m.SERVICE, mqtt_url="none:", **where) as follower:
            offline = await anext(follower)
            assert isinstance(offline, Applied)
            assert (offline.source, offline.update.revision) == ("last-known-good", 6)
            assert follower.current == {"whisper_model": "base.en", "n": 6}
