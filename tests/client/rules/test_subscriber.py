from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_manager.client.rules.events import Applied, Deleted, Event, Fresh, Refused, Stale
from config_manager.client.rules.set_aside import ROOT_MAY_FOLLOW_S
from config_manager.client.rules.subscriber import Subscriber
from config_manager.config import wire
from tests.kit import clients
from tests.kit import documents as m


def empty() -> Subscriber:
    subscriber = clients.Taker(m.SERVICE, "here", clients.make_chain(), None)
    assert subscriber.tick(0.0, m.NOW) == []
    return subscriber


def running(revision: int = 5) -> Subscriber:
    """A subscriber that was restarted with this revision in its file."""
    subscriber = clients.Taker(m.SERVICE, "here", clients.make_chain(), clients.make_kept(revision))
    assert subscriber.tick(0.0, m.NOW) == []
    return subscriber


def give(
    subscriber: Subscriber, payload: bytes, topic: str = m.TOPIC, now: float = 1.0
) -> list[Event]:
    return subscriber.receive(topic, payload, m.NOW + now, now)


def hear_out(subscriber: Subscriber, payload: bytes, topic: str = m.TOPIC) -> list[Event]:
    """Also what is only said once a root had time to follow."""
    return give(subscriber, payload, topic) + subscriber.tick(1.0 + ROOT_MAY_FOLLOW_S)


def names(events: list[Event]) -> list[str]:
    return [
        f"{type(e).__name__}:{e.reason}" if isinstance(e, Refused | Stale) else type(e).__name__
        for e in events
    ]


WRONG_TYPE = m.sign(wire.SNAPSHOT, m.make_update(6).to_bytes(), m.CONFIG_KEY).to_bytes()


def unsigned() -> bytes:
    value = json.loads(m.update_bytes(6))
    return json.dumps({**value, "signatures": []}).encode()


def forged() -> bytes:
    value = json.loads(m.update_bytes(6))
    value["payload"] = json.loads(m.update_bytes(7))["payload"]
    return json.dumps(value).encode()


def five_copies_of_one_key() -> bytes:
    value = json.loads(m.update_bytes(6))
    value["signatures"] *= 5
    return json.dumps(value).encode()


ATTACKS: dict[str, tuple[str, bytes]] = {
    "unsigned": ("malformed", unsigned()),
    "a stranger's key": ("unknown-key", m.update_bytes(6, key=m.STRANGER)),
    "the beacon's key on a configuration": ("unknown-key", m.update_bytes(6, key=m.BEACON_KEY)),
    "content swapped under a signature": ("bad-signature", forged()),
    "another kind of document": ("wrong-type", WRONG_TYPE),
    "another service's message": ("wrong-service", m.update_bytes(6, service="router")),
    "signed for another topic": ("wrong-topic", m.update_bytes(6, topic="system/config/router")),
    "rollback after restart": ("rolled-back", m.update_bytes(4)),
    "older epoch": ("rolled-back", m.update_bytes(6, epoch_seq=0)),
    "equal revision, other content": ("equivocation", m.update_bytes(5, config={"evil": True})),
    "2^63": ("malformed", m.raw_update({"revision": 2**63})),
    "2^53": ("malformed", m.raw_update({"revision": 2**53})),
    "a revision that is true": ("malformed", m.raw_update({"revision": True})),
    "unknown critical": ("unsupported-critical", m.raw_update({"critical": ["new"]}, 6)),
    "five copies of one key": ("malformed", five_copies_of_one_key()),
    "oversized": ("too-large", b"{" + b" " * wire.MAX_ENVELOPE_BYTES),
    "empty": ("malformed", b""),
    "not JSON": ("malformed", b"\xff\x00"),
    "100,000 levels deep": ("malformed", b'{"a":' + b"[" * 100_000),
}


@pytest.mark.parametrize("story", ATTACKS)
def test_a_refusal_has_its_reason_and_leaves_what_runs_untouched(story: str) -> None:
    reason, payload = ATTACKS[story]
    subscriber = running(5)
    before = subscriber.kept
    assert names(hear_out(subscriber, payload)) == [f"Refused:{reason}"]
    assert subscriber.kept == before
    assert subscriber.refusals[reason] == 1  # type: ignore[index]


def test_two_signatures_of_one_key_do_not_reach_a_threshold_of_two() -> None:
    root = m.make_root()
    role = root.roles["config"]
    two = {**root.roles, "config": type(role)((*role.keyids, "0" * 64), 2)}
    subscriber = clients.Taker(
        m.SERVICE, "here", clients.make_chain(type(root)(1, root.issued_at, root.keys, two)), None
    )
    value = json.loads(m.update_bytes(6))
    value["signatures"] *= 2
    assert names(give(subscriber, json.dumps(value).encode())) == ["Refused:unknown-key"]


def test_a_message_on_another_services_topic_is_refused() -> None:
    assert names(give(running(), m.update_bytes(6), "system/config/router")) == [
        "Refused:wrong-topic"
    ]


def test_higher_is_applied_equal_is_silent_lower_is_refused() -> None:
    subscriber = running(5)
    assert names(give(subscriber, m.update_bytes(5))) == []
    assert names(give(subscriber, m.update_bytes(6))) == ["Applied"]
    assert names(give(subscriber, m.update_bytes(5))) == ["Refused:rolled-back"]
    assert names(give(subscriber, m.update_bytes(2, epoch_seq=2))) == ["Applied"]


def test_a_repeated_refusal_is_said_once_per_connection_and_always_counted() -> None:
    subscriber = running(5)
    assert names(give(subscriber, b"x")) == ["Refused:malformed"]
    assert give(subscriber, b"x") == []
    assert subscriber.refusals["malformed"] == 2
    assert subscriber.disconnected(2.0) == []
    assert names(give(subscriber, b"x", now=3.0)) == ["Refused:malformed"]


def test_a_tombstone_moves_the_mark_and_leaves_the_values() -> None:
    subscriber = running(5)
    assert names(give(subscriber, m.update_bytes(6, deleted=True, config={}))) == ["Deleted"]
    kept = subscriber.kept
    assert kept is not None
    assert kept.running is not None
    assert kept.seen is not None
    assert (kept.seen.mark.revision, kept.running[0].revision, kept.deleted) == (6, 5, True)
    assert names(give(subscriber, m.update_bytes(5))) == ["Refused:rolled-back"]
    assert names(give(subscriber, m.update_bytes(7))) == ["Applied"]


def test_a_first_start_holds_the_message_until_a_snapshot_names_it() -> None:
    subscriber = empty()
    assert give(subscriber, m.update_bytes(5)) == []
    events = give(subscriber, m.snapshot_bytes({m.SERVICE: m.entry(5)}, 1), wire.SNAPSHOT_TOPIC)
    assert names(events) == ["Applied", "Fresh"]


def test_a_first_start_without_a_floor_applies_after_15_s_as_stale() -> None:
    subscriber = empty()
    assert give(subscriber, m.update_bytes(5)) == []
    assert give(subscriber, m.update_bytes(6)) == []
    assert subscriber.tick(14.9) == []
    events = subscriber.tick(15.0)
    assert names(events) == ["Applied", "Stale:no-beacon"]
    assert isinstance(events[0], Applied)
    assert events[0].update.revision == 6


def test_a_first_start_takes_nothing_older_than_the_snapshot() -> None:
    subscriber = empty()
    give(subscriber, m.update_bytes(4))
    events = give(subscriber, m.snapshot_bytes({m.SERVICE: m.entry(5)}, 1), wire.SNAPSHOT_TOPIC)
    assert names(events) == ["Refused:rolled-back"]
    assert isinstance(events[0], Refused)
    assert "snapshot names 5" in events[0].detail
    assert names(give(subscriber, m.update_bytes(5))) == ["Applied", "Fresh"]


def test_what_the_snapshot_names_but_nobody_brings_is_withheld_after_30_s() -> None:
    subscriber = running(5)
    snapshot = m.snapshot_bytes({m.SERVICE: m.entry(6)}, 1)
    assert give(subscriber, snapshot, wire.SNAPSHOT_TOPIC, 1.0) == []
    give(subscriber, m.keepalive_bytes({m.SERVICE: m.entry(6)}, 2), wire.KEEPALIVE_TOPIC, 20.0)
    assert names(subscriber.tick(30.9)) == []
    assert names(subscriber.tick(31.0)) == ["Stale:withheld"]
    assert names(give(subscriber, m.update_bytes(6), now=32.0)) == ["Applied", "Fresh"]


def test_no_beacon_is_stale_and_a_replayed_one_does_not_help() -> None:
    subscriber = running(5)
    services = {m.SERVICE: m.entry(5)}
    first = m.keepalive_bytes(services, 7)
    assert give(subscriber, first, wire.KEEPALIVE_TOPIC) == []  # the snapshot isn't known yet
    assert names(give(subscriber, m.snapshot_bytes(services, 7), wire.SNAPSHOT_TOPIC)) == ["Fresh"]
    older = m.keepalive_bytes(services, 6)
    for now in (10.0, 20.0, 30.0):
        assert give(subscriber, older, wire.KEEPALIVE_TOPIC, now) == []
    assert names(subscriber.tick(31.0)) == ["Stale:no-beacon"]
    assert give(subscriber, older, wire.KEEPALIVE_TOPIC, 32.0) == []
    assert subscriber.tick(33.0) == []
    assert subscriber.freshness.replayed_beacons == 4
    rising = m.keepalive_bytes(services, 1, boot_seq=2)
    assert names(give(subscriber, rising, wire.KEEPALIVE_TOPIC, 34.0)) == ["Fresh"]


def test_a_lost_connection_alone_is_not_stale() -> None:
    subscriber = running(5)
    give(subscriber, m.snapshot_bytes({m.SERVICE: m.entry(5)}, 1), wire.SNAPSHOT_TOPIC, 1.0)
    assert subscriber.disconnected(5.0) == []
    assert names(subscriber.disconnected(31.0)) == ["Stale:no-beacon"]


def test_an_expired_configuration_goes_on_and_says_so() -> None:
    subscriber = running(5)
    past = m.update_bytes(6, not_after="2020-01-01T00:00:00.000Z")
    assert names(give(subscriber, past)) == ["Applied", "Stale:expired"]


@pytest.mark.parametrize("date", ["soon", "0001-01-01T00:00:00+23:59", "2027-01-01T00:00:00"])
def test_a_date_nobody_can_read_has_passed(date: str) -> None:
    assert names(give(running(5), m.update_bytes(6, not_after=date))) == [
        "Applied",
        "Stale:expired",
    ]


def test_a_beacon_by_the_config_key_is_refused() -> None:
    payload = m.keepalive_bytes({}, 1, key=m.CONFIG_KEY)
    assert names(give(running(), payload, wire.KEEPALIVE_TOPIC)) == ["Refused:unknown-key"]


def test_a_snapshot_larger_than_a_message_is_read_up_to_4_mib() -> None:
    services: dict[str, Any] = {f"s{n}": (n, "0" * 64) for n in range(4000)}
    payload = m.snapshot_bytes({**services, m.SERVICE: m.entry(5)}, 1)
    assert len(payload) > wire.MAX_ENVELOPE_BYTES
    assert names(give(running(5), payload, wire.SNAPSHOT_TOPIC)) == ["Fresh"]
    too_large = payload + b" " * 4 * 1024 * 1024
    assert names(give(running(5), too_large, wire.SNAPSHOT_TOPIC)) == ["Refused:too-large"]


VALID = m.update_bytes(6)
TOPICS = [m.TOPIC, wire.SNAPSHOT_TOPIC, wire.KEEPALIVE_TOPIC, "system/trust/roots/2", ""]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(TOPICS), st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["data", "beacon", "payloadType", "payload", "signatures"]), inner
    ),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_bytes_raise_or_change_what_runs(topic: str, payload: bytes) -> None:
    subscriber = running(5)
    before = subscriber.kept
    assert all(isinstance(e, Refused) for e in give(subscriber, payload, topic))
    assert subscriber.kept == before


@settings(deadline=None, max_examples=500)
@given(st.integers(0, len(VALID) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_no_mutation_changes_what_is_applied(at: int, insert: bytes, cut: int) -> None:
    subscriber = running(5)
    for event in give(subscriber, VALID[:at] + insert + VALID[at + cut :]):
        if isinstance(event, Applied):  # only what no signature covers, such as correlation_id
            assert event.update == m.make_update(6)
        else:
            assert isinstance(event, Refused)


def test_the_closed_set_of_events_is_what_this_file_speaks_of() -> None:
    assert {Applied, Refused, Deleted, Stale, Fresh} < set(get_args(Event))
