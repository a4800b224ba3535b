"""A testing kit: feed a service changes in a test, without broker, server or network.

Everything else is real: the publisher has keys of its own, its messages are signed, the client
verifies them, keeps them on disk (in a temporary directory) and answers with receipts.

    async def test_a_louder_voice():
        publisher = FakePublisher("voice")
        async with publisher.open(VoiceSettings) as config:
            outcome = await publisher.deliver(volume=0.8)
            assert outcome.applied
            assert config.current.volume == 0.8

`open` works under asyncio and Trio, `open_in_threads` and `deliver_and_wait` without either. Whatever
thread or loop a service runs in, the publisher may be used from any other.
"""

from config_manager.client.testing.deliveries import NobodyListens, Outcome
from config_manager.client.testing.publisher import FakePublisher

__all__ = ["FakePublisher", "NobodyListens", "Outcome"]
