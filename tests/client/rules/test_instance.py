"""An instance's rules, each as a story (`tests.kit.client_story`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from config_manager.client.model.judging import DoesNotFit
from config_manager.client.model.published_schema import published_schema
from config_manager.client.rules.events import Applied, Deleted, Fresh, Stale
from config_manager.client.rules.todo import NotNow
from config_manager.client.rules.trial import Phase
from config_manager.config import wire
from config_manager.config.world import rfc3339
from tests.kit import documents as m
from tests.kit import roots as r
from tests.kit.client_story import Settings, Story, disk_with, read_receipt, running

NO = ValueError("no such model on this robot")

# ── applying is a negotiation ──────────────────────────────────────────────────────────────────


def test_received_applied_and_healthy_are_three_stages_each_in_a_receipt() -> None:
    story = running(5).gets(6)
    assert (story.stage, story.n, story.asked) == ("received 6", 5, [6])
    story.says()
    assert (story.stage, story.n, story.swaps) == ("applied 6", 6, [6])
    story.lives(9)
    assert story.stage == "applied 6"
    story.lives(1)
    assert story.stage == "healthy 6"
    assert story.stages == ["healthy 5", "received 6", "applied 6", "healthy 6"]


def test_an_integer_that_only_earlier_servers_took_is_applied_and_started_with() -> None:
    story = running(5).gets(6, config={"n": 2**53}).says().lives(10)
    assert (story.n, story.refused()) == (2**53, [])
    assert story.died().n == 2**53


def test_a_receipt_says_what_runs_as_well_as_what_was_tried() -> None:
    story = running(5).gets(6)
    before, digest = story.receipts[-1], wire.digest(m.make_update(6).to_bytes())
    assert (before.running and before.running.revision, before.source) == (5, "last-known-good")
    after = story.says().receipts[-1]
    assert after.running is not None
    assert (after.running.revision, after.running.digest, after.source) == (6, digest, "broker")
    assert after.correlation_id == "id-6"


def test_a_callback_sees_old_new_and_which_keys_differ() -> None:
    (change,) = running(5).gets(6).calls
    assert (change.old, change.new) == (
        Settings(whisper_model="base.en", n=5),
        Settings(whisper_model="base.en", n=6),
    )
    assert (change.keys, change.revision) == (frozenset({"n"}), 6)
    assert change.correlation_id == "id-6"


def test_a_callback_that_raises_leaves_what_runs_untouched_and_the_receipt_says_why() -> None:
    story = running(5).gets(6)
    disk_before = story.kept.running
    story.says(NO)
    assert (story.n, story.swaps, story.stage) == (5, [], "refused 6")
    assert story.why == "callback: ValueError: no such model on this robot"
    assert story.refused() == ["callback"]
    assert story.instance.subscriber.refusals["callback"] == 1
    assert (story.kept.running, story.on_disk) == (disk_before, (5, None))
    assert story.seen == 6  # never back, all the same


def test_what_a_start_could_not_run_is_offered_again_once() -> None:
    class FromSixOn(Settings):
        n: int = Field(default=6, ge=6)

    story = running(5, model=FromSixOn)
    assert (story.n, story.stage, story.refused()) == (6, "refused 5", ["model"])
    story.gets(5).gets(5)
    assert (story.stages, story.refused()) == (["refused 5"], ["model", "model"])
    assert story.gets(6).says().lives(10).on_disk == (6, None)


def test_a_receipt_that_nobody_would_take_goes_without_what_makes_it_so_large() -> None:
    story = running(5).gets(6, correlation_id="x" * 60_000)
    assert (story.stage, story.receipts[-1].correlation_id) == ("received 6", None)


def test_an_exceptions_essay_is_cut() -> None:
    story = running(5).gets(6).says(RuntimeError("x" * 100_000))
    assert len(story.why or "") < 600


def test_a_receipt_says_when_a_stage_was_reached_and_how_long_that_took_since_it_was_received() -> (
    None
):
    story = running(5).gets(6).lives(2)
    story.says().lives(10)
    said = [one.last_attempt for one in story.receipts if one.last_attempt is not None]
    began = m.NOW
    assert [(one.stage, one.at, one.took_ms) for one in said] == [
        ("healthy", rfc3339(began), None),  # nothing was received: it was kept
        ("received", rfc3339(began), None),
        ("applied", rfc3339(began + 2), 2_000),
        ("healthy", rfc3339(began + 12), 12_000),
    ]


def test_a_clock_that_was_set_back_takes_no_time() -> None:
    story = running(5).gets(6)
    story.clock.time -= 3600
    attempt = story.says().receipts[-1].last_attempt
    assert attempt is not None
    assert (attempt.stage, attempt.took_ms) == ("applied", None)
    assert attempt.at == rfc3339(m.NOW - 3600)


def test_after_a_refusal_the_next_revision_is_asked_as_ever() -> None:
    story = running(5).gets(6).says(NO).gets(7).says()
    assert (story.n, story.asked, story.swaps) == (7, [6, 7], [7])


def test_not_now_is_asked_again_after_the_time_it_named_and_not_before() -> None:
    story = running(5).gets(6).says(NotNow(3.5))
    assert (story.n, story.stage, story.why) == (5, "deferred 6", "not now")
    assert story.lives(3).asked == [6]
    assert story.lives(0.5).asked == [6, 6]
    assert story.says().n == 6


@pytest.mark.parametrize("seconds", [0, -5])
def test_not_now_for_no_time_is_asked_at_the_next_tick(seconds: float) -> None:
    assert running(5).gets(6).says(NotNow(seconds)).lives(1).asked == [6, 6]


def test_not_now_goes_on_for_as_long_as_it_is_said() -> None:
    story = running(5).gets(6)
    for count in range(1, 50):
        assert (story.asked, story.n) == ([6] * count, 5)
        story.says(NotNow(1)).lives(1)
    assert story.refused() == []


def test_a_newer_one_is_asked_at_once_although_the_older_was_put_off() -> None:
    story = running(5).gets(6).says(NotNow(1000)).gets(7)
    assert story.asked == [6, 7]
    story.says().lives(2000)
    assert (story.n, story.asked) == (7, [6, 7])


def test_a_misfit_after_not_now_drops_what_was_put_off() -> None:
    """The operator no longer wants 6, and 7 can't be had."""
    story = running(5).gets(6).says(NotNow(2)).gets(7, config={"n": "x"}).lives(10)
    assert (story.n, story.asked, story.stage) == (5, [6], "refused 7")
    assert story.gets(8).says().n == 8


def test_while_somebody_holds_nothing_is_asked_or_changed() -> None:
    story = running(5).holds().holds().gets(6).lives(100)
    assert (story.asked, story.n, story.stage) == ([], 5, "deferred 6")
    assert story.lets_go().asked == []  # two held
    assert story.lets_go().asked == [6]
    assert story.says().n == 6


def test_a_hold_that_begins_while_the_callback_runs_keeps_current_until_it_ends() -> None:
    story = running(5).gets(6).holds().says().lives(100)
    assert (story.n, story.swaps, story.on_disk) == (5, [], (5, None))
    assert story.kept.died is not None  # should the process die now
    story.lets_go()
    assert (story.n, story.swaps, story.asked, story.stage) == (6, [6], [6], "applied 6")


def test_a_newer_one_waits_for_a_hold_and_for_the_one_that_was_accepted_in_it() -> None:
    story = running(5).gets(6).holds().says().gets(7).lives(5)
    assert (story.n, story.asked) == (5, [6])
    story.lets_go()
    assert (story.n, story.swaps, story.asked) == (6, [6], [6, 7])
    assert story.says().swaps == [6, 7]


def test_a_refusal_in_a_hold_changes_nothing_and_is_said_at_once() -> None:
    assert running(5).gets(6).holds().says(NO).stage == "refused 6"


@pytest.mark.parametrize(
    ("first", "swaps"), [(None, [6]), (NO, []), (NotNow(60), [])], ids=["yes", "no", "not now"]
)
@pytest.mark.parametrize("second", [None, NO], ids=["yes", "no"])
def test_a_newer_offer_while_the_callback_runs_is_asked_when_it_is_through(
    first: Exception | None, swaps: list[int], second: Exception | None
) -> None:
    story = running(5).gets(6).gets(7).gets(8).lives(30)
    assert (story.asked, story.n) == ([6], 5)
    story.says(first)
    assert (story.asked, story.swaps) == ([6, 8], swaps)  # 7 was never the newest at a good time
    story.says(second)
    expected = [*swaps, *([8] if second is None else [])]
    assert (story.swaps, story.n) == (expected, (expected or [5])[-1])
    story.lives(10)
    assert story.died().n == story.n  # what ran is what was proved, also on disk


def test_a_misfit_while_the_callback_runs_does_not_undo_its_answer() -> None:
    story = running(5).gets(6).gets(7, config={"n": "x"}).says()
    assert (story.n, story.stage) == (6, "refused 7")
    assert story.lives(10).died().n == 6


def test_a_deletion_drops_what_was_put_off_and_the_running_values_stay() -> None:
    story = running(5).gets(6).says(NotNow(1)).gets(7, deleted=True, config={}).lives(10)
    assert (story.n, story.asked) == (5, [6])
    assert any(isinstance(event, Deleted) for event in story.events)
    assert (story.stage, story.why) == ("refused 6", "the publisher deleted it")
    assert story.died().n == 5
    assert story.gets(8).says().n == 8


@pytest.mark.parametrize("answer", [None, NO, NotNow(1)], ids=["yes", "no", "not now"])
def test_a_deletion_while_the_callback_runs_leaves_the_callback_its_say(
    answer: Exception | None,
) -> None:
    story = running(5).gets(6).gets(7, deleted=True, config={}).says(answer).lives(20)
    assert (story.n, story.asked) == (6 if answer is None else 5, [6])
    assert story.stage == ("healthy 6" if answer is None else "refused 6")
    assert story.died().n == story.n


@pytest.mark.parametrize("answer", [None, NO, NotNow(1000)], ids=["yes", "no", "not now"])
def test_a_callback_runs_once_per_revision_however_often_the_broker_repeats_it(
    answer: Exception | None,
) -> None:
    story = running(5)
    for _ in range(20):
        story.gets(5).gets(6)
    story.says(answer)
    for _ in range(20):
        story.gets(6).gets(5).lives(1)
    assert story.asked == [6]


def test_without_a_callback_every_change_is_taken_at_once() -> None:
    story = running(5, asks=False).gets(6).gets(6).gets(7)
    assert (story.n, story.swaps, story.asked) == (7, [6, 7], [])


def test_what_is_kept_already_starts_the_service_and_is_never_asked_about() -> None:
    story = running(5).gets(5).gets(5).lives(5)
    assert (story.n, story.asked, story.instance.source) == (5, [], "last-known-good")
    (event,) = story.events
    assert isinstance(event, Applied)
    assert event.source == "last-known-good"


# ── the service's own model ────────────────────────────────────────────────────────────────────


def test_what_the_model_does_not_take_is_refused_counted_and_explained() -> None:
    story = running(5)
    story.gets(6, config={"n": -1, "whisper_model": "hunter2" * 3}).gets(6, config={"n": -1})
    assert (story.n, story.asked, story.stage) == (5, [], "refused 6")
    assert story.why == "model: n: Input should be greater than or equal to 0"
    assert story.instance.subscriber.refusals["model"] == 1
    assert (story.on_disk, story.seen) == ((5, None), 6)


def test_a_value_that_does_not_fit_is_in_no_receipt_and_no_event() -> None:
    story = running(5).gets(6, config={"n": "hunter2", "whisper_model": ["hunter2"]})
    assert story.stage == "refused 6"
    assert "hunter2" not in repr(story.receipts)
    assert all("hunter2" not in e.detail for e in story.events if hasattr(e, "detail"))


def test_overrides_that_do_not_fit_the_model_stop_the_start() -> None:
    class Needy(BaseModel):
        url: str

    with pytest.raises(DoesNotFit, match="url"):
        Story(model=Needy)


def test_after_an_upgrade_whose_model_takes_only_the_older_one_that_one_runs() -> None:
    class Stricter(Settings):
        whisper_model: str = "tiny"
        n: int = 0

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            from pydantic_core import core_schema as cs

            def check(value: Any) -> Any:
                if value.n > 5:
                    raise ValueError("too much")
                return value

            return cs.no_info_after_validator_function(check, handler(source))

    story = running(5).gets(6).says().ended(model=Stricter)
    assert (story.n, story.instance.source, story.refused()) == (5, "last-known-good", ["model"])
    story.lives(60)
    assert story.died(model=Settings).n == 6  # still there for a model that takes it


def test_where_nothing_that_was_kept_fits_the_defaults_run_and_it_is_said() -> None:
    class Other(BaseModel):
        n: str = "default"

    story = running(5).died(model=Other)
    assert (story.current.values.n, story.instance.source) == ("default", "defaults")
    assert story.why == "model: n: Input should be a valid string"
    assert story.receipts[-1].running is None


# ── what only a restart changes ────────────────────────────────────────────────────────────────


def test_a_restart_required_key_waits_for_the_next_start_on_disk() -> None:
    story = running(5, restart_required=frozenset({"n"})).gets(6)
    assert (story.n, story.asked) == (5, [])
    assert (story.stage, story.why) == ("restart-required 6", "restart to change n")
    story.lives(60).gets(6)
    assert (story.n, story.stage) == (5, "restart-required 6")
    for restarted in (story.died(), story.ended()):
        assert (restarted.n, restarted.asked) == (6, [])


def test_what_waits_for_a_restart_is_refused_once_its_signer_is_revoked() -> None:
    story = running(5, restart_required=frozenset({"whisper_model"}))
    story.gets(6, config={"whisper_model": "large", "n": 6})
    assert story.stage == "restart-required 6"
    story.receives(r.root(2, config=(r.SECOND_CONFIG,)), r.topic(2))
    assert (story.stage, story.why) == ("refused 6", "unknown-key: its signer was revoked")
    assert story.ended().n == 5


def test_a_change_that_touches_no_such_key_is_applied_at_once() -> None:
    story = running(5, restart_required=frozenset({"whisper_model"})).gets(6).says()
    assert (story.n, story.stage) == (6, "applied 6")


def test_taking_the_change_back_needs_no_restart() -> None:
    story = running(5, restart_required=frozenset({"n"}))
    story.gets(6).gets(7, config={"whisper_model": "large", "n": 5}).says()
    assert (story.current.values.whisper_model, story.stage) == ("large", "applied 7")
    assert story.lives(10).died().current.values.whisper_model == "large"


def test_what_waits_for_a_restart_outlives_the_bake_time_of_what_runs() -> None:
    story = running(5, restart_required=frozenset({"whisper_model"})).gets(6).says()
    story.gets(7, config={"whisper_model": "large", "n": 7}).lives(60)
    assert (story.n, story.on_disk, story.stage) == (6, (6, 7), "restart-required 7")
    assert story.died().n == 7


def test_what_waits_for_a_restart_survives_a_refusal_of_something_newer() -> None:
    story = running(5, restart_required=frozenset({"n"})).gets(6)
    story.gets(7, config={"whisper_model": "large", "n": 5}).says(NO)
    assert story.on_disk == (5, 6)


def test_before_the_service_is_open_such_a_key_needs_no_restart_and_afterwards_it_does() -> None:
    """The very first configuration may come while it waits for it; or an hour later."""
    snapshot = m.snapshot_bytes({m.SERVICE: m.entry(1)}, 1)
    policy: dict[str, Any] = {"restart_required": frozenset({"n"})}
    early = Story(opened=False, **policy).receives(snapshot, wire.SNAPSHOT_TOPIC).gets(1).says()
    late = Story(opened=True, **policy).receives(snapshot, wire.SNAPSHOT_TOPIC).gets(1)
    assert (early.n, early.stage) == (1, "applied 1")
    assert (late.n, late.stage, late.instance.source) == (0, "restart-required 1", "defaults")
    assert late.ended().n == 1


# ── bake time ──────────────────────────────────────────────────────────────────────────────────


def test_a_change_the_service_died_of_twice_is_not_applied_again_until_a_newer_one_comes() -> None:
    story = running(5).gets(6).says().lives(9).died().lives(9).died()
    assert (story.n, story.stage, story.refused()) == (5, "poisoned 6", ["callback"])
    assert story.why is not None
    assert "died within its bake time 2 times in a row" in story.why
    story.gets(6).gets(6).lives(60)
    assert (story.n, story.asked) == (5, [])
    again = story.died()
    assert (again.n, again.stage) == (5, "poisoned 6")  # remembered for good
    again.gets(6).gets(7).says()
    assert (again.n, again.asked) == (7, [7])
    assert again.lives(10).died().stage == "healthy 7"


def test_a_death_in_the_callback_itself_counts_and_the_callback_is_asked_once_more() -> None:
    story = running(5).gets(6).died()
    assert (story.n, story.on_disk, story.asked) == (5, (5, None), [])
    story.gets(6)
    assert (story.asked, story.stage, story.deaths) == ([6], "received 6", 1)
    again = story.died()
    assert (again.n, again.stage, again.deaths) == (5, "poisoned 6", 2)


def test_a_death_before_it_is_asked_once_more_is_none_of_it() -> None:
    story = running(5).gets(6).died().died().died()
    assert (story.n, story.refused()) == (5, [])
    assert story.gets(6).says().lives(10).stage == "healthy 6"
    assert story.deaths == 0


def test_a_death_without_a_callback_counts_too() -> None:
    story = running(5, asks=False).gets(6).lives(5).died()
    assert (story.n, story.stage, story.deaths) == (6, "applied 6", 1)
    assert story.why == "tried again: the service died within its bake time once"
    story = story.died()
    assert (story.n, story.stage, story.deaths) == (5, "poisoned 6", 2)


def test_one_death_is_what_any_stop_by_a_signal_looks_like_and_is_forgotten_once_it_is_proved() -> (
    None
):
    story = running(5).gets(6).says().died().lives(10)
    assert (story.n, story.stage, story.deaths) == (6, "healthy 6", 0)
    again = story.gets(7).says().died().lives(10).died()
    assert (again.n, again.refused()) == (7, [])


def test_deaths_with_a_good_end_between_them_are_no_row() -> None:
    story = running(5).gets(6).says()
    for _ in range(3):
        story = story.died()
        assert (story.n, story.deaths) == (6, 1)
        story = story.ended()
        assert (story.n, story.deaths) == (6, 0)


def test_where_nothing_ran_before_nothing_is_poisoned_however_often_it_dies() -> None:
    """The model's defaults are no better proved."""
    snapshot = m.snapshot_bytes({m.SERVICE: m.entry(1)}, 1)
    story = Story().receives(snapshot, wire.SNAPSHOT_TOPIC).gets(1).says()
    for times in range(1, 6):
        story = story.died()
        assert (story.n, story.instance.source, story.deaths) == (1, "last-known-good", times)
    assert (story.refused(), story.lives(10).stage) == ([], "healthy 1")


def test_a_first_start_that_dies_in_its_callback_is_asked_again_however_often() -> None:
    snapshot = m.snapshot_bytes({m.SERVICE: m.entry(1)}, 1)
    story = Story()
    for times in range(3):
        story.receives(snapshot, wire.SNAPSHOT_TOPIC).gets(1)
        assert (story.n, story.asked, story.deaths) == (0, [1], times)
        story = story.died()
    story.gets(1).says()
    assert (story.n, story.stage) == (1, "applied 1")


def test_a_trial_that_a_new_release_does_not_take_runs_no_longer_and_is_no_death() -> None:
    class Stricter(Settings):
        n: int = Field(default=0, ge=0, lt=6)

    story = running(5, asks=False).gets(6).died(model=Stricter)
    assert (story.n, story.stage, story.refused()) == (5, "refused 6", ["model"])
    back = story.died(model=Settings)
    assert (back.n, back.stage, back.deaths) == (6, "applied 6", 1)


def test_past_its_bake_time_a_death_is_no_verdict() -> None:
    story = running(5).gets(6).says().lives(10).died()
    assert (story.n, story.stage) == (6, "healthy 6")


def test_a_good_end_within_the_bake_time_is_tried_again_and_bakes_again() -> None:
    story = running(5).gets(6).says().lives(5).ended()
    assert (story.n, story.stage, story.asked) == (6, "applied 6", [])
    assert story.lives(5).stage == "applied 6"
    story = story.died()
    assert (story.died().n, story.on_disk) == (5, (5, None))  # the second time in a row


def test_a_trial_that_was_resumed_is_proved_after_its_whole_bake_time() -> None:
    story = running(5).gets(6).says().lives(5).ended().lives(10)
    assert (story.stage, story.died().n) == ("healthy 6", 6)


@pytest.mark.parametrize("answer", [NO, NotNow(1000)], ids=["no", "not now"])
def test_turning_down_a_newer_one_leaves_the_bake_of_what_runs_as_it_was(
    answer: Exception,
) -> None:
    story = running(5).gets(6).says().lives(5).gets(7).says(answer)
    again = story.died()  # a second process on the same disk, to see what it would do
    assert (again.n, again.deaths, again.refused()) == (6, 1, [])
    assert again.died().refused() == ["callback"]
    story = running(5).gets(6).says().lives(5).gets(7).says(answer).lives(5)
    stage = "refused 7" if answer is NO else "deferred 7"
    assert (story.on_disk, story.stage) == ((6, None), stage)
    assert story.died().n == 6


def test_a_misfit_leaves_the_bake_of_what_runs_as_it_was() -> None:
    story = running(5).gets(6).says().gets(7, config={"n": "x"}).lives(10)
    assert (story.on_disk, story.stage) == ((6, None), "refused 7")


@pytest.mark.parametrize("answer", [NO, NotNow(1000), None], ids=["no", "not now", "yes"])
def test_what_runs_is_proved_also_while_a_callback_takes_long_over_the_next(
    answer: Exception | None,
) -> None:
    story = running(5).gets(6).says().gets(7).lives(9)
    assert story.died().n == 5  # a second process on the same disk, to see what it would do
    story = running(5).gets(6).says().gets(7).lives(100)
    assert story.kept.running is not None
    assert story.kept.running[0].revision == 6
    again = story.says(answer).died()
    assert again.n == (7 if answer is None else 6)
    assert again.died().n == 6
    assert story.on_disk == (6, None)


def test_without_a_bake_time_a_change_is_proved_at_once() -> None:
    story = running(5, bake_s=0.0).gets(6).says()
    assert (story.stage, story.on_disk) == ("healthy 6", (6, None))
    assert story.died().n == 6


def test_what_was_proved_is_on_disk_before_the_receipt_says_healthy() -> None:
    """A receipt is a promise: what follows `Keep` may rely on it."""
    story = running(5).gets(6).says().lives(9)
    before = len(story.receipts)
    story.disk.full = True
    with pytest.raises(OSError, match="No space"):
        story.lives(1)
    assert len(story.receipts) == before


# ── receipts ───────────────────────────────────────────────────────────────────────────────────


def test_receipts_rise_within_a_start_and_from_one_to_the_next() -> None:
    first = running(5).gets(6).says().lives(10).gets(7).says(NO)
    second = first.ended().gets(8).says()
    orders = [receipt.order for receipt in (*first.receipts, *second.receipts)]
    assert orders == sorted(set(orders))
    assert {boot for boot, _ in orders} == {1, 2}
    assert len(orders) > 8


def test_a_good_end_says_gone_and_nothing_said_afterwards_takes_it_back() -> None:
    story = running(5).gets(6)
    story.ended()
    said = len(story.receipts)
    assert story.receipts[-1].gone
    story.says().gets(7).lives(20)
    story.instance.disconnected(story.now)
    assert len(story.receipts) == said
    reconnected = story.instance.receipt()
    assert read_receipt(reconnected.topic, reconnected.payload).gone


def test_what_nobody_said_yes_to_before_the_end_is_asked_about_at_the_next_start() -> None:
    story = running(5).gets(6).ended()
    assert (story.n, story.asked, story.refused()) == (5, [], [])
    assert story.gets(6).asked == [6]
    assert story.says().n == 6


def test_what_was_said_yes_to_in_a_hold_before_the_end_runs_at_the_next_start() -> None:
    story = running(5).gets(6).holds().says().ended()
    assert (story.n, story.refused()) == (6, [])


@pytest.mark.parametrize("asks", [True, False])
def test_what_comes_during_the_farewell_is_not_what_the_service_died_of(asks: bool) -> None:
    story = running(5, asks=asks)
    story.ended()
    story.gets(6).lives(1)  # the driver still waits for a broker to acknowledge its last receipt
    assert (story.asked, story.n) == ([], 5)
    assert story.died().refused() == []


def test_the_will_is_a_receipt_that_says_gone_while_the_live_ones_do_not() -> None:
    story = running(5)
    will = story.instance.receipt(gone=True)
    assert read_receipt(will.topic, will.payload).gone
    assert not any(receipt.gone for receipt in story.gets(6).says().receipts)


def test_overrides_are_reported_by_name_never_by_value() -> None:
    story = running(5, environment={"STT_WORKER_WHISPER_MODEL": "hunter2"}).gets(6).says()
    assert {receipt.overrides for receipt in story.receipts} == {("whisper_model",)}
    assert "hunter2" not in repr(story.receipts)
    assert (story.current.values.whisper_model, story.n) == ("hunter2", 6)
    assert story.calls[0].keys == {"n"}  # what is shadowed did not change


def test_a_receipt_names_the_models_schema_and_the_library() -> None:
    class Another(Settings):
        extra: int = 0

    one, other = running(5).receipts[-1], running(5, model=Another).receipts[-1]
    assert one.schema == published_schema(Settings).digest
    assert other.schema == published_schema(Another).digest != one.schema
    assert one.library.startswith("config-manager-python")
    assert (one.at, one.service, one.instance) == ("2027-01-15T08:00:00.000Z", m.SERVICE, "robot-1")


def test_with_nothing_delivered_ever_the_receipt_says_defaults() -> None:
    receipt = Story().lives(40).receipts[-1]
    assert (receipt.source, receipt.running, receipt.last_attempt) == ("defaults", None, None)


# ── fresh ──────────────────────────────────────────────────────────────────────────────────────


def beacons(story: Story, revision: int, seq: int) -> Story:
    services = {m.SERVICE: m.entry(revision)}
    story.receives(m.snapshot_bytes(services, seq), wire.SNAPSHOT_TOPIC)
    return story.receives(m.keepalive_bytes(services, seq), wire.KEEPALIVE_TOPIC)


def test_fresh_is_proved_stale_has_its_reason_and_each_is_in_a_receipt() -> None:
    story = running(5)
    assert story.instance.freshness == "unknown"
    assert beacons(story, 5, 1).receipts[-1].freshness == "fresh"
    assert story.lives(29).instance.freshness == "fresh"
    story.lives(1)
    assert story.receipts[-1].freshness == story.instance.freshness == "stale (no-beacon)"
    assert beacons(story, 5, 2).receipts[-1].freshness == "fresh"
    assert [type(e) for e in story.events[1:]] == [Fresh, Stale, Fresh]


def test_a_clock_from_1970_is_unknown_until_it_is_set() -> None:
    story = running(5)
    story.clock.time = 1000.0
    beacons(story, 5, 1)
    assert story.instance.freshness == "clock-unknown"
    story.clock.time = m.NOW
    assert beacons(story.lives(1), 5, 2).instance.freshness == "fresh"


def test_going_stale_changes_nothing_that_runs() -> None:
    story = running(5).lives(3600)
    assert (story.n, story.swaps, story.too_stale) == (5, [], [])
    assert story.gets(6).says().n == 6


@pytest.mark.parametrize("policy", ["report", "warn", "stop"])
def test_max_stale_is_said_once_with_the_services_own_policy(policy: str) -> None:
    story = beacons(running(5, max_stale_s=60.0, on_stale=policy), 5, 1).lives(30 + 59)
    assert (story.instance.freshness, story.too_stale) == ("stale (no-beacon)", [])
    story.lives(2000)
    assert [(one.reason, one.policy) for one in story.too_stale] == [("no-beacon", policy)]


def test_a_fresh_moment_starts_max_stale_anew() -> None:
    story = beacons(running(5, max_stale_s=60.0), 5, 1).lives(30 + 50)
    beacons(story, 5, 1 + 8).lives(30 + 50)  # the publisher went on meanwhile
    assert story.too_stale == []
    assert len(story.lives(10).too_stale) == 1
    assert len(beacons(story, 5, 9 + 9).lives(30 + 60).too_stale) == 2


def test_a_new_configuration_proves_nothing_about_freshness() -> None:
    """A broker that passes changes and holds back beacons can't put off max_stale."""
    story = beacons(running(5, max_stale_s=60.0), 5, 1).lives(30 + 30)
    story.gets(6).says().lives(30)
    assert len(story.too_stale) == 1
    story.gets(7).says().lives(120)
    assert len(story.too_stale) == 1


WALL_CLOCKS: dict[str, Callable[[float], float]] = {
    "right": lambda t: m.NOW + t,
    "stopped": lambda t: m.NOW,
    "from 1970": lambda t: t,
    "backwards": lambda t: m.NOW - 1000 * t,
    "ten years ahead": lambda t: m.NOW + 315_360_000 + t,
    "jumping": lambda t: m.NOW + (t * 7919) % 1_000_000,
}

KEPT_BACK: dict[str, Callable[[int, int], list[tuple[str, bytes]]]] = {
    # (publisher's revision, beacon number) → what the broker lets through
    "everything": lambda revision, seq: [],
    "the configuration": lambda revision, seq: [snapshot(revision, seq), keepalive(revision, seq)],
    "the snapshot": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(revision)), keepalive(revision, seq)
    ],
    "both": lambda revision, seq: [keepalive(revision, seq)],
    "the beacons": lambda revision, seq: [(m.TOPIC, m.update_bytes(revision))],
    "both, repeating the old": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(5)), snapshot(5, 1), keepalive(revision, seq)
    ],
    "all, repeating the old": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(5)), snapshot(5, 1), keepalive(5, 1)
    ],
    "the configuration, swapped for an older": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(4)), snapshot(revision, seq), keepalive(revision, seq)
    ],
    "the configuration, swapped for another service's": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(revision, service="tts", topic="system/config/tts")),
        snapshot(revision, seq), keepalive(revision, seq),
    ],
    "the configuration, swapped for a forgery": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(revision, key=m.STRANGER)),
        snapshot(revision, seq), keepalive(revision, seq),
    ],
    "the configuration, swapped for nothing": lambda revision, seq: [
        (m.TOPIC, b""), snapshot(revision, seq), keepalive(revision, seq)
    ],
    "the beacons, swapped for forgeries": lambda revision, seq: [
        (m.TOPIC, m.update_bytes(5)),
        (wire.KEEPALIVE_TOPIC,
         m.keepalive_bytes({m.SERVICE: m.entry(5)}, seq, key=m.STRANGER)),
    ],
}  # fmt: skip


def snapshot(revision: int, seq: int) -> tuple[str, bytes]:
    return wire.SNAPSHOT_TOPIC, m.snapshot_bytes({m.SERVICE: m.entry(revision)}, seq)


def keepalive(revision: int, seq: int) -> tuple[str, bytes]:
    return wire.KEEPALIVE_TOPIC, m.keepalive_bytes({m.SERVICE: m.entry(revision)}, seq)


@pytest.mark.parametrize("clock", WALL_CLOCKS)
@pytest.mark.parametrize("kept_back", KEPT_BACK)
def test_what_a_broker_keeps_back_or_swaps_is_noticed_within_60_s_whatever_the_clock_says(
    kept_back: str, clock: str
) -> None:
    story = running(5, asks=False)
    passed, withheld_from = 0, 21
    while passed < withheld_from + 60 and not story.instance.freshness.startswith("stale"):
        story.clock.time = WALL_CLOCKS[clock](story.now) - 1
        story.lives(1)
        passed += 1
        if passed % 10 == 1:
            seq = passed // 10 + 1
            honest = passed < withheld_from
            let_through = (
                [(m.TOPIC, m.update_bytes(5)), snapshot(5, seq), keepalive(5, seq)]
                if honest
                else KEPT_BACK[kept_back](6, seq)
            )
            for topic, payload in let_through:
                story.receives(payload, topic)
        if passed == withheld_from - 1:
            assert story.instance.freshness in ("fresh", "clock-unknown")
    assert story.instance.freshness in ("stale (withheld)", "stale (no-beacon)")
    assert story.n == (6 if kept_back in ("the snapshot", "the beacons") else 5)


# ── in general ─────────────────────────────────────────────────────────────────────────────────

STEPS = [
    *("newer", "newer", "same", "older", "misfit", "deleted", "yes", "yes", "no", "not now"),
    *("a second", "the bake time", "hold", "let go", "die", "end"),
]


class Robot:
    """Does any step at any time, and knows what may never happen."""

    def __init__(self, *, asks: bool, bake_s: float) -> None:
        self.story = Story(disk_with(1), asks=asks, bake_s=bake_s)
        self.newest = self.healthy = 1
        self.misfits: set[int] = set()
        self.deadly: set[str] = set()
        self.row = ("", 0)
        """the digest of the trial that the service died of last, and how often in a row"""
        self.held = 0
        self.bake_s = bake_s

    def does(self, step: str, number: int) -> None:
        story, swaps = self.story, list(self.story.swaps)
        waits_for_answer = story.instance.subscriber.trial.phase is Phase.ASKED
        match step:
            case "newer" | "misfit" | "deleted" | "same" | "older":
                story.receives(self.message(step, number))
            case "yes" if waits_for_answer:
                story.says()
            case "no" if waits_for_answer:
                story.says(NO)
            case "not now" if waits_for_answer:
                story.says(NotNow(float(number)))
            case "a second":
                story.lives(1)
            case "the bake time":
                story.lives(self.bake_s + 1)
            case "hold":
                self.held += 1
                story.holds()
            case "let go" if self.held:
                self.held -= 1
                story.lets_go()
                swaps = story.swaps
            case "die":
                self.dies()
            case "end":
                self.ends()
        if self.held:
            assert story.swaps == swaps

    def message(self, step: str, number: int) -> bytes:
        if step in ("newer", "misfit", "deleted"):
            self.newest += 1
        if step == "misfit":
            self.misfits.add(self.newest)
        if step == "deleted":
            return m.update_bytes(self.newest, deleted=True, config={})
        revision = max(1, self.newest - number) if step == "older" else self.newest
        misfit: dict[str, Any] = {"config": {"n": -1}} if revision in self.misfits else {}
        return m.update_bytes(revision, **misfit)

    def ends(self) -> None:
        ran, self.held, self.row = self.story.n, 0, ("", 0)
        self.story = self.story.ended()
        assert self.story.n >= ran  # what was just being asked may start the next process

    def dies(self) -> None:
        trial, ran = self.story.open_trial, self.story.n
        self.held = 0
        self.story = self.story.died()
        if trial is None:
            assert self.story.n == ran
            return
        digest, was_asked = trial
        self.row = (digest, self.row[1] + 1 if self.row[0] == digest else 1)
        # what was proved is never lost, and what is on trial survives one death, not two in a row
        assert self.story.n == (self.healthy if was_asked or self.row[1] > 1 else ran)
        if self.row[1] > 1:
            self.deadly.add(digest)

    def looks(self) -> None:
        story = self.story
        # one may have been proved and the next asked about within one step
        proved = [int(stage.split()[1]) for stage in story.stages if stage.startswith("healthy ")]
        # while a newer one is asked about, no receipt says that what runs was proved meanwhile
        if (kept := story.instance.subscriber.trial.proved) is not None:
            proved.append(kept[0].revision)
        self.healthy = max(self.healthy, *proved, 0)
        assert story.n not in self.misfits
        assert self.healthy <= story.n <= self.newest
        assert story.swaps == sorted(set(story.swaps))
        asked = [revision for revision in story.asked if revision is not None]
        assert asked == sorted(asked)
        orders = [receipt.order for receipt in story.receipts]
        assert orders == sorted(set(orders))
        runs = story.receipts[-1].running
        assert runs is not None
        assert runs.revision == story.n
        assert runs.digest not in self.deadly


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=40),
    st.booleans(),
    st.sampled_from([0.0, 3.0]),
)
@example([("newer", 0), ("newer", 0), ("yes", 0), ("the bake time", 0), ("die", 0)], True, 3.0)
def test_whatever_happens_in_whatever_order_the_promises_hold(
    steps: list[tuple[str, int]], asks: bool, bake_s: float
) -> None:
    robot = Robot(asks=asks, bake_s=bake_s)
    for step, number in steps:
        robot.does(step, number)
        robot.looks()


def test_two_instances_with_the_same_input_do_the_same() -> None:
    """No clock, no randomness, no file but those that were passed in."""

    def tell() -> list[Any]:
        story = running(5).gets(6).says().lives(12).gets(7).says(NO)
        return [story.receipts, story.events, sorted(story.disk.files)]

    assert tell() == tell()
