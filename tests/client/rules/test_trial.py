from __future__ import annotations

from collections.abc import Callable

import pytest

from config_manager.client.rules.kept import Kept, Version
from config_manager.client.rules.trial import Phase, Trial
from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from tests.kit import documents as m


def version(revision: int) -> Version:
    envelope = wire.parse_envelope(m.update_bytes(revision))
    return ConfigUpdate.parse(envelope.payload), envelope


def running(revision: int = 5) -> Trial:
    return Trial.of(Kept(version(revision), None))


def on_disk(trial: Trial) -> tuple[int | None, int | None, bool, bool]:
    """The proved revision, the one on trial, whether it is asked about, and whether it ended well."""
    kept = trial.within(Kept(None, None))
    proved, tried = (one[0].revision if one else None for one in (kept.running, kept.trial))
    return proved, tried, kept.trial_asked, kept.trial_ended_well


def test_an_offer_is_asked_about_agreed_to_run_and_proved() -> None:
    trial = running(5).offer(version(6))
    assert (trial.phase, on_disk(trial)) == (Phase.NOTHING, (5, None, False, False))
    trial = trial.ask()
    assert (trial.phase, on_disk(trial)) == (Phase.ASKED, (5, 6, True, False))
    trial = trial.agree()
    assert (trial.phase, on_disk(trial)) == (Phase.AGREED, (5, 6, True, False))
    trial = trial.run(bakes=True)
    assert (trial.phase, on_disk(trial)) == (Phase.BAKES, (5, 6, False, False))
    trial = trial.prove()
    assert (trial.phase, on_disk(trial)) == (Phase.NOTHING, (6, None, False, False))


def test_what_comes_to_nothing_leaves_what_it_interrupted() -> None:
    bakes = running(5).offer(version(6)).run(bakes=True)
    waits = running(5).offer(version(6)).leave()
    for before in (running(5), bakes, waits):
        for after in (Trial.put_off, Trial.refuse):
            trial = after(before.offer(version(7)).ask())
            assert (trial.phase, on_disk(trial)) == (before.phase, on_disk(before))
    assert (bakes.phase, waits.phase) == (Phase.BAKES, Phase.WAITS)


def test_what_bakes_is_proved_while_a_newer_one_is_asked_about() -> None:
    trial = running(5).offer(version(6)).run(bakes=True).offer(version(7)).ask().prove()
    assert (trial.phase, on_disk(trial)) == (Phase.ASKED, (6, 7, True, False))
    assert on_disk(trial.put_off()) == (6, None, False, False)


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (lambda trial: trial, None),
        (lambda trial: trial.run(bakes=True), 6),
        (Trial.leave, 6),
        (Trial.ask, None),
        (lambda trial: trial.ask().agree(), 6),
    ],
)
def test_the_next_start_runs_what_the_service_had_accepted(
    step: Callable[[Trial], Trial], kept: int | None
) -> None:
    ended = step(running(5).offer(version(6))).end()
    assert on_disk(ended)[:2] == (5, kept)
    assert ended.phase is (Phase.NOTHING if kept is None else Phase.WAITS)


@pytest.mark.parametrize(
    "step",
    [
        Trial.agree,
        Trial.resume,
        lambda trial: trial.ask().ask(),
        lambda trial: trial.ask().leave(),
        lambda trial: trial.ask().agree().agree(),
        lambda trial: trial.ask().resume(),
        lambda trial: trial.ask().unfit(),
    ],
)
def test_a_step_that_the_table_does_not_have_raises(step: Callable[[Trial], Trial]) -> None:
    with pytest.raises(RuntimeError):
        step(running(5).offer(version(6)))
