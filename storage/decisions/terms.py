"""On which terms something is asked: who, why, once, and what has to be there before it is done.

Built once, where a request comes in, and passed on as it is. The grammar of headers and query strings ends
there: from here on there are only names, texts and revisions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Idempotency:
    """key: the caller's name and its Idempotency-Key. fingerprint: SHA-256 of everything else that
    makes the request; never stored as it is, because a request may hold a secret."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Terms:
    """What every write says beside what it wants.

    by: who asks. reason: why, in the operator's words. idempotency: it is done once for this key.
    dry_run: answer what would change, and change nothing. client: the caller's address, if the request came over
    REST; None for what the server does by itself.
    """

    by: str
    reason: str | None = None
    idempotency: Idempotency | None = None
    dry_run: bool = False
    client: str | None = None

    def because(self, reason: str | None) -> Terms:
        """With the reason of the body, which wins over the query's if there is one."""
        return self if reason is None else replace(self, reason=reason)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a service has to be at for a write to be made.

    revisions: it holds at each of these; 0 is the revision of a service that nobody has written, or that is
    deleted. any_revision: it also holds at every other revision. With neither it never holds. said: the
    caller's words, for the refusal; None if the caller expected that nothing is there.
    """

    revisions: frozenset[int] = frozenset()
    any_revision: bool = False
    said: str | None = None

    def holds_at(self, revision: int) -> bool:
        """Whether a write may be made to a service at this revision."""
        return revision in self.revisions or (self.any_revision and revision > 0)


ABSENT = Precondition(frozenset({0}))
"""Nobody has written it yet, or it is deleted."""
