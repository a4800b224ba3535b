"""Who ran what, when, and how far that is proved: what rows of the audit and receipts come to."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.world import rfc3339
from tests.kit import documents as m
from tests.kit.reports import HALL, KITCHEN, NEW_KITCHEN, SERVICE, T0, Fleet, segments, story

KITCHENS = "kitchen-pi"


def enrolled() -> Fleet:
    """The kitchen's instance, enrolled at 10, and a first change at 100."""
    fleet = Fleet()
    fleet.enrol(10, KITCHENS, KITCHEN)
    fleet.change(100)
    return fleet


def test_two_receipts_that_say_the_same_prove_the_time_between_them_and_the_last_one_does_not() -> (
    None
):
    told = story().claims(0, 5000)
    assert segments(told, KITCHENS) == [
        (0, 101, None, None, "none"),
        (101, 1000, 1, "in-line", "between"),
        (1000, 1001, 1, "pending", "between"),
        (1001, 1002, 1, "pending", "last-said"),
        (1002, 1061, 2, "in-line", "between"),
        (1061, 5000, 2, "in-line", "last-said"),
    ]
    assert segments(told, "hall-pi") == [
        (0, 101, None, None, "none"),
        (101, 1000, 1, "in-line", "between"),
        (1000, 1001, 1, "pending", "between"),
        (1001, 2000, 1, "refused", "between"),
        (2000, 5000, None, "silent", "none"),
    ]


def test_what_was_wanted_names_who_and_why_and_nobody_has_approved_it_yet() -> None:
    told = story().claims(500, 600)[SERVICE]["wanted"]
    assert [(one["revision"], one["by"], one["reason"], one["approved_by"]) for one in told] == [
        (1, "ada", "why not", None)
    ]
    assert (told[0]["from"], told[0]["to"]) == (rfc3339(T0 + 100), rfc3339(T0 + 1000))


def test_of_a_moment_it_says_what_ran_then() -> None:
    assert segments(story().claims(500, 500), KITCHENS) == [(500, 500, 1, "in-line", "between")]
    assert segments(story().claims(50, 50), KITCHENS) == [(50, 50, None, None, "none")]


def test_who_does_not_run_a_change_is_late_after_30_s() -> None:
    fleet = enrolled()
    fleet.says(101, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.change(200)
    assert segments(fleet.claims(101, 300), KITCHENS) == [
        (101, 200, 1, "in-line", "last-said"),
        (200, 230, 1, "pending", "last-said"),
        (230, 300, 1, "late", "last-said"),
    ]


def test_a_tombstone_is_wanted_too_and_who_still_runs_what_it_deleted_is_late() -> None:
    fleet = enrolled()
    fleet.says(101, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.change(200, action="delete")
    told = fleet.claims(240, 300)
    assert segments(told, KITCHENS) == [(240, 300, 1, "late", "last-said")]
    assert told[SERVICE]["wanted"][0]["digest"] is not None


def test_the_same_revision_of_another_epoch_is_not_ours() -> None:
    fleet = enrolled()
    fleet.change(200, epoch_seq=2)
    fleet.says(210, KITCHENS, KITCHEN, (1, 2), 2, epoch_seq=2)
    fleet.says(220, KITCHENS, KITCHEN, (1, 3), 2, epoch_seq=1)
    assert segments(fleet.claims(210, 300), KITCHENS) == [
        (210, 220, 2, "in-line", "last-said"),
        (220, 300, 2, "foreign", "last-said"),
    ]


def test_a_digest_that_no_row_names_is_not_ours() -> None:
    fleet = enrolled()
    running = m.RECEIPT.running
    assert running is not None
    fleet.says(101, KITCHENS, KITCHEN, (1, 2), 1, running=running.__class__(1, 1, "ab" * 32))
    assert segments(fleet.claims(101, 200), KITCHENS) == [(101, 200, 1, "foreign", "last-said")]


# ── what is missing ────────────────────────────────────────────────────────────────────────────


def test_a_missing_receipt_leaves_a_hole_and_proves_nothing_between() -> None:
    fleet = enrolled()
    for seq in (2, 3, 4, 5):
        fleet.says(100 * seq, KITCHENS, KITCHEN, (1, seq), 1)
    whole = fleet.claims(200, 500)
    assert segments(whole, KITCHENS) == [(200, 500, 1, "in-line", "between")]
    assert whole[SERVICE]["instances"][KITCHENS]["missing_seq"] == 0
    del fleet.receipts[1:3]
    holed = fleet.claims(200, 500)
    assert segments(holed, KITCHENS) == [(200, 500, 1, "in-line", "last-said")]
    assert holed[SERVICE]["instances"][KITCHENS]["missing_seq"] == 2


def test_between_two_starts_nothing_is_proved_and_a_start_of_which_nothing_is_there_is_a_hole() -> (
    None
):
    fleet = enrolled()
    fleet.says(200, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.says(300, KITCHENS, KITCHEN, (3, 2), 1)
    told = fleet.claims(200, 400)
    assert segments(told, KITCHENS) == [(200, 400, 1, "in-line", "last-said")]
    assert told[SERVICE]["instances"][KITCHENS]["missing_seq"] == 1


@pytest.mark.parametrize("first_after", [3, 4])
def test_after_a_will_nothing_is_known_from_the_last_receipt_of_its_start_on(
    first_after: int,
) -> None:
    """The will has the number before those that it follows. If the instance connected again, it made another will."""
    fleet = enrolled()
    fleet.says(150, KITCHENS, KITCHEN, (1, 2), 1, gone=True)
    fleet.says(200, KITCHENS, KITCHEN, (1, first_after), 1)
    went = "silent" if first_after == 3 else None
    expected = [(200, 400, None, went, "none")]
    assert segments(fleet.claims(200, 400), KITCHENS) == expected
    assert (
        segments(fleet.claims(150, 200), KITCHENS)[0][3] == "in-line"
    )  # as it said when it was made


def test_an_instance_that_enrolled_and_was_never_heard_is_there_with_nothing_to_say() -> None:
    assert segments(enrolled().claims(0, 400), KITCHENS) == [(0, 400, None, None, "none")]


# ── keys ───────────────────────────────────────────────────────────────────────────────────────


def test_a_receipt_counts_from_the_enrolment_of_its_key_on_and_until_it_is_revoked() -> None:
    fleet = Fleet()
    fleet.change(5)
    fleet.says(10, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.enrol(100, KITCHENS, KITCHEN)
    fleet.says(200, KITCHENS, KITCHEN, (1, 3), 1)
    fleet.revoke(300, KITCHENS)
    fleet.says(350, KITCHENS, KITCHEN, (1, 4), 1)
    assert segments(fleet.claims(0, 400), KITCHENS) == [
        (0, 100, None, None, "none"),
        (100, 300, 1, "in-line", "between"),
        (300, 400, None, None, "none"),
    ]
    assert KITCHENS not in fleet.claims(301, 400)[SERVICE]["instances"]


def test_an_instance_with_a_new_key_says_nothing_of_the_time_before_it() -> None:
    fleet = enrolled()
    fleet.says(101, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.says(150, KITCHENS, NEW_KITCHEN, (1, 2), 1)
    seq = fleet.enrol(200, KITCHENS, NEW_KITCHEN)
    told = fleet.claims(101, 400)
    assert segments(told, KITCHENS) == [
        (101, 200, None, None, "none"),
        (200, 400, 1, "in-line", "last-said"),
    ]
    assert told[SERVICE]["instances"][KITCHENS]["enrolled_seq"] == seq


def test_a_key_is_of_one_instance_and_what_it_says_of_another_does_not_count() -> None:
    fleet = enrolled()
    fleet.enrol(12, "hall-pi", HALL)
    fleet.says(200, "hall-pi", KITCHEN, (1, 2), 1)
    assert segments(fleet.claims(200, 400), "hall-pi") == [(200, 400, None, None, "none")]


# ── clocks ─────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_claimed_of_the_time_that_an_instances_clock_showed_twice() -> None:
    fleet = enrolled()
    fleet.says(200, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.says(500, KITCHENS, KITCHEN, (1, 3), 1)
    fleet.says(400, KITCHENS, KITCHEN, (1, 4), 1)
    fleet.says(600, KITCHENS, KITCHEN, (1, 5), 1)
    assert segments(fleet.claims(200, 700), KITCHENS) == [
        (200, 400, 1, "in-line", "between"),
        (400, 500, None, None, "none"),
        (500, 600, 1, "in-line", "between"),
        (600, 700, 1, "in-line", "last-said"),
    ]


def test_nothing_is_claimed_of_the_time_that_the_servers_clock_showed_twice() -> None:
    fleet = enrolled()
    fleet.says(101, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.change(500)
    fleet.change(400)
    fleet.says(601, KITCHENS, KITCHEN, (1, 3), 3)
    told = fleet.claims(300, 700)
    assert segments(told, KITCHENS) == [
        (300, 400, 1, "in-line", "last-said"),
        (400, 500, 1, None, "last-said"),  # what was wanted then is not known
        (500, 530, 1, "pending", "last-said"),
        (530, 601, 1, "late", "last-said"),
        (601, 700, 3, "in-line", "last-said"),
    ]
    assert [one["revision"] for one in told[SERVICE]["wanted"]] == [1, 2, 3]


def test_a_receipt_of_a_time_that_has_not_come_says_nothing_of_any_time() -> None:
    fleet = enrolled()
    fleet.says(200, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.says(99_999, KITCHENS, KITCHEN, (1, 3), 1)
    fleet.says(300, KITCHENS, KITCHEN, (1, 4), 1)
    assert segments(fleet.claims(200, 400), KITCHENS) == [
        (200, 300, None, None, "none"),
        (300, 400, 1, "in-line", "last-said"),
    ]


def test_an_instance_whose_clock_is_behind_is_not_called_foreign() -> None:
    fleet = enrolled()
    fleet.change(200)
    fleet.says(195, KITCHENS, KITCHEN, (1, 2), 2)
    assert segments(fleet.claims(195, 300), KITCHENS) == [
        (195, 200, 2, None, "last-said"),
        (200, 300, 2, "in-line", "last-said"),
    ]


def test_two_receipts_of_one_number_prove_nothing() -> None:
    fleet = enrolled()
    fleet.says(200, KITCHENS, KITCHEN, (1, 2), 1)
    fleet.says(250, KITCHENS, KITCHEN, (1, 2), 1)
    assert segments(fleet.claims(200, 400), KITCHENS) == [(200, 400, None, None, "none")]


# ── for any story ──────────────────────────────────────────────────────────────────────────────

HAPPENS = st.lists(
    st.tuples(
        st.sampled_from(["change", "says", "enrol", "revoke", "delete"]),
        st.integers(0, 400),
        st.booleans(),
    ),
    max_size=12,
)


@m.STEADY
@given(HAPPENS, st.integers(0, 300), st.integers(0, 200))
def test_segments_cover_the_span_without_gaps_and_only_receipts_prove_any(
    happens: list[tuple[str, int, bool]], begin: int, length: int
) -> None:
    fleet = Fleet()
    seq = 1
    for what, at, flag in happens:
        if what in ("change", "delete"):
            fleet.change(at, action="delete" if what == "delete" else "put")
        elif what == "enrol":
            fleet.enrol(at, KITCHENS, NEW_KITCHEN if flag else KITCHEN)
        elif what == "revoke":
            fleet.revoke(at, KITCHENS)
        else:
            seq += 1 + flag
            key = NEW_KITCHEN if flag else KITCHEN
            fleet.says(at, KITCHENS, key, (1, seq), fleet.mark.revision or None, gone=at % 5 == 0)
    told = fleet.claims(begin, begin + length)
    for one in told.values():
        for instance in one["instances"].values():
            found = instance["segments"]
            assert found[0]["from"] == rfc3339(T0 + begin)
            assert found[-1]["to"] == rfc3339(T0 + begin + length)
            assert all(a["to"] == b["from"] for a, b in pairwise(found))
            assert all(a["from"] < a["to"] for a in found) or length == 0
    fleet.receipts.clear()
    for one in fleet.claims(begin, begin + length).values():
        for instance in one["instances"].values():
            assert {each["proof"] for each in instance["segments"]} == {"none"}
