"""One connection: publish what is committed, read it back, repair what others changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import structlog
import trio

from config_manager.actors.actor import Full, Gone
from config_manager.actors.messages import Witnessed
from config_manager.actors.mqtt.port import Connection, Message
from config_manager.actors.publishing.desk import Desk
from config_manager.actors.publishing.instances import Instances
from config_manager.actors.publishing.refusals import packet_bytes
from config_manager.actors.publishing.repairs import Repairs
from config_manager.actors.publishing.rollback_evidence import is_signed_for
from config_manager.actors.publishing.sending import TRIES, Offer, Sending
from config_manager.actors.views import about
from config_manager.config import wire
from config_manager.config.wire import Envelope
from config_manager.storage.state import ServiceState

_QUIET_S = 0.1
"""Retained messages come in one burst after SUBACK; this long without one ends it."""
_SETTLE_S = 5.0
_REREAD_S = 60.0
_REREAD_RECEIPTS_S = 600.0
"""Ten thousand of them take a second; they come by themselves, but at QoS 0 one may get lost."""
_WATCH_S = 1.0

_CONFIG_PREFIX = wire.config_topic("")


class Session:
    """What the broker was seen to hold on this connection, and what is on its way."""

    def __init__(self, desk: Desk, connection: Connection, connected: Callable[[], None]) -> None:
        """connected: called once everything that is retained was read."""
        self._desk = desk
        self._connection = connection
        self._connected = connected
        self._log = structlog.get_logger().bind(broker=desk.broker_view.url)
        self._held: dict[str, str] = {}  # service → digest that was read back
        self._pending: dict[str, None] = {}
        self._sending = Sending(
            desk,
            connection,
            others_wait=lambda: bool(self._pending) and desk.may_publish,
            published=self._published,
        )
        self._awaited, self._in_flight = self._sending.awaited, self._sending.in_flight
        self._repairs = Repairs(desk.rivals.interval)
        self._instances = Instances(desk, connection, self._repairs)
        self._unseen: set[str] = set()
        self._leftovers: set[str] = set()  # services of ours that we do not know, seen retained
        self._settled = False
        self._last_message = 0.0
        self._judging = False  # storing judges what was read

    async def run(self) -> None:
        """Until the connection breaks (BrokerUnavailable)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._reread()
            self._connected()
            self._instances.begin()
            await self._instances.read()  # apart from ours, which 10,000 receipts must not hold up
            self._desk.outlet.begin()
            nursery.start_soon(self._send_documents)
            nursery.start_soon(self._sending.send_suspects)
            nursery.start_soon(self._follow)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._publish)

    # ── what there is to do ────────────────────────────────────────────────────────────────────

    def _want(self, service: str) -> None:
        self._pending[service] = None
        self._sending.wake()

    async def _take(self) -> ServiceState:
        """The next to publish; each service waits for the PUBACK of what it sent before."""
        while True:
            if self._settled and self._desk.may_publish and self._sending.has_room():
                services = self._desk.view.committed.services
                for service in [
                    name for name in self._pending if wire.config_topic(name) not in self._in_flight
                ]:
                    del self._pending[service]
                    state = services[service]
                    if not self._is_done(state):
                        return state
            await self._sending.news()

    def _is_done(self, state: ServiceState) -> bool:
        """Read back already, or sent just now and on its way back."""
        sent = self._awaited.get(wire.config_topic(state.service))
        return self._held.get(state.service) == state.digest or (
            sent is not None
            and sent.content == state.digest
            and trio.current_time() < sent.deadline
        )

    async def _follow(self) -> None:
        """Publish every service whose state changed since the last look, all of them under a new root; and
        empty what was forgotten since."""
        known: dict[str, ServiceState] = {}
        view, believed = self._desk.view, self._desk.believed
        root = believed.current
        while True:
            services = view.committed.services
            if believed.current is not root:
                root = believed.current
                known.clear()
                self._held.clear()
                self._awaited.clear()
            if view.publishable:
                for name, state in services.items():
                    if known.get(name) is not state:
                        known[name] = state
                        if self._held.get(name) != state.digest:
                            self._pending[name] = None
                self._instances.empty_what_was_forgotten()
                self._wake()
            await view.changed()

    def _wake(self) -> None:
        self._sending.wake()
        self._desk.outlet.wake()

    # ── sending ────────────────────────────────────────────────────────────────────────────────

    async def _publish(self) -> None:
        """The newest state of each service, signed and handed over. Nothing here waits for a PUBACK: it only
        says that the service's next state may be sent."""
        desk = self._desk
        while True:
            state = await self._take()
            root = desk.believed.current
            try:
                envelope = await desk.sign(state)
            except (Gone, Full):
                await trio.sleep(_WATCH_S)
                self._want(state.service)
                continue
            desk.done("signed", state)
            is_as_before = desk.may_publish and desk.believed.current is root
            if is_as_before and self._sending.has_room():
                topic = wire.config_topic(state.service)
                self._sending.offer(Offer(topic, envelope.to_bytes(), state.digest, state, root))
            else:
                # a witness was seen meanwhile, or the key was exchanged, or a suspect has its turn
                self._want(state.service)

    async def _send_documents(self) -> None:
        outlet = self._desk.outlet
        while True:
            topic, payload, retained = await outlet.take(self._sending.has_room)
            if retained:
                self._sending.offer(Offer(topic, payload, wire.digest(payload)))
            elif self._desk.refusals.judge(topic, "", packet_bytes(topic, payload)) != "aside":
                await self._connection.publish(topic, payload, qos=0, retain=False)

    def _published(self, state: ServiceState) -> None:
        self._desk.done("published", state)
        self._log.info("published", **about(state))

    # ── reading back ───────────────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        outlet = self._desk.outlet
        async with aclosing(self._connection.messages()) as messages:
            async for message in messages:
                topic = message.topic
                if topic.startswith(wire.STATUS_PREFIX):
                    self._instances.heard(message)
                    continue
                if topic.startswith(wire.SCHEMA_PREFIX):
                    self._instances.heard_schema(message)
                    continue
                if outlet.heard(message):
                    continue
                if topic.startswith(_CONFIG_PREFIX):
                    await self._on_config(topic.removeprefix(_CONFIG_PREFIX), message)
                elif not await self._is_ahead_of_us(message) and topic in outlet.retained:
                    self._on_document(message)
                self._last_message = trio.current_time()

    async def _on_config(self, service: str, message: Message) -> None:
        desk, topic = self._desk, message.topic
        state = desk.view.committed.services.get(service)
        ours = desk.evidence.own_configuration(message.payload)
        if ours is not None and (state is None or ours.digest != state.digest):
            seen = desk.evidence.in_configuration(ours)
            if seen is not None and not await self._is_borne_out(seen):
                return
        if state is None:
            # signed by us for a service that we do not know: left over from a lost database, or ahead of
            # our data; the snapshot, which comes later, tells which
            if ours is not None and message.retained and is_signed_for(ours, topic):
                self._leftovers.add(service)
            return
        if ours is not None and ours.digest == state.digest and self._is_signed_as_now(ours):
            self._unseen.discard(service)
            self._let_go(topic)
            if self._held.get(service) != ours.digest:
                self._held[service] = ours.digest
                desk.holding.confirm(state)
        else:
            self._on_unwanted(state, message)

    def _on_unwanted(self, state: ServiceState, message: Message) -> None:
        """A topic holds something other than the state that should be there."""
        desk, topic, service = self._desk, message.topic, state.service
        foreign = self._note_rival(message)
        if foreign:
            desk.holding.lost(service)
        if topic in self._in_flight or service in self._pending:
            return
        sent = self._awaited.get(topic)
        is_contested = foreign and desk.rivals.is_contested(topic)
        if sent is None or sent.content != state.digest or is_contested:
            self._held.pop(service, None)
            self._awaited.pop(topic, None)
            self._unseen.discard(service)
            self._repair(topic, lambda: self._want(service))
        elif not message.retained:
            self._held.pop(service, None)  # another client wrote after us; the read-back will tell

    def _on_document(self, message: Message) -> None:
        outlet, topic = self._desk.outlet, message.topic
        if message.payload == outlet.retained[topic]:
            self._let_go(topic)
            outlet.note_held(topic)
            return
        if outlet.was_wanted(topic, message.payload):
            self._awaited.pop(topic, None)  # what we send there comes back, perhaps late
        else:
            self._note_rival(message)
            if topic == wire.HEALTH_TOPIC:
                outlet.company.health(message.payload, retained=message.retained)
        self._repair(topic, lambda: outlet.mark(topic))

    def _let_go(self, topic: str) -> None:
        """Stop waiting for it: it was read back as it should be, or is not wanted there any more."""
        self._awaited.pop(topic, None)
        self._desk.refusals.forget(topic)

    def _repair(self, topic: str, repair: Callable[[], None]) -> None:
        self._repairs.do(topic, repair, at_once=not self._settled)

    def _note_rival(self, message: Message) -> bool:
        """For a message that should not be there: whether another client wrote it just now."""
        desk, topic = self._desk, message.topic
        if message.retained or desk.echoes.is_ours(topic, message.payload):
            return False
        if desk.rivals.overwritten(topic):
            self._log.warning("somebody else writes", topic=topic)
        return True

    async def _is_ahead_of_us(self, message: Message) -> bool:
        """Whether we signed it and our data is behind it: rolled back, or a twin runs. It is not written over,
        and our own document on its topic waits while storing judges."""
        outlet, topic = self._desk.outlet, message.topic
        wanted = outlet.retained.get(topic)
        if message.payload == wanted or outlet.was_wanted(topic, message.payload):
            return False
        seen = self._desk.evidence.in_document(message)
        if seen is None:
            return False
        outlet.withdraw(topic)
        if not await self._is_borne_out(seen):
            return True
        if wanted is not None and topic not in outlet.retained:
            outlet.set_retained(topic, wanted)
        return False

    async def _is_borne_out(self, seen: Witnessed) -> bool:
        """Whether storing finds that our data has what was seen; until then nothing is published."""
        view = self._desk.view
        view.hold_publishing()
        self._judging = True
        await self._desk.judge(seen)
        self._judging = False
        if view.publishable:
            self._desk.evidence.borne_out(seen)
        return view.publishable

    def _is_signed_as_now(self, envelope: Envelope) -> bool:
        """By the key that signs now: what a retired one signed is good, and is replaced."""
        try:
            key_id = self._desk.believed.key_for("config")
        except KeyError:
            return True  # no key is here that could replace its signature
        return any(one.keyid == key_id for one in envelope.signatures)

    # ── what never came ────────────────────────────────────────────────────────────────────────

    async def _reread(self) -> None:
        """Read everything that is retained, and judge it; what does not come is not there."""
        self._unseen = set(self._desk.view.committed.services)
        # at QoS 1 Mosquitto as shipped gives 1,020 of 5,000 retained messages; at QoS 0 all of them, and we
        # need not send a PUBACK for each.
        # The witnesses come first, alone: a broker that answers the second subscription has sent them all,
        # so no pause of a slow network can pass for their end
        next_roots = wire.next_root_topics(self._desk.believed.current.version)
        await self._connection.subscribe(wire.SNAPSHOT_TOPIC, wire.ROOTS_FILTER, *next_roots, qos=0)
        await self._connection.subscribe(
            wire.CONFIG_FILTER,
            wire.HEALTH_TOPIC,
            wire.KEEPALIVE_TOPIC,
            wire.SEALED_FILTER,
            *self._desk.outlet.also_reads,
            qos=0,
        )
        await self._until_quiet()
        missing, self._unseen = self._unseen, set()
        for service in missing:
            topic = wire.config_topic(service)
            if topic not in self._in_flight and topic not in self._awaited:
                self._held.pop(service, None)
                self._pending[service] = None
        leftovers, self._leftovers = self._leftovers, set()
        if self._desk.view.publishable:
            for service in leftovers - self._desk.view.committed.services.keys():
                self._clear(wire.config_topic(service))
        self._settled = True
        self._sending.wake()

    async def _until_quiet(self) -> None:
        started = self._last_message = trio.current_time()
        while True:
            pause = self._last_message + _QUIET_S - trio.current_time()
            is_late = trio.current_time() - started > _SETTLE_S
            if self._judging or (self._connection.has_unread and not is_late):
                # a busy machine reads late: this is no pause of the broker's
                pause = _QUIET_S
            elif pause <= 0 or is_late:
                return
            await trio.sleep(pause)

    def _clear(self, topic: str) -> None:
        """Never waited for: a hostile broker that plays our own envelopes back must not stop our reading."""
        if self._repairs.may_clear(topic):
            self._connection.hand_over(topic, b"", lambda _code: None)

    async def _watch(self) -> None:
        desk = self._desk
        next_reread = trio.current_time() + _REREAD_S
        next_receipts = trio.current_time() + _REREAD_RECEIPTS_S
        while True:
            await trio.sleep(_WATCH_S)
            now = trio.current_time()
            self._sending.look_for_acknowledgements()
            self._repairs.do_what_is_due()
            self._end_contests()
            for topic in desk.refusals.due():
                self._try_again(topic)
            await desk.holding.tell_storing()
            self._look_for_what_never_came()
            desk.broker_view.leaves_health = (
                not desk.view.publishable and desk.outlet.company.is_there
            )
            self._wake()
            if now >= next_reread:
                await self._reread()
                next_reread = trio.current_time() + _REREAD_S
            if now >= next_receipts:
                await self._instances.read()
                next_receipts = trio.current_time() + _REREAD_RECEIPTS_S

    def _look_for_what_never_came(self) -> None:
        services = self._desk.view.committed.services
        for topic, sent in self._sending.overdue():
            state = services.get(topic.removeprefix(_CONFIG_PREFIX))
            content = state.digest if state is not None else sent.content
            if sent.content == content and sent.tries >= TRIES:
                self._desk.refusals.never_given_back(topic, sent.tries)
                del self._awaited[topic]
            else:
                self._try_again(topic)

    def _try_again(self, topic: str) -> None:
        service = topic.removeprefix(_CONFIG_PREFIX)
        if service in self._desk.view.committed.services:
            self._want(service)
        elif topic in self._desk.outlet.retained:
            self._desk.outlet.mark(topic)
        else:
            self._let_go(topic)

    def _end_contests(self) -> None:
        """Once other clients have been quiet for a while, what was read back counts again."""
        for topic in self._desk.rivals.ended():
            self._log.info("nobody else writes any more", topic=topic)
            service = topic.removeprefix(_CONFIG_PREFIX)
            state = self._desk.view.committed.services.get(service)
            if state is not None and self._held.get(service) == state.digest:
                self._desk.holding.confirm(state)
