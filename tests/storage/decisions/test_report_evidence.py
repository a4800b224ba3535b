"""From which row on, and which receipts: what a report is given says as much as everything would."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.documents.receipt import Receipt
from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope, keyid
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions.changes import empty
from config_manager.storage.decisions.ledger import Period
from config_manager.storage.decisions.report_evidence import Needed, keys_of, receipts_within
from config_manager.storage.drifts import KeptReceipt
from tests.kit import documents as m
from tests.kit.reports import (
    HALL,
    KITCHEN,
    NEW_KITCHEN,
    SERVICE,
    T0,
    Fleet,
    in_base64,
    public_of,
    segments,
)

INSTANCES = {"kitchen-pi": KITCHEN, "hall-pi": HALL}


def kept(envelope: Envelope) -> KeptReceipt:
    one = Receipt.parse(envelope.payload)
    at = parse_rfc3339(one.at)
    revision = one.running and one.running.revision
    return KeptReceipt(
        one.service,
        one.instance,
        one.boot_seq,
        one.seq,
        at,
        at,
        revision or None,
        None,
        "in-line",
        one.gone,
        envelope.to_bytes(),
    )


def first_needed(fleet: Fleet, begin: float, end: float, service: str | None = None) -> int:
    runs = [
        (one.service, one.running.revision)
        for one in (Receipt.parse(each.payload) for each in fleet.receipts)
        if one.running is not None
    ]
    needed = Needed(Period(T0 + begin, T0 + end), service, runs)
    for row in fleet.rows:
        needed.take(row.seq, json.loads(row.body))
    return needed.first


def test_the_rows_begin_with_what_was_wanted_and_with_whose_keys_count() -> None:
    fleet = Fleet()
    fleet.change(1, "tts-worker")
    fleet.change(2)
    fleet.change(3)
    enrolled = fleet.enrol(4, "kitchen-pi", KITCHEN)
    fleet.change(100)
    assert first_needed(fleet, 50, 60) == 1
    assert first_needed(fleet, 50, 60, SERVICE) == 3
    assert first_needed(fleet, 150, 160, SERVICE) == enrolled
    fleet.revoke(200, "kitchen-pi")
    assert first_needed(fleet, 150, 250, SERVICE) == enrolled  # it ended meanwhile
    assert first_needed(fleet, 201, 250, SERVICE) == 5
    fleet.says(190, "kitchen-pi", KITCHEN, (1, 2), 2)
    assert first_needed(fleet, 201, 250, SERVICE) == 2  # a revision that some receipt names


def test_if_rows_were_once_accepted_as_they_lay_all_are_needed() -> None:
    fleet = Fleet()
    fleet.change(1)
    fleet.row(2, "restore", services={}, accepted={"lay": "ab" * 32})
    fleet.change(3)
    assert first_needed(fleet, 50, 60) == 1


def test_rows_that_nobody_of_ours_wrote_are_passed_over() -> None:
    needed = Needed(Period(T0, T0), None, ())
    bodies: list[JsonObject] = [{}, {"at": 1}, {"at": "x", "action": 1, "services": 1}]
    for body in bodies:
        needed.take(1, body)
    assert needed.first == 1


def test_keys_are_known_by_the_devices_of_now_and_by_what_enrolments_name() -> None:
    old, new = public_of(KITCHEN), public_of(NEW_KITCHEN)
    committed = replace(
        empty(Epoch(1, "")),
        registry={"device": {"stt-worker/kitchen-pi": {"sign_public": in_base64(new)}}},
    )
    rows: list[JsonObject] = [{"details": {"sign_public": in_base64(old)}}, {"details": []}, {}]
    rows += [{"details": {"sign_public": altered}} for altered in ("abc", "é", 5)]
    assert keys_of(committed, rows) == {keyid(old): old, keyid(new): new}


HAPPENS = st.lists(
    st.tuples(
        st.sampled_from(["change", "other", "says", "says", "goes", "enrol", "revoke"]),
        st.sampled_from(list(INSTANCES)),
        st.integers(1, 30),
        st.booleans(),
    ),
    max_size=20,
)


@m.STEADY
@given(HAPPENS, st.integers(0, 300), st.integers(0, 100))
def test_what_is_chosen_says_what_everything_would_or_less(
    happens: list[tuple[str, str, int, bool]], begin: int, length: int
) -> None:
    fleet, at, seq = Fleet(), 0, 1
    for what, instance, later, flag in happens:
        at += later
        if what in ("change", "other"):
            fleet.change(at, SERVICE if what == "change" else "tts-worker")
        elif what == "enrol":
            fleet.enrol(at, instance, NEW_KITCHEN if flag else INSTANCES[instance])
        elif what == "revoke":
            fleet.revoke(at, instance)
        else:
            seq += 1 + flag
            revision = fleet.mark.revision - flag
            fleet.says(
                at,
                instance,
                INSTANCES[instance],
                (1, seq),
                revision if revision > 0 else None,
                gone=what == "goes",
            )
    whole = fleet.claims(begin, begin + length, service=SERVICE)
    some = _with_what_is_chosen(fleet, begin, begin + length)
    told = some.claims(begin, begin + length, service=SERVICE)
    assert told[SERVICE]["instances"].keys() == whole[SERVICE]["instances"].keys()
    assert told[SERVICE]["wanted"] == whole[SERVICE]["wanted"]
    for instance in told[SERVICE]["instances"]:
        for start, end, revision, state, proof in segments(told, instance):
            moment = (start + end) / 2
            then = fleet.claims(moment, moment, service=SERVICE)
            if instance not in then[SERVICE]["instances"]:
                assert (revision, state, proof) == (None, None, "none")
                continue
            ((*_, ran, was, proved),) = segments(then, instance)
            assert (revision, proof) in ((ran, proved), (None, "none"))
            assert state in (was, None)


def _with_what_is_chosen(fleet: Fleet, begin: float, end: float) -> Fleet:
    span = Period(T0 + begin, T0 + end)
    chosen = {
        one.envelope
        for instance in INSTANCES
        for one in receipts_within(_of(fleet, instance), span)
    }
    receipts = [one for one in fleet.receipts if one.to_bytes() in chosen]
    some = replace(fleet, receipts=receipts)
    return replace(some, rows=fleet.rows[first_needed(some, begin, end, SERVICE) - 1 :])


def _of(fleet: Fleet, instance: str) -> list[KeptReceipt]:
    rows = [kept(one) for one in fleet.receipts]
    return [one for one in rows if one.instance == instance]
