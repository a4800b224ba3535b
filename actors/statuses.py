"""What instances say they run: their retained receipts, judged and held. Pure: bytes in, no I/O.

The receipts of an enrolled instance are signed by the key that it enrolled; any other in its name is refused. An
instance that is not enrolled only claims: it is shown as such and decides nothing. Brokers need not be trusted,
so all of this is bounded, and messages that are no receipts are counted.

Receipts of one key rise by `(boot_seq, seq)`; an older one is ignored. A will was signed before the receipts
that it follows and knows less: it only marks its boot as gone. A new state directory counts from one again, with
another key: then the time that it claims decides.

An instance that was forgotten (`actors.forgetting`) is dropped, and shown again once it says something newer.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from config_manager.actors.receipt_reading import (
    BEFORE,
    InstanceStatus,
    NotAReceipt,
    names_of,
    read_receipt,
)
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt, Running
from config_manager.storage.decisions.forgotten import Forgotten
from config_manager.storage.decisions.schema_outlook import LiveInstance

K = TypeVar("K")

MAX_INSTANCES = 10_000
MAX_TOTAL_BYTES = 16 * 1024 * 1024
"""Of all receipts together; an honest one has 1 KiB."""
_KNOWN_BY_SIGHT = 4 * MAX_INSTANCES
"""Retained messages of all brokers that are recognised when they are read again."""


@dataclass(frozen=True, slots=True)
class HeardReceipt:
    """A receipt that told something new. receipt: what came; a will knows less than the status, which is what is known
    since. at: its own time (Unix seconds). envelope: its bytes."""

    status: InstanceStatus
    receipt: Receipt
    at: float
    envelope: bytes


@dataclass(frozen=True, slots=True)
class NewlyRuns:
    """An instance reports that it runs something else than before."""

    receipt: Receipt
    running: Running


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Counted and ignored."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """A broker still retains a forgotten instance: its topics should be emptied."""

    service: str
    instance: str


SignKey = Callable[[str, str], bytes | None]
LooksUpForgotten = Callable[[str, str], Forgotten | None]


class StatusBoard:
    """Every instance that any broker told us of; in memory. `actors.drifting` fills it at the start with what was kept."""

    def __init__(
        self,
        sign_key: SignKey = lambda _service, _instance: None,
        forgotten: LooksUpForgotten = lambda _service, _instance: None,
        *,
        max_instances: int = MAX_INSTANCES,
        max_total_bytes: int = MAX_TOTAL_BYTES,
    ) -> None:
        """sign_key: of an enrolled instance (raw Ed25519), None for any other. forgotten: how far an instance
        had come when it was forgotten, None if it never was."""
        self._sign_key = sign_key
        self._forgotten = forgotten
        self._dropped: dict[tuple[str, str], Forgotten] = {}
        self.refused = 0
        """messages that were no receipts, or too many"""
        self.on_receipt: list[Callable[[HeardReceipt], None]] = []
        """called with each receipt that tells something new; quick, and never raises"""
        self.on_change: list[Callable[[str, str], None]] = []
        """called with (service, instance) where something else is known than before, or nothing any more"""
        self._statuses: dict[tuple[str, str], InstanceStatus] = {}
        self._of_service: dict[str, dict[str, InstanceStatus]] = {}
        self._of_schema: dict[tuple[str, str], dict[str, InstanceStatus]] = {}
        self._strangers: dict[
            tuple[str, str], None
        ] = {}  # not verified; in the order in which they came
        self._strangers_of = Counter[str]()
        self._total_bytes = 0
        self._max_instances = max_instances
        self._max_total_bytes = max_total_bytes
        self._known_by_sight: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def statuses(self, service: str | None = None) -> list[InstanceStatus]:
        """All of them, or one service's, by service and instance."""
        if service is not None:
            for instance in list(self._of_service.get(service, ())):
                self.drop_forgotten(service, instance)
            return [one for _, one in sorted(self._of_service.get(service, {}).items())]
        for name in list(self._statuses):
            self.drop_forgotten(*name)
        return [one for _, one in sorted(self._statuses.items(), key=lambda item: item[0])]

    def live(self, service: str) -> list[LiveInstance]:
        """The service's instances that are there now, and what each says it was built with."""
        return [
            LiveInstance(one.receipt.instance, one.verified, one.receipt.schema)
            for one in self.statuses(service)
            if not one.gone
        ]

    def schemas(self) -> list[tuple[str, str]]:
        """(service, digest) of every schema that some instance says it was built with."""
        return list(self._of_schema)

    def status(self, service: str, instance: str) -> InstanceStatus | None:
        """What is known of one instance."""
        self.drop_forgotten(service, instance)
        return self._statuses.get((service, instance))

    def names_schema(self, service: str, digest: str, *, but: str) -> bool:
        """Whether an instance of this service names this schema, other than the one of that name."""
        names = self._of_schema.get((service, digest), {})
        return any(one != but and self.status(service, one) is not None for one in list(names))

    def built_with(self, service: str, digest: str) -> Literal["enrolled", "claimed"] | None:
        """Whether an instance that is there names this schema: one that enrolled, or one that only claims to."""
        names = self._of_schema.get((service, digest), {}).values()
        there = [one.verified for one in names if not one.gone]
        return None if not there else "enrolled" if any(there) else "claimed"

    def take(
        self, broker: str, topic: str, payload: bytes, *, retained: bool, now: float
    ) -> NewlyRuns | NotTaken | Leftover | None:
        """A message of `wire.STATUS_FILTER`. retained: as in MQTT, stored before we subscribed."""
        is_repeated = self._is_known(broker, topic, payload) and retained
        try:
            key = names_of(topic)
            if is_repeated and self._forgotten(*key) is None:
                return None
            if payload:
                told = read_receipt(payload, broker, now, self._sign_key(*key))
                if (told.receipt.service, told.receipt.instance) != key:
                    raise NotAReceipt("it names another instance than its topic does")
                self.drop_forgotten(*key)
                if self._is_leftover(key, told, retained=retained):
                    return Leftover(*key)
                before = self._statuses.get(key)
                judged = self._judge(key, told, retained=retained)
                self._tell_heard(key, before, told, payload)
                return judged
        except NotAReceipt as garbage:
            if is_repeated:
                return None
            self.refused += 1
            return NotTaken(str(garbage))
        self._drop(key)
        return None

    def restore(
        self, service: str, instance: str, envelope: bytes, received_at: float
    ) -> Receipt | None:
        """A receipt that was kept before the start, if it still counts. To be called before any broker tells anything,
        the oldest first."""
        key = (service, instance)
        try:
            told = read_receipt(envelope, BEFORE, received_at, self._sign_key(*key))
            if self._is_leftover(key, told, retained=True) or not told.verified:
                return None
            self._judge(key, told, retained=True)
        except NotAReceipt:  # its key was exchanged
            return None
        return told.receipt

    def start_over(self, service: str, instance: str) -> None:
        """Another key counts from now on: drop what was said before."""
        self._drop((service, instance))
        self._known_by_sight.clear()

    def drop_forgotten(self, service: str, instance: str) -> None:
        """Free the place of an instance that was forgotten since the last call and has said nothing newer."""
        key = (service, instance)
        what, held = self._forgotten(*key), self._statuses.get(key)
        if what is None or self._dropped.get(key) == what:
            return  # what the board holds was said after the instance was forgotten
        self._dropped[key] = what
        if held is not None and what.covers(held.receipt, held.keyid, held.at, retained=True):
            self._drop(key)

    def _tell_heard(
        self,
        key: tuple[str, str],
        before: InstanceStatus | None,
        told: InstanceStatus,
        envelope: bytes,
    ) -> None:
        status = self._statuses.get(key)
        if status is None:
            return
        if before is not None and (status.receipt, status.gone) == (before.receipt, before.gone):
            return
        heard = HeardReceipt(status, told.receipt, told.at, envelope)
        for tell in self.on_receipt:
            tell(heard)

    def _tell_changed(self, key: tuple[str, str]) -> None:
        for tell in self.on_change:
            tell(*key)

    def _is_leftover(self, key: tuple[str, str], told: InstanceStatus, *, retained: bool) -> bool:
        what = self._forgotten(*key)
        if what is None or (told.gone and key in self._statuses):
            return False  # an instance that is back ends as any other
        return what.covers(told.receipt, told.keyid, told.at, retained=retained)

    def _is_known(self, broker: str, topic: str, payload: bytes) -> bool:
        """Whether this was the topic's last message from this broker; it is from now on."""
        key = (broker, hashlib.sha256(topic.encode(errors="replace")).digest())
        sight = hashlib.sha256(payload[: wire.MAX_RECEIPT_BYTES + 1]).digest()
        before = self._known_by_sight.pop(key, None)
        self._known_by_sight[key] = sight
        if len(self._known_by_sight) > _KNOWN_BY_SIGHT:
            self._known_by_sight.popitem(last=False)
        return before == sight

    def _judge(
        self, key: tuple[str, str], told: InstanceStatus, *, retained: bool
    ) -> NewlyRuns | None:
        receipt = told.receipt
        held = self._statuses.get(key)
        new = told if held is None else _succeed(held, told, retained=retained)
        if new is held:
            if new.is_from_before and receipt == new.receipt and not new.gone:
                self._keep(key, replace(new, broker=told.broker))
            return None
        running, ran, since = new.receipt.running, None, told.since
        heard_at = max(0.0, min(told.at, told.heard_at)) if retained else told.heard_at
        if held is not None:
            ran = held.receipt.running
            heard_at = max(held.heard_at, heard_at)
            if running == ran and new.gone == held.gone:
                since = held.since
        elif retained:
            ran = running  # what lay there before we subscribed is no news, and began before that;
            if not told.gone:  # a will's time is that of its connection
                since = max(0.0, min(told.at, since))
        self._keep(key, replace(new, since=since, received_at=told.received_at, heard_at=heard_at))
        return (
            None if running is None or running == ran or new.gone else NewlyRuns(receipt, running)
        )

    def _keep(self, key: tuple[str, str], status: InstanceStatus) -> None:
        """Raises NotAReceipt if there is no room. An enrolled instance takes a stranger's place; the strangers of
        one service get half of all places at most."""
        held = self._statuses.get(key)
        is_new_stranger = held is None and not status.verified
        if is_new_stranger and self._strangers_of[key[0]] >= self._max_instances // 2:
            raise NotAReceipt("there are too many instances of this service that nobody enrolled")
        while not self._fits(held, status):
            stranger = next((one for one in self._strangers if one != key), None)
            if stranger is None or not status.verified:
                raise NotAReceipt(
                    "there are too many instances, or their receipts are too large together"
                )
            self._drop(stranger)
        self._take_out(key)
        self._statuses[key] = status
        service, instance = key
        self._of_service.setdefault(service, {})[instance] = status
        self._of_schema.setdefault((service, status.receipt.schema), {})[instance] = status
        self._total_bytes += status.size
        if not status.verified:
            self._strangers[key] = None
            self._strangers_of[key[0]] += 1
        self._tell_changed(key)

    def _fits(self, held: InstanceStatus | None, status: InstanceStatus) -> bool:
        count = len(self._statuses) + (held is None)
        total = self._total_bytes + status.size - (held.size if held else 0)
        return count <= self._max_instances and total <= self._max_total_bytes

    def _drop(self, key: tuple[str, str]) -> None:
        if key in self._statuses:
            self._take_out(key)
            self._tell_changed(key)

    def _take_out(self, key: tuple[str, str]) -> None:
        removed = self._statuses.pop(key, None)
        if removed is not None:
            _take_out(self._of_service, key[0], key[1])
            _take_out(self._of_schema, (key[0], removed.receipt.schema), key[1])
            self._total_bytes -= removed.size
            if not removed.verified:
                del self._strangers[key]
                self._strangers_of[key[0]] -= 1
                if not self._strangers_of[key[0]]:
                    del self._strangers_of[key[0]]


def _take_out(index: dict[K, dict[str, InstanceStatus]], key: K, instance: str) -> None:
    del index[key][instance]
    if not index[key]:
        del index[key]


def _succeed(held: InstanceStatus, told: InstanceStatus, *, retained: bool) -> InstanceStatus:
    """What is known after `told`; `held` itself if that tells nothing new."""
    before, after = held.receipt, told.receipt
    if told.verified != held.verified:  # the enrolled instance counts
        return told if told.verified else held
    if told.keyid != held.keyid:
        return told if told.at > held.at else held
    if after.boot_seq != before.boot_seq:
        return told if after.boot_seq > before.boot_seq else held
    newest = told if after.seq > before.seq else held
    if told.gone:
        is_news = newest is told or not held.gone
        return _gone(newest, told.broker, held.live_seq) if is_news else held
    return _after_a_will(held, told, newest, retained=retained) if held.gone else newest


def _after_a_will(
    held: InstanceStatus, told: InstanceStatus, newest: InstanceStatus, *, retained: bool
) -> InstanceStatus:
    """Gone wins, unless this was said after the will: it was published right now (a client that reconnects
    repeats its last receipt), or it is newer and has replaced the retained will."""
    live_seq = told.receipt.seq
    is_newer = live_seq > held.live_seq
    took_its_place = retained and is_newer and held.broker in (told.broker, BEFORE)
    if took_its_place or (not retained and live_seq >= held.live_seq):
        return replace(newest, gone=False, broker=told.broker, live_seq=live_seq)
    return _gone(newest, held.broker, live_seq) if is_newer else held


def _gone(status: InstanceStatus, broker: str, live_seq: int) -> InstanceStatus:
    return replace(status, gone=True, broker=broker, live_seq=live_seq)
