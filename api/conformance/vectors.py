"""docs/vectors.json, played: what a client can be given over a broker, at today's date."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

from nacl.signing import SigningKey

from config_manager.api.conformance.cases import Unmet
from config_manager.api.conformance.publisher import Publisher
from config_manager.api.conformance.rig import Rig
from config_manager.api.conformance.stories import Scene, Story
from config_manager.client.rules.root_chain import Link, RootChain, Turned, follow_on, pin
from config_manager.client.testing.signed_documents import sign
from config_manager.config import wire
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.trust import Distrust, Seen, judge_update

Case = dict[str, Any]

_LAST_EPOCH, _LAST_REVISION = 2, 1000
"""Above every mark of the file."""


@cache
def load() -> dict[str, Any]:
    """The file. It is read once, and must not be changed."""
    text = files("config_manager.api.conformance").joinpath("vectors.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _key(name: str) -> SigningKey:
    return SigningKey(bytes.fromhex(load()["seeds_hex"][name]))


def envelope(document: str) -> bytes:
    text: str = load()["documents"][document]["envelope"]
    return text.encode()


def message_of(case: Case) -> bytes:
    """As it comes; `padded_to`: with spaces behind it, until it has that many bytes."""
    message: bytes = case["message"].encode()
    return message.ljust(case.get("padded_to", 0))


def root_names(last: str) -> list[str]:
    """From the pinned one to this."""
    first, _, version = last.rpartition("-") if last[-1].isdigit() else (last, "", "1")
    return [first, *(f"{first}-{n}" for n in range(2, int(version) + 1))]


def chain(last: str) -> list[Link]:
    """Whatever the date."""
    first, *others = map(envelope, root_names(last))
    links = [pin(first)]
    for data in others:
        links.append(follow_on(links[-1], data))
    return links


class VectorPublisher(Publisher):
    """The one whose documents the file holds. pinned: the document that is its first root."""

    def __init__(self, pinned: str = "root") -> None:
        super().__init__(load()["service"])
        self._pinned = pinned
        self.root_key, self.config_key, self.beacon_key = map(_key, ("root", "config", "beacon"))

    def root(self, *_: Any, **__: Any) -> bytes:
        return envelope(self._pinned)


# ── which can be played ────────────────────────────────────────────────────────────────────────

_DATED = "today it is judged otherwise than on the date of the case"


def why_skipped(case: Case, now: float) -> str | None:
    """Why an update's case can't be played at that time (Unix seconds); None: it can."""
    service = load()["service"]
    if case["topic"] != wire.config_topic(service):
        return "a client does not subscribe to that topic"
    given, reason = case["seen"], None
    seen = given and Seen(Mark(given["epoch_seq"], given["revision"]), given["digest"])
    try:
        judge_update(
            message_of(case),
            topic=case["topic"],
            service=service,
            root=chain(case["under"])[-1].root,
            seen=seen,
            now=now,
        )
    except Distrust as verdict:
        reason = verdict.reason
    return None if reason == case["reason"] else _DATED


def why_root_skipped(case: Case, now: float) -> str | None:
    trusted = chain(case["trusted"])
    try:
        pin(trusted[0].data, now)
    except Distrust:
        return "today its first root can no longer be pinned: its key is past its not_after"
    offered = RootChain(trusted).offer(case["topic"], message_of(case), now)
    reason = next((one.verdict.reason for one in offered if isinstance(one, Turned)), None)
    return None if reason == case["reason"] else _DATED


def why_beacon_skipped(case: Case) -> str | None:
    return None if case["reason"] else "whether it rises shows only in time: see timelines"


# ── playing them ───────────────────────────────────────────────────────────────────────────────


async def seed(rig: Rig, under: str, message: bytes | None, **beacon: int) -> None:
    """The client trusts that root, and has applied that configuration; without one, a revision below all others,
    so that it is known to listen. beacon: the order of the one that it has heard."""
    await rig.new_directory()
    p = rig.publisher
    await rig.send(p.empty_snapshot(**beacon), wire.SNAPSHOT_TOPIC, retain=True)
    first = message or p.update(1, correlation_id="conformance")
    update = rig.permit(first)
    await rig.send(first, retain=True)
    await rig.start()
    await rig.applied(update.revision)
    for name in root_names(under)[1:]:
        topic = load()["documents"][name]["topic"]
        await rig.send(envelope(name), topic, retain=True)


async def _begin(case: Case, under: str, rig: Rig) -> None:
    before = case.get("before")
    await seed(rig, under, envelope(before) if before else None)


async def _begin_with_beacon(case: Case, rig: Rig) -> None:
    boot_seq, number = case["highest"]
    await seed(rig, case["under"], None, boot_seq=boot_seq, seq=number)


async def _listens(under: str, rig: Rig) -> None:
    """A configuration above every mark of the file is applied."""
    key = _key("config" if len(root_names(under)) == 1 else "config-2")
    await rig.publish(_LAST_REVISION, key, epoch_seq=_LAST_EPOCH)
    await rig.applied(_LAST_REVISION)


async def _refused(case: Case, rig: Rig) -> None:
    await rig.send(message_of(case), case["topic"])
    await rig.refuses(case["reason"])


async def _taken(case: Case, rig: Rig) -> None:
    message = message_of(case)
    update = rig.permit(message)
    digest = wire.parse_envelope(message).digest
    is_known = case["seen"] is not None and digest == case["seen"]["digest"]
    await rig.send(message, case["topic"])
    if is_known:
        await _listens(case["under"], rig)
        if any(line.get("revision") == update.revision for line in rig.said):
            raise Unmet(rig.got)
    else:
        await rig.line("deleted" if update.deleted else "applied", revision=update.revision)
    rig.is_silent_about("refused")


async def _root_taken(case: Case, rig: Rig) -> None:
    """The newest that it trusts afterwards shows: another of that version, signed as well, is an equivocation."""
    message, version = message_of(case), case["trusts"]
    trusted = Root.parse(wire.parse_envelope(message).payload)
    if trusted.version != version:
        trusted = chain(case["trusted"])[-1].root
    fork = replace(trusted, issued_at="2026-01-08T00:00:00.000Z")
    signed = sign(wire.ROOT, fork.to_bytes(), _key("root"), _key("root-2")).to_bytes()
    await rig.send(message, case["topic"])
    await rig.send(signed, wire.root_topic(version))
    await rig.refuses("equivocation")


# ── scenes ─────────────────────────────────────────────────────────────────────────────────────


def _scenes(
    cases: Sequence[Case],
    *,
    under: str,
    why: Callable[[Case], str | None],
    taken: Callable[[Case, Rig], Awaitable[None]],
) -> Iterator[Scene]:
    """Refusals from the same state share a client; what is taken has one of its own. under: the member that names
    the root."""
    shared: dict[str, list[Case]] = {}
    for case in cases:
        if case["reason"] is not None:
            shared.setdefault(json.dumps([case[under], case.get("before")]), []).append(case)
            continue
        story = Story(case["name"], "taken", partial(taken, case), why(case))
        yield _scene((story,), case, case[under])
    for alike in shared.values():
        yield _refusals(alike, alike[0][under], why)


def _refusals(alike: Sequence[Case], under: str, why: Callable[[Case], str | None]) -> Scene:
    stories = tuple(
        Story(one["name"], f"refused ({one['reason']})", partial(_refused, one), why(one))
        for one in alike
    )
    return replace(_scene(stories, alike[0], under), at_the_end=partial(_listens, under))


def _scene(stories: tuple[Story, ...], case: Case, under: str) -> Scene:
    publisher = partial(VectorPublisher, root_names(under)[0])
    return Scene(stories, publisher, partial(_begin, case, under))


def update_scenes(now: float) -> tuple[Scene, ...]:
    """now: Unix seconds; by then some dates of the file have passed."""
    why = partial(why_skipped, now=now)
    return tuple(_scenes(load()["cases"], under="under", why=why, taken=_taken))


def root_scenes(now: float) -> tuple[Scene, ...]:
    why = partial(why_root_skipped, now=now)
    return tuple(_scenes(load()["root_cases"], under="trusted", why=why, taken=_root_taken))


def beacon_scenes(_: float) -> tuple[Scene, ...]:
    cases: list[Case] = [case for case in load()["beacon_cases"] if case["reason"]]
    scene = _refusals(cases, "root", why_beacon_skipped)
    return (replace(scene, begin=partial(_begin_with_beacon, cases[0])),)
