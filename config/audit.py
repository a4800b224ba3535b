"""The audit chain, sans I/O: how a row is hashed, and what is wrong with a chain and where.

    hash = SHA-256(hash of the row before, as 64 hex digits + the row's bytes)

Each row's bytes are JSON and name its own number (`seq`) and the hash of the row before
(`previous`), so that a row can be told from its place: what was altered, removed or put elsewhere
has a number. Rows that were written before they did so are held to their hashes alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

GENESIS = "0" * 64
"""The hash before the first row."""

Kind = Literal["altered", "removed", "reordered", "head", "not-audited"]


def chain(previous: str, body: bytes) -> str:
    """A row's hash: SHA-256 over the previous row's hash (hex) and this row's bytes."""
    return hashlib.sha256(previous.encode() + body).hexdigest()


class Head(NamedTuple):
    """A row's number and hash that somebody else knows: where says who."""

    seq: int
    hash: str
    where: str


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first thing that is wrong.

    kind: `altered` (the row's bytes or hash), `removed` (the row is not there), `reordered`
    (another row stands in its place), `head` (each row follows the one before, but the chain is not
    the one that somebody knows), `not-audited` (the chain is whole, and something is kept for which it
    does not vouch). seq: the row that it is about; 0 if none is.
    """

    seq: int
    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """rows: how many were read. head: the hash of the last one. problem: None for a whole chain."""

    rows: int
    head: str
    problem: AuditFault | None

    @property
    def ok(self) -> bool:
        return self.problem is None


class _Named(NamedTuple):
    """What a row's bytes say of it; None where they say nothing."""

    seq: int | None = None
    previous: str | None = None
    revision: int | None = None


class ChainCheck:
    """Takes the rows from the first one on, in the order in which they lie, and judges. What was wrong
    before a row with which an operator accepted the rows as they lay (`restore --accept`) is wrong no more,
    as long as they lie so: such a row names the hash over all of them.

    end: where the chain must end. known: what else it must hold. contains: the hash of a row that
    it must hold, wherever.
    """

    def __init__(
        self, end: Head | None, known: Iterable[Head] = (), *, contains: str | None = None
    ) -> None:
        self._end = end
        self._known = {head.seq: head for head in known}
        self._contains = contains
        self._rows = 0
        self._seq = 0
        self._hash = GENESIS
        self._problem: AuditFault | None = None
        self._lay = hashlib.sha256()
        """over every row so far, as it lies"""
        self._missing: int | None = None
        """A row whose place is taken: once it is found further on, the order was changed."""

    def take(self, seq: int, revision: int, body: bytes, row_hash: str) -> None:
        """The next row, as it lies: its columns beside its bytes."""
        self._rows += 1
        if row_hash == self._contains:
            self._contains = None
        follows = seq == self._seq + 1 and chain(self._hash, body) == row_hash
        if follows and _accepts(body, self._lay.hexdigest()):
            self._problem = self._missing = None
        if self._problem is None:
            self._judge(seq, revision, body, row_hash)
        elif self._missing is not None and self._missing in (seq, _named(body).seq):
            place = self._missing
            self._missing = None
            self._problem = AuditFault(place, "reordered", f"row {place} stands in another place")
        self._seq, self._hash = seq, row_hash
        self._lay.update(as_it_lies(seq, revision, body, row_hash))

    @property
    def lay(self) -> str:
        """SHA-256 (hex) over every row so far, as it lies: its number, revision, bytes and hash."""
        return self._lay.hexdigest()

    def finish(self) -> ChainVerdict:
        """After the last row."""
        if self._problem is None:
            self._problem = self._at_the_end()
        return ChainVerdict(self._rows, self._hash, self._problem)

    def _judge(self, seq: int, revision: int, body: bytes, row_hash: str) -> None:
        expected = self._seq + 1
        if seq < expected:
            self._problem = AuditFault(seq, "reordered", f"row {seq} stands there twice")
        elif seq > expected:
            self._missing = expected
            last = f" to {seq - 1}" if seq - 1 > expected else ""
            self._problem = AuditFault(expected, "removed", f"row {expected}{last} is not there")
        elif chain(self._hash, body) != row_hash:
            self._problem = self._broken(seq, body, row_hash)
        elif _named(body).revision != revision:
            detail = f"row {seq} lies under revision {revision}, and is of another one"
            self._problem = AuditFault(seq, "altered", detail)
        elif (head := self._known.get(seq)) is not None and head.hash != row_hash:
            self._problem = AuditFault(seq, "head", f"{head.where} knows another row {seq}")

    def _broken(self, seq: int, body: bytes, row_hash: str) -> AuditFault:
        """The row does not follow from the one before it. If it is as it was made, that one isn't."""
        named = _named(body)
        as_made = named.previous is not None and chain(named.previous, body) == row_hash
        if not as_made:
            return AuditFault(seq, "altered", f"row {seq} is not what its hash was made of")
        if named.seq != seq:
            self._missing = seq
            return AuditFault(
                seq, "removed", f"row {seq} is not there; what was row {named.seq} took its number"
            )
        if seq == 1:
            return AuditFault(1, "altered", "row 1 does not begin a chain")
        return AuditFault(
            seq - 1, "altered", f"row {seq - 1} is not the one that row {seq} was written after"
        )

    def _at_the_end(self) -> AuditFault | None:
        seq, end = self._seq, self._end
        for head in (*([end] if end else []), *self._known.values()):
            if seq < head.seq:
                last = f" to {head.seq}" if head.seq > seq + 1 else ""
                detail = f"row {seq + 1}{last} is not there; {head.where} knows {head.seq} rows"
                return AuditFault(seq + 1, "removed", detail)
        if end is not None and seq > end.seq:
            detail = f"row {end.seq + 1} stands behind the last one that {end.where} knows"
            return AuditFault(end.seq + 1, "head", detail)
        if end is not None and self._hash != end.hash:
            return AuditFault(seq, "head", f"{end.where} knows another end of the chain")
        if self._contains is not None:
            return AuditFault(seq, "head", f"no row has the hash {self._contains[:16]}…")
        return None


def as_it_lies(seq: int, revision: int, body: bytes, row_hash: str) -> bytes:
    """A row with its columns; no two rows, and no two sequences of rows, give the same bytes."""
    head = f"{seq} {revision} {len(body)} {len(row_hash.encode())} "
    return head.encode() + body + row_hash.encode()


def _accepts(body: bytes, lay: str) -> bool:
    """Whether a row accepts those before it as they lie."""
    if lay.encode() not in body:
        return False
    try:
        value = json.loads(body)
        return bool(value["action"] == "restore" and value["accepted"]["lay"] == lay)
    except (ValueError, RecursionError, LookupError, TypeError):
        return False


def _named(body: bytes) -> _Named:
    try:
        value = json.loads(body)
        seq, previous, revision = value.get("seq"), value.get("previous"), value.get("revision")
    except (ValueError, AttributeError, RecursionError):
        return _Named()
    return _Named(
        seq if isinstance(seq, int) else None,
        previous if isinstance(previous, str) and previous.isascii() else None,
        revision if isinstance(revision, int) else None,
    )
