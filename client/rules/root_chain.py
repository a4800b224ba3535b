"""Walking the trust root, sans I/O: from the newest version that is trusted to the next, and on.

    next     signed by enough root keys of the version before it, and of its own: trusted from now on
    ahead    its turn has not come: held, and judged once the version before it is trusted
    known    the same content again: nothing happens
    fork     a version that is trusted here, well signed, with other content: an equivocation
    before   older than the one that was pinned: there is nothing to judge it by, and no need to

Versions come in any order, from brokers that need not be trusted, so what is held is bounded. The driver
has each version on disk before it acts on what that version says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config_manager.config import trust, wire
from config_manager.config.documents.root import Root
from config_manager.config.trust import Distrust

MAX_HELD = 256
"""Versions ahead of their turn, rivals included: a client was away for that many rotations."""

MAX_HELD_BYTES = 1024 * 1024
"""Together. A root of one key a role has about 1.5 KB."""

MAX_RIVALS = 4
"""Candidates for one version: the newest stay, because an honest broker sends its own on each connect."""

_BEFORE_ANY_DATE = float("-inf")
_VERSION = re.compile(r"[1-9][0-9]{0,15}")


class Link(NamedTuple):
    """One trusted version of the root. data: the envelope, as it came."""

    root: Root
    digest: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Turned:
    """A version that was not believed."""

    topic: str
    data: bytes
    verdict: Distrust


def pin(data: bytes, now: float = _BEFORE_ANY_DATE) -> Link:
    """The chain's first link, signed by nobody but itself. Raises Distrust.

    now: Unix seconds; without it no date counts: what was pinned stays pinned, whatever the clock.
    """
    return _link(trust.judge_root(data, None, now), data)


def follow_on(link: Link, data: bytes, now: float = _BEFORE_ANY_DATE) -> Link:
    """The next link, if `data` is it. now: as in `pin`. Raises Distrust."""
    return _link(trust.judge_root(data, link.root, now), data)


def _link(root: Root, data: bytes) -> Link:
    return Link(root, wire.parse_envelope(data).digest, data)


class RootChain:
    """Every version from the pinned one to the newest that is trusted."""

    def __init__(self, links: Sequence[Link]) -> None:
        """links: at least the pinned one; each was judged by the one before it."""
        self._links = {link.root.version: link for link in links}
        self._newest = links[-1].root
        self._held: dict[int, list[bytes]] = {}

    @property
    def newest(self) -> Root:
        return self._newest

    def last_to_list(self, keyid: str) -> int | None:
        """The newest version with that key; None: no known version had it."""
        return max((v for v, link in self._links.items() if keyid in link.root.keys), default=None)

    def explained(self, verdict: Distrust) -> Distrust:
        """With what became of the keys that the newest root no longer lists."""
        last = {keyid: self.last_to_list(keyid) for keyid in sorted(verdict.strangers)}
        revoked = [
            f"root {version} was the last to list {keyid[:16]}: it is revoked"
            for keyid, version in last.items()
            if version is not None
        ]
        if not revoked:
            return verdict
        still_unknown = frozenset(keyid for keyid, version in last.items() if version is None)
        detail = "; ".join((verdict.detail, *revoked))
        return Distrust(verdict.reason, detail, strangers=still_unknown)

    def offer(self, topic: str, data: bytes, now: float) -> list[Link | Turned]:
        """What follows from a message on a root's topic: versions to trust now, in order, and
        what was turned down. now: wall clock in Unix seconds."""
        try:
            version = _version_in(topic)
            if version > self._newest.version:
                self._hold(version, data, now)
            else:
                self._recognise(version, data, now)
        except Distrust as verdict:
            return [Turned(topic, data, verdict)]
        return list(self._walk(now))

    def _walk(self, now: float) -> Iterator[Link | Turned]:
        while candidates := self._held.pop(self._newest.version + 1, None):
            version = self._newest.version + 1
            for data in candidates:
                try:
                    link = self._judge(version, data, now)
                except Distrust as verdict:
                    yield Turned(wire.root_topic(version), data, verdict)
                else:
                    if link is not None:
                        yield link

    def _judge(self, version: int, data: bytes, now: float) -> Link | None:
        if version <= self._newest.version:  # another candidate for this version came first
            self._recognise(version, data, now)
            return None
        root = trust.judge_root(data, self._newest, now, topic=wire.root_topic(version))
        self._newest, link = root, _link(root, data)
        self._links[version] = link
        return link

    def _recognise(self, version: int, data: bytes, now: float) -> None:
        """Return if it is known already. Raises Distrust for anything else, also for a fork."""
        link = self._links.get(version)
        if link is None:
            return
        envelope = trust.open_envelope(data)
        if envelope.payload_type == wire.ROOT and envelope.digest == link.digest:
            return
        before = self._links.get(version - 1)
        if before is not None:
            trust.judge_root(data, before.root, now, topic=wire.root_topic(version))
        else:
            trust.verify(envelope, wire.ROOT, "root", link.root, now)
            trust.judge_root(data, None, now, topic=wire.root_topic(version))
        raise Distrust(
            "equivocation",
            f"root {version} forks: {envelope.digest[:16]} is signed as well as "
            f"{link.digest[:16]}, which is trusted here",
        )

    def _hold(self, version: int, data: bytes, now: float) -> None:
        """Keep it until its turn comes. Raises Distrust if it can't be that version of any chain."""
        if version > self._newest.version + 1:
            trust.judge_root(data, None, now, topic=wire.root_topic(version))
        else:
            trust.open_envelope(data)  # small enough, then; the rest is judged at once
        rivals = self._held.setdefault(version, [])
        if data in rivals:
            return
        rivals.append(data)
        del rivals[:-MAX_RIVALS]
        while self._is_full():
            farthest = max(self._held)
            self._held[farthest].pop()
            if not self._held[farthest]:
                del self._held[farthest]

    def _is_full(self) -> bool:
        sizes = [len(data) for rivals in self._held.values() for data in rivals]
        return len(sizes) > MAX_HELD or sum(sizes) > MAX_HELD_BYTES


def _version_in(topic: str) -> int:
    name = topic.removeprefix(wire.ROOTS_PREFIX)
    if not _VERSION.fullmatch(name):
        raise Distrust("wrong-topic", f"{topic[:100]!r} is no version of the root")
    return int(name)
