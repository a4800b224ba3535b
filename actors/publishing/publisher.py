"""One broker, kept holding what is committed: publish, read back, repair, for as long as we run.

Nothing waits for a broker but those who ask for `?wait=confirmed`. What a broker should hold is
read from the view, so there is no queue to lose: the newest per service, whatever was in between.

A PUBACK proves nothing (on 3.1.1 Mosquitto acknowledges what its ACL or size limit throws away; a
killed broker forgets what it acknowledged): *confirmed* means that our own subscription gave the
payload back, signed by a key of our root.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import structlog
import trio

from config_manager.actors.actor import Full, Gone, Life, follower
from config_manager.actors.messages import Witnessed
from config_manager.actors.mqtt.aiomqtt_transport import (
    BrokerUnavailable,
    Connection,
    Message,
    Transport,
    broken_as_itself,
)
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.publishing.refusals import Refusals, packet_bytes
from config_manager.actors.publishing.rivals import Echoes, Rivals
from config_manager.actors.publishing.sending import TRIES, Offer, Sending
from config_manager.actors.statuses import Leftover, NewlyRuns, NotTaken, StatusBoard
from config_manager.actors.views import BrokerView, CommittedView, Confirmations
from config_manager.config import strict_json, trust, wire
from config_manager.config.audit import GENESIS
from config_manager.config.brokers import BrokerAddress
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.fields import NotADocument, UnknownCritical
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.strict_json import MAX_INTEGER, JsonObject
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope
from config_manager.config.world import World, backoff_s
from config_manager.storage.decisions.forgotten import FORGOTTEN, newly_forgotten
from config_manager.storage.state import ServiceState

_BACKOFF_S = (0.5, 5.0)
"""First and longest pause before connecting again; the longest bounds how soon a broker that comes
back is filled: within 10 s (README)."""
_QUIET_S = 0.1
"""Retained messages come in one burst after SUBACK; this long without one ends it."""
_SETTLE_S = 5.0
_REREAD_S = 60.0
_REREAD_RECEIPTS_S = 600.0
"""Ten thousand of them take a second; they come by themselves, but at QoS 0 one may get lost."""
_WATCH_S = 1.0
_TAKEN_OVER = 142
_TAKEN_OVER_S = (5.0, 60.0)
"""Pauses after another client took the connection over: each of ours takes it from that one."""
_WILL_WITHIN_S = 3600.0
"""How late the will of a connection may come, once the broker finds out that it is gone."""

_MOST_REPAIRS = 10_000
"""Topics that are remembered for that; forgotten with each watch."""
_LIVED_S = 30.0
"""A connection that held this long was a good one: the next trouble starts with short pauses."""

_CONFIG_PREFIX = wire.config_topic("")


class Believed(Protocol):
    """Whom we believe, as of now."""

    @property
    def current(self) -> Root: ...

    @property
    def changing(self) -> bool:
        """A new root is being announced: what is signed now, and by which key, has to wait."""
        ...

    def version(self, number: int) -> Root | None:
        """The root of this version, where it is one of ours."""
        ...

    def key_for(self, role: str) -> str:
        """The id of the key that signs for a role; raises KeyError where none is here."""
        ...


SignUpdate = Callable[[ServiceState], Awaitable[Envelope]]


class _Session:
    """One connection's worth of knowledge: what the broker was seen to hold, what is on its way."""

    def __init__(self, publisher: Publisher, connection: Connection) -> None:
        self._p = publisher
        self._connection = connection
        self._held: dict[str, str] = {}  # service → digest that was read back
        self._pending: dict[str, None] = {}
        self._sending = Sending(
            publisher,
            connection,
            others_wait=lambda: bool(self._pending) and publisher.may_publish,
            published=self._published,
        )
        self._sent, self._in_flight = self._sending.sent, self._sending.in_flight
        self._unseen: set[str] = set()
        self._leftovers: set[str] = set()  # services of ours that we do not know, seen retained
        self._settled = False
        self._last_message = 0.0
        self._judging = False  # a message that was read: whether it is a witness
        self._forgotten: Mapping[str, JsonObject] = {}  # rows of what was emptied here, or is read
        self._emptied: set[str] = set()  # status topics whose empty message comes back to us
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        p = self._p
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._reread()
            p.connected()
            # what was forgotten before is emptied only where it is read: what lies there may be newer
            self._forgotten = p.view.committed.registered(FORGOTTEN)
            await self._read_receipts()
            p.outlet.begin()
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
            if self._settled and self._p.may_publish and self._sending.has_room():
                services = self._p.view.committed.services
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
        sent = self._sent.get(wire.config_topic(state.service))
        return self._held.get(state.service) == state.digest or (
            sent is not None
            and sent.content == state.digest
            and trio.current_time() < sent.deadline
        )

    async def _follow(self) -> None:
        """Every service whose state changed since the last look; all of them under a new root. And every
        instance that was forgotten since."""
        known: dict[str, ServiceState] = {}
        view, believed = self._p.view, self._p.believed
        root = believed.current
        while True:
            services = view.committed.services
            if believed.current is not root:
                root = believed.current
                known.clear()
                self._held.clear()
                self._sent.clear()
            if view.publishable:
                for name, state in services.items():
                    if known.get(name) is not state:
                        known[name] = state
                        if self._held.get(name) != state.digest:
                            self._pending[name] = None
                self._empty_what_was_forgotten()
                self._sending.wake()
                self._p.outlet.wake()
            await view.changed()

    # ── sending ────────────────────────────────────────────────────────────────────────────────

    async def _publish(self) -> None:
        """One long-lived task: newest per service, signed, handed over; the answers come by themselves.

        A PUBACK is only the turn's end for its service, so nothing waits for it here.
        """
        while True:
            state = await self._take()
            service = state.service
            root = self._p.believed.current
            try:
                envelope = await self._p.sign(state)
            except (Gone, Full):
                await trio.sleep(_WATCH_S)
                self._want(service)
                continue
            if (
                not self._p.may_publish
                or self._p.believed.current is not root
                or not self._sending.has_room()
            ):
                # a witness was seen meanwhile, or the key was exchanged, or a suspect has its turn
                self._want(service)
                continue
            topic = wire.config_topic(service)
            self._sending.offer(Offer(topic, envelope.to_bytes(), state.digest, state, root))

    async def _send_documents(self) -> None:
        outlet = self._p.outlet
        while True:
            topic, payload, retained = await outlet.take(self._sending.has_room)
            if retained:
                self._sending.offer(Offer(topic, payload, wire.digest(payload)))
            elif self._p.refusals.judge(topic, "", packet_bytes(topic, payload)) != "aside":
                await self._connection.publish(topic, payload, qos=0, retain=False)

    def _published(self, state: ServiceState) -> None:
        log = structlog.get_logger()
        log.info("published", broker=self._p.broker_view.url, **_about(state))

    # ── reading back ───────────────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        async for message in self._connection.messages():
            if message.topic.startswith(wire.STATUS_PREFIX):
                self._on_receipt(message)
                continue
            if message.topic == wire.KEEPALIVE_TOPIC:
                self._p.outlet.company.keepalive(message.payload)
                continue
            if message.topic.startswith(_CONFIG_PREFIX):
                await self._on_config(message.topic.removeprefix(_CONFIG_PREFIX), message)
            else:
                ahead = await self._is_ahead_of_us(message)
                # nothing is written over a witness
                if not ahead and message.topic in self._p.outlet.retained:
                    self._on_document(message)
            self._last_message = trio.current_time()

    async def _on_config(self, service: str, message: Message) -> None:
        state = self._p.view.committed.services.get(service)
        ours = self._ours(message.payload)
        if await self._is_further_than_us(ours, state):
            return
        if state is None:
            # signed by us for a service we do not know: left over from a database that is gone, or
            # ahead of us; the snapshot tells which, and comes later
            if ours is not None and message.retained and _is_signed_for(message):
                self._leftovers.add(service)
            return
        topic = message.topic
        if ours is not None and ours.digest == state.digest and self._is_signed_as_now(ours):
            self._unseen.discard(service)
            self._sent.pop(topic, None)
            self._p.refusals.forget(topic)
            if self._held.get(service) != ours.digest:
                self._held[service] = ours.digest
                self._p.confirmed(state)
            return
        foreign = self._note_rival(message)
        if foreign:
            self._p.no_longer_holds(service)
        if topic not in self._in_flight and service not in self._pending:
            sent = self._sent.get(topic)
            if (
                sent is None
                or sent.content != state.digest
                or (foreign and self._p.is_contested(topic))
            ):
                self._held.pop(service, None)
                self._sent.pop(topic, None)
                self._unseen.discard(service)
                self._repair(topic, lambda: self._want(service))
            elif not message.retained:
                self._held.pop(service, None)  # somebody wrote after us; the read-back will tell

    def _on_document(self, message: Message) -> None:
        outlet, topic = self._p.outlet, message.topic
        if message.payload == outlet.retained[topic]:
            self._sent.pop(topic, None)
            self._p.refusals.forget(topic)
            outlet.note_held(topic)
            return
        if outlet.was_wanted(topic, message.payload):
            self._sent.pop(topic, None)  # what is sent there is given back, be it late
        else:
            self._note_rival(message)
            if topic == wire.HEALTH_TOPIC:
                outlet.company.health(message.payload, retained=message.retained)
        self._repair(topic, lambda: outlet.mark(topic))

    def _note_rival(self, message: Message) -> bool:
        """What is not what we want there: whether somebody else wrote it just now."""
        p, topic = self._p, message.topic
        if message.retained or p.echoes.is_ours(topic, message.payload):
            return False
        if p.rivals.overwritten(topic):
            structlog.get_logger().warning(
                "somebody else writes", broker=p.broker_view.url, topic=topic
            )
        return True

    def _on_receipt(self, message: Message) -> None:
        """What an instance says it runs; one line where it is something else than before."""
        if not message.payload and message.topic in self._emptied:
            self._emptied.discard(message.topic)  # our own, which may come after it was heard again
            return
        told = self._p.statuses.take(
            self._p.broker_view.url,
            message.topic,
            message.payload,
            retained=message.retained,
            now=self._p.world.clock.now(),
        )
        log = structlog.get_logger()
        match told:
            case NewlyRuns(receipt, running):
                log.info(
                    "receipt",
                    broker=self._p.broker_view.url,
                    service=receipt.service,
                    instance=receipt.instance,
                    revision=running.revision,
                    epoch_seq=running.epoch_seq,
                    correlation_id=receipt.correlation_id,
                    request_id=receipt.correlation_id,
                )
            case NotTaken(reason):
                log.debug("no receipt", topic=message.topic[:256], reason=reason)
            case Leftover(service, instance):
                self._empty(service, instance)
            case None:
                pass

    def _empty_what_was_forgotten(self) -> None:
        rows = self._p.view.committed.registered(FORGOTTEN)
        if rows is not self._forgotten:
            for service, instance in newly_forgotten(rows, self._forgotten):
                self._empty(service, instance)
            self._forgotten = rows

    def _empty(self, service: str, instance: str) -> None:
        """Take away what this broker retains of an instance."""
        schema, status = wire.schema_topic(service, instance), wire.status_topic(service, instance)

        def empty() -> None:
            if not self._p.view.publishable:
                return  # it stays away all the same, and is emptied when it is read again
            self._emptied.add(status)
            for topic in (schema, status):  # the receipt last: while it is there, this is not done
                self._connection.hand_over(topic, b"", lambda _code: None)
            structlog.get_logger().info(
                "emptying", broker=self._p.broker_view.url, service=service, instance=instance
            )

        if status in self._not_before or len(self._not_before) < _MOST_REPAIRS:
            self._repair(status, empty, is_slow=True)

    async def _is_ahead_of_us(self, message: Message) -> bool:
        """Something that we signed further on than our data is: it was rolled back, or has a twin.

        Nothing is published while storing judges that; what we had to say on this topic waits.
        """
        p, topic = self._p, message.topic
        ours = p.outlet.retained.get(topic)
        if message.payload == ours or p.outlet.was_wanted(topic, message.payload):
            return False
        if topic == wire.SNAPSHOT_TOPIC:
            seen = self._what_a_snapshot_shows(message)
        else:
            seen = self._what_a_root_shows(message)
        if seen is None:
            return False
        p.outlet.withdraw(topic)
        if not await self._is_borne_out(seen):
            return True
        if ours is not None and topic not in p.outlet.retained:
            p.outlet.set_retained(topic, ours)
        return False

    async def _is_borne_out(self, seen: Witnessed) -> bool:
        """Whether storing finds that our data has what was seen; until then nothing is published."""
        self._p.view.hold_publishing()
        self._judging = True
        await self._p.witnessed(seen)
        self._judging = False
        if self._p.view.publishable:
            self._p.known_heads.add(seen.audit_head)
        return self._p.view.publishable

    async def _is_further_than_us(self, ours: Envelope | None, state: ServiceState | None) -> bool:
        """Whether a configuration of ours is ahead of our data: who wrote on may not have told its snapshot
        yet. The newest one tells for all."""
        p = self._p
        if ours is None or (state is not None and ours.digest == state.digest):
            return False
        with suppress(Distrust):
            mark = trust.parse_verified(ours.payload, ConfigUpdate.parse).mark
            if mark > max(p.view.committed.mark, p.told):
                p.told = mark
                return not await self._is_borne_out(Witnessed(p.broker_view.url, mark))
        return False

    def _what_a_snapshot_shows(self, message: Message) -> Witnessed | None:
        """How far we had come, by the retained snapshot and the beacon beside it, where that may be
        further than we are."""
        p, payload = self._p, message.payload
        root, now = p.believed.current, p.world.clock.now()
        try:
            snapshot, _ = trust.judge_snapshot(payload, root, now)
        except Distrust:
            return None
        mark = Mark(snapshot.epoch_seq, snapshot.revision)
        seen = Witnessed(p.broker_view.url, mark)
        with suppress(Distrust):
            beacon = trust.judge_beacon(strict_json.loads_object(payload).get("beacon"), root, now)
            seen = replace(seen, audit_head=beacon.audit_head, audit_epoch=beacon.epoch_seq)
            if beacon.root_version > root.version and not p.believed.changing:
                seen = replace(seen, beyond=f"a beacon made under root {beacon.root_version}")
            # only of before this process: a twin that runs would never be outdone
            if message.retained and not p.has_read_starts and beacon.boot_seq >= p.boot_seq():
                seen = replace(seen, boot_seq=beacon.boot_seq)
        if mark > p.view.committed.mark or seen.beyond is not None or seen.boot_seq is not None:
            return seen
        return None if seen.audit_head in {*p.known_heads, p.view.committed.audit_head} else seen

    def _what_a_root_shows(self, message: Message) -> Witnessed | None:
        """That our own keys signed a root which is not here: the next one, or another of its version."""
        p = self._p
        try:
            number = wire.root_version(message.topic)
            before = p.believed.version(number - 1)
            if before is None:
                return None
            seen = trust.judge_root(
                message.payload, before, p.world.clock.now(), topic=message.topic
            )
        except (ValueError, Distrust):
            return None
        if seen == p.believed.version(number):
            return None  # other signatures, the same root
        return Witnessed(
            p.broker_view.url,
            beyond=f"a root {number} that our own root keys signed and that is not here",
        )

    def _clear(self, topic: str) -> None:
        """At most one a second for each topic, and never waited for: a hostile broker that plays
        our own envelopes back must neither stop our reading nor make us its amplifier."""
        now = trio.current_time()
        if now >= self._not_before.get(topic, 0.0) and len(self._not_before) < _MOST_REPAIRS:
            self._not_before[topic] = now + _WATCH_S
            self._connection.hand_over(topic, b"", lambda _code: None)

    def _repair(self, topic: str, do: Callable[[], None], *, is_slow: bool = False) -> None:
        """Now, or by a later watch where this topic was repaired just before. is_slow: also while what this
        broker retains is still being read, for that may repeat one message without end."""
        now = trio.current_time()
        is_reading = not self._settled and not is_slow
        if is_reading or now >= self._not_before.get(topic, 0.0):
            self._not_before[topic] = now + self._p.rivals.interval(topic)
            self._p.repairs_due.pop(topic, None)
            do()
        else:
            self._p.repairs_due[topic] = do

    def _ours(self, payload: bytes) -> Envelope | None:
        """The envelope of a configuration that our own root's keys signed, else None."""
        try:
            envelope = trust.open_envelope(payload)
            trust.verify(
                envelope,
                wire.CONFIG_UPDATE,
                "config",
                self._p.believed.current,
                self._p.world.clock.now(),
            )
        except Distrust:
            return None
        return envelope

    def _is_signed_as_now(self, envelope: Envelope) -> bool:
        """By the key that signs now: what a retired one signed is good, and is replaced."""
        try:
            key_id = self._p.believed.key_for("config")
        except KeyError:
            return True  # nobody could replace it
        return any(one.keyid == key_id for one in envelope.signatures)

    # ── what never came ────────────────────────────────────────────────────────────────────────

    async def _reread(self) -> None:
        """Read everything retained; what does not come is not there. Whatever came was judged."""
        self._unseen = set(self._p.view.committed.services)
        # at QoS 1 Mosquitto as shipped gives 1,020 of 5,000 retained messages; at 0 all of them,
        # and there is no PUBACK to send for each of our own.
        # The witnesses first and by themselves: a broker that answers the second has sent them, and
        # no network is so slow that its pauses pass for their end
        await self._connection.subscribe(wire.SNAPSHOT_TOPIC, wire.ROOTS_FILTER, qos=0)
        await self._connection.subscribe(
            wire.CONFIG_FILTER,
            wire.HEALTH_TOPIC,
            wire.KEEPALIVE_TOPIC,
            wire.SEALED_FILTER,
            qos=0,
        )
        started = self._last_message = trio.current_time()
        while True:
            pause = self._last_message + _QUIET_S - trio.current_time()
            is_late = trio.current_time() - started > _SETTLE_S
            if self._judging or (self._connection.has_unread and not is_late):
                # a busy machine comes late to what has arrived: no pause of the broker's
                pause = _QUIET_S
            elif pause <= 0 or is_late:
                break
            await trio.sleep(pause)
        missing, self._unseen = self._unseen, set()
        for service in missing:
            topic = wire.config_topic(service)
            if topic not in self._in_flight and topic not in self._sent:
                self._held.pop(service, None)
                self._pending[service] = None
        leftovers, self._leftovers = self._leftovers, set()
        if self._p.view.publishable:
            for service in leftovers - self._p.view.committed.services.keys():
                self._clear(wire.config_topic(service))
        self._settled = True
        self._sending.wake()

    async def _read_receipts(self) -> None:
        """Apart from what is ours, which ten thousand receipts must not keep waiting."""
        await self._connection.subscribe(wire.STATUS_FILTER, qos=0)

    async def _watch(self) -> None:
        next_reread = trio.current_time() + _REREAD_S
        next_receipts = trio.current_time() + _REREAD_RECEIPTS_S
        while True:
            await trio.sleep(_WATCH_S)
            now = trio.current_time()
            self._sending.look_for_acknowledgements()
            self._not_before = {t: until for t, until in self._not_before.items() if until > now}
            due = [t for t in self._p.repairs_due if t not in self._not_before]
            for topic in due:
                self._repair(topic, self._p.repairs_due[topic])
            self._end_contests()
            for topic in self._p.refusals.due():
                self._try_again(topic)
            await self._p.tell_confirmed()
            self._look_for_what_never_came()
            self._p.note_company()
            self._sending.wake()
            self._p.outlet.wake()
            if now >= next_reread:
                await self._reread()
                next_reread = trio.current_time() + _REREAD_S
            if now >= next_receipts:
                await self._read_receipts()
                next_receipts = trio.current_time() + _REREAD_RECEIPTS_S

    def _look_for_what_never_came(self) -> None:
        services = self._p.view.committed.services
        for topic, sent in self._sending.overdue():
            state = services.get(topic.removeprefix(_CONFIG_PREFIX))
            content = state.digest if state is not None else sent.content
            if sent.content == content and sent.tries >= TRIES:
                self._p.refusals.never_given_back(topic, sent.tries)
                del self._sent[topic]
            else:
                self._try_again(topic)

    def _try_again(self, topic: str) -> None:
        service = topic.removeprefix(_CONFIG_PREFIX)
        if service in self._p.view.committed.services:
            self._want(service)
        elif topic in self._p.outlet.retained:
            self._p.outlet.mark(topic)
        else:
            self._sent.pop(topic, None)
            self._p.refusals.forget(topic)

    def _end_contests(self) -> None:
        """Where nobody else has written for a while, what was read back counts again."""
        for topic in self._p.rivals.ended():
            structlog.get_logger().info(
                "nobody else writes any more", broker=self._p.broker_view.url, topic=topic
            )
            service = topic.removeprefix(_CONFIG_PREFIX)
            state = self._p.view.committed.services.get(service)
            if state is not None and self._held.get(service) == state.digest:
                self._p.confirmed(state)


class Publisher:
    """One broker across connections and its actor's crashes."""

    def __init__(
        self,
        address: BrokerAddress,
        transport: Transport,
        *,
        view: CommittedView,
        confirmations: Confirmations,
        broker_view: BrokerView,
        sign: SignUpdate,
        witnessed: Callable[[Witnessed], Awaitable[None]],
        note_confirmed: Callable[[tuple[tuple[str, int], ...]], Awaitable[None]],
        outlet: Outlet,
        will: Callable[[], Message],
        believed: Believed,
        client_id: str,
        world: World,
        boot_seq: Callable[[], int] = lambda: MAX_INTEGER,
        statuses: StatusBoard | None = None,
        echoes: Echoes | None = None,
    ) -> None:
        """believed: the trust root of now. boot_seq: of this start, as beacons have it. statuses: where
        receipts go. echoes: what was sent on every way to a broker. Both are our own unless they are given."""
        self.view = view
        self.broker_view = broker_view
        self.sign = sign
        self.witnessed = witnessed
        self._note_confirmed = note_confirmed
        self._newly_confirmed: dict[str, int] = {}
        self.outlet = outlet
        self.believed = believed
        self.world = world
        self.statuses = statuses if statuses is not None else StatusBoard()
        self.echoes = echoes if echoes is not None else Echoes()
        self.refusals = Refusals(broker_view.set_aside, self._set_aside)
        self.rivals = Rivals(broker_view.contested)
        self.repairs_due: dict[str, Callable[[], None]] = {}
        self.told = Mark(0, 0)
        """how far the configurations were that storing was asked about"""
        self.known_heads = {GENESIS}
        """Of the audit, that storing was asked about: a hostile broker may play old snapshots back."""
        self._address = address
        self._transport = transport
        self._confirmations = confirmations
        self._will = will
        self._client_id = client_id
        self.boot_seq = boot_seq
        self.has_read_starts = False
        """what this broker retained of earlier starts was read once"""
        self._failures = 0
        self._taken_over = 0
        self._was_away = False
        self._connected_at = math.inf

    async def run(self) -> None:
        """Connect, work, and again, for ever."""
        while True:
            self._connected_at = math.inf
            code: int | None = None
            try:
                with broken_as_itself():
                    async with self._transport.connect(
                        self._address, client_id=self._client_id, will=self._last_will()
                    ) as connection:
                        self.refusals.connected(
                            connection.maximum_packet_bytes, after_absence=self._was_away
                        )
                        self._was_away = False
                        await _Session(self, connection).run()
            except BrokerUnavailable as error:
                code = error.code
                self.refusals.broke(code)
                self._was_away = self._was_away or self._connected_at == math.inf
                self._disconnected(str(error))
            finally:
                self.outlet.end()
                self.repairs_due = {}
            await trio.sleep(self._pause(code))

    def _pause(self, code: int | None) -> float:
        if trio.current_time() - self._connected_at > _LIVED_S:
            self._failures = self._taken_over = 0
        (first, longest), failures = _BACKOFF_S, self._failures
        if code == _TAKEN_OVER:
            (first, longest), failures = _TAKEN_OVER_S, self._taken_over
            self._taken_over += 1
        self._failures += 1
        pause = backoff_s(failures, first_s=first, longest_s=longest)
        fraction = self.world.randomness.fraction()
        if code == _TAKEN_OVER:
            return pause * (1 + fraction) / 2
        return 0.05 + pause * fraction

    def _last_will(self) -> Message | None:
        """None where the health is somebody else's."""
        if self.outlet.leaves_health:
            return None
        will = self._will()
        self.echoes.sent(will.topic, will.payload, within_s=_WILL_WITHIN_S)
        return will

    @property
    def may_publish(self) -> bool:
        return self.view.publishable and not self.believed.changing

    def connected(self) -> None:
        self._connected_at = trio.current_time()
        self.has_read_starts = True
        self.outlet.connected = True
        view = self.broker_view
        view.state, view.since, view.last_error = "connected", trio.current_time(), None
        structlog.get_logger().info("broker connected", broker=view.url)

    def _disconnected(self, error: str) -> None:
        view = self.broker_view
        view.leaves_health = False
        if view.state != "disconnected" or view.last_error != error:
            structlog.get_logger().warning("broker disconnected", broker=view.url, error=error)
        if view.state == "connected":
            view.since = trio.current_time()
        view.state, view.last_error = "disconnected", error
        view.holds.clear()  # what it held it may have lost; we look again

    def confirmed(self, state: ServiceState) -> None:
        """Read back. A line where the broker did not hold this revision before. While somebody else
        writes there, too, it counts for nothing: it may be gone again by now."""
        if self.is_contested(wire.config_topic(state.service)):
            return
        if self.broker_view.holds.get(state.service) != state.revision:
            self._newly_confirmed[state.service] = state.revision
            log = structlog.get_logger()
            log.info("confirmed", broker=self.broker_view.url, **_about(state))
        self._confirmations.note(self.broker_view, state.service, state.revision)

    async def tell_confirmed(self) -> None:
        """What was read back since the last call: for the outbox, together and at leisure."""
        news, self._newly_confirmed = self._newly_confirmed, {}
        if news:
            with suppress(Gone, Full):
                await self._note_confirmed(tuple(news.items()))

    def is_contested(self, topic: str) -> bool:
        return self.rivals.is_contested(topic)

    def no_longer_holds(self, service: str) -> None:
        """Somebody else wrote there: until ours is read back again, this broker holds nothing of ours."""
        self.broker_view.holds.pop(service, None)

    def note_company(self) -> None:
        """For /health: whether we leave the health to somebody else."""
        self.broker_view.leaves_health = not self.view.publishable and self.outlet.company.is_there

    def _set_aside(self, name: str, why: str) -> None:
        """The others go on."""
        state = self.view.committed.services.get(name)
        about = {"topic": name} if state is None else _about(state)
        structlog.get_logger().error("set aside", broker=self.broker_view.url, why=why, **about)


def publishing(name: str, publisher: Publisher) -> Life:
    async def run() -> None:
        structlog.contextvars.bind_contextvars(actor=name)
        await publisher.run()

    return follower(run)


def _is_signed_for(message: Message) -> bool:
    """Whether it lies where we once put it: only there is it ours to clear. It verified before."""
    try:
        return (
            ConfigUpdate.parse(wire.parse_envelope(message.payload).payload).topic == message.topic
        )
    except (wire.NotAnEnvelope, NotADocument, UnknownCritical):
        return False


def _about(state: ServiceState) -> dict[str, Any]:
    return {
        "service": state.service,
        "revision": state.revision,
        "config_epoch": state.epoch.id,
        "correlation_id": state.correlation_id,
        "request_id": state.correlation_id,
    }
