"""The next trust root: what it may be, whose signatures it takes, and who believes it then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nacl.signing import SigningKey

from config_manager.config import roots, trust, wire
from config_manager.config.documents.root import Root
from config_manager.config.errors import Conflict, InvalidValues, NotFound
from config_manager.config.trust import Distrust, Reason
from config_manager.config.wire import Envelope, Signature, keyid

AT = "2027-01-15T08:00:00.000Z"
LATER = "2027-01-16T08:00:00.000Z"
NOW = 1_800_000_000.0
KEYS = [SigningKey(bytes([n]) * 32) for n in range(12)]


def public(n: int) -> bytes:
    return KEYS[n].verify_key.encode()


def key_id(n: int) -> str:
    return keyid(public(n))


def signed(root: Root, *signers: int) -> Envelope:
    payload = root.to_bytes()
    message = wire.signed_bytes(wire.ROOT, payload)
    signatures = tuple(Signature(key_id(n), KEYS[n].sign(message).signature) for n in signers)
    return Envelope(wire.ROOT, payload, signatures)


FIRST = roots.first({"root": public(0), "config": public(1), "beacon": public(2)}, AT)


def believed(before: Root, envelope: Envelope) -> Root:
    return trust.judge_root(envelope.to_bytes(), before, NOW)


def refused(before: Root, envelope: Envelope) -> Reason:
    with pytest.raises(Distrust) as caught:
        believed(before, envelope)
    return caught.value.reason


def test_the_first_one_believes_itself() -> None:
    assert trust.judge_root(signed(FIRST, 0).to_bytes(), None, NOW) == FIRST


def test_a_rotated_role_signs_with_the_new_key_and_the_old_one_is_good_for_a_while() -> None:
    second = roots.rotated(FIRST, "config", key_id(1), public(3), at=AT, old_until=LATER)
    assert believed(FIRST, signed(second, 0)).roles["config"].keyids == (key_id(3), key_id(1))
    assert second.keys[key_id(1)].not_after == LATER
    assert second.keys[key_id(3)].not_after is None
    third = roots.rotated(
        second, "config", key_id(3), public(4), at=LATER.replace("16", "17"), old_until=None
    )
    assert third.roles["config"].keyids == (key_id(4),), "what is over is dropped on the way"
    assert set(third.keys) == {key_id(0), key_id(2), key_id(4)}


def test_a_new_root_key_needs_the_old_ones_signature_and_its_own() -> None:
    second = roots.rotated(FIRST, "root", key_id(0), public(3), at=AT, old_until=LATER)
    assert second.roles["root"].keyids == (key_id(3),)
    for signers, missing, why in (
        ((), [1, 2], "malformed"),
        ((0,), [2], "unknown-key"),
        ((3,), [1], "unknown-key"),
        ((1, 2), [1, 2], "unknown-key"),
    ):
        envelope = signed(second, *signers)
        assert [one.version for one in roots.needs(envelope, FIRST, second)] == missing
        assert refused(FIRST, envelope) == why
    envelope = signed(second, 0, 3)
    assert roots.needs(envelope, FIRST, second) == ()
    assert believed(FIRST, envelope) == second


def test_two_of_three_is_reached_one_signer_after_the_other() -> None:
    two = roots.with_signer(FIRST, public(3), None, at=AT)
    assert (two.roles["root"].threshold, len(two.roles["root"].keyids)) == (1, 2)
    three = roots.with_signer(two, public(4), 2, at=AT)
    one_is_enough_for_the_old = signed(three, 0)
    [need] = roots.needs(one_is_enough_for_the_old, two, three)
    assert (need.version, need.threshold, need.missing) == (3, 2, 1)
    assert set(need.keyids) == {key_id(3), key_id(4)}
    assert believed(two, signed(three, 0, 4)) == three
    four = roots.rotated(three, "config", key_id(1), public(5), at=AT, old_until=None)
    assert refused(three, signed(four, 4)) == "unknown-key"
    # a threshold counts keys, not signatures
    assert refused(three, signed(four, 4, 4)) == "unknown-key"
    assert believed(three, signed(four, 4, 3)) == four


def test_a_revoked_key_is_gone_from_every_role_and_the_one_we_sign_with_is_replaced() -> None:
    second = roots.revoked(FIRST, key_id(1), public(3), at=AT)
    assert second.roles["config"].keyids == (key_id(3),)
    assert key_id(1) not in second.keys
    assert second.roles["beacon"] == FIRST.roles["beacon"]


def test_what_can_not_be_is_refused_in_words_that_say_what_to_do() -> None:
    with pytest.raises(Conflict, match="add-signer"):
        roots.revoked(FIRST, key_id(0), None, at=AT)
    with pytest.raises(Conflict, match="rotate beacon"):
        roots.revoked(FIRST, key_id(2), None, at=AT)
    with pytest.raises(NotFound, match="trust show"):
        roots.revoked(FIRST, key_id(9), None, at=AT)
    with pytest.raises(Conflict):
        roots.rotated(FIRST, "config", key_id(1), public(2), at=AT, old_until=None)
    for threshold in (0, 3, 4):
        with pytest.raises(InvalidValues):
            roots.with_signer(FIRST, public(3), threshold, at=AT)
    with pytest.raises(Conflict):
        roots.with_signer(FIRST, public(0), None, at=AT)


def test_merging_keeps_right_signatures_of_wanted_keys_once() -> None:
    second = roots.rotated(FIRST, "root", key_id(0), public(3), at=AT, old_until=None)
    wrong = Signature(key_id(3), bytes(64))
    rubbish = replace(signed(second, 1, 7), signatures=(wrong, *signed(second, 1, 7).signatures))
    merged = roots.merged(rubbish, signed(second, 3), FIRST, second)
    assert [one.keyid for one in merged.signatures] == [key_id(3)]
    both = roots.merged(merged, signed(second, 0, 3), FIRST, second)
    assert believed(FIRST, both) == second
    assert len(both.signatures) == 2


def test_a_full_exchange_of_two_signers_fits_into_four_signatures() -> None:
    two = roots.with_signer(FIRST, public(3), 2, at=AT)
    third = replace(
        two,
        version=3,
        keys={**two.keys, key_id(4): two.keys[key_id(0)].__class__(public(4)),
              key_id(5): two.keys[key_id(0)].__class__(public(5))},
        roles={**two.roles, "root": replace(two.roles["root"], keyids=(key_id(4), key_id(5)))},
    )  # fmt: skip
    assert believed(two, signed(third, 0, 3, 4, 5)) == third


def test_a_root_key_of_low_order_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidValues) as refused:
        roots.with_signer(FIRST, bytes(32), None, at=AT)
    assert [error.pointer for error in refused.value.errors] == ["/public"]
