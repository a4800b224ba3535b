"""`bare`: an ASGI application on our own server and loop that only answers the same bytes.

The difference to it is what our application costs; its own cost is that of HTTP.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import trio

from config_manager.api.server.listening import serve
from config_manager.api.serving import GC_THRESHOLD


def make_app(answer: bytes, headers: list[tuple[bytes, bytes]]) -> Any:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "GET":
            while (await receive()).get("more_body", False):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


async def main(answer_file: str) -> None:
    """Serve the bytes of a file whose first line is the headers as JSON; print the port."""
    head, _, body = Path(answer_file).read_bytes().partition(b"\n")
    headers = [(name.encode(), value.encode()) for name, value in json.loads(head)]
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, make_app(body, headers), "127.0.0.1", 0)
        print(json.dumps({"event": "ready", "url": f"http://127.0.0.1:{port}"}), flush=True)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
