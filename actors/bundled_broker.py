"""The broker of last resort, in a process of its own: amqtt on loopback, anonymous, in memory.

`python -m config_manager.actors.bundled_broker PORT`. It forgets everything when it ends; publishers fill it
again. It logs on stderr.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def main(port: int) -> None:
    """Serve until SIGTERM, or until the process that started us is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
    asyncio.run(_serve(port))


def _make(config: dict[str, Any]) -> Any:
    from amqtt.broker import Broker

    class OnlyWhatWasAskedFor(Broker):  # type: ignore[misc]
        """amqtt 0.12 sends a newcomer the retained messages of everybody's subscriptions."""

        async def _publish_retained_messages_for_subscription(
            self, subscription: tuple[str, int], session: Any
        ) -> None:
            if any(owner is session for owner, _ in self._subscriptions.get(subscription[0], ())):
                await super()._publish_retained_messages_for_subscription(subscription, session)

    return OnlyWhatWasAskedFor(config)


async def _serve(port: int) -> None:
    broker = _make(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    await broker.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
