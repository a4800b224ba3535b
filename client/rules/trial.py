"""From an offer to what has proved itself: one immutable value, and one table of its transitions.

                  ask             agree           run, bake time ahead     prove
    offered ───────────→ asked ─────────→ agreed ─────────────→ bakes ────────→ nothing is open
       │                   │                 │                    │
       │ leave             │ put off,        │ end                │ end
       ↓                   │ refused         ↓                    ↓
     waits ←───────────────┴──(back to what it interrupted)──── waits: the next start runs it

Whatever changes a trial is in this module. A transition that `_TABLE` lacks is a bug, and raises. What is on
disk (`Kept`) decides what a start does after a death:

    asked     asked again; the service runs what ran before
    bakes     tried again after the first death in a row. After the second the service runs what ran
              before, and the configuration is poison: only a newer one ends that
    waits     run, and it bakes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from config_manager.client.rules.kept import Died, Kept, Version, is_same
from config_manager.config.wire import Envelope

DEATHS_THAT_POISON = 2
"""In a row, within the bake time: a single one may be an ordinary stop by a signal."""


class Phase(Enum):
    """How far the open trial has come. A newer offer may be there beside it."""

    NOTHING = "nothing is open"
    ASKED = "the service's callback is being asked"
    AGREED = "the callback has accepted it, and somebody holds what runs"
    BAKES = "it runs, and has yet to live through its bake time"
    WAITS = "the next start runs it"


_NOTHING, _ASKED, _AGREED, _BAKES, _WAITS = Phase

_TABLE: Mapping[str, Mapping[Phase, tuple[Phase, ...]]] = {
    "ask": {_NOTHING: (_ASKED,), _BAKES: (_ASKED,), _WAITS: (_ASKED,)},
    "agree": {_ASKED: (_AGREED,)},
    # back to what asking interrupted
    "put off": dict.fromkeys((_ASKED, _AGREED), (_NOTHING, _BAKES, _WAITS)),
    # without a bake time it is proved at once
    "run": dict.fromkeys(Phase, (_BAKES, _NOTHING)),
    "leave for a restart": {_NOTHING: (_WAITS,), _BAKES: (_WAITS,), _WAITS: (_WAITS,)},
    # what runs proves itself also while a newer one is asked about, or waits
    "prove": {
        _NOTHING: (_NOTHING,),
        _BAKES: (_NOTHING,),
        _WAITS: (_WAITS, _NOTHING),
        _ASKED: (_ASKED,),
        _AGREED: (_AGREED,),
    },
    "resume": {_BAKES: (_BAKES,), _WAITS: (_BAKES,)},
    "end": {
        _NOTHING: (_NOTHING,),
        _BAKES: (_WAITS,),
        _WAITS: (_WAITS,),
        _AGREED: (_WAITS, _NOTHING),
    },
}
"""step → the phase before it → the phases that may follow"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one service runs, what is offered to it, and what it makes of that.

    On disk, by the same names or as in `Kept`: proved (`running`), tried (`trial`), trial_asked,
    trial_ended_well, died, poison. In memory only: runs; offered, the newest that nobody has decided on;
    asked, the one that the callback is being asked about, has_agreed to it; interrupted, what is `tried`
    again once asking comes to nothing, and whether it ended well; decided_on, digests that are not offered
    again; revoked, the digest of what a start ran although its signer was good no more.
    """

    proved: Version | None = None
    tried: Version | None = None
    trial_asked: bool = False
    trial_ended_well: bool = False
    died: Died | None = None
    poison: str | None = None
    signer_revoked: bool = False
    runs: Version | None = None
    offered: Version | None = None
    asked: Version | None = None
    has_agreed: bool = False
    interrupted: tuple[Version | None, bool] = (None, False)
    decided_on: frozenset[str] = frozenset()
    revoked: str | None = None

    @classmethod
    def of(cls, kept: Kept | None) -> Trial:
        """As a start finds it."""
        if kept is None:
            return cls()
        runs = kept.to_start_with
        return cls(
            kept.running,
            kept.trial,
            kept.trial_asked,
            kept.trial_ended_well,
            kept.died,
            kept.poison,
            kept.signer_revoked,
            runs,
            decided_on=frozenset(filter(None, (kept.poison, runs[1].digest if runs else None))),
            revoked=runs[1].digest if runs is not None and kept.signer_revoked else None,
        )

    def within(self, kept: Kept) -> Kept:
        """What of it must survive a restart, beside the marks that are kept."""
        return replace(
            kept,
            running=self.proved,
            trial=self.tried,
            trial_asked=self.trial_asked,
            trial_ended_well=self.trial_ended_well,
            died=self.died,
            poison=self.poison,
            signer_revoked=self.signer_revoked,
        )

    @property
    def phase(self) -> Phase:
        if self.asked is not None:
            return Phase.AGREED if self.has_agreed else Phase.ASKED
        if self.tried is None:
            return Phase.NOTHING
        return Phase.WAITS if self.trial_ended_well else Phase.BAKES

    @property
    def decides_on(self) -> Version:
        """What the service decides on: what its callback is asked about, else the offer."""
        decided = self.asked or self.offered
        assert decided is not None
        return decided

    @property
    def is_overtaken(self) -> bool:
        """Whether a newer offer or a deletion came while the callback was asked. Another signature is
        neither."""
        return not is_same(self.offered, self.asked)

    def deaths_of(self, revision: int) -> int:
        """How often in a row the service died within this one's bake time."""
        return self.died.times if self.died is not None and self.died.revision == revision else 0

    def runs_or_waits(self, envelope: Envelope) -> bool:
        """Whether this content runs already, or will after the restart that it waits for."""
        known = (self.runs, self.tried)
        return any(one is not None and one[1].digest == envelope.digest for one in known)

    def _by(self, step: str, new: Trial) -> Trial:
        """The trial after this step; raises RuntimeError if the table lacks it."""
        if new.phase not in _TABLE[step].get(self.phase, ()):
            raise RuntimeError(f"{step}: from {self.phase.name} to {new.phase.name}")
        return new

    # ── what the publisher does ────────────────────────────────────────────────────────────────

    def offer(self, version: Version) -> Trial:
        """The service is to decide on it."""
        return replace(self, offered=version, decided_on=frozenset({version[1].digest}))

    def without_poison(self) -> Trial:
        """A newer configuration came than the one that the service died of."""
        return replace(self, poison=None)

    def offer_again(self, version: Version) -> Trial:
        """The service is to decide on it once more: something that it lacked has come."""
        return self if self.offered is not None else replace(self, offered=version)

    def withdraw(self) -> Trial:
        """The configuration was deleted, and the offer with it."""
        return replace(self, offered=None)

    def resigned(
        self, envelope: Envelope, merge: Callable[[Envelope, Envelope], Envelope]
    ) -> Trial:
        """Add this envelope's signatures wherever the same bytes are kept, so that what runs outlives the key
        that signed it first. merge: joins the kept envelope and this one."""

        def signed(one: Version | None) -> Version | None:
            if one is None or one[1].digest != envelope.digest:
                return one
            return one[0], merge(one[1], envelope)

        before, ended_well = self.interrupted
        return replace(
            self,
            proved=signed(self.proved),
            tried=signed(self.tried),
            runs=signed(self.runs),
            offered=signed(self.offered),
            interrupted=(signed(before), ended_well),
            signer_revoked=False,
            revoked=None if envelope.digest == self.revoked else self.revoked,
        )

    def without_revoked(self, is_good: Callable[[Envelope], bool]) -> Trial:
        """Without what is offered, or waits for a start, if a newer root does not list its signers. It may be
        offered again under another signature."""
        trial = self
        if trial.offered is not None and not is_good(trial.offered[1]):
            left = trial.decided_on - {trial.offered[1].digest}
            trial = replace(trial, offered=None, decided_on=left)
        if trial.tried is not None and trial.trial_ended_well and not is_good(trial.tried[1]):
            left = trial.decided_on - {trial.tried[1].digest}
            trial = replace(trial, tried=None, trial_ended_well=False, decided_on=left)
        return trial

    # ── what the service makes of it ───────────────────────────────────────────────────────────

    def ask(self) -> Trial:
        """The callback is asked about the offer. On disk first, so that a death is remembered."""
        assert self.offered is not None
        asked = replace(
            self,
            asked=self.offered,
            interrupted=(self.tried, self.trial_ended_well),
            tried=self.offered,
            trial_asked=True,
            trial_ended_well=False,
            died=self._died_of(self.offered),
        )
        return self._by("ask", asked)

    def agree(self) -> Trial:
        """The callback has accepted it, and it is applied once nobody holds."""
        return self._by("agree", replace(self, has_agreed=True))

    def run(self, *, bakes: bool) -> Trial:
        """What is decided on runs. bakes: it has yet to live through its bake time."""
        accepted = self._newest_of(self.decides_on)
        runs = replace(
            self._not_asked(),
            runs=accepted,
            offered=None if is_same(self.offered, accepted) else self.offered,
        )
        if bakes:
            runs = replace(
                runs,
                tried=accepted,
                trial_asked=False,
                trial_ended_well=False,
                died=self._died_of(accepted),
            )
        else:
            runs = replace(runs, proved=accepted, tried=None, signer_revoked=False)
        return self._by("run", runs)

    def put_off(self) -> Trial:
        """Not now: the offer stands, and what runs goes on, with what it has still to prove."""
        if self.asked is None:
            return self
        before, ended_well = self.interrupted
        goes_on = replace(
            self._not_asked(), tried=before, trial_asked=False, trial_ended_well=ended_well
        )
        return self._by("put off", goes_on)

    def refuse(self) -> Trial:
        """The service refuses what it decides on; what runs goes on."""
        is_newest = is_same(self.offered, self.decides_on)
        return replace(self.put_off(), offered=None if is_newest else self.offered)

    def leave(self) -> Trial:
        """The offer becomes what the next start runs; what runs now goes on until then."""
        assert self.offered is not None
        waits = replace(
            self, tried=self.offered, trial_asked=False, trial_ended_well=True, offered=None
        )
        return self._by("leave for a restart", waits)

    def prove(self) -> Trial:
        """What runs has lived through its bake time. Another one may wait for the next start."""
        assert self.runs is not None
        lived = self._newest_of(self.runs)
        before = self.interrupted
        has_died = self.died is not None and self.died.digest == lived[1].digest
        proved = replace(
            self,
            proved=lived,
            tried=None if is_same(self.tried, lived) else self.tried,
            # what the trial goes back to if the newer one is put off
            interrupted=(None, False) if is_same(before[0], lived) else before,
            died=None if has_died else self.died,
            signer_revoked=False,
        )
        return self._by("prove", proved)

    def _not_asked(self) -> Trial:
        return replace(self, asked=None, has_agreed=False, interrupted=(None, False))

    # ── starts and ends ────────────────────────────────────────────────────────────────────────

    def start_with(self, runs: Version | None) -> Trial:
        """What the service really runs: not everything that was kept fits every release. What does not may
        be offered."""
        decided_on = frozenset(filter(None, (self.poison, runs[1].digest if runs else None)))
        return replace(self, runs=runs, decided_on=decided_on)

    def resume(self) -> Trial:
        """It runs again, and must live through its bake time again."""
        return self._by("resume", replace(self, trial_ended_well=False))

    def unfit(self) -> Trial:
        """This release of the service can't run it. It waits for another, and no death counts against it."""
        return self._by("end", replace(self, trial_ended_well=True))

    def end(self) -> Trial:
        """The service stops on purpose. What it tries may be tried again, and a row of deaths ends."""
        if self.phase is Phase.ASKED:  # the callback has not accepted what it is asked about
            return self.put_off().end()
        ended = replace(
            self._not_asked(),
            trial_ended_well=self.tried is not None,
            died=self.died if self.poison is not None else None,
        )
        return self._by("end", ended)

    def _died_of(self, version: Version) -> Died | None:
        """The row of deaths, if it goes on with this one."""
        goes_on = self.died is not None and self.died.digest == version[1].digest
        return self.died if goes_on else None

    def _newest_of(self, decided: Version) -> Version:
        """The same bytes, with all the signatures that have come for them since."""
        known = (self.offered, self.tried, self.proved, self.runs)
        return next((one for one in known if one is not None and is_same(one, decided)), decided)


def after_a_death(proved: Kept, tried: Kept, *, was_asked: bool) -> Kept:
    """What to keep after the service died of what it tried, or beside it: the client can't tell which.
    proved, tried: what was kept, without and with that.

    An ordinary stop by a signal looks the same, so only the second death in a row is proof. If nothing ran
    before, none is: the model's defaults are no better proved. If it was only asked about, it is asked
    about again.
    """
    assert tried.trial is not None
    update, envelope = tried.trial
    before = tried.died
    times = before.times + 1 if before is not None and before.digest == envelope.digest else 1
    died = Died(update.revision, envelope.digest, times)
    if times >= DEATHS_THAT_POISON and proved.running is not None:
        return replace(proved, died=died, poison=envelope.digest)
    return replace(proved if was_asked else tried, died=died)


def died_in_words(times: int) -> str:
    often = "once" if times == 1 else f"{times} times in a row"
    return f"the service died within its bake time {often}"
