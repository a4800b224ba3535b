"""The kit's own judgement: what a client may apply, what is played, and that the page says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from config_manager.api.conformance import vectors
from config_manager.api.conformance.cases import Permitted, in_words
from config_manager.api.conformance.client_process import Places
from config_manager.api.conformance.groups import GROUPS, chosen
from config_manager.config.errors import SettingsInvalid
from config_manager.config.world import parse_rfc3339

WIRE = (Path(__file__).resolve().parents[3] / "docs" / "wire.md").read_text()
LATER = parse_rfc3339("2036-01-01T00:00:00Z")


def applied(epoch_seq: Any, revision: Any, config: Any) -> dict[str, Any]:
    return {"event": "applied", "epoch_seq": epoch_seq, "revision": revision, "config": config}


def test_a_client_may_apply_what_was_signed_for_it_and_never_less_than_before() -> None:
    permitted = Permitted()
    for revision in (5, 6, 7):
        permitted.add(1, revision, {"n": revision})
    permitted.add(2, 1, {"n": 1})
    assert permitted.why_not(applied(1, 6, {"n": 6})) is None
    assert permitted.why_not(applied(1, 6, {"n": 6})) is None
    assert "which it may not believe" in str(permitted.why_not(applied(1, 8, {"n": 8})))
    assert "nobody signed" in str(permitted.why_not(applied(1, 7, {"n": 6})))
    assert permitted.why_not(applied(1, 5, {"n": 5})) == "went back from revision 6 to 5"
    assert permitted.why_not(applied(2, 1, {"n": 1})) is None
    assert "went back" in str(permitted.why_not(applied(1, 7, {"n": 7})))
    permitted.start_anew()
    assert permitted.why_not(applied(1, 5, {"n": 5})) is None


@pytest.mark.parametrize("revision", [None, "7", 7.0, True, [7]])
def test_an_applied_line_without_a_mark_is_unsafe(revision: Any) -> None:
    permitted = Permitted()
    permitted.add(1, 7, {})
    assert "without" in str(permitted.why_not(applied(1, revision, {})))


def test_what_a_client_said_is_told_once() -> None:
    lines = [
        {"event": "refused", "reason": "malformed"},
        {"event": "refused", "reason": "malformed"},
        applied(1, 5, {}),
        {"event": "fresh"},
    ]
    assert in_words(lines) == "refused (malformed), applied 5, fresh"
    assert in_words([]) == "nothing"


def test_the_section_that_each_group_names_is_on_the_page() -> None:
    headings = set(re.findall(r"^#+ (.*)$", WIRE, re.MULTILINE))
    assert sorted({group.section for group in GROUPS} - headings) == []


def test_no_two_cases_have_one_name_and_there_are_enough() -> None:
    cases = [case for group in GROUPS for case in group.cases(LATER)]
    assert len({(case.group, case.name) for case in cases}) == len(cases)
    attacks = [case for case in cases if "refused" in case.expected]
    assert len(attacks) > 80


def test_on_the_date_of_its_vectors_every_case_of_a_clients_own_topic_is_played() -> None:
    for case in vectors.load()["cases"]:
        why = vectors.why_skipped(case, parse_rfc3339(case["now"]))
        assert why is None or "does not subscribe" in why, case["name"]
    for case in vectors.load()["root_cases"]:
        why = vectors.why_root_skipped(case, parse_rfc3339(case["now"]))
        assert why is None or "can no longer be pinned" in why, case["name"]


def test_years_later_most_of_them_still_are() -> None:
    cases = vectors.load()["cases"]
    played = [case for case in cases if vectors.why_skipped(case, LATER) is None]
    assert len(played) >= len(cases) - 3


def test_a_client_is_told_its_places_wherever_it_wants_them() -> None:
    places = Places("/s", "stt-worker", "kitchen", "mqtt://127.0.0.1:1", "/r")
    assert places.fill(("run", "--at={mqtt_url}", "{service}/{instance}", "{}", "{other}")) == [
        "run", "--at=mqtt://127.0.0.1:1", "stt-worker/kitchen", "{}", "{other}"
    ]  # fmt: skip
    assert places.environment()["CONFORMANCE_ROOT"] == "/r"


def test_groups_are_chosen_by_name() -> None:
    assert [group.name for group in chosen(("bytes", "order"), ())] == ["start", "order", "bytes"]
    assert [group.name for group in chosen(("start",), ())] == ["start"]
    assert "freshness" not in [group.name for group in chosen((), ("freshness",))]
    for only, but in ((("none",), ()), ((), ("none",)), (("order",), ("order",))):
        with pytest.raises(SettingsInvalid):
            chosen(only, but)
