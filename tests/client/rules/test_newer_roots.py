"""What a newer root does to a running instance: nothing is lost, nothing goes back, a thief loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.client.rules.events import Applied, Event, Refused, RootTrusted, Stale
from config_manager.client.rules.kept import Kept
from config_manager.client.rules.root_chain import RootChain, follow_on, pin
from config_manager.client.rules.set_aside import ROOT_MAY_FOLLOW_S
from config_manager.client.rules.subscriber import Subscriber
from config_manager.config import wire
from config_manager.config.documents.root import KeyRole
from config_manager.config.names import Mark
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.trust import Seen
from tests.kit import clients
from tests.kit import documents as m
from tests.kit import roots as r
from tests.kit.documents import STEADY, key_id

FARTHEST = MAX_INTEGER
ROTATED = r.root(2, config=(r.SECOND_CONFIG, r.CONFIG_KEY))
REVOKED = r.root(2, config=(r.SECOND_CONFIG,))
BEACON_REVOKED = r.root(2, beacon=(r.SECOND_BEACON,))


class Scene:
    """A subscriber, and a clock that goes with it."""

    def __init__(self, kept: Kept | None = None, *roots: bytes) -> None:
        chain = [pin(r.root(1))]
        for data in roots:
            chain.append(follow_on(chain[-1], data))
        self.subscriber: Subscriber = clients.Taker(m.SERVICE, "here", RootChain(chain), kept)
        self.now = 0.0
        assert self.said(self.subscriber.tick(0.0, m.NOW)) in ([], ["stale signer-revoked"])

    def said(self, events: Sequence[Event]) -> list[str]:
        return [_in_words(event) for event in events]

    def hears(self, topic: str, payload: bytes) -> list[str]:
        return self.said(self.subscriber.receive(topic, payload, m.NOW + self.now, self.now))

    def gets(self, revision: int, *keys: SigningKey, **fields: Any) -> list[str]:
        return self.hears(m.TOPIC, update(revision, *keys, **fields))

    def trusts(self, version: int, data: bytes) -> list[str]:
        return self.hears(r.topic(version), data)

    def vouched(self, seq: int, revision: int, **fields: Any) -> list[str]:
        named = {m.SERVICE: m.entry(revision)}
        return self.hears(wire.SNAPSHOT_TOPIC, m.snapshot_bytes(named, seq, **fields))

    def lives(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.said(self.subscriber.tick(self.now, m.NOW + self.now))

    @property
    def kept(self) -> Kept:
        assert self.subscriber.kept is not None
        return self.subscriber.kept

    @property
    def seen(self) -> int | None:
        return self.kept.seen.mark.revision if self.kept.seen is not None else None


def _in_words(event: Event) -> str:
    match event:
        case Applied(made, _, _, _):
            return f"applied {made.revision}"
        case Refused(reason, _):
            return f"refused {reason}"
        case Stale(reason, _):
            return f"stale {reason}"
        case RootTrusted(link):
            return f"root {link.root.version}"
        case _:
            return type(event).__name__.lower()


def update(revision: int, *keys: SigningKey, **fields: Any) -> bytes:
    envelope = wire.parse_envelope(m.update_bytes(revision, **fields))
    signatures = tuple(
        m.sign(envelope.payload_type, envelope.payload, key).signatures[0]
        for key in keys or (r.CONFIG_KEY,)
    )
    return wire.Envelope(envelope.payload_type, envelope.payload, signatures, "abc").to_bytes()


def running(revision: int = 5, *keys: SigningKey, roots: Sequence[bytes] = ()) -> Scene:
    return Scene(clients.make_kept(revision, update(revision, *keys)), *roots)


# ── walking ────────────────────────────────────────────────────────────────────────────────────


def test_a_root_is_to_be_on_disk_before_what_follows_from_it() -> None:
    scene = running()
    assert scene.gets(6, r.SECOND_CONFIG) == []
    assert scene.trusts(2, ROTATED) == ["root 2", "applied 6"]
    assert scene.kept.root_version == 2


def test_whoever_was_away_for_three_roots_catches_up_in_whatever_order_they_come() -> None:
    scene = running()
    third = r.root(3, r.ROOT_KEY, r.SECOND_ROOT, root=(r.SECOND_ROOT,), config=(r.SECOND_CONFIG,))
    fourth = r.root(4, r.SECOND_ROOT, root=(r.SECOND_ROOT,), config=(r.THIRD_CONFIG,))
    assert scene.gets(9, r.THIRD_CONFIG) == []
    assert scene.trusts(4, fourth) == []
    assert scene.trusts(3, third) == []
    said = scene.trusts(2, ROTATED)
    assert said == ["root 2", "root 3", "root 4", "applied 9"]
    assert scene.subscriber.refusals.total() == 0


def test_a_fork_is_said_and_changes_nothing() -> None:
    scene = running(roots=[ROTATED])
    before = scene.kept
    assert scene.trusts(2, r.root(2, config=(r.STRANGER,))) == ["refused equivocation"]
    assert scene.kept == before
    assert scene.gets(6, r.STRANGER) == []
    assert scene.lives(1) == ["refused unknown-key"]


# ── a message that overtakes its root ──────────────────────────────────────────────────────────


def test_a_message_that_overtakes_its_root_is_no_refusal_where_the_root_follows_at_once() -> None:
    scene = running()
    assert scene.gets(6, r.SECOND_CONFIG) == []
    scene.now += ROOT_MAY_FOLLOW_S - 0.01
    assert scene.trusts(2, ROTATED) == ["root 2", "applied 6"]
    assert scene.lives(1) == []
    assert scene.subscriber.refusals["unknown-key"] == 0
    assert scene.subscriber.due is None


def test_its_refusal_is_said_when_the_root_is_late_and_it_is_taken_all_the_same() -> None:
    scene = running()
    assert scene.gets(6, r.SECOND_CONFIG) == []
    assert scene.subscriber.due == ROOT_MAY_FOLLOW_S
    assert scene.lives(ROOT_MAY_FOLLOW_S) == ["refused unknown-key"]
    assert scene.lives(29) == []
    assert scene.trusts(2, ROTATED) == ["root 2", "applied 6"]
    assert scene.subscriber.refusals["unknown-key"] == 1


def test_a_refusal_waits_for_no_tick_where_another_message_comes() -> None:
    scene = running()
    scene.gets(6, r.STRANGER)
    scene.now += ROOT_MAY_FOLLOW_S
    assert scene.gets(5) == ["refused unknown-key"]


def test_a_key_of_another_role_is_refused_at_once() -> None:
    assert running().gets(6, r.BEACON_KEY) == ["refused unknown-key"]


def test_what_overtook_its_root_is_judged_like_any_other() -> None:
    scene = running(5)
    assert scene.gets(4, r.SECOND_CONFIG) == []
    assert scene.trusts(2, ROTATED) == ["root 2"]
    assert scene.lives(1) == ["refused unknown-key"]
    assert scene.seen == 5


def test_of_several_that_overtook_their_root_only_the_highest_is_applied() -> None:
    scene = running(5)
    for revision in (7, 8, 6):
        scene.gets(revision, r.SECOND_CONFIG)
    assert scene.trusts(2, ROTATED) == ["root 2", "applied 8"]
    assert scene.lives(1) == []


def test_a_flood_does_not_displace_what_came_after_it_and_is_said() -> None:
    scene = running()
    said = [word for n in range(50) for word in scene.gets(100 + n, r.STRANGER)]
    assert said == ["refused unknown-key"] * 46
    scene.gets(6, r.SECOND_CONFIG)
    assert scene.trusts(2, ROTATED) == ["root 2", "applied 6"]


def test_a_snapshot_and_a_beacon_that_overtook_their_root_count_from_when_they_came() -> None:
    scene = running()
    assert scene.vouched(1, 5, key=r.SECOND_BEACON) == []
    late = r.root(2, beacon=(r.SECOND_BEACON, r.BEACON_KEY))
    assert scene.lives(20) == ["refused unknown-key"]
    assert scene.trusts(2, late) == ["root 2", "fresh"]
    assert scene.lives(10) == ["stale no-beacon"]


def test_a_first_start_gets_its_floor_from_a_snapshot_that_overtook_its_root() -> None:
    scene = Scene()
    assert scene.gets(4) == []
    assert scene.vouched(1, 5, key=r.SECOND_BEACON) == []
    assert scene.trusts(2, BEACON_REVOKED) == ["root 2", "refused rolled-back"]
    assert scene.gets(5) == ["applied 5", "fresh"]


def test_what_overtook_its_root_on_a_first_start_meets_the_floor_too() -> None:
    scene = Scene()
    assert scene.vouched(1, 50) == []
    assert scene.gets(49, r.SECOND_CONFIG) == []
    assert scene.trusts(2, ROTATED) == ["root 2"]
    assert scene.lives(1) == ["refused unknown-key"]
    assert scene.subscriber.refusals == {"unknown-key": 1}


def test_where_the_floor_refuses_the_highest_the_next_is_taken() -> None:
    scene = Scene()
    scene.vouched(1, 5)
    scene.gets(5, r.SECOND_CONFIG, config={"evil": True})
    scene.gets(5, r.SECOND_CONFIG)
    assert scene.trusts(2, ROTATED) == ["root 2", "applied 5", "fresh"]
    assert scene.lives(1) == ["refused unknown-key"], "the other content"


def test_what_the_floor_refused_is_judged_again_when_the_floor_is_gone() -> None:
    scene = Scene()
    scene.vouched(1, 50)
    scene.gets(49, r.SECOND_CONFIG)
    scene.trusts(2, ROTATED)
    assert scene.lives(1) == ["refused unknown-key"]
    third = r.root(3, config=(r.SECOND_CONFIG, r.CONFIG_KEY), beacon=(r.SECOND_BEACON,))
    assert scene.trusts(3, third) == ["root 3", "applied 49"]


def test_whoever_else_signed_the_highest_that_overtook_its_root_vouches_for_it_too() -> None:
    scene = running(5)
    for key in (r.SECOND_CONFIG, r.THIRD_CONFIG):
        scene.gets(6, key)
    scene.trusts(2, r.root(2, config=(r.CONFIG_KEY, r.SECOND_CONFIG, r.THIRD_CONFIG)))
    assert scene.trusts(3, r.root(3, config=(r.CONFIG_KEY, r.THIRD_CONFIG))) == ["root 3"]
    assert scene.seen == 6
    assert not scene.subscriber.signer_revoked


# ── revoked ────────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_key_is_refused_from_then_on_and_what_it_signed_goes_on_and_says_so() -> None:
    scene = running(5)
    assert scene.trusts(2, REVOKED) == ["root 2", "stale signer-revoked"]
    events = scene.subscriber.receive(m.TOPIC, update(6), m.NOW, 0.0)
    assert scene.said(events) == ["refused unknown-key"]
    assert isinstance(events[0], Refused)
    assert "revoked" in events[0].detail
    assert scene.kept.running is not None
    assert scene.kept.running[0].revision == 5


def test_the_same_content_by_a_key_of_today_is_kept_and_not_applied_again() -> None:
    scene = running(5)
    scene.vouched(1, 5)
    scene.trusts(2, REVOKED)
    assert scene.gets(5, r.SECOND_CONFIG) == ["resigned", "fresh"]
    assert scene.kept.running is not None
    assert scene.kept.running[1].signers == {key_id(r.SECOND_CONFIG)}
    assert scene.gets(5, r.SECOND_CONFIG) == []


def test_what_has_a_newer_signature_already_survives_the_end_of_the_older_key() -> None:
    scene = running(5)
    scene.trusts(2, ROTATED)
    assert scene.gets(5, r.SECOND_CONFIG) == ["resigned"]
    assert scene.gets(5) == [], "the older signature is no news, and costs no write"
    assert scene.trusts(3, r.root(3, config=(r.SECOND_CONFIG,))) == ["root 3"]
    assert scene.seen == 5
    assert not scene.subscriber.signer_revoked


def test_a_newer_signature_is_kept_also_while_it_bakes_is_asked_about_or_was_put_off() -> None:
    def asked(subscriber: Subscriber) -> None:
        subscriber.decided(subscriber.trial.ask())

    def baking(subscriber: Subscriber) -> None:
        subscriber.decided(subscriber.trial.run(bakes=True))

    for waits in (asked, baking, lambda _: None):
        scene = running(5)
        scene.subscriber = Subscriber(
            m.SERVICE, "here", RootChain([pin(r.root(1))]), clients.make_kept(5)
        )
        scene.gets(6)
        assert scene.subscriber.trial.offered is not None
        waits(scene.subscriber)
        scene.trusts(2, ROTATED)
        scene.gets(6, r.SECOND_CONFIG)
        if waits is not baking:
            scene.subscriber.decided(scene.subscriber.trial.run(bakes=True))
        scene.subscriber.decided(scene.subscriber.trial.prove())
        scene.trusts(3, r.root(3, config=(r.SECOND_CONFIG,)))
        assert scene.kept.running is not None
        assert key_id(r.SECOND_CONFIG) in scene.kept.running[1].signers
        assert not scene.subscriber.signer_revoked


def test_a_signature_that_does_not_hold_is_not_kept() -> None:
    scene = running(5, roots=[ROTATED])
    genuine = wire.parse_envelope(update(5))
    forged = wire.Signature(key_id(r.SECOND_CONFIG), bytes(64))
    both = wire.Envelope(
        genuine.payload_type, genuine.payload, (*genuine.signatures, forged), "abc"
    )
    assert scene.hears(m.TOPIC, both.to_bytes()) == []
    assert scene.kept.running is not None
    assert scene.kept.running[1].signers == {key_id(r.CONFIG_KEY)}


def test_an_offer_whose_signer_is_revoked_is_withdrawn_and_may_come_again_signed_anew() -> None:
    scene = running(5)
    scene.subscriber = Subscriber(
        m.SERVICE, "here", RootChain([pin(r.root(1))]), clients.make_kept(5)
    )
    assert scene.gets(6) == ["offered"]
    scene.trusts(2, REVOKED)
    assert scene.subscriber.trial.offered is None
    assert scene.gets(6, r.SECOND_CONFIG) == ["offered"]


def test_what_waits_for_a_restart_is_withdrawn_with_its_signer() -> None:
    scene = running(5)
    scene.subscriber = Subscriber(
        m.SERVICE, "here", RootChain([pin(r.root(1))]), clients.make_kept(5)
    )
    scene.gets(6)
    scene.subscriber.decided(scene.subscriber.trial.leave())
    scene.trusts(2, REVOKED)
    assert scene.kept.trial is None
    assert scene.gets(6, r.SECOND_CONFIG) == ["offered"]


# ── marks, and a thief who pushes them forward ─────────────────────────────────────────────────


def test_a_stolen_keys_fast_forward_ends_with_the_key() -> None:
    scene = running(5)
    assert scene.gets(FARTHEST, config={"evil": True}) == [f"applied {FARTHEST}"]
    assert scene.gets(50) == ["refused rolled-back"]
    assert scene.trusts(2, REVOKED) == ["root 2", "stale signer-revoked"]
    assert scene.gets(50, r.SECOND_CONFIG) == ["applied 50"]
    assert scene.seen == 50
    assert scene.gets(49, r.SECOND_CONFIG) == ["refused rolled-back"]


def test_the_fast_forward_ends_also_where_the_service_was_off_when_the_root_came() -> None:
    before = running(5)
    before.gets(FARTHEST)
    after = Scene(before.kept, REVOKED)
    assert after.seen is None
    assert after.gets(50, r.SECOND_CONFIG) == ["applied 50"]


def test_the_legitimate_one_that_the_thiefs_mark_kept_out_is_taken_when_the_mark_falls() -> None:
    """The broker will not repeat it: it holds nothing newer."""
    scene = running(5, roots=[ROTATED])
    scene.gets(FARTHEST)
    assert scene.gets(50, r.SECOND_CONFIG) == ["refused rolled-back"]
    root = r.root(3, config=(r.SECOND_CONFIG,))
    assert scene.trusts(3, root) == ["root 3", "applied 50"]


def test_two_contents_of_one_revision_end_with_the_key_that_signed_the_wrong_one() -> None:
    scene = running(5, roots=[ROTATED])
    scene.gets(6, config={"evil": True})
    assert scene.gets(6, r.SECOND_CONFIG) == ["refused equivocation"]
    assert scene.trusts(3, r.root(3, config=(r.SECOND_CONFIG,))) == ["root 3", "applied 6"]


def test_what_a_key_of_today_vouched_for_can_not_be_rolled_back_by_the_end_of_another() -> None:
    scene = running(5, roots=[ROTATED])
    scene.gets(10, r.SECOND_CONFIG)
    scene.gets(20, r.SECOND_CONFIG)
    scene.gets(FARTHEST)
    scene.trusts(3, r.root(3, config=(r.SECOND_CONFIG,)))
    assert scene.seen == 20
    assert scene.gets(10, r.SECOND_CONFIG) == ["refused rolled-back"]
    assert scene.gets(20, r.SECOND_CONFIG) == ["applied 20"], "the thief's runs, this is newer"


def test_after_a_mark_fell_the_snapshot_is_the_floor() -> None:
    scene = running(5)
    scene.vouched(1, 50)
    scene.gets(FARTHEST)
    scene.trusts(2, REVOKED)
    assert scene.gets(49, r.SECOND_CONFIG) == ["refused rolled-back"]
    assert scene.gets(50, r.SECOND_CONFIG, config={"x": 1}) == ["refused equivocation"]
    assert scene.gets(50, r.SECOND_CONFIG) == ["applied 50", "fresh"]


def test_so_it_is_where_the_mark_fell_to_a_lower_one_while_the_service_was_off() -> None:
    before = running(5, roots=[ROTATED])
    before.gets(10, r.SECOND_CONFIG)
    before.gets(FARTHEST)
    after = Scene(before.kept, ROTATED, r.root(3, config=(r.SECOND_CONFIG,)))
    assert after.seen == 10
    after.vouched(1, 50)
    assert after.gets(49, r.SECOND_CONFIG) == ["refused rolled-back"]
    assert after.gets(50, r.SECOND_CONFIG) == ["applied 50", "fresh"]


def test_the_floor_outlasts_a_restart_until_a_configuration_is_taken() -> None:
    third = r.root(3, config=(r.SECOND_CONFIG,))
    before = running(5, roots=[ROTATED])
    before.gets(10, r.SECOND_CONFIG)
    before.gets(FARTHEST)
    before.trusts(3, third)
    after = Scene(before.kept, ROTATED, third)
    after.vouched(1, 50)
    assert after.gets(49, r.SECOND_CONFIG) == ["refused rolled-back"]
    assert after.gets(50, r.SECOND_CONFIG) == ["applied 50", "fresh"]
    again = Scene(after.kept, ROTATED, third)
    again.vouched(2, 60)
    assert again.gets(55, r.SECOND_CONFIG) == ["applied 55"]


@pytest.mark.parametrize(
    "root",
    [ROTATED, r.root(2), BEACON_REVOKED, r.root(2, r.ROOT_KEY, r.SECOND_ROOT, root=(r.SECOND_ROOT,))],
    ids=["a key more", "nothing new", "another role's key", "the root's own key"],
)  # fmt: skip
def test_a_root_that_takes_no_configuration_key_away_leaves_the_mark(root: bytes) -> None:
    scene = running(5)
    scene.trusts(2, root)
    assert scene.seen == 5
    assert scene.gets(4)[0] == "refused rolled-back"


def test_a_higher_threshold_alone_undoes_no_mark() -> None:
    scene = running(5)
    both = (r.CONFIG_KEY, r.SECOND_CONFIG)
    scene.trusts(2, r.root(2, config=both, thresholds={"config": 2}))
    assert scene.seen == 5
    assert scene.gets(4, *both) == ["refused rolled-back"]


def test_a_beacon_keys_fast_forward_ends_with_the_key_and_the_configurations_mark_stays() -> None:
    scene = running(5)
    thief = {"boot_seq": FARTHEST}
    assert scene.vouched(FARTHEST, 5, **thief) == ["fresh"]
    assert scene.vouched(2, 5) == []
    assert scene.subscriber.freshness.replayed_beacons == 1
    assert scene.trusts(2, BEACON_REVOKED) == ["root 2"]
    assert scene.kept.beacon_order is None
    assert scene.seen == 5
    assert scene.lives(29) == []
    assert scene.vouched(3, 5, key=r.SECOND_BEACON) == []
    assert scene.lives(20) == [], "still fresh: the new key's beacon rises"


def test_a_beacon_that_a_key_of_today_vouched_for_can_not_be_replayed() -> None:
    scene = running(5, roots=[r.root(2, beacon=(r.SECOND_BEACON, r.BEACON_KEY))])
    scene.vouched(7, 5, key=r.SECOND_BEACON)
    scene.vouched(FARTHEST, 5)
    scene.trusts(3, r.root(3, beacon=(r.SECOND_BEACON,)))
    assert scene.kept.beacon_order == (1, 7)
    scene.vouched(6, 5, key=r.SECOND_BEACON)
    assert scene.subscriber.freshness.replayed_beacons == 1


def test_what_a_revoked_beacon_key_said_is_forgotten() -> None:
    scene = running(5)
    scene.vouched(1, 6)
    assert scene.lives(25) == []
    scene.trusts(2, BEACON_REVOKED)
    assert scene.lives(10) == ["stale no-beacon"], "and not withheld"


def test_a_snapshot_stands_as_long_as_one_of_its_signers() -> None:
    scene = running(5)
    scene.trusts(2, r.root(2, beacon=(r.SECOND_BEACON, m.BEACON_KEY)))
    scene.vouched(1, 5)
    scene.vouched(1, 5, key=r.SECOND_BEACON)
    scene.trusts(3, r.root(3, beacon=(m.BEACON_KEY,)))
    assert scene.subscriber.freshness.snapshot is not None


def test_whom_a_revoked_beacon_key_left_out_is_not_known_to_be_absent() -> None:
    scene = running(5)
    scene.hears(wire.SNAPSHOT_TOPIC, m.snapshot_bytes({}, 1))
    assert scene.subscriber.is_known_to_be_absent
    scene.trusts(2, BEACON_REVOKED)
    assert not scene.subscriber.is_known_to_be_absent


def test_a_root_that_only_a_revoked_beacon_key_spoke_of_is_not_missed() -> None:
    scene = running(5)
    scene.vouched(1, 5, root_version=99)
    scene.lives(20)
    scene.vouched(2, 5, root_version=99)
    scene.trusts(2, BEACON_REVOKED)
    assert scene.lives(15) == []


def test_a_thief_of_both_keys_leaves_no_floor_behind() -> None:
    scene = running(5)
    scene.vouched(1, FARTHEST)
    scene.gets(FARTHEST)
    both = r.root(2, config=(r.SECOND_CONFIG,), beacon=(r.SECOND_BEACON,))
    scene.trusts(2, both)
    assert scene.gets(50, r.SECOND_CONFIG) == ["applied 50"]


def test_what_a_first_start_holds_is_dropped_with_its_signer() -> None:
    scene = Scene()
    assert scene.gets(FARTHEST) == []
    assert scene.trusts(2, REVOKED) == ["root 2"]
    assert scene.gets(5, r.SECOND_CONFIG) == []
    assert scene.lives(15) == ["applied 5", "stale no-beacon"]


def test_whoever_signs_again_what_a_first_start_holds_vouches_for_it_too() -> None:
    scene = Scene(None, ROTATED)
    assert scene.gets(5) == []
    assert scene.gets(5, r.SECOND_CONFIG) == []
    assert scene.trusts(3, r.root(3, config=(r.CONFIG_KEY,))) == ["root 3"]
    assert scene.lives(15) == ["applied 5", "stale no-beacon"]
    assert not scene.subscriber.signer_revoked


KEYS = (r.CONFIG_KEY, r.SECOND_CONFIG, r.THIRD_CONFIG)


@STEADY
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.sets(st.sampled_from(KEYS), min_size=1)), max_size=25
    ),
    st.sets(st.sampled_from(KEYS), min_size=1),
    st.integers(1, 3),
)
def test_no_root_lets_anything_back_that_enough_of_its_keys_had_overtaken(
    history: list[tuple[int, set[SigningKey]]], left: set[SigningKey], threshold: int
) -> None:
    """Whatever was signed by whom, and whoever is left: what they could replay is refused."""
    threshold = min(threshold, len(left))
    scene = Scene(None, r.root(2, config=KEYS))
    scene.lives(15)
    for revision, signers in history:
        scene.gets(revision, *signers)
    taken = [
        (revision, signers & left)
        for at, (revision, signers) in enumerate(history)
        if all(revision >= earlier for earlier, _ in history[:at])
    ]
    highest = max((n for n, signers in taken if len(signers) >= threshold), default=0)
    root = r.root(3, config=tuple(left), thresholds={"config": threshold})
    scene.trusts(3, root)
    for revision in range(1, highest):
        said = scene.gets(revision, *left, config={"replayed": True})
        assert said[:1] == ["refused rolled-back"], (revision, highest)


def test_marks_of_keys_are_ranked_by_the_threshold() -> None:
    a, b, c = (Seen(Mark(1, n), "d") for n in (30, 20, 10))
    kept = Kept(None, a, seen_by={key_id(r.CONFIG_KEY): a, key_id(r.SECOND_CONFIG): b,
                                  key_id(r.THIRD_CONFIG): c})  # fmt: skip
    for threshold, left in ((1, b), (2, c)):
        keys = (r.SECOND_CONFIG, r.THIRD_CONFIG)
        root = pin(r.root(1, config=keys, thresholds={"config": threshold})).root
        assert kept.under(root).seen == left
    assert isinstance(root.roles["config"], KeyRole)


# ── withheld, or lost ──────────────────────────────────────────────────────────────────────────


def test_a_root_that_the_beacon_names_and_nobody_brings_makes_it_stale_after_30_s() -> None:
    scene = running(5)
    assert scene.vouched(1, 5, root_version=2) == []
    assert scene.lives(29.9) == []
    scene.vouched(2, 5, root_version=2)
    assert scene.lives(0.2) == ["stale root-withheld"]
    assert scene.trusts(2, ROTATED) == ["root 2", "fresh"]


def test_the_next_but_one_root_does_not_do_instead_of_the_withheld_one() -> None:
    scene = running(5)
    scene.vouched(1, 5, root_version=3)
    assert scene.trusts(3, r.root(3)) == []
    assert scene.lives(20) == []
    scene.vouched(2, 5, root_version=3)
    assert scene.lives(11) == ["stale root-withheld"]


def test_nobody_is_believed_by_an_older_root_than_was_trusted_once() -> None:
    """Its file is gone, or damaged: a revoked key must not be good again because of that."""
    before = running(5)
    before.trusts(2, REVOKED)
    after = Scene(before.kept)
    assert after.gets(6) == []
    assert after.lives(1) == ["refused unknown-key"]
    assert after.vouched(1, 6) == []
    assert after.lives(29) == ["refused unknown-key", "stale no-beacon"]
    assert after.gets(7, r.SECOND_CONFIG) == []
    assert after.trusts(2, REVOKED) == ["root 2", "applied 7"]


def test_an_older_root_undoes_no_mark_of_a_key_that_only_the_lost_one_lists() -> None:
    before = running(5, roots=[ROTATED])
    before.gets(9, r.SECOND_CONFIG)
    after = Scene(before.kept)
    assert after.seen == 9
    after.trusts(2, ROTATED)
    assert after.gets(8, r.SECOND_CONFIG) == ["refused rolled-back"]
