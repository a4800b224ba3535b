"""A token counts when its request is whole, not when it began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from config_manager.actors.system import System
from config_manager.api.server.app import RestApp
from tests.kit.asgi import Caller, running


async def slow_write(
    system: System, token: str, *, path: str, meanwhile: Any, fast_path: bool
) -> int:
    """A write whose body comes in two parts; `meanwhile` between them. Its status."""
    app = RestApp(system, dev=False, fast_path=fast_path)
    parts = [b'{"a":', b"1}"]
    answers: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not parts:
            await trio.sleep_forever()  # the caller waits for the answer
        if len(parts) == 1:
            await meanwhile()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [
        (b"host", b"x"),
        (b"authorization", f"Bearer {token}".encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"7"),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "PUT",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "client": ("192.0.2.1", 1), "server": ("x", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    return int(answers[0]["status"])


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_token_that_is_revoked_while_the_body_arrives_writes_nothing(
    tmp_path: Path, fast_path: bool
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        made = await rest.ask("POST", "/api/v1/tokens", {"name": "lost", "role": "write"})
        token = orjson.loads(made.body)["token"]

        async def revoke() -> None:
            assert (await rest.ask("DELETE", "/api/v1/tokens/lost")).status == 200

        path = "/api/v1/config/door"
        status = await slow_write(system, token, path=path, meanwhile=revoke, fast_path=fast_path)
        assert status == 401
        assert (await rest.ask("GET", path)).status == 404
