"""A client under test, a broker of its own, and the publisher that it believes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from nacl.signing import SigningKey

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.port import Connection, Message
from config_manager.actors.own_broker import any_free_port, own_broker
from config_manager.api.conformance.cases import Deaf, Line, Permitted, Unmet, in_words
from config_manager.api.conformance.client_process import ClientProcess, Command, Places
from config_manager.api.conformance.publisher import Publisher
from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import Disk, World

INSTANCE = "kitchen"
FIRST_REVISION = 5
APPLIED_S = 20.0
"""How long a client may take to start, or to apply what is good: a loaded machine is no fault of its."""
REFUSED_S = 3.0
"""How long a refusal may take to be said; what overtook its root waits half a second."""
_SILENT_S = 0.3
_SILENT_AFTER = 3
"""Messages for which a client that never says a refusal is waited for."""


class Rig:
    """What the stories are told with. Every method that waits raises Unmet if what it waits for does not come."""

    def __init__(
        self,
        command: Command,
        publisher: Publisher,
        directory: Path,
        mqtt_url: str,
        connection: Connection,
        nursery: trio.Nursery,
        disk: Disk,
    ) -> None:
        self.publisher = publisher
        self.mqtt_url = mqtt_url
        self.lines: list[Line] = []
        self.heard: list[Message] = []
        """every receipt on the broker, and what was asked for by `retained`"""
        self.sent: list[tuple[str, bytes]] = []
        self.permitted = Permitted()
        self.unsafe: str | None = None
        self._command = command
        self._directory = directory
        self._connection = connection
        self._nursery = nursery
        self._disk = disk
        self._client: ClientProcess | None = None
        self._states = 0
        self._news = trio.Event()
        self._mark = self._case_began = 0
        self._asked_for: list[Line] = []
        self._unanswered = 0
        self._refuses_aloud = False
        self._about_freshness = True

    # ── a case ─────────────────────────────────────────────────────────────────────────────────

    def new_case(self, *, about_freshness: bool = True) -> None:
        """about_freshness: else what the client says of that is left out of `got`."""
        self._about_freshness = about_freshness
        self._mark = self._case_began = len(self.lines)
        self._asked_for.clear()
        self.sent.clear()
        self.unsafe = None

    @property
    def said(self) -> tuple[Line, ...]:
        """By the client, in this part of the case."""
        return tuple(self.lines[self._mark :])

    @property
    def told(self) -> tuple[Line, ...]:
        """By the client, in the whole case."""
        return tuple(self.lines[self._case_began :])

    def since(self, line: Line | None = None) -> None:
        """Forget what was said up to here (or up to that line): the next part of a case begins."""
        self._mark = len(self.lines) if line is None else self.lines.index(line) + 1

    # ── the client ─────────────────────────────────────────────────────────────────────────────

    @property
    def places(self) -> Places:
        root = self._directory / "root.json"
        state = self._directory / f"state-{self._states}"
        return Places(str(state), self.publisher.service, INSTANCE, self.mqtt_url, str(root))

    async def new_directory(self) -> None:
        """A client that never ran, with the publisher's first root pinned. Raises SettingsInvalid."""
        await self.kill()
        self._states += 1
        self.permitted.start_anew()
        self._disk.write_atomic(Path(self.places.root), self.publisher.root(), mode=0o644)
        self._disk.make_directory(Path(self.places.state))
        await self._command.set_up(self.places)

    async def start(self, *, mqtt_url: str | None = None) -> None:
        """Raises SettingsInvalid if it can't be run. mqtt_url: another than the broker's."""
        places = self.places if mqtt_url is None else self.places._replace(mqtt_url=mqtt_url)
        errors = self._directory / "stderr.log"
        self._client = await self._command.start(
            places, errors, self._nursery, self._hear, self._wake
        )

    async def start_offline(self) -> None:
        """With nothing at the broker's address."""
        await self.start(mqtt_url=f"mqtt://127.0.0.1:{any_free_port()}")

    async def begin(self) -> None:
        """A client that never ran has applied a first configuration."""
        await self.new_directory()
        revision = self.publisher.revision + 1 if self.publisher.revision else FIRST_REVISION
        await self.publish(revision)
        await self.send(self.publisher.snapshot(), wire.SNAPSHOT_TOPIC, retain=True)
        await self.start()
        await self.applied(revision)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.stop()

    async def kill(self) -> None:
        if self._client is not None:
            await self._client.kill()

    @property
    def has_ended(self) -> bool:
        return self._client is None or self._client.ended.is_set()

    @property
    def exit_code(self) -> int | None:
        return self._client.exit_code if self._client is not None else None

    def _hear(self, line: Line) -> None:
        self.lines.append(line)
        if line.get("event") == "applied":
            self.unsafe = self.unsafe or self.permitted.why_not(line)
        self._wake()

    # ── the publisher, and others that write on the broker ─────────────────────────────────────

    async def send(self, payload: bytes, topic: str | None = None, *, retain: bool = False) -> None:
        on = self.publisher.topic if topic is None else topic
        self.sent.append((on, payload))
        await self._connection.publish(on, payload, retain=retain)

    def permit(self, message: bytes, chosen: JsonObject | None = None) -> ConfigUpdate:
        """The client may apply this configuration. chosen: the values of its variant."""
        update = ConfigUpdate.parse(wire.parse_envelope(message).payload)
        if not update.deleted:
            self.permitted.add(update.epoch_seq, update.revision, chosen or update.config)
        return update

    async def publish(self, revision: int, *signers: SigningKey, **fields: Any) -> None:
        """The honest one, retained."""
        self.publisher.revision = revision
        message = self.publisher.update(revision, *signers, **fields)
        self.permit(message)
        await self.send(message, retain=True)

    async def hear(self) -> None:
        """Receipts, until the rig is taken down."""
        async for message in self._connection.messages():
            self.heard.append(message)
            self._wake()

    # ── what is expected ───────────────────────────────────────────────────────────────────────

    async def until(
        self, is_there: Callable[[], bool], within_s: float, *, ends_with_client: bool = True
    ) -> bool:
        """Whether it is there in time. ends_with_client: one that has ended says nothing more."""
        with trio.move_on_after(within_s):
            while not is_there() and not (ends_with_client and self.has_ended):
                await self._news.wait()
        return is_there()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def retained(self, topic: str) -> bytes | None:
        """What the broker has kept there; None: nothing."""
        known = len(self.heard)

        def found() -> list[Message]:
            return [one for one in self.heard[known:] if one.retained and one.topic == topic]

        await self._connection.subscribe(topic)  # again: what is kept comes once more
        await self.until(lambda: bool(found()), REFUSED_S, ends_with_client=False)
        return found()[0].payload if found() else None

    async def line(self, *events: str, within_s: float = APPLIED_S, **fields: Any) -> Line:
        """The first such line of this part of the case."""

        def found() -> Line | None:
            for line in self.said:
                if line.get("event") in events and fields.items() <= line.items():
                    return line
            return None

        await self.until(lambda: found() is not None, within_s)
        line = found()
        if line is None:
            raise Unmet(self.got)
        return line

    @property
    def got(self) -> str:
        """What the client did in this case, in words, but for what only shows that it listens."""
        words = in_words(
            line
            for line in self.told
            if line not in self._asked_for
            and (self._about_freshness or line.get("event") not in ("fresh", "stale"))
        )
        if self.has_ended:
            return f"{words}; it ended ({self.exit_code})"
        return words

    async def applied(self, revision: int, **fields: Any) -> Line:
        return await self.line("applied", revision=revision, **fields)

    async def refusal(self, *instead: str) -> None:
        """Wait for the first of this part of the case, or for one of those events; it need not come."""
        never = not self._refuses_aloud and self._unanswered >= _SILENT_AFTER
        try:
            line = await self.line("refused", *instead, within_s=_SILENT_S if never else REFUSED_S)
        except Unmet:
            self._unanswered += 1
        else:
            self._refuses_aloud = self._refuses_aloud or line.get("event") == "refused"

    async def refuses(self, reason: str) -> None:
        """Nothing else is said first, and that is the reason."""
        await self.refusal()
        self.refused_for(reason)

    def refused_for(self, reason: str) -> None:
        """Something was refused in this case, and first of all for this reason."""
        refusals = (line.get("reason") for line in self.said if line.get("event") == "refused")
        if next(refusals, None) != reason:
            raise Unmet(self.got)

    async def goes_on(self, *signers: SigningKey) -> None:
        """The client still listens: the next honest configuration is applied."""
        before = self.got
        revision = self.publisher.revision + 1
        await self.publish(revision, *signers)
        try:
            self._asked_for.append(await self.applied(revision))
        except Unmet:
            ended = f"; it ended ({self.exit_code})" if self.has_ended else ""
            raise Deaf(f"{before}; then not the next good one{ended}") from None

    def is_silent_about(self, *events: str) -> None:
        """Nothing of that kind was said in this case so far."""
        if any(line.get("event") in events for line in self.said):
            raise Unmet(self.got)


@asynccontextmanager
async def rigged(
    command: Command, publisher: Publisher, directory: Path, world: World
) -> AsyncGenerator[Rig]:
    """A rig whose client was not started yet; in the end client and broker are gone."""
    world.disk.make_directory(directory)
    async with (
        own_broker(directory, any_free_port(), world) as broker,
        AiomqttTransport().connect(broker.address, client_id="conformance") as connection,
        trio.open_nursery() as nursery,
    ):
        await connection.subscribe(wire.status_topic(publisher.service, INSTANCE))
        url = f"mqtt://127.0.0.1:{broker.address.port}"
        rig = Rig(command, publisher, directory, url, connection, nursery, world.disk)
        nursery.start_soon(rig.hear)
        try:
            yield rig
        finally:
            await rig.kill()
            nursery.cancel_scope.cancel()
