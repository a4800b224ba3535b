"""A service under Trio that may refuse a change, and prints what it runs.

CONFIG_MANAGER_ROOT=data/trust/root.json python examples/trio_service.py
"""

import signal

import trio
from pydantic import BaseModel, Field

from config_manager.client import Change, open_config


class VoiceSettings(BaseModel):
    voice: str = "amy"
    speed: float = Field(1.0, gt=0, le=3)


async def load(change: Change[VoiceSettings]) -> None:
    """Slow, and may fail: then the old settings stay, and the operator sees why."""
    if change.new.voice == "nobody":
        raise LookupError(f"there is no voice {change.new.voice!r}")
    await trio.sleep(0.1)


async def main() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                async with open_config(VoiceSettings, service="voice", apply=load) as config:
                    print(f"speaking as {config.current.voice}", flush=True)
                    async for change in config.changes():
                        print(f"speaking as {change.new.voice}", flush=True)

            nursery.start_soon(follow)
            async for _ in signals:
                nursery.cancel_scope.cancel()
    print("stopped", flush=True)


if __name__ == "__main__":
    trio.run(main)
