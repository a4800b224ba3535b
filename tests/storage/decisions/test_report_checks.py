"""`report verify`: what is altered, swapped, removed or claimed without evidence is found."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.config import strict_json, wire
from config_manager.config.names import Mark
from config_manager.config.trust import Distrust
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.report_checks import Verdict, verify
from tests.kit import documents as m
from tests.kit.reports import (
    HALL,
    KITCHEN,
    SERVICE,
    T0,
    Fleet,
    claimed,
    file_of,
    pinned,
    segments,
    signed_root,
    story,
)

STORY = story()
FILE = STORY.report(0, 5000)
ROOT = pinned(STORY)


def found(verdict: Verdict) -> list[str]:
    return [one.step for one in verdict.findings]


def edited(change: Callable[[dict[str, Any]], object], file: bytes = FILE) -> bytes:
    """The file, with its evidence changed: as an attacker edits it."""
    value = json.loads(file)
    change(value["evidence"])
    return json.dumps(value).encode()


def forged(
    change: Callable[[dict[str, Any]], object] = lambda _evidence: None,
    *,
    fleet: Fleet = STORY,
    claims: Any = None,
) -> bytes:
    """A report of changed evidence, signed by the server: as it signs what somebody put into its database."""
    evidence = json.loads(json.dumps(fleet.evidence(10_000).to_object()))
    change(evidence)
    said = claimed(fleet.evidence(10_000), 0, 5000, 10_000, None) if claims is None else claims
    return file_of(evidence, 0, 5000, 10_000, said)


def test_a_report_verifies_with_the_pinned_root_alone_and_says_what_it_leaves_open() -> None:
    verdict = verify(FILE, ROOT)
    assert verdict.ok
    assert verdict.claims == STORY.claims(0, 5000)
    assert verdict.notes == (
        "stt-worker, revision 1, 2: the digest is proved, the message itself is not in this report",
    )
    assert (verdict.rows, verdict.root_version, verdict.holes) == ((1, 4), 1, ())


def test_a_file_that_was_printed_for_people_verifies_as_well() -> None:
    assert verify(json.dumps(json.loads(FILE), indent=2).encode(), ROOT).ok


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"report": 1, "evidence": {}}', FILE[:-2], FILE + b"x"]
)
def test_what_is_no_report_is_told_so(data: bytes) -> None:
    assert found(verify(data, ROOT)) == ["file"]


# ── roots and signatures ───────────────────────────────────────────────────────────────────────


def test_a_foreign_root_is_refused() -> None:
    other = signed_root(m.make_root(root=(m.STRANGER,)), m.STRANGER).to_bytes()
    verdict = verify(FILE, other)
    assert found(verdict) == ["roots"]
    assert "is not in this report" in verdict.findings[0].detail
    with pytest.raises(Distrust):
        verify(FILE, b"{}")


def test_the_roots_are_walked_from_the_pinned_one_on() -> None:
    fleet = story()
    second = m.make_root(2, config=(m.SECOND_CONFIG,))
    fleet.roots.append(signed_root(second))
    file = fleet.report(0, 5000, key=m.SECOND_CONFIG)
    assert verify(file, ROOT).ok
    assert verify(file, fleet.roots[1].to_bytes()).root_version == 2
    stranger = m.sign(wire.ROOT, second.to_bytes(), m.STRANGER)
    fleet.roots[1] = stranger
    assert found(verify(fleet.report(0, 5000, key=m.SECOND_CONFIG), ROOT)) == ["roots"]


def test_a_report_of_a_revoked_config_key_is_refused() -> None:
    fleet = story()
    fleet.roots.append(signed_root(m.make_root(2, config=(m.SECOND_CONFIG,))))
    assert found(verify(fleet.report(0, 5000, key=m.CONFIG_KEY), ROOT)) == ["report"]
    # nor does it help to leave the later root out: whoever pinned it looks for it
    assert found(verify(FILE, fleet.roots[1].to_bytes())) == ["roots"]


def test_a_key_past_its_date_counts_if_the_report_was_made_before_that() -> None:
    for until, good in ((9_000, False), (11_000, True)):
        dates = {m.key_id(m.CONFIG_KEY): rfc3339(T0 + until)}
        fleet = story()
        fleet.roots = [signed_root(m.make_root(not_after=dates))]
        assert verify(fleet.report(0, 5000), pinned(fleet)).ok is good


def test_a_report_by_a_key_of_another_role_is_refused() -> None:
    assert found(verify(STORY.report(0, 5000, key=m.BEACON_KEY), ROOT)) == ["report"]


# ── evidence that was edited, and not signed anew ──────────────────────────────────────────────


def test_evidence_that_is_not_what_was_signed_is_found_whatever_was_changed() -> None:
    edits: list[Callable[[dict[str, Any]], object]] = [
        lambda e: e["receipts"].pop(),
        lambda e: e["receipts"].reverse(),
        lambda e: e["keys"].clear(),
        lambda e: e["audit"]["rows"].pop(0),
        lambda e: e.update(more=1),
    ]
    for edit in edits:
        assert "report" in found(verify(edited(edit), ROOT))


# ── what somebody with the database can have signed ────────────────────────────────────────────


def alter(evidence: dict[str, Any], number: int, **members: Any) -> None:
    row = evidence["audit"]["rows"][number]
    row[1] = json.dumps({**json.loads(row[1]), **members})


def test_an_altered_row_of_the_audit_is_found() -> None:
    verdict = verify(forged(lambda e: alter(e, 2, by="mallory")), ROOT)
    assert found(verdict) == ["audit"]
    assert "row 3" in verdict.findings[0].detail


def test_rows_that_were_chained_anew_do_not_end_in_the_head_of_the_beacon() -> None:
    fleet = story()
    fleet.row(3000, "put", services={}, digests={})
    beacon = STORY.evidence(10_000).heads
    evidence = {**fleet.evidence(10_000).to_object()}
    evidence["audit"] = {**evidence["audit"], "heads": list(beacon)}
    assert found(verify(forged(lambda e: e.update(evidence)), ROOT)) == ["audit"]


@pytest.mark.parametrize("gone", [slice(0, 1), slice(1, 2), slice(3, 4), slice(0, 4)])
def test_a_truncated_audit_is_found(gone: slice) -> None:
    verdict = verify(forged(lambda e: e["audit"]["rows"].__delitem__(gone)), ROOT)
    assert not verdict.ok
    assert {"audit", "receipts", "claims"} & set(found(verdict))


def test_a_beacon_by_another_key_and_no_beacon_are_found() -> None:
    def by_stranger(evidence: dict[str, Any]) -> None:
        envelope = wire.envelope_from_object(evidence["audit"]["heads"][0])
        forged_one = m.sign(wire.BEACON, envelope.payload, m.STRANGER)
        evidence["audit"]["heads"] = [forged_one.to_object()]

    assert found(verify(forged(by_stranger), ROOT))[-1] == "audit"
    assert found(verify(forged(lambda e: e["audit"]["heads"].clear()), ROOT)) == ["audit"]


def test_a_beacon_of_a_key_past_its_date_is_found() -> None:
    for until, good in ((9_000, False), (11_000, True)):
        dates = {m.key_id(m.BEACON_KEY): rfc3339(T0 + until)}
        fleet = story()
        fleet.roots = [signed_root(m.make_root(not_after=dates))]
        assert verify(fleet.report(0, 5000), pinned(fleet)).ok is good


def test_a_report_of_a_time_that_its_beacon_does_not_know_is_refused() -> None:
    evidence = STORY.evidence(3_000).to_object()
    said = claimed(STORY.evidence(3_000), 0, 5000, 3_000, None)
    assert found(verify(file_of(evidence, 0, 5000, 10_000, said), ROOT)) == ["claims"]


def test_a_receipt_by_a_key_that_no_row_gives_to_its_instance_is_found() -> None:
    fleet = story()
    fleet.says(1500, "hall-pi", KITCHEN, (7, 9), 2)  # the kitchen's key, in the hall's name
    fleet.says(1500, "porch-pi", HALL, (7, 9), 2)
    verdict = verify(fleet.report(0, 5000), ROOT)
    assert found(verdict)[:2] == ["receipts", "receipts"]
    assert "to stt-worker/hall-pi" in verdict.findings[0].detail


def test_receipts_swapped_between_instances_prove_nothing_of_either() -> None:
    def swap(evidence: dict[str, Any]) -> None:
        one, other = evidence["receipts"][0], evidence["receipts"][2]
        one["payload"], other["payload"] = other["payload"], one["payload"]

    verdict = verify(forged(swap), ROOT)
    assert found(verdict)[:2] == ["receipts", "receipts"]
    assert "claims" in found(verdict)


def test_a_key_under_the_id_of_another_is_none() -> None:
    def exchange(evidence: dict[str, Any]) -> None:
        public = base64.b64encode(m.STRANGER.verify_key.encode()).decode()
        evidence["keys"] = dict.fromkeys(evidence["keys"], public)

    assert set(found(verify(forged(exchange), ROOT))) == {"receipts", "claims"}


def test_removed_receipts_leave_holes_and_no_false_claim() -> None:
    fleet = story()
    del fleet.receipts[4]  # the kitchen's 1.5, with which it began to run revision 2
    verdict = verify(fleet.report(0, 5000), ROOT)
    assert verdict.ok
    assert [(one.instance, one.before, one.behind, one.missing) for one in verdict.holes] == [
        ("kitchen-pi", (1, 4), (1, 6), 1)
    ]
    proved = [
        one
        for one in verdict.claims[SERVICE]["instances"]["kitchen-pi"]["segments"]
        if one["proof"] == "between"
    ]
    whole = STORY.claims(0, 5000)[SERVICE]["instances"]["kitchen-pi"]["segments"]
    assert all(one in whole for one in proved)


# ── claims ─────────────────────────────────────────────────────────────────────────────────────


def _claim(change: Callable[[dict[str, Any]], object]) -> Verdict:
    said = json.loads(json.dumps(STORY.claims(0, 5000)))
    change(said)
    return verify(forged(claims=said), ROOT)


def test_a_claim_that_the_evidence_does_not_make_is_found_and_both_are_named() -> None:
    def better(said: dict[str, Any]) -> None:
        said[SERVICE]["instances"]["hall-pi"]["segments"][-2]["state"] = "in-line"

    verdict = _claim(better)
    assert found(verdict) == ["claims"]
    assert verdict.findings[0].detail.startswith("stt-worker/hall-pi: the report says {")
    assert verdict.claims == STORY.claims(0, 5000)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[SERVICE]["instances"].pop("hall-pi"),
        lambda s: s[SERVICE]["instances"]["hall-pi"].update(missing_seq=1),
        lambda s: s[SERVICE]["instances"].update(porch=s[SERVICE]["instances"]["hall-pi"]),
        lambda s: s[SERVICE]["wanted"].pop(),
        lambda s: s[SERVICE]["wanted"][0].update(approved_by="bo"),
        lambda s: s.update({"made-up": s[SERVICE]}),
        lambda s: s.update({SERVICE: {}}),
        lambda s: s[SERVICE].update(more=1),
    ],
)
def test_what_is_claimed_beside_or_less_than_the_evidence_is_found(
    change: Callable[[dict[str, Any]], object],
) -> None:
    assert set(found(_claim(change))) == {"claims"}


def test_a_report_about_one_service_verifies_though_its_audit_knows_others() -> None:
    fleet = story()
    fleet.change(1500, "tts-worker")
    file = fleet.report(0, 5000, service=SERVICE)
    verdict = verify(file, ROOT)
    assert verdict.ok
    assert list(verdict.claims) == [SERVICE]
    assert (
        "1 other services are in these rows, and the report says nothing of them" in verdict.notes
    )


def test_a_report_that_begins_in_the_middle_of_the_audit_verifies_and_says_so() -> None:
    fleet = Fleet()
    for at in range(5):
        fleet.change(at, "tts-worker")
    first = fleet.enrol(10, "kitchen-pi", KITCHEN)
    fleet.change(20)
    fleet.says(21, "kitchen-pi", KITCHEN, (1, 2), 6)
    verdict = verify(fleet.report(30, 40, service=SERVICE, first=first), ROOT)
    assert verdict.ok, verdict.findings
    assert any("begin with number 6" in note for note in verdict.notes)


def test_clocks_that_went_back_are_told() -> None:
    fleet = story()
    fleet.change(900)
    fleet.says(1100, "kitchen-pi", KITCHEN, (1, 7), 2)
    fleet.says(1050, "kitchen-pi", KITCHEN, (1, 8), 2)
    verdict = verify(fleet.report(0, 5000), ROOT)
    assert verdict.ok
    notes = "\n".join(verdict.notes)
    assert "the server's clock went back by 100 s before row 5" in notes
    assert "the clock of stt-worker/kitchen-pi went back by 50 s before its receipt 1.8" in notes


def test_the_content_of_a_message_is_shown_only_if_the_audit_names_its_digest() -> None:
    def update(revision: int) -> bytes:
        return replace(m.UPDATE, epoch_seq=1, revision=revision).to_bytes()

    def shown(payload: bytes, *, by: SigningKey = m.CONFIG_KEY) -> Verdict:
        fleet = Fleet(mark=Mark(1, 1))
        fleet.row(5, "put", services={SERVICE: []}, digests={SERVICE: wire.digest(update(1))})
        fleet.updates.append(m.sign(wire.CONFIG_UPDATE, payload, by))
        return verify(fleet.report(0, 50), ROOT)

    whole = shown(update(1))
    assert (whole.ok, whole.notes) == (True, ())
    assert found(shown(update(2))) == ["updates"]
    assert found(shown(update(1), by=m.STRANGER)) == ["updates"]


# ── any change at all ──────────────────────────────────────────────────────────────────────────


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


VALUE = json.loads(FILE)
PLACES = [place for place in places(VALUE) if place]


def put(value: Any, place: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    value = json.loads(json.dumps(value))
    inside = value
    for key in place[:-1]:
        inside = inside[key]
    new = change(inside[place[-1]])
    if new is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = new
    return value


def flipped(text: str, where: int) -> str:
    """Another text: one character of it is another."""
    where %= max(1, len(text))
    return text[:where] + ("A" if text[where : where + 1] != "A" else "B") + text[where + 1 :]


@m.STEADY
@given(st.sampled_from(PLACES), st.integers(0, 4), st.integers(0, 10_000))
def test_any_single_change_of_the_file_is_found_or_changes_nothing_that_is_claimed(
    place: tuple[Any, ...], how: int, where: int
) -> None:
    def change(old: Any) -> Any:
        match old:
            case _ if how < 2:
                return ... if how == 0 else None
            case str():
                return flipped(old, where)
            case int():
                return old + 1
            case list():
                return old[1:] if how == 3 else [*old, *old[:1]]
            case _:
                return {}

    changed = put(VALUE, place, change)
    verdict = verify(strict_json.dumps(changed), ROOT)
    if verdict.ok:
        assert verdict.claims == STORY.claims(0, 5000)
        assert verdict.report is not None
        assert verdict.report.services == STORY.claims(0, 5000)


@m.STEADY
@given(st.sampled_from([p for p in PLACES if p[0] == "evidence"]), st.integers(0, 10_000))
def test_evidence_that_was_changed_and_signed_anew_claims_nothing_that_was_not_so(
    place: tuple[Any, ...], where: int
) -> None:
    """Who can write to the database has the server sign what is there, and what it says of that."""

    def change(old: Any) -> Any:
        return flipped(old, where) if isinstance(old, str) else ...

    evidence = put(VALUE, place, change)["evidence"] if len(place) > 1 else {}
    verdict = verify(file_of(evidence, 0, 5000, 10_000, STORY.claims(0, 5000)), ROOT)
    if verdict.ok:
        assert verdict.claims == STORY.claims(0, 5000)


@m.STEADY
@given(st.sets(st.integers(0, len(STORY.receipts) - 1)))
def test_whichever_receipts_somebody_removes_what_is_still_proved_was_so(gone: set[int]) -> None:
    fleet = story()
    fleet.receipts = [one for index, one in enumerate(fleet.receipts) if index not in gone]
    verdict = verify(fleet.report(0, 5000), ROOT)
    assert verdict.ok
    for instance in ("kitchen-pi", "hall-pi"):
        for begin, end, *said, proof in segments(verdict.claims, instance):
            if proof == "between":
                truth = segments(STORY.claims(begin, end), instance)
                assert [one[2:4] for one in truth] == [tuple(said)]


@pytest.mark.parametrize("said", [{"wanted": 5}, {"wanted": [{"revision": []}]}, {"wanted": [1]}])
def test_claims_of_any_form_are_compared_and_end_nothing(said: Any) -> None:
    verdict = verify(forged(claims={SERVICE: said}), ROOT)
    assert set(found(verdict)) == {"claims"}


def test_a_file_of_nothing_but_brackets_takes_no_memory() -> None:
    bomb = b'{"report": {}, "evidence": {"roots": [' + b"[]," * 3_000_000 + b"0]}}"
    verdict = verify(bomb, ROOT)
    assert [one.detail for one in verdict.findings] == [
        "this is no report: it has over 5000000 values"
    ]


def test_of_several_keys_that_a_receipt_names_the_first_that_is_known_counts() -> None:
    """Whichever way the names are hashed: a server and whoever verifies choose the same."""

    def name_another(evidence: dict[str, Any]) -> None:
        for one in evidence["receipts"]:
            one["signatures"].append({"keyid": wire.keyid(HALL_PUBLIC), "sig": ""})

    assert verify(forged(name_another), ROOT).ok


HALL_PUBLIC = HALL.verify_key.encode()
