"""A service under asyncio whose settings change while it runs.

CONFIG_MANAGER_ROOT=data/trust/root.json python examples/asyncio_service.py
"""

import asyncio
import signal

from pydantic import BaseModel

from config_manager.client import open_config


class VoiceSettings(BaseModel):
    voice: str = "amy"
    speed: float = 1.0


async def speak(settings: VoiceSettings) -> None:
    print(f"speaking as {settings.voice} at {settings.speed}", flush=True)


async def main() -> None:
    async with open_config(VoiceSettings, service="voice") as config:
        await speak(config.current)
        async for change in config.changes():
            await speak(change.new)


async def until_terminated() -> None:
    task = asyncio.create_task(main())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(until_terminated())
