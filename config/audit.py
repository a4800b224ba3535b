"""The audit chain, without I/O: how a row is hashed, and where a chain is broken.

    hash = SHA-256(hash of the row before, as 64 hex digits + the row's bytes)

Each row's bytes are JSON and name its number (`seq`) and the hash of the row before (`previous`). So
a row that was altered, removed or moved can be named. Rows of versions that did not write these are
only held to their hashes.
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
    """A row's number and hash, as something outside the chain knows them. where: what knows them."""

    seq: int
    hash: str
    where: str


@dataclass(frozen=True, slots=True)
class AuditFault:
    """The first fault of a chain.

    kind: `altered` (the row's bytes or hash), `removed` (the row is missing), `reordered` (another
    row stands in its place), `head` (each row follows the one before, but a known head differs),
    `not-audited` (the chain is whole, but does not vouch for something that is kept). seq: the row's
    number; 0 for none.
    """

    seq: int
    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """rows: how many were read. head: the hash of the last one. problem: None if the chain is whole."""

    rows: int
    head: str
    problem: AuditFault | None

    @property
    def ok(self) -> bool:
        return self.problem is None


class _Named(NamedTuple):
    """What a row's bytes say of it; None if they say nothing."""

    seq: int | None = None
    previous: str | None = None
    revision: int | None = None


class ChainCheck:
    """Takes the rows in the order in which they are stored, from the first one on, and judges them.

    A row of `restore --accept` names the hash over all rows before it, as they were stored then. While
    they still are, their faults no longer count.

    end: where the chain must end. known: other rows that it must hold. contains: the hash of a row
    that it must hold anywhere. after: number and hash of the row before the first one that is taken.
    """

    def __init__(
        self,
        end: Head | None,
        known: Iterable[Head] = (),
        *,
        contains: str | None = None,
        after: tuple[int, str] = (0, GENESIS),
    ) -> None:
        self._end = end
        self._known = {head.seq: head for head in known}
        self._contains = contains
        self._rows = 0
        self._seq, self._hash = after
        self._problem: AuditFault | None = None
        self._lay = hashlib.sha256()
        """over every row so far, as it is stored"""
        self._missing: int | None = None
        """A row that is not in its place. If it comes later, the order was changed."""

    def take(self, seq: int, revision: int, body: bytes, row_hash: str) -> None:
        """The next row as it is stored: its columns beside its bytes."""
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
        """SHA-256 (hex) over every row so far as it is stored: its number, revision, bytes and hash."""
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
        """The row does not follow from the one before. If it is unaltered, the one before is not."""
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
    """A row with its columns, as bytes. No two rows and no two sequences of rows give the same bytes."""
    head = f"{seq} {revision} {len(body)} {len(row_hash.encode())} "
    return head.encode() + body + row_hash.encode()


def _accepts(body: bytes, lay: str) -> bool:
    """Whether a row accepts those before it as they are stored."""
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
