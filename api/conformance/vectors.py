"""docs/vectors.json, played: the cases whose judgement a client can be given over a broker, at today's date."""

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
from config_manager.client.testing.signed_documents import sign
from config_manager.config import wire
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.trust import Distrust, Seen, judge_root, judge_update

Case = dict[str, Any]

SERVICE = "stt-worker"
_ROOTS = ("root", "root-2", "root-3", "root-4")
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


def _envelope(document: str) -> bytes:
    envelope: str = load()["documents"][document]["envelope"]
    return envelope.encode()


class VectorPublisher(Publisher):
    """The one whose documents the file holds."""

    def __init__(self) -> None:
        super().__init__(SERVICE)
        self.root_key, self.config_key, self.beacon_key = map(_key, ("root", "config", "beacon"))

    def root(self, version: int = 1, *_: SigningKey, **__: Any) -> bytes:
        return _envelope(_ROOTS[version - 1])


def root_named(name: str) -> Root:
    """As the chain leads there from the pinned one, whatever the date."""
    trusted: Root | None = None
    for one in _ROOTS[: _ROOTS.index(name) + 1]:
        trusted = judge_root(_envelope(one), trusted, float("-inf"))
    assert trusted is not None
    return trusted


# ── which can be played ────────────────────────────────────────────────────────────────────────


def _reason(judge: Callable[[], object]) -> str | None:
    try:
        judge()
    except Distrust as verdict:
        return verdict.reason
    return None


def why_skipped(case: Case, now: float) -> str | None:
    """Why an update's case can't be played at that time (Unix seconds); None: it can."""
    service = case.get("service", SERVICE)
    if case["topic"] != wire.config_topic(service):
        return "a client does not subscribe to that topic"
    given = case["seen"]
    judge = partial(
        judge_update,
        case["message"].encode(),
        topic=case["topic"],
        service=service,
        root=root_named(case["under"]),
        seen=given and Seen(Mark(given["epoch_seq"], given["revision"]), given["digest"]),
        now=now,
    )
    return None if _reason(judge) == case["reason"] else _dated(case)


def why_root_skipped(case: Case, now: float) -> str | None:
    if case["reason"] == "rolled-back":
        return "a client holds it until the versions between have come"
    trusted = root_named(case["trusted"])
    judge = partial(judge_root, case["message"].encode(), trusted, now, topic=case["topic"])
    return None if _reason(judge) == case["reason"] else _dated(case)


def _dated(case: Case) -> str:
    return f"it is judged at {case['now']}, and today it is judged otherwise"


# ── playing them ───────────────────────────────────────────────────────────────────────────────


async def _seed(under: str, seen: Case | None, rig: Rig) -> None:
    """The client trusts that root, and has seen that mark; where it is None, one below all others, so that it
    is known to listen."""
    await rig.new_directory()
    p = rig.publisher
    await rig.send(p.empty_snapshot(), wire.SNAPSHOT_TOPIC, retain=True)
    known = _envelope("config-update")
    if seen is None:
        message = p.update(1)
    elif wire.parse_envelope(known).digest == seen["digest"]:
        message = known
    else:
        message = p.update(seen["revision"], epoch_seq=seen["epoch_seq"])
    update = rig.permit(message)
    await rig.send(message, retain=True)
    await rig.start()
    await rig.applied(update.revision)
    for name in _ROOTS[1 : _ROOTS.index(under) + 1]:
        topic = load()["documents"][name]["topic"]
        await rig.send(_envelope(name), topic, retain=True)


async def _listens(under: str, rig: Rig) -> None:
    """A configuration above every mark of the file is applied."""
    key = _key("config" if under == "root" else "config-2")
    await rig.publish(_LAST_REVISION, key, epoch_seq=_LAST_EPOCH)
    await rig.applied(_LAST_REVISION)


async def _refused(case: Case, rig: Rig) -> None:
    await rig.send(case["message"].encode(), case["topic"])
    await rig.refuses(case["reason"])


async def _taken(case: Case, rig: Rig) -> None:
    rig.since()
    message = case["message"].encode()
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
    """Another of that version, signed as well, is an equivocation from then on."""
    message = case["message"].encode()
    root = Root.parse(wire.parse_envelope(message).payload)
    fork = replace(root, issued_at="2026-01-08T00:00:00.000Z")
    keys = (_key("root"), _key("root-2"))
    await rig.send(message, case["topic"])
    await rig.send(sign(wire.ROOT, fork.to_bytes(), *keys).to_bytes(), case["topic"])
    await rig.refuses("equivocation")


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
            shared.setdefault(json.dumps([case[under], case.get("seen")]), []).append(case)
            continue
        story = Story(case["name"], "taken", partial(taken, case), why(case))
        yield _scene((story,), case, under)
    for alike in shared.values():
        stories = tuple(
            Story(one["name"], f"refused ({one['reason']})", partial(_refused, one), why(one))
            for one in alike
        )
        listens = partial(_listens, alike[0][under])
        yield replace(_scene(stories, alike[0], under), at_the_end=listens)


def _scene(stories: tuple[Story, ...], case: Case, under: str) -> Scene:
    return Scene(stories, VectorPublisher, partial(_seed, case[under], case.get("seen")))


def update_scenes(now: float) -> tuple[Scene, ...]:
    """now: Unix seconds; by then some dates of the file have passed."""
    why = partial(why_skipped, now=now)
    return tuple(_scenes(load()["cases"], under="under", why=why, taken=_taken))


def root_scenes(now: float) -> tuple[Scene, ...]:
    why = partial(why_root_skipped, now=now)
    return tuple(_scenes(load()["root_cases"], under="trusted", why=why, taken=_root_taken))
