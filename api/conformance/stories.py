"""What a story is, and those that need no half minute: keys that come and go, restarts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from nacl.signing import SigningKey

from config_manager.api.conformance.attacks import ATTACKS, FARTHEST, Attack
from config_manager.api.conformance.publisher import BothSign, Publisher
from config_manager.api.conformance.rig import FIRST_REVISION, REFUSED_S, Rig
from config_manager.config import wire

Play = Callable[[Rig], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """One case. play: raises Unmet. why_skipped: why it can't be played, or None."""

    name: str
    expected: str
    play: Play
    why_skipped: str | None = None


async def _nothing(_: Rig) -> None:
    pass


@dataclass(frozen=True)
class Scene:
    """Stories that share a client. Each finds it as the one before left it; after a failure it begins anew.

    at_the_end: what proves that the client listened to all of them, if they don't themselves. leaves_no_trace:
    the scene after it may go on with its client.
    """

    stories: tuple[Story, ...]
    publisher: Callable[[], Publisher] = Publisher
    begin: Play = Rig.begin
    at_the_end: Play = _nothing
    leaves_no_trace: bool = False


def alone(name: str, expected: str, play: Play, begin: Play = Rig.begin) -> Scene:
    return Scene((Story(name, expected, play),), begin=begin)


# ── attacks ────────────────────────────────────────────────────────────────────────────────────


async def _refused(attack: Attack, rig: Rig) -> None:
    await rig.send(attack.message(rig.publisher), attack.topic)
    await rig.refusal("applied", "deleted")
    await rig.goes_on()
    rig.refused_for(attack.reason)


def _scene_of_attacks(group: str) -> Scene:
    stories = tuple(
        Story(one.name, f"refused ({one.reason})", partial(_refused, one)) for one in ATTACKS[group]
    )
    if group == "thresholds":
        return Scene(stories, partial(BothSign, "stt-worker"))
    return Scene(stories, leaves_no_trace=True)


# ── keys that come and go ──────────────────────────────────────────────────────────────────────


async def _overtakes_its_root(rig: Rig) -> None:
    p = rig.publisher
    both = p.root(2, config=(p.new_config_key, p.config_key))
    p.revision += 1
    message = p.update(p.revision, p.new_config_key)
    rig.permit(message)
    await rig.send(message)
    await rig.send(both, wire.root_topic(2))
    await rig.applied(p.revision)
    rig.is_silent_about("refused")


async def _revoked(rig: Rig) -> None:
    p = rig.publisher
    await rig.send(p.root(2, config=(p.new_config_key,)), wire.root_topic(2), retain=True)
    await rig.send(p.update(p.revision + 1))
    await rig.refuses("unknown-key")
    await rig.goes_on(p.new_config_key)


async def _forked(rig: Rig) -> None:
    p = rig.publisher
    await rig.send(p.root(2, config=(p.new_config_key,)), wire.root_topic(2), retain=True)
    await rig.send(p.root(2, config=(p.stranger,)), wire.root_topic(2))
    await rig.refuses("equivocation")
    await rig.goes_on(p.new_config_key)


async def _trusted_root_is_kept(rig: Rig) -> None:
    p = rig.publisher
    await rig.send(p.root(2, config=(p.new_config_key,)), wire.root_topic(2))
    await rig.goes_on(p.new_config_key)
    await rig.kill()
    await rig.send(p.update(p.revision + 1), retain=True)
    rig.since()
    await rig.start()
    await rig.applied(p.revision)
    await rig.refuses("unknown-key")
    await rig.goes_on(p.new_config_key)


async def _signer_revoked(rig: Rig) -> None:
    p = rig.publisher
    await rig.send(p.root(2, config=(p.new_config_key,)), wire.root_topic(2), retain=True)
    await rig.line("stale", reason="signer-revoked")
    await rig.stop()
    rig.since()
    await rig.start()
    await rig.applied(FIRST_REVISION)
    rig.since(await rig.line("stale", reason="signer-revoked"))
    await rig.publish(FIRST_REVISION, p.new_config_key)
    await rig.send(p.snapshot(root_version=2), wire.SNAPSHOT_TOPIC, retain=True)
    await rig.line("fresh")


async def _fast_forwarded(rig: Rig) -> None:
    p = rig.publisher
    thiefs = p.update(FARTHEST - 1, config={"evil": True})
    rig.permit(thiefs)
    await rig.send(thiefs)
    rig.since(await rig.applied(FARTHEST - 1))
    await rig.send(p.update(50))
    await rig.refuses("rolled-back")
    await rig.send(p.root(2, config=(p.new_config_key,)), wire.root_topic(2), retain=True)
    rig.since(await rig.line("stale", reason="signer-revoked"))
    rig.permitted.start_anew()
    await rig.publish(50, p.new_config_key)
    rig.since(await rig.applied(50))
    await rig.send(p.update(49, p.new_config_key))
    await rig.refuses("rolled-back")
    await rig.goes_on(p.new_config_key)


async def _away_for_three_roots(rig: Rig) -> None:
    p = rig.publisher
    await rig.stop()
    second_root, third_config = SigningKey.generate(), SigningKey.generate()
    roots = {
        4: p.root(4, second_root, root=(second_root,), config=(third_config,)),
        3: p.root(3, p.root_key, second_root, root=(second_root,), config=(p.new_config_key,)),
        2: p.root(2, config=(p.new_config_key, p.config_key)),
    }
    for version, data in roots.items():
        await rig.send(data, wire.root_topic(version), retain=True)
    await rig.publish(FIRST_REVISION + 1, third_config)
    rig.since()
    await rig.start()
    await rig.applied(FIRST_REVISION)
    rig.since(await rig.applied(FIRST_REVISION + 1))
    await rig.send(p.update(FIRST_REVISION + 2, p.new_config_key))
    await rig.refuses("unknown-key")
    await rig.goes_on(third_config)


KEYS = (
    alone("a configuration ahead of the root that lists its key", "applied", _overtakes_its_root),
    alone("a key that the newest root does not list", "refused (unknown-key)", _revoked),
    alone("a fork of a root that was taken", "refused (equivocation)", _forked),
    alone("a root that was taken, after kill -9", "refused (unknown-key)", _trusted_root_is_kept),
    alone(
        "what a revoked key signed goes on, also after a restart",
        "stale (signer-revoked), then fresh",
        _signer_revoked,
    ),
    alone("a stolen key's fast-forward ends with the key", "applied 50", _fast_forwarded),
    alone("away while three roots came, in any order", "applied", _away_for_three_roots),
)


# ── restarts ───────────────────────────────────────────────────────────────────────────────────


async def _without_a_broker(rig: Rig) -> None:
    await rig.stop()
    rig.since()
    await rig.start_offline()
    await rig.applied(rig.publisher.revision)


async def _killed_without_a_broker(rig: Rig) -> None:
    """At once after it said `applied`: what it said is on its disk."""
    await rig.goes_on()
    await rig.kill()
    rig.since()
    await rig.start_offline()
    await rig.applied(rig.publisher.revision)


async def _killed_while_changes_come(rig: Rig) -> None:
    for _ in range(3):
        rig.since()
        for _ in range(20):
            await rig.publish(rig.publisher.revision + 1)
        await rig.line("applied")
        await rig.kill()
        rig.since()
        await rig.start()
        await rig.line("applied")  # not less than it said before: every such line is watched
    await rig.applied(rig.publisher.revision)


async def _marks_are_kept(rig: Rig) -> None:
    p = rig.publisher
    await rig.goes_on()
    await rig.stop()
    await rig.send(p.update(p.revision - 1), retain=True)
    rig.since()
    await rig.start()
    await rig.applied(p.revision)
    await rig.refuses("rolled-back")
    for message, reason in (
        (p.update(p.revision, config={"evil": True}), "equivocation"),
        (p.update(p.revision + 50, epoch_seq=0), "rolled-back"),
    ):
        rig.since()
        await rig.send(message)
        await rig.refuses(reason)
    await rig.goes_on()


async def _equal_is_kept(rig: Rig) -> None:
    """What is equal to what runs takes its place, on disk, too; no line need say so."""
    p = rig.publisher
    fields = {"config": {"n": 1}, "content": "as before"}
    await rig.publish(p.revision + 1, **fields)
    await rig.applied(p.revision)
    before = p.revision
    await rig.publish(p.revision + 1, **fields)
    rig.since()
    await rig.send(p.update(before, **fields))
    await rig.refuses("rolled-back")
    await rig.kill()
    rig.since()
    await rig.start_offline()
    await rig.applied(p.revision)


async def _tombstone(rig: Rig) -> None:
    p = rig.publisher
    before = p.revision
    p.revision += 1
    await rig.send(p.update(p.revision, deleted=True, config={}), retain=True)
    await rig.line("deleted")
    await rig.stop()
    rig.since()
    await rig.start()
    await rig.applied(before)
    await rig.goes_on()


async def _first_start_without_configuration(rig: Rig) -> None:
    """The publisher's snapshot names revision 5, and a broker has kept revision 4."""
    await rig.new_directory()
    p = rig.publisher
    p.revision = FIRST_REVISION
    await rig.send(p.update(p.revision - 1), retain=True)
    await rig.send(p.snapshot(), wire.SNAPSHOT_TOPIC, retain=True)
    await rig.start()


async def _floor(rig: Rig) -> None:
    # it has not said anything yet: starting takes its time
    await rig.line("refused", "applied", within_s=REFUSED_S * 5)
    await rig.refuses("rolled-back")
    await rig.publish(rig.publisher.revision)
    await rig.applied(rig.publisher.revision)


RESTARTS = (
    alone("a start with the broker gone", "applied", _without_a_broker),
    alone("kill -9, and a start with the broker gone", "applied", _killed_without_a_broker),
    alone("kill -9 while changes come", "never less than it said", _killed_while_changes_come),
    alone("a restart forgets no mark", "refused (rolled-back, equivocation)", _marks_are_kept),
    alone(
        "kill -9 after a message that is equal to what runs",
        "refused (rolled-back), then the newer applied",
        _equal_is_kept,
    ),
    alone("a tombstone takes nothing away", "deleted, then applied", _tombstone),
    alone(
        "a first start takes nothing older than the snapshot names",
        "refused (rolled-back)",
        _floor,
        _first_start_without_configuration,
    ),
)


START = (alone("a good configuration", "applied", Rig.begin, _nothing),)


def attacks(group: str) -> tuple[Scene, ...]:
    return (_scene_of_attacks(group),)
