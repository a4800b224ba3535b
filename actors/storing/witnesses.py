"""What others know of how far we have come: instance.json, the cache, brokers, this server's own memory.

A database that says otherwise was rolled back or rewritten, or has a twin that wrote on.
"""

from __future__ import annotations

from config_manager.actors.messages import Witnessed
from config_manager.config.audit import GENESIS, Head
from config_manager.config.names import Mark
from config_manager.storage.state import Committed
from config_manager.storage.store import Store


class Witnesses:
    """Everything that others know, and how a store contradicts it."""

    def __init__(self, known: Committed) -> None:
        self._known = known
        """what the cache holds, at a start; what is in memory, later"""
        self._floor = Mark(0, 0)
        self._seen_at = "instance.json has seen"
        self.audited = Head(0, GENESIS, "instance.json")
        """the newest row of the audit that somebody here knows"""
        self._rows_elsewhere: dict[str, tuple[str, int]] = {}
        """hash of a row that we signed → who knows it, and the epoch then"""
        self._beyond: str | None = None
        self.accepted_epoch = 0
        """the newest epoch in which an operator accepted what was kept (`restore`)"""

    def at_start(self, mark: Mark, audited: Head, kept: Committed | None) -> None:
        """What instance.json and the cache say. kept: None if no cache verifies."""
        self._floor, self.audited = mark, audited
        if kept is not None:
            self._know(kept, "the last-known-good cache")

    def remember(self, committed: Committed) -> None:
        """What is in memory."""
        self._know(committed, "this server")
        if committed.mark > self._floor:
            self._floor, self._seen_at = committed.mark, "this server was at"

    def _know(self, committed: Committed, who: str) -> None:
        self._known = committed
        if committed.audit_seq > self.audited.seq:
            self.audited = Head(committed.audit_seq, committed.audit_head, who)

    def hear(self, witnessed: Witnessed) -> None:
        """A broker's retained documents are a witness, as instance.json is."""
        if witnessed.mark is not None and witnessed.mark > self._floor:
            self._floor = witnessed.mark
            self._seen_at = f"{witnessed.where} holds what we signed at"
        if witnessed.beyond is not None:
            self._beyond = f"{witnessed.where} holds {witnessed.beyond}"
        if witnessed.audit_head != GENESIS:
            self._rows_elsewhere[witnessed.audit_head] = (witnessed.where, witnessed.audit_epoch)

    def contradiction(self, store: Store, committed: Committed) -> str | None:
        """How this database contradicts what others know; None if it does not. Blocks; raises DatabaseUnavailable."""
        if (why := self._beyond or self.behind(committed)) is not None:
            return why
        for row_hash, (where, epoch) in list(self._rows_elsewhere.items()):
            # an operator that accepted what is here (`restore`) gave up what was known elsewhere before
            if epoch >= self.accepted_epoch and not store.has_audit_row(row_hash):
                return f"{where} knows a row of its audit that is not here ({row_hash[:16]}…)"
            del self._rows_elsewhere[row_hash]
        if (why := _otherwise(committed, self._known)) is not None:
            return why
        seq, row_hash, where = self.audited
        if seq == 0:
            return None
        rows = store.audit(after=seq - 1, limit=1)
        is_there = bool(rows) and (rows[0].seq, rows[0].hash) == (seq, row_hash)
        return None if is_there else f"row {seq} of its audit is not the one that {where} knows"

    def behind(self, committed: Committed) -> str | None:
        """How far it is behind what anybody knows; None if it is not."""
        if committed.mark >= self._floor:
            return None
        return (
            f"the database is at revision {committed.revision}, but {self._seen_at} revision "
            f"{self._floor.revision}"
        )


def _otherwise(committed: Committed, known: Committed) -> str | None:
    """Which service is older in the database than somebody knows it, or has other content, in words; else None."""
    for name, state in known.services.items():
        held = committed.services.get(name)
        if held is None or held.mark < state.mark:
            at = f"revision {held.revision}" if held is not None else "no revision"
            return f"the database has {name} at {at}, but it was at revision {state.revision}"
        if held.mark == state.mark and held.digest != state.digest:
            return f"revision {state.revision} of {name} is another one in the database"
    return None
