"""The ASGI application in process, on the store in memory: what a server would hand it, and get back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trio
from pydantic import SecretStr

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import System, running_system
from config_manager.api.rest.forwarded import ReverseProxies
from config_manager.api.rest.streams import Streams
from config_manager.api.server.app import RestApp
from config_manager.config.names import Epoch
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.sql import database
from config_manager.storage.sql.database import SqlConnection
from config_manager.storage.store import Store
from tests.kit.event_streams import Event, EventReader

TOKEN = "a-token"
JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    names: tuple[str, ...] = field(default=())

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One application, fast path or not, dev or not."""

    def __init__(
        self,
        system: System,
        *,
        dev: bool = False,
        fast_path: bool = True,
        writes_per_minute: int | None = None,
        proxies: ReverseProxies | None = None,
    ) -> None:
        self.system = system
        self._app: RestApp = RestApp(
            system,
            dev=dev,
            fast_path=fast_path,
            writes_per_minute=writes_per_minute,
            proxies=proxies,
        )

    @property
    def streams(self) -> Streams:
        return self._app.streams

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | dict[str, Any] | list[Any] | None = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        client: str = "192.0.2.1",
        chunks: int = 1,
    ) -> Answer:
        """Of an answer that goes on, its first piece: then the caller leaves."""
        content = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        length = {} if body is None else {"content-type": JSON, "content-length": str(len(content))}
        scope = _scope(method, target, token, {**length, **(headers or {})}, client)
        size = max(1, -(-len(content) // chunks))
        parts = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
        given, got, leaves = list(parts), dict[str, Any](), trio.Event()
        answered = bytearray()

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            if given:
                part = given.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(given)}
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                got.update(message)
            else:
                answered.extend(message.get("body", b""))
                if message.get("more_body", False):
                    leaves.set()

        with trio.fail_after(10):
            await self._app(scope, receive, send)
        pairs = [(k.decode().lower(), v.decode("latin-1")) for k, v in got["headers"]]
        return Answer(
            got["status"], dict(pairs), bytes(answered), tuple(sorted(k for k, _ in pairs))
        )

    @asynccontextmanager
    async def listen(
        self,
        target: str = "/api/v1/watch",
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        client: str = "192.0.2.1",
    ) -> AsyncIterator[Listening]:
        """An answer that goes on, until the block ends: then the caller leaves, and every trace of it has to go."""
        pieces, read = trio.open_memory_channel[bytes](0)
        listening = Listening(read)
        leaves = trio.Event()

        async def receive() -> dict[str, Any]:
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                listening.begins(message)
            elif message.get("body"):
                with suppress(trio.BrokenResourceError):
                    await pieces.send(message["body"])

        async def answer() -> None:
            async with pieces:
                await self._app(_scope("GET", target, token, headers or {}, client), receive, send)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                await listening.begun.wait()
                try:
                    yield listening
                finally:
                    leaves.set()
                    await read.aclose()


class Listening:
    """The client of a stream. Whoever does not read holds the server up there, as a full socket would."""

    def __init__(self, pieces: trio.MemoryReceiveChannel[bytes]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.begun = trio.Event()
        self.reader = EventReader()
        self.said = b""
        self._pieces = pieces
        self._events = list[Event]()

    def begins(self, start: dict[str, Any]) -> None:
        self.status = start["status"]
        self.headers = {k.decode().lower(): v.decode("latin-1") for k, v in start["headers"]}
        self.begun.set()

    async def piece(self) -> None:
        """The next one; raises trio.EndOfChannel at the stream's end."""
        piece = await self._pieces.receive()
        self.said += piece
        self._events += self.reader.feed(piece)

    async def event(self, *kinds: str) -> Event:
        """The next one, or the next of these kinds; raises trio.EndOfChannel at the stream's end."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if not kinds or event.kind in kinds:
                    return event
            await self.piece()

    async def revisions(self, count: int) -> list[dict[str, Any]]:
        """The data of so many, which have to come next but for the health."""
        events = [await self.event("revision", "behind", "drift") for _ in range(count)]
        assert {event.kind for event in events} <= {"revision"}, events
        return [event.data for event in events]

    async def end(self) -> list[Event]:
        """What comes until its end."""
        while True:
            try:
                await self.piece()
            except trio.EndOfChannel:
                rest, self._events = self._events, []
                return rest


def _scope(
    method: str, target: str, token: str | None, headers: dict[str, str], client: str
) -> dict[str, Any]:
    sent = {"host": "config.example", "user-agent": "test"}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    sent |= {name.lower(): value for name, value in headers.items()}
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in sent.items() if v != ""],
        "client": (client, 12345),
        "server": ("127.0.0.1", 8081),
        "extensions": {},
    }


@asynccontextmanager
async def on_disk(data: Path) -> AsyncIterator[System]:
    """The whole tree on a real SQLCipher file, no broker."""
    settings = Settings(data_dir=data, mqtt_url="none:", bootstrap_token=SecretStr(TOKEN))
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
    ) as system:
        yield system


@contextmanager
def with_the_key(data: Path, *, read_only: bool = True) -> Iterator[SqlConnection]:
    """The data directory's database as somebody sees it who has its key, and leaves no other trace."""
    key = bytes.fromhex((data / "keys" / "db.key").read_text())
    with closing(database.connect(data / "config.db", key, read_only=read_only)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        yield connection


@asynccontextmanager
async def running(
    directory: Path, make_store: Callable[[Epoch], Store] = MemoryStore
) -> AsyncIterator[System]:
    """The whole tree, no broker, nothing on disk but keys."""
    world = World()
    settings = Settings(
        data_dir=directory / "data", mqtt_url="none:", bootstrap_token=SecretStr(TOKEN)
    )
    store = make_store(Epoch(1, "00000000-0000-4000-8000-000000000000"))

    def open_store(keys: KeyRing, **_: Any) -> Store:
        if isinstance(store, MemoryStore):
            store.vouching = Vouching(keys.instance_key)
        return store

    async with running_system(
        settings,
        catalogue=SAMPLE_CATALOGUE,
        transport=AiomqttTransport(),
        world=world,
        open_store=open_store,
    ) as system:
        yield system
