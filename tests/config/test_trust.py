"""The ladder of trust: every refusal reached by its name, and what is never refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import KeyRole, Root
from config_manager.config.names import Mark
from config_manager.config.trust import (
    Accepted,
    Distrust,
    Reason,
    RoleName,
    Seen,
    judge_beacon,
    judge_root,
    judge_snapshot,
    judge_update,
    open_envelope,
    verify,
)
from config_manager.config.world import rfc3339
from tests.kit import documents as m


def update(
    *keys: SigningKey,
    kind: str = wire.CONFIG_UPDATE,
    raw: dict[str, Any] | None = None,
    **fields: Any,
) -> bytes:
    payload = replace(m.UPDATE, **fields).to_bytes()
    if raw is not None:
        payload = json.dumps({**json.loads(payload), **raw}).encode()
    return m.sign(kind, payload, *(keys or (m.CONFIG_KEY,))).to_bytes()


def seen(revision: int = 17, epoch_seq: int = 3, digest: str | None = None) -> Seen:
    return Seen(Mark(epoch_seq, revision), digest or wire.digest(m.UPDATE.to_bytes()))


def judge(
    data: bytes,
    *,
    root: Root | None = None,
    before: Seen | None = None,
    topic: str = m.TOPIC,
    now: float = m.NOW,
) -> Accepted:
    return judge_update(
        data, topic=topic, service=m.SERVICE, root=root or m.make_root(), seen=before, now=now
    )


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(Distrust) as caught:
        call()
    assert caught.value.detail
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    return caught.value.reason


def of_size(size: int) -> bytes:
    data = update()
    return data + b" " * (size - len(data))


def edited(**changes: Any) -> bytes:
    return json.dumps({**json.loads(update()), **changes}).encode()


def swapped(data: bytes, other: bytes) -> bytes:
    """One message's content under another's signature."""
    return json.dumps({**json.loads(data), "payload": json.loads(other)["payload"]}).encode()


STORIES: dict[str, tuple[Reason, bytes]] = {
    "one byte over 256 KiB": ("too-large", of_size(262_145)),
    "a gigantic nothing": ("too-large", bytes(300_000)),
    "empty, which others take for a deletion": ("malformed", b""),
    "not JSON": ("malformed", b"\xff\xfe"),
    "no envelope": ("malformed", b"{}"),
    "not signed": ("malformed", edited(signatures=[])),
    "five signatures": ("malformed", edited(signatures=json.loads(update())["signatures"] * 5)),
    "signed bytes that are not JSON": (
        "malformed",
        m.sign(wire.CONFIG_UPDATE, b"{", m.CONFIG_KEY).to_bytes(),
    ),
    "signed, but a field is missing": ("malformed", update(raw={"config": None})),
    "signed, but of another format": ("malformed", update(raw={"format": 2})),
    "a snapshot's type": ("wrong-type", update(kind=wire.SNAPSHOT)),
    "the type in capitals": ("wrong-type", update(kind=wire.CONFIG_UPDATE.upper())),
    "the type as somebody else's": ("wrong-type", edited(payloadType="text/plain")),
    "a stranger's key": ("unknown-key", update(m.STRANGER)),
    "the beacon's key": ("unknown-key", update(m.BEACON_KEY)),
    "the root's key": ("unknown-key", update(m.ROOT_KEY)),
    "another's content": ("bad-signature", swapped(update(), update(revision=18))),
    "a signature of 63 bytes": (
        "bad-signature",
        edited(signatures=[{"keyid": m.key_id(m.CONFIG_KEY), "sig": "A" * 84}]),
    ),
    "an empty signature": (
        "bad-signature",
        edited(signatures=[{"keyid": m.key_id(m.CONFIG_KEY), "sig": ""}]),
    ),
    "a stranger's signature under our key's id": (
        "bad-signature",
        edited(
            signatures=[
                {**json.loads(update(m.STRANGER))["signatures"][0], "keyid": m.key_id(m.CONFIG_KEY)}
            ]
        ),
    ),
    "signed for another kind, the type changed after": (
        "bad-signature",
        json.dumps(
            {**json.loads(update(kind=wire.SNAPSHOT)), "payloadType": wire.CONFIG_UPDATE}
        ).encode(),
    ),
    "a field that must be known": ("unsupported-critical", update(raw={"critical": ["new"]})),
    "a field that must be known, among known ones": (
        "unsupported-critical",
        update(raw={"critical": ["config", "new"], "new": 1}),
    ),
    "for another service": ("wrong-service", update(service="router")),
    "for another service, on its topic": (
        "wrong-service",
        update(service="router", topic="system/config/router"),
    ),
    "for another topic": ("wrong-topic", update(topic="system/config/router")),
    "an older revision": ("rolled-back", update(revision=16)),
    "a higher revision of an older epoch": ("rolled-back", update(revision=99, epoch_seq=2)),
    "the same revision with other content": ("equivocation", update(config={"evil": True})),
    "the same revision, deleted": ("equivocation", update(deleted=True)),
}


@pytest.mark.parametrize("story", STORIES)
def test_each_refusal_has_its_name(story: str) -> None:
    reason, data = STORIES[story]
    assert reason_of(lambda: judge(data, before=seen())) == reason


def test_the_table_reaches_every_reason_that_is_not_the_services_own() -> None:
    assert {reason for reason, _ in STORIES.values()} == {*get_args(Reason)} - {"model", "callback"}


def test_the_cheapest_check_comes_first() -> None:
    """Each message is wrong in everything that comes later, too."""
    ladder: list[tuple[Reason, bytes]] = [
        ("too-large", b"{" * 262_145),
        ("malformed", edited(payloadType="text/plain", signatures=[])),
        ("wrong-type", update(m.STRANGER, kind=wire.SNAPSHOT, service="router")),
        ("unknown-key", update(m.STRANGER, raw={"critical": ["new"]}, service="router")),
        ("bad-signature", swapped(update(), update(raw={"format": 2}, service="router"))),
        ("unsupported-critical", update(raw={"critical": ["new"], "format": 2}, service="router")),
        ("malformed", update(raw={"format": 2}, service="router")),
        ("wrong-service", update(service="router", topic="x", revision=1)),
        ("wrong-topic", update(topic="x", revision=1)),
        ("rolled-back", update(revision=1)),
    ]
    assert [reason_of(lambda d=data: judge(d, before=seen())) for _, data in ladder] == [  # type: ignore[misc]
        reason for reason, _ in ladder
    ]


def test_a_message_of_exactly_256_kib_is_taken() -> None:
    assert judge(of_size(262_144)).update == m.UPDATE


def test_the_topic_that_counts_is_the_one_it_came_on() -> None:
    assert reason_of(lambda: judge(update(), topic="system/config/router")) == "wrong-topic"


def test_the_first_message_is_taken_whatever_its_mark() -> None:
    accepted = judge(update())
    assert (accepted.update, accepted.duplicate) == (m.UPDATE, False)
    assert accepted.envelope == open_envelope(update())


def test_the_same_message_again_is_a_duplicate() -> None:
    assert judge(update(), before=seen()).duplicate


def test_the_same_content_under_a_new_key_is_a_duplicate_with_the_newer_envelope() -> None:
    root = m.make_root(2, config=(m.SECOND_CONFIG,))
    accepted = judge(update(m.SECOND_CONFIG), root=root, before=seen())
    assert accepted.duplicate
    assert accepted.envelope.signatures[0].keyid == m.key_id(m.SECOND_CONFIG)


def test_a_tombstone_is_taken_like_any_other_revision() -> None:
    accepted = judge(update(revision=18, deleted=True, config={}), before=seen())
    assert (accepted.update.deleted, accepted.duplicate) == (True, False)


def test_age_alone_refuses_nothing() -> None:
    """A retained message may rightly be old, and `not_after` is for the client to say."""
    old = update(issued_at="1999-01-01T00:00:00.000Z", not_after="1999-01-02T00:00:00.000Z")
    assert not judge(old, now=m.NOW).duplicate


marks = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(lambda pair: Mark(*pair))


@m.STEADY
@given(st.lists(st.tuples(marks, st.sampled_from("ab")), max_size=12))
def test_no_order_of_messages_ever_takes_a_service_back(
    arriving: list[tuple[Mark, str]],
) -> None:
    """Whatever arrives, each mark that is taken is higher, and has one content for ever."""
    taken: list[Seen] = []
    for mark, content in arriving:
        before = taken[-1] if taken else None
        data = update(epoch_seq=mark.epoch_seq, revision=mark.revision, config={"v": content})
        digest = open_envelope(data).digest
        try:
            accepted = judge(data, before=before)
        except Distrust as refusal:
            assert before is not None
            if mark == before.mark:
                assert (refusal.reason, digest == before.digest) == ("equivocation", False)
            else:
                assert (refusal.reason, mark < before.mark) == ("rolled-back", True)
        else:
            if accepted.duplicate:
                assert before == Seen(mark, digest)
            else:
                assert before is None or mark > before.mark
                taken.append(Seen(mark, digest))


# -- keys and thresholds


def signed(*keys: SigningKey) -> wire.Envelope:
    return m.sign(wire.CONFIG_UPDATE, b"{}", *keys)


def verify_config(envelope: wire.Envelope, root: Root, now: float = m.NOW) -> bytes:
    return verify(envelope, wire.CONFIG_UPDATE, "config", root, now)


TWO_OF_TWO = m.make_root(config=(m.CONFIG_KEY, m.SECOND_CONFIG), thresholds={"config": 2})


def test_a_threshold_of_two_takes_two_keys_in_any_order_and_beside_a_stranger() -> None:
    for keys in (
        (m.CONFIG_KEY, m.SECOND_CONFIG),
        (m.SECOND_CONFIG, m.CONFIG_KEY),
        (m.STRANGER, m.SECOND_CONFIG, m.ROOT_KEY, m.CONFIG_KEY),
    ):
        assert verify_config(signed(*keys), TWO_OF_TWO) == b"{}"


@pytest.mark.parametrize(
    "keys",
    [
        (m.CONFIG_KEY,),
        (m.CONFIG_KEY, m.CONFIG_KEY),
        (m.CONFIG_KEY, m.STRANGER),
        (m.CONFIG_KEY, m.ROOT_KEY, m.BEACON_KEY),
    ],
)
def test_one_key_is_not_two_however_often_it_signs(keys: tuple[SigningKey, ...]) -> None:
    assert reason_of(lambda: verify_config(signed(*keys), TWO_OF_TWO)) == "unknown-key"


def test_a_bad_signature_beside_enough_good_ones_harms_nothing() -> None:
    envelope = signed(m.CONFIG_KEY, m.SECOND_CONFIG)
    [good, other] = envelope.signatures
    bad = replace(envelope, signatures=(wire.Signature(other.keyid, bytes(64)), good))
    one_of_two = m.make_root(config=(m.CONFIG_KEY, m.SECOND_CONFIG))
    assert verify_config(bad, one_of_two) == b"{}"
    assert reason_of(lambda: verify_config(bad, TWO_OF_TWO)) == "bad-signature"


def test_a_good_signature_after_a_bad_one_of_the_same_key_counts() -> None:
    envelope = signed(m.CONFIG_KEY)
    [good] = envelope.signatures
    both = replace(envelope, signatures=(wire.Signature(good.keyid, bytes(64)), good))
    assert verify_config(both, m.make_root()) == b"{}"


def test_a_role_that_names_a_key_the_root_does_not_hold_is_not_signed_by_it() -> None:
    root = m.make_root()
    missing = KeyRole((m.key_id(m.STRANGER),), 1)
    hollow = replace(root, roles={**root.roles, "config": missing})
    assert reason_of(lambda: verify_config(signed(m.STRANGER), hollow)) == "unknown-key"


def dated(date: str) -> Root:
    return m.make_root(not_after={m.key_id(m.CONFIG_KEY): date})


def test_a_key_is_good_up_to_its_date_and_not_a_millisecond_longer() -> None:
    root = dated(rfc3339(m.NOW))
    assert verify_config(signed(m.CONFIG_KEY), root, m.NOW) == b"{}"
    later = m.NOW + 0.001
    assert reason_of(lambda: verify_config(signed(m.CONFIG_KEY), root, later)) == "unknown-key"


@pytest.mark.parametrize(
    "date", ["", "soon", "2099-01-01", "2099-01-01T00:00:00", "2099-13-01T00:00:00Z", "9" * 400]
)
def test_a_date_that_cannot_be_read_has_passed(date: str) -> None:
    assert reason_of(lambda: verify_config(signed(m.CONFIG_KEY), dated(date))) == "unknown-key"


def test_a_date_may_be_in_any_time_zone() -> None:
    at_eight = 1_800_000_000  # 2027-01-15T08:00:00Z
    root = dated("2027-01-15T10:00:00+02:00")
    assert verify_config(signed(m.CONFIG_KEY), root, at_eight) == b"{}"
    assert reason_of(lambda: verify_config(signed(m.CONFIG_KEY), root, at_eight + 1))


def test_a_key_past_its_date_is_passed_over_even_for_a_bad_signature() -> None:
    envelope = replace(
        signed(m.CONFIG_KEY), signatures=(wire.Signature(m.key_id(m.CONFIG_KEY), bytes(64)),)
    )
    root = dated("2020-01-01T00:00:00Z")
    assert reason_of(lambda: verify_config(envelope, root)) == "unknown-key"


# -- snapshots and beacons


def snapshot(*keys: SigningKey, kind: str = wire.SNAPSHOT, payload: bytes | None = None) -> bytes:
    data = m.SNAPSHOT.to_bytes() if payload is None else payload
    return m.sign(kind, data, *(keys or (m.BEACON_KEY,))).to_bytes()


def beacon(*keys: SigningKey, kind: str = wire.BEACON, payload: bytes | None = None) -> object:
    data = m.BEACON.to_bytes() if payload is None else payload
    return m.sign(kind, data, *(keys or (m.BEACON_KEY,))).to_object()


def test_a_snapshot_comes_with_its_digest_whatever_unsigned_member_stands_beside() -> None:
    data = json.dumps({**json.loads(snapshot()), "beacon": beacon()}).encode()
    digest = wire.digest(m.SNAPSHOT.to_bytes())
    assert judge_snapshot(data, m.make_root(), m.NOW) == (m.SNAPSHOT, digest)


def test_a_snapshot_may_be_larger_than_a_configuration() -> None:
    services = {f"s{n}": (n, "0" * 64) for n in range(4_000)}
    payload = replace(m.SNAPSHOT, services=services).to_bytes()
    data = snapshot(payload=payload)
    assert len(data) > wire.MAX_ENVELOPE_BYTES
    assert judge_snapshot(data, m.make_root(), m.NOW)[0].services == services


def test_a_beacon_by_its_own_key_is_believed() -> None:
    assert judge_beacon(beacon(), m.make_root(), m.NOW) == m.BEACON


def test_a_snapshot_of_4_mib_is_the_largest_that_is_looked_at() -> None:
    limit = 4 * 1024 * 1024
    data = snapshot() + b" " * (limit - len(snapshot()))
    assert judge_snapshot(data, m.make_root(), m.NOW)[0] == m.SNAPSHOT
    assert reason_of(lambda: judge_snapshot(data + b" ", m.make_root(), m.NOW)) == "too-large"


PROOFS_OF_LIFE: dict[str, tuple[Reason, bytes, object]] = {
    "nothing": ("malformed", b"", None),
    "no envelope": ("malformed", b"[]", []),
    "no fields": ("malformed", snapshot(payload=b"{}"), beacon(payload=b"{}")),
    "the configuration's key": ("unknown-key", snapshot(m.CONFIG_KEY), beacon(m.CONFIG_KEY)),
    "the root's key": ("unknown-key", snapshot(m.ROOT_KEY), beacon(m.ROOT_KEY)),
    "each other's type": ("wrong-type", snapshot(kind=wire.BEACON), beacon(kind=wire.SNAPSHOT)),
    "a field that must be known": (
        "unsupported-critical",
        snapshot(payload=b'{"critical":["new"]}'),
        beacon(payload=b'{"critical":["new"]}'),
    ),
}


@pytest.mark.parametrize("story", PROOFS_OF_LIFE)
def test_snapshots_and_beacons_are_refused_by_the_same_names(story: str) -> None:
    reason, as_snapshot, as_beacon = PROOFS_OF_LIFE[story]
    root = m.make_root()
    assert reason_of(lambda: judge_snapshot(as_snapshot, root, m.NOW)) == reason
    assert reason_of(lambda: judge_beacon(as_beacon, root, m.NOW)) == reason


def test_content_that_was_swapped_is_a_bad_signature_in_a_snapshot_and_a_beacon() -> None:
    root = m.make_root()
    newer = snapshot(payload=replace(m.SNAPSHOT, revision=99).to_bytes())
    assert reason_of(lambda: judge_snapshot(swapped(snapshot(), newer), root, m.NOW)) == (
        "bad-signature"
    )
    forged = json.loads(swapped(json.dumps(beacon()).encode(), newer))
    assert reason_of(lambda: judge_beacon(forged, root, m.NOW)) == "bad-signature"


# -- the root


def root_bytes(root: Root, *keys: SigningKey, kind: str = wire.ROOT) -> bytes:
    return m.sign(kind, root.to_bytes(), *keys).to_bytes()


FIRST = m.make_root()
SECOND = m.make_root(2, root=(m.SECOND_ROOT,), config=(m.SECOND_CONFIG,))


def test_the_first_root_vouches_for_itself() -> None:
    assert judge_root(root_bytes(FIRST, m.ROOT_KEY), None, m.NOW) == FIRST


def test_the_next_root_is_signed_by_both() -> None:
    for keys in ((m.ROOT_KEY, m.SECOND_ROOT), (m.SECOND_ROOT, m.ROOT_KEY)):
        assert judge_root(root_bytes(SECOND, *keys), FIRST, m.NOW) == SECOND


def test_a_root_that_keeps_its_root_key_needs_one_signature() -> None:
    second = m.make_root(2, config=(m.SECOND_CONFIG,))
    assert judge_root(root_bytes(second, m.ROOT_KEY), FIRST, m.NOW) == second


def test_a_first_root_may_be_any_version() -> None:
    """Whoever pins version 7 by hand has chosen it."""
    seventh = m.make_root(7)
    assert judge_root(root_bytes(seventh, m.ROOT_KEY), None, m.NOW) == seventh


THREE = (m.ROOT_KEY, m.SECOND_ROOT, m.STRANGER)
TWO_OF_THREE = m.make_root(root=THREE, thresholds={"root": 2})
BAD_ROOTS: dict[str, tuple[Reason, bytes, Root | None]] = {
    "too large": ("too-large", b" " * 262_145, None),
    "empty": ("malformed", b"", FIRST),
    "an update": ("wrong-type", update(), FIRST),
    "an update, pinned": ("wrong-type", update(), None),
    "a root's bytes as another type": (
        "wrong-type",
        root_bytes(FIRST, m.ROOT_KEY, kind=wire.BEACON),
        None,
    ),
    "pinned, signed by a stranger": ("unknown-key", root_bytes(FIRST, m.STRANGER), None),
    "pinned, signed by its configuration key": (
        "unknown-key",
        root_bytes(FIRST, m.CONFIG_KEY),
        None,
    ),
    "signed by the new key alone": ("unknown-key", root_bytes(SECOND, m.SECOND_ROOT), FIRST),
    "signed by the old key alone": ("unknown-key", root_bytes(SECOND, m.ROOT_KEY), FIRST),
    "the same version again": ("rolled-back", root_bytes(FIRST, m.ROOT_KEY), FIRST),
    "a version left out": ("rolled-back", root_bytes(m.make_root(3), m.ROOT_KEY), FIRST),
    "an older version": ("rolled-back", root_bytes(FIRST, m.ROOT_KEY), m.make_root(2)),
    "one of the two that are needed": (
        "unknown-key",
        root_bytes(m.make_root(2), m.ROOT_KEY),
        TWO_OF_THREE,
    ),
    "a threshold of its own that it does not reach": (
        "unknown-key",
        root_bytes(m.make_root(2, root=THREE, thresholds={"root": 2}), m.ROOT_KEY),
        FIRST,
    ),
    "no root inside": ("malformed", m.sign(wire.ROOT, b"{}", m.ROOT_KEY).to_bytes(), FIRST),
    "no root inside, pinned": ("malformed", m.sign(wire.ROOT, b"{}", m.ROOT_KEY).to_bytes(), None),
    "a field that must be known": (
        "unsupported-critical",
        m.sign(wire.ROOT, b'{"critical":["new"]}', m.ROOT_KEY).to_bytes(),
        FIRST,
    ),
    "another root's content": (
        "bad-signature",
        swapped(root_bytes(m.make_root(2), m.ROOT_KEY), root_bytes(SECOND, m.ROOT_KEY)),
        FIRST,
    ),
    "signed by a root key past its date": (
        "unknown-key",
        root_bytes(m.make_root(2), m.ROOT_KEY),
        m.make_root(not_after={m.key_id(m.ROOT_KEY): "2020-01-01T00:00:00Z"}),
    ),
}


@pytest.mark.parametrize("story", BAD_ROOTS)
def test_a_root_that_does_not_follow_is_refused(story: str) -> None:
    reason, data, trusted = BAD_ROOTS[story]
    assert reason_of(lambda: judge_root(data, trusted, m.NOW)) == reason


def test_a_root_of_several_keys_follows_with_as_many_as_it_asked_for() -> None:
    second = replace(TWO_OF_THREE, version=2)
    data = root_bytes(second, m.STRANGER, m.ROOT_KEY)
    assert judge_root(data, TWO_OF_THREE, m.NOW) == second


def test_a_key_that_the_new_root_leaves_out_signs_nothing_any_more() -> None:
    assert judge(update(), root=FIRST).update == m.UPDATE
    assert reason_of(lambda: judge(update(), root=SECOND)) == "unknown-key"


# -- whatever comes


@m.STEADY
@given(
    st.binary(max_size=300)
    | m.json_values.map(lambda value: json.dumps(value).encode())
    | m.json_objects.map(lambda value: edited(**value))
    | m.json_objects.map(lambda value: update(raw=value))
)
def test_whatever_comes_is_accepted_or_distrusted_never_a_crash(data: bytes) -> None:
    try:
        accepted = judge(data)
    except Distrust as refusal:
        assert refusal.reason in get_args(Reason)
    else:
        assert accepted.update == ConfigUpdate.parse(accepted.envelope.payload)


@pytest.mark.parametrize("role", get_args(RoleName))
def test_each_role_is_verified_by_its_own_key_alone(role: RoleName) -> None:
    keys = {"root": m.ROOT_KEY, "config": m.CONFIG_KEY, "beacon": m.BEACON_KEY}
    for name, key in keys.items():
        envelope = m.sign("t", b"x", key)
        if name == role:
            assert verify(envelope, "t", role, FIRST, m.NOW) == b"x"
        else:
            assert reason_of(lambda e=envelope: verify(e, "t", role, FIRST, m.NOW)) == (  # type: ignore[misc]
                "unknown-key"
            )
