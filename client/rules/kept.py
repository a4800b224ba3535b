"""What survives a restart of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import KeyRole, Root
from config_manager.config.trust import Seen
from config_manager.config.wire import Envelope

Version: TypeAlias = tuple[ConfigUpdate, Envelope]
"""One configuration, and the signed message that it came in."""


@dataclass(frozen=True, slots=True)
class Died:
    """The service died within the bake time of this configuration, so often in a row."""

    revision: int
    digest: str
    times: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What survives a restart.

    running: the configuration that runs and its envelope; None if only marks could be read.
    trial: one that runs, or is about to, and has yet to live through its bake time; then `running`
    is the one before. trial_asked: the service is still being asked about it. trial_ended_well: the
    service stopped on purpose meanwhile. died: the one that the service died beside last, and how
    often in a row. poison: the digest of one that it died of: only a newer one is tried.
    seen: the highest ever accepted, tombstones included; None if no key of today vouches for any.
    beacon_order: the highest beacon, so that an old one proves nothing after a restart. Both stand
    as long as the keys that vouched for them: seen_by and beacons_by hold the highest of each key.
    has_floor: a mark was undone and nothing taken since, so the snapshot is the floor, as at a first
    start. root_version: of the newest root that was trusted. signer_revoked: found while loading,
    never stored; so is tried_elsewhere: what another process lives through its bake time with just now.
    """

    running: Version | None
    seen: Seen | None
    deleted: bool = False
    beacon_order: tuple[int, int] | None = None
    signer_revoked: bool = False
    trial: Version | None = None
    trial_asked: bool = False
    trial_ended_well: bool = False
    died: Died | None = None
    poison: str | None = None
    seen_by: Mapping[str, Seen] = field(default_factory=dict[str, Seen])
    beacons_by: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    root_version: int = 0
    sealed: tuple[Envelope, ...] = ()
    tried_elsewhere: Version | None = None
    has_floor: bool = False

    @property
    def applied(self) -> Seen | None:
        if self.running is None:
            return None
        update, envelope = self.running
        return Seen(update.mark, envelope.digest)

    @property
    def to_start_with(self) -> Version | None:
        """What a restarted service runs: the trial it left in good health, else what ran before."""
        return self.trial or self.running

    def under(self, root: Root) -> Kept:
        """The same under a root: a mark for which only keys stood that it no longer lists is undone.

        What enough of today's keys signed can't be undone by this: of the highest that each of them
        vouched for, the threshold's one is at least as high.
        """
        seen_by, seen = left_by(self.seen_by, self.seen, root.roles["config"])
        beacons_by, order = left_by(self.beacons_by, self.beacon_order, root.roles["beacon"])
        return replace(
            self,
            seen=seen,
            seen_by=seen_by,
            beacon_order=order,
            beacons_by=beacons_by,
            has_floor=self.has_floor or seen != self.seen,
        )


Rising = TypeVar("Rising", Seen, tuple[int, int])


def left_by(
    by_key: Mapping[str, Rising], highest: Rising | None, role: KeyRole
) -> tuple[Mapping[str, Rising], Rising | None]:
    """The marks by key, and the mark that stands, if only this role's keys count."""
    left = {key: mark for key, mark in by_key.items() if key in role.keyids}
    if len(left) == len(by_key):
        return by_key, highest
    ranked = sorted(left.values(), reverse=True)
    return left, ranked[role.threshold - 1] if len(ranked) >= role.threshold else None


def raised(
    by_key: Mapping[str, Rising], keys: frozenset[str], mark: Rising
) -> Mapping[str, Rising]:
    """The marks by key once these keys vouched for `mark`; the same object if nothing rose."""
    risen = {key: mark for key in keys if key not in by_key or by_key[key] < mark}
    return {**by_key, **risen} if risen else by_key


def are_enough(keyids: frozenset[str], role: KeyRole) -> bool:
    return len(keyids.intersection(role.keyids)) >= role.threshold


def is_same(one: Version | None, other: Version | None) -> bool:
    """Whether these are the same bytes, whoever signed them."""
    return one is not None and other is not None and one[1].digest == other[1].digest


def merged(kept: Envelope, newer: Envelope, role: KeyRole) -> Envelope:
    """The same content with the signatures of both, but only of keys that the role lists."""
    if newer.signers <= kept.signers:
        return kept
    both = (*newer.signatures, *kept.signatures)
    signatures = {one.keyid: one for one in both if one.keyid in role.keyids}
    return replace(newer, signatures=tuple(signatures.values())[: wire.MAX_SIGNATURES])
