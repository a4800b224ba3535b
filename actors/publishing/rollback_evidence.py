"""What a retained document shows that our own keys signed and that is further on than our data. Pure.

Our data was rolled back then, or it has a twin that runs. Storing judges which; this only finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from config_manager.actors.messages import Witnessed
from config_manager.actors.mqtt.port import Message
from config_manager.actors.views import Believed, CommittedView
from config_manager.config import strict_json, trust, wire
from config_manager.config.audit import GENESIS
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.names import Mark
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope


class RollbackEvidence:
    """What one broker shows, kept across connections. It remembers what storing was asked about, because a hostile
    broker may play old documents back."""

    def __init__(
        self,
        where: str,
        view: CommittedView,
        believed: Believed,
        boot_seq: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """where: the broker. boot_seq: of this start. clock: Unix seconds."""
        self._where = where
        self._view = view
        self._believed = believed
        self._boot_seq = boot_seq
        self._clock = clock
        self._furthest = Mark(0, 0)
        self._known_heads = {GENESIS}
        self._has_read_starts = False

    def has_read_starts(self) -> None:
        """Everything retained was read: a beacon that comes later tells nothing of earlier starts."""
        self._has_read_starts = True

    def borne_out(self, seen: Witnessed) -> None:
        """Storing found that our data has what was seen, so it is no evidence."""
        self._known_heads.add(seen.audit_head)

    def own_configuration(self, payload: bytes) -> Envelope | None:
        """The envelope of a configuration that our own root's keys signed, else None."""
        root, now = self._believed.current, self._clock()
        try:
            envelope = trust.open_envelope(payload)
            trust.verify(envelope, wire.CONFIG_UPDATE, "config", root, now)
        except Distrust:
            return None
        return envelope

    def in_configuration(self, envelope: Envelope) -> Witnessed | None:
        """What a configuration that our keys signed shows. Only the furthest one counts. The server that wrote it may
        have died before it published a snapshot of it."""
        with suppress(Distrust):
            mark = trust.parse_verified(envelope.payload, ConfigUpdate.parse).mark
            if mark > max(self._view.committed.mark, self._furthest):
                self._furthest = mark
                return Witnessed(self._where, mark)
        return None

    def in_document(self, message: Message) -> Witnessed | None:
        """What any other document shows that we did not send."""
        if message.topic == wire.SNAPSHOT_TOPIC:
            return self._in_snapshot(message)
        return self._in_root(message)

    def _in_snapshot(self, message: Message) -> Witnessed | None:
        """How far we had come, by the snapshot and the beacon beside it."""
        believed, committed = self._believed, self._view.committed
        root, now = believed.current, self._clock()
        try:
            snapshot, _ = trust.judge_snapshot(message.payload, root, now)
        except Distrust:
            return None
        mark = Mark(snapshot.epoch_seq, snapshot.revision)
        seen = Witnessed(self._where, mark)
        with suppress(Distrust):
            given = strict_json.loads_object(message.payload).get("beacon")
            beacon = trust.judge_beacon(given, root, now)
            seen = replace(seen, audit_head=beacon.audit_head, audit_epoch=beacon.epoch_seq)
            if beacon.root_version > root.version and not believed.changing:
                seen = replace(seen, beyond=f"a beacon made under root {beacon.root_version}")
            # only a beacon from before this start: a running twin would count up with us for ever
            is_earlier = message.retained and not self._has_read_starts
            if is_earlier and beacon.boot_seq >= self._boot_seq():
                seen = replace(seen, boot_seq=beacon.boot_seq)
        if mark > committed.mark or seen.beyond is not None or seen.boot_seq is not None:
            return seen
        return None if seen.audit_head in {*self._known_heads, committed.audit_head} else seen

    def _in_root(self, message: Message) -> Witnessed | None:
        """A root that our own root keys signed and that is not here: the next one, or another of a version
        that is."""
        try:
            number = wire.root_version(message.topic)
            before = self._believed.version(number - 1)
            if before is None:
                return None
            seen = trust.judge_root(message.payload, before, self._clock(), topic=message.topic)
        except (ValueError, Distrust):
            return None
        if seen == self._believed.version(number):
            return None  # other signatures, the same root
        return Witnessed(
            self._where,
            beyond=f"a root {number} that our own root keys signed and that is not here",
        )


def is_signed_for(ours: Envelope, topic: str) -> bool:
    """Whether a configuration of ours lies on the topic that it was signed for: only there may we clear it."""
    with suppress(Distrust):
        return trust.parse_verified(ours.payload, ConfigUpdate.parse).topic == topic
    return False
