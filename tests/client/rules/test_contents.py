"""Contents and variants, each as a story: what is the same for a service asks nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from config_manager.client.model.published_schema import published_schema
from config_manager.client.rules import choosing
from config_manager.client.rules.events import Applied, Moved
from config_manager.client.rules.todo import NotNow
from config_manager.config import strict_json, wire
from config_manager.config.documents.config_update import Variant
from tests.kit import documents as m
from tests.kit import roots as r
from tests.kit.client_story import Settings, Story, running

NO = ValueError("no such model on this robot")
FIVE = {"whisper_model": "base.en", "n": 5}
SIX = {"whisper_model": "base.en", "n": 6}


def told(story: Story) -> list[tuple[str, int]]:
    """Revisions that were told of as what runs, and whether they decided anew."""
    runs = [event for event in story.events if isinstance(event, Applied | Moved)]
    return [(type(event).__name__.lower(), event.update.revision) for event in runs]


def runs(story: Story) -> tuple[int, str | None, str]:
    """Revision and content, as the newest receipt has them, and the stage of the last attempt."""
    running = story.receipts[-1].running
    assert running is not None
    return running.revision, running.content, story.stage


# ── what runs already ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", ["5", "6", None])
def test_a_newer_message_that_says_what_runs_moves_the_mark_and_asks_nobody(
    content: str | None,
) -> None:
    story = running(5)
    before = story.current.values
    story.gets(6, config=FIVE, content=content)
    assert (story.n, story.asked, story.swaps, story.seen) == (5, [], [], 6)
    assert runs(story) == (6, content, "healthy 6")
    digest = wire.digest(m.make_update(6, config=FIVE, content=content).to_bytes())
    assert story.receipts[-1].running is not None
    assert story.receipts[-1].running.digest == digest
    assert story.receipts[-1].correlation_id == "id-6"
    assert story.current.explanations["n"].revision == 6
    assert story.current.values is before
    again = story.died()  # what was kept is the newer message
    assert (again.n, again.on_disk, runs(again)) == (5, (6, None), (6, content, "healthy 6"))


@pytest.mark.parametrize(
    ("content", "event"), [("6", "moved"), ("7", "applied"), (None, "applied")]
)
def test_a_decision_is_told_of_also_if_the_values_stay_and_its_repetition_is_not(
    content: str | None, event: str
) -> None:
    story = running(5).gets(6, content="6").says().gets(7, config=SIX, content=content)
    assert (story.asked, told(story)[1:]) == ([6], [("applied", 6), (event, 7)])
    assert story.receipts[-1].source == "broker"


def test_the_order_of_members_says_nothing_and_the_kind_of_a_number_does() -> None:
    story = running(5).gets(6, config={"n": 5, "whisper_model": "base.en"})
    assert story.asked == []
    story.gets(7, config={"n": 5.0, "whisper_model": "base.en"})
    assert story.asked == [7]


def test_what_only_the_server_filled_in_is_something_else() -> None:
    story = running(5).gets(6, config=FIVE, defaulted=("n",))
    assert story.asked == [6]
    assert story.calls[0].keys == {"n"}


def test_a_bake_goes_on_and_is_proved_by_the_newer_message() -> None:
    story = running(5).gets(6).says().lives(6).gets(7, config=SIX)
    assert (story.n, story.asked, story.stage, story.on_disk) == (6, [6], "applied 7", (5, 7))
    assert story.lives(3).stage == "applied 7"
    assert story.lives(1).stage == "healthy 7"
    assert (story.on_disk, story.died().n) == ((7, None), 6)


def test_what_waits_for_a_restart_is_dropped_once_what_runs_is_wanted_again() -> None:
    story = running(5, restart_required=frozenset({"n"})).gets(6)
    assert story.on_disk == (5, 6)
    story.gets(7, config=FIVE, content="5")
    assert runs(story) == (7, "5", "healthy 7")
    assert story.kept.trial is None
    assert story.died().n == 5


def test_what_waits_for_a_restart_is_dropped_and_what_bakes_goes_on_baking() -> None:
    story = running(5, restart_required=frozenset({"whisper_model"})).gets(6).says()
    story.gets(7, config={"whisper_model": "large", "n": 7}).gets(8, config=SIX)
    assert (story.n, story.on_disk, story.stage) == (6, (5, 8), "applied 8")
    assert story.lives(10).on_disk == (8, None)


def test_what_was_put_off_is_dropped_once_what_runs_is_wanted_again() -> None:
    story = running(5).gets(6).says(NotNow(2)).gets(7, config=FIVE).lives(10)
    assert (story.n, story.asked, runs(story)) == (5, [6], (7, None, "healthy 7"))


@pytest.mark.parametrize("answer", [None, NO, NotNow(1)], ids=["yes", "no", "not now"])
def test_what_runs_is_wanted_again_while_the_service_is_asked_about_another(
    answer: Exception | None,
) -> None:
    story = running(5).gets(6).gets(7, config=FIVE).says(answer)
    if answer is None:  # it runs 6 now, which nobody wants any more
        assert (story.n, story.asked) == (6, [6, 7])
        story.says()
    assert (story.n, story.lives(10).stage) == (5, "healthy 7")


def test_the_same_content_while_the_service_is_asked_about_it_is_not_asked_about_twice() -> None:
    story = running(5).gets(6, content="6").gets(7, config=SIX, content="6").says()
    assert (story.n, story.asked, story.stage) == (6, [6], "applied 7")
    assert told(story)[1:] == [("applied", 6), ("moved", 7)]


def test_a_deletion_taken_back_with_the_same_values_asks_nobody() -> None:
    story = running(5).gets(6, deleted=True, config={}).gets(7, config=FIVE)
    assert (story.asked, story.kept.deleted, runs(story)) == ([], False, (7, None, "healthy 7"))


def test_a_newer_message_with_what_runs_ends_the_doubt_about_its_signer() -> None:
    story = running(5).receives(r.root(2, config=(r.SECOND_CONFIG,)), r.topic(2))
    assert story.instance.freshness == "stale (signer-revoked)"
    story.gets(6, config=FIVE, key=r.SECOND_CONFIG)
    assert story.asked == []
    assert not story.instance.subscriber.signer_revoked


def test_secrets_that_have_not_come_are_no_reason_to_believe_that_they_run() -> None:
    story = running(5, enrolled=True).gets(6, config=FIVE, secrets={"pin": 1})
    assert (story.stage, story.why) == ("deferred 6", "waiting for secrets")
    story.gets(7, config=FIVE, secrets={"pin": 1})
    assert story.stage == "deferred 7"


def test_an_instance_that_never_enrolled_moves_on_without_its_secrets_and_says_so() -> None:
    story = running(5).gets(6, config=FIVE, secrets={"pin": 1}).says().lives(10)
    story.gets(7, config=FIVE, secrets={"pin": 1})
    assert (story.asked, story.stage) == ([6], "healthy 7")
    assert story.why is not None
    assert "without its secrets" in story.why


# ── what the service turned down ───────────────────────────────────────────────────────────────


def test_what_the_service_turned_down_is_not_offered_again_in_this_life() -> None:
    story = running(5).gets(6, content="6").says(NO).gets(7, config=SIX, content="6")
    assert (story.n, story.asked, story.stage) == (5, [6], "refused 7")
    assert story.why == "callback: ValueError: no such model on this robot"
    assert (story.refused(), story.seen) == (["callback", "callback"], 7)
    story.gets(8, config=SIX, content="8")  # a new decision, a new try
    assert story.asked == [6, 8]
    again = story.says(NO).died().gets(8, config=SIX, content="8")
    assert again.asked == [8]  # each life tries it once


def test_a_message_without_content_has_its_digest_as_id_so_the_next_one_is_offered() -> None:
    story = running(5).gets(6).says(NO).gets(7, config=SIX)
    assert story.asked == [6, 7]


def test_of_what_was_turned_down_only_the_newest_few_are_remembered() -> None:
    story = running(5)
    for revision in range(6, 16):
        story.gets(revision, content=str(revision)).says(NO)
    before = len(story.asked)
    story.gets(20, config={**FIVE, "n": 15}, content="15")
    story.gets(21, config={**FIVE, "n": 8}, content="8")
    assert len(story.asked) == before
    story.gets(22, config={**FIVE, "n": 6}, content="6")
    assert len(story.asked) == before + 1


def test_a_content_that_comes_with_other_values_for_this_service_is_offered() -> None:
    """The server has learned of its schema, and made it a variant."""
    schema = published_schema(Settings).digest
    story = running(5).gets(6, content="6").says(NO)
    variant = Variant((schema,), {"whisper_model": "tiny.en", "n": 6}, ())
    story.gets(7, config=SIX, content="6", variants=(variant,)).says()
    assert (story.asked, story.current.values.whisper_model) == ([6, 7], "tiny.en")


# ── what it died of ────────────────────────────────────────────────────────────────────────────


def test_a_content_that_the_service_died_of_is_poison_in_every_message() -> None:
    story = running(5).gets(6, content="6").says().died().died()
    assert (story.n, story.stage) == (5, "poisoned 6")
    assert story.receipts[-1].last_attempt is not None
    assert story.receipts[-1].last_attempt.content == "6"
    story.gets(7, config=SIX, content="6")
    assert (story.n, story.asked, story.stage, story.deaths) == (5, [], "poisoned 7", 0)
    again = story.died()
    assert (again.n, again.stage, again.seen) == (5, "poisoned 7", 7)
    again.gets(8, config=SIX, content="8")  # a new decision
    assert again.asked == [8]


def test_a_death_counts_for_the_content_whatever_message_brought_it() -> None:
    story = running(5).gets(6, content="6").says().died()
    assert (story.n, story.deaths) == (6, 1)
    story.gets(7, config=SIX, content="6")
    assert (story.stage, story.deaths, story.asked) == ("applied 7", 1, [])
    again = story.died()
    assert (again.n, again.stage) == (5, "poisoned 7")


def test_the_poison_of_an_older_version_is_the_digest_of_its_message() -> None:
    story = running(5).gets(6).says().died().died()
    file = story._cache._file
    written = strict_json.loads_object(file.read())
    digest = wire.digest(m.make_update(6).to_bytes())
    assert (written["poison"], written["poison_content"]) == (digest, digest)
    for name in ("poison_content", "died_of", "schema"):  # as 0.5.0 wrote it
        del written[name]
    file.write(strict_json.dumps(written))
    again = story.died().gets(6)
    assert (again.n, again.stage, again.asked) == (5, "poisoned 6", [])
    assert again.gets(7).asked == [7]


def test_an_older_version_reads_the_poison_as_the_digest_of_the_newest_message() -> None:
    story = running(5).gets(6, content="6").says().died().died().gets(7, config=SIX, content="6")
    written = strict_json.loads_object(story._cache._file.read())
    digest = wire.digest(m.make_update(7, config=SIX, content="6").to_bytes())
    assert (written["poison"], written["poison_content"]) == (digest, "6")


# ── variants ───────────────────────────────────────────────────────────────────────────────────


class Old(BaseModel):
    """Code from before the key was renamed; it takes no other keys."""

    model_config = ConfigDict(extra="forbid")
    n: int = 0
    vad: float = 0.5


class New(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int = 0
    vad_threshold: float = Field(0.5, ge=0, le=1)


OLD, NEW = published_schema(Old).digest, published_schema(New).digest
FIRST: dict[str, Any] = {"config": {"n": 1}}
SNAPSHOT = m.snapshot_bytes({m.SERVICE: m.entry(1, **FIRST)}, 1)


def started(model: type[BaseModel], **options: Any) -> Story:
    story = Story(model=model, **options).receives(SNAPSHOT, wire.SNAPSHOT_TOPIC)
    return story.gets(1, **FIRST).says().lives(10)


def renamed(value: float) -> dict[str, Any]:
    """A message for both."""
    return {
        "config": {"n": 1, "vad_threshold": value},
        "variants": (Variant((OLD,), {"n": 1, "vad": value}, ()),),
    }


def test_old_and_new_code_each_take_their_own_values_of_one_message() -> None:
    old, new = started(Old).gets(2, **renamed(0.3)).says(), started(New).gets(2, **renamed(0.3))
    new.says()
    assert (old.current.values, new.current.values) == (
        Old(n=1, vad=0.3),
        New(n=1, vad_threshold=0.3),
    )
    assert (old.stage, new.stage) == ("applied 2", "applied 2")
    assert "delivered in revision 2 (variant) of " in str(old.current.explanations["vad"])
    assert "delivered in revision 2 of " in str(new.current.explanations["vad_threshold"])
    assert old.receipts[-1].running is not None
    assert new.receipts[-1].running is not None
    assert old.receipts[-1].running.digest == new.receipts[-1].running.digest


def test_old_code_is_asked_only_where_its_own_values_change() -> None:
    """A key that it does not know is set: its variant stays."""
    story = started(Old)
    for revision, extra in ((2, "a"), (3, "b")):
        variants = (Variant(("f" * 64, OLD), {"n": 1}, ()),)
        story.gets(revision, config={"n": 1, "c": extra}, variants=variants)
    assert (story.asked, story.stage, runs(story)[0]) == ([1], "healthy 3", 3)


def test_a_start_chooses_anew_by_the_schema_that_it_was_built_with() -> None:
    story = started(Old).gets(2, **renamed(0.3)).says().lives(10)
    new = story.died(model=New)  # a new release finds what the old one kept
    assert new.current.values == New(n=1, vad_threshold=0.3)
    assert "variant" not in str(new.current.explanations["vad_threshold"])
    back = new.died(model=Old)
    assert (back.current.values, back.refused()) == (Old(n=1, vad=0.3), [])
    assert story.kept.schema is None  # these stories' cache belongs to nobody


def test_a_variant_that_comes_later_for_a_content_that_did_not_fit_is_taken() -> None:
    """An old image is started; the server sees its schema, and adapts."""
    story = started(Old).gets(2, config={"n": 1, "vad_threshold": 0.3}, content="2")
    assert story.stage == "refused 2"
    story.gets(3, **renamed(0.3), content="2").says()
    assert (story.current.values, story.stage) == (Old(n=1, vad=0.3), "applied 3")


def test_who_has_no_schema_of_its_own_takes_the_configuration() -> None:
    update = m.make_update(2, **renamed(0.3))
    assert choosing.chosen(update, NEW).config == update.config
    assert choosing.chosen(update, OLD).config == {"n": 1, "vad": 0.3}
    assert [one.schemas for one in choosing.chosen(update, OLD).variants] == [(OLD,)]
    assert choosing.chosen(update, NEW).variants == ()


@m.STEADY
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), max_size=8),
    st.sampled_from("abcdefg"),
)
def test_the_first_variant_that_names_the_schema_is_taken_and_else_the_configuration(
    named: list[list[str]], schema: str
) -> None:
    variants = tuple(Variant(tuple(one), {"at": at}, ()) for at, one in enumerate(named))
    update = m.make_update(2, config={"at": None}, variants=variants)
    naming = [at for at, one in enumerate(named) if schema in one]
    assert choosing.chosen(update, schema).config == {"at": naming[0] if naming else None}


def test_a_first_start_is_applied_and_never_moved() -> None:
    snapshot = m.snapshot_bytes({m.SERVICE: m.entry(1, content="1")}, 1)
    story = Story().receives(snapshot, wire.SNAPSHOT_TOPIC).gets(1, content="1").says()
    assert told(story) == [("applied", 1)]
    assert runs(story) == (1, "1", "applied 1")
