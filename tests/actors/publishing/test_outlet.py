"""What one broker should hold, and what others make of it."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from config_manager.actors.home_assistant import also_reads
from config_manager.actors.mqtt.port import Message
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.views import CommittedView
from config_manager.config.home_assistant import HOME_ASSISTANT_STATUS, discovery_topic
from tests.kit.stores import empty

SERVER = "4f0c2d1e-0000"


async def test_who_says_that_home_assistant_is_online_before_we_are_a_device_ends_nothing(
    autojump_clock: MockClock,
) -> None:
    """A message that a broker retains comes right after connecting; while the database is read-only we are none yet."""
    outlet = Outlet(CommittedView(empty()), also_reads(SERVER))
    outlet.connected = True
    assert outlet.heard(Message(HOME_ASSISTANT_STATUS, b"online", True))
    with trio.move_on_after(1) as scope:
        await outlet.take(lambda: True)
    assert scope.cancelled_caught
    topic = discovery_topic(SERVER)
    outlet.set_retained(topic, b"{}")
    assert await outlet.take(lambda: True) == (topic, b"{}", True)
    assert outlet.heard(Message(HOME_ASSISTANT_STATUS, b"online", True))
    assert await outlet.take(lambda: True) == (topic, b"{}", True)
