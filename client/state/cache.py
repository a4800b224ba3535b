"""The client's last-known-good: the publisher's own envelope and the marks, sealed.

A thief of the file reads nothing. A thief of its key still can't forge, for the envelope in it is
verified again against the chain of roots. A key that is past its date, or that a newer root no
longer lists, still starts the service (`signer_revoked`): what it signed was right when it was taken.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from config_manager.client.rules.kept import Died, Kept
from config_manager.client.rules.trial import after_a_death
from config_manager.client.state.claim import Claim, Onlooker
from config_manager.client.state.log import say
from config_manager.config import strict_json, trust, wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.sealed_file import SealBroken, SealedFile
from config_manager.config.trust import Distrust, Seen
from config_manager.config.wire import Envelope
from config_manager.config.world import World

_BEFORE_ANY_DATE = float("-inf")


class KeptBroken(Exception):
    """The last-known-good file does not verify. marks: what its seal still vouches for."""

    def __init__(self, detail: str, marks: Kept | None = None) -> None:
        super().__init__(detail)
        self.marks = marks


class Cache:
    """One service's last-known-good file in the state directory."""

    def __init__(
        self,
        state_dir: Path,
        service: str,
        file_key: bytes,
        roots: Sequence[Root],
        world: World,
        claim: Claim | Onlooker | None = None,
    ) -> None:
        """roots: every one that was trusted, the newest last. claim: a process that does not hold it
        only reads; None if no other process can be there."""
        self._service = service
        self._roots = roots
        self._world = world
        self._claim = claim
        self._writes = claim is None or claim.is_held
        self._unwritten: Kept | None = None
        self._file = SealedFile(
            state_dir / f"{service}.lkg", file_key, f"client last-known-good of {service}", world
        )

    def load(self) -> Kept | None:
        """What was kept, None if nothing was; raises KeptBroken, or OSError for a sick disk."""
        try:
            data = self._file.read()
        except FileNotFoundError:
            return None
        except SealBroken as error:
            raise KeptBroken(str(error)) from None
        try:
            return self._parse(strict_json.loads_object(data))
        except (KeyError, TypeError, ValueError) as error:
            raise KeptBroken(f"{self._file.path.name}: unexpected content ({error})") from None

    @property
    def is_the_one_before(self) -> str | None:
        """Why what was loaded is not the newest that was kept; None if it is."""
        why = self._file.newest_unread
        return None if why is None else f"{why}; this is the one before"

    def say_if_older(self, kept: Kept) -> None:
        """Log that what was loaded is not the newest that was kept, if it is not."""
        if (why := self.is_the_one_before) is not None:
            runs = kept.to_start_with
            revision = runs[0].revision if runs is not None else None
            say(
                logging.WARNING,
                "older kept file taken",
                service=self._service,
                revision=revision,
                detail=why,
            )

    @property
    def unwritten(self) -> Kept | None:
        """What could not be kept because another process writes: to be tried again."""
        return self._unwritten

    def keep(self, kept: Kept) -> None:
        """Durable on return; raises OSError, and then what was kept before is still there. While
        another process writes it is `unwritten`."""
        if not self._may_write(kept):
            self._unwritten = kept
            return
        self._unwritten = None
        self._file.write(
            strict_json.dumps(
                {
                    "format": 1,
                    "envelope": kept.running[1].to_object() if kept.running else None,
                    "seen": _seen_to_list(kept.seen) if kept.seen else None,
                    "seen_by": {key: _seen_to_list(seen) for key, seen in kept.seen_by.items()},
                    "applied": _seen_to_list(kept.applied) if kept.applied else None,
                    "deleted": kept.deleted,
                    "has_floor": kept.has_floor,
                    "beacon_order": kept.beacon_order,
                    "beacons_by": dict(kept.beacons_by),
                    "root_version": kept.root_version,
                    "trial": kept.trial[1].to_object() if kept.trial else None,
                    "trial_asked": kept.trial_asked,
                    "trial_ended_well": kept.trial_ended_well,
                    "died": _died_to_list(kept.died) if kept.died else None,
                    "poison": kept.poison,
                    "sealed": [envelope.to_object() for envelope in kept.sealed],
                }
            )
        )

    def _may_write(self, kept: Kept) -> bool:
        """Whether this process writes the file, or its writer has ended and knew nothing newer: never back."""
        if not self._writes:
            assert self._claim is not None
            if not self._claim.take():
                return False
            there = self._seen_there()
            self._writes = there is None or (kept.seen is not None and kept.seen.mark >= there.mark)
        return self._writes

    def _seen_there(self) -> Seen | None:
        try:
            there = self.load()
        except KeptBroken as error:
            there = error.marks
        return there.seen if there is not None else None

    def _parse(self, value: dict[str, Any]) -> Kept:
        if value["format"] != 1:
            raise ValueError("expected format 1")
        seen, order = value["seen"], value["beacon_order"]
        marks = Kept(
            None,
            _seen_from_list(seen) if seen is not None else None,
            bool(value["deleted"]),
            _order_from_list(order) if order is not None else None,
            died=_died_from_list(value["died"]) if value.get("died") else None,
            poison=value.get("poison"),
            seen_by={k: _seen_from_list(one) for k, one in value.get("seen_by", {}).items()},
            beacons_by={k: _order_from_list(one) for k, one in value.get("beacons_by", {}).items()},
            root_version=int(value.get("root_version", 0)),
            sealed=tuple(wire.envelope_from_object(one) for one in value.get("sealed", ())),
            has_floor=seen is None or value.get("has_floor") is True,
        )
        try:
            running, revoked = self._kept_envelope(value["envelope"])
            trial, trial_revoked = self._kept_envelope(value.get("trial"))
        except (Distrust, wire.NotAnEnvelope) as error:
            raise KeptBroken(f"{self._file.path.name}: {error}", marks) from None
        proved = replace(marks, running=running, signer_revoked=revoked)
        tried = replace(
            marks, running=running, trial=trial, signer_revoked=trial_revoked if trial else revoked
        )
        if trial is None or value["trial_ended_well"]:
            return replace(tried, trial_ended_well=trial is not None)
        if self._claim is not None and not self._claim.take():
            # another process lives with it; if nothing was proved, there is nothing better to run
            runs = tried if running is None else proved
            return replace(runs, tried_elsewhere=trial)
        return after_a_death(proved, tried, was_asked=value.get("trial_asked") is True)

    def _kept_envelope(self, value: Any) -> tuple[tuple[ConfigUpdate, Envelope] | None, bool]:
        """One of the file's envelopes, and whether its signer is good no more; raises Distrust."""
        if value is None:
            return None, False
        envelope = wire.envelope_from_object(value)
        update, revoked = self._verify(envelope)
        return (update, envelope), revoked

    def _verify(self, envelope: Envelope) -> tuple[ConfigUpdate, bool]:
        """The update, and whether its signer is past its date or no longer listed; raises Distrust."""
        revoked = False
        try:
            payload = self._verify_under(self._roots[-1], envelope, self._world.clock.now())
        except Distrust as verdict:
            if verdict.reason != "unknown-key":
                raise
            payload = self._verify_under_any(envelope)
            revoked = True
        update = trust.parse_verified(payload, ConfigUpdate.parse)
        if update.service != self._service or update.deleted:
            raise Distrust("wrong-service", f"kept for {self._service}, signed for another")
        return update, revoked

    def _verify_under_any(self, envelope: Envelope) -> bytes:
        """By whichever root listed its signers, whatever the date; raises Distrust."""
        refused: Distrust | None = None
        for root in reversed(self._roots):
            try:
                return self._verify_under(root, envelope, _BEFORE_ANY_DATE)
            except Distrust as verdict:
                refused = refused or verdict
        assert refused is not None
        raise refused

    @staticmethod
    def _verify_under(root: Root, envelope: Envelope, now: float) -> bytes:
        return trust.verify(envelope, wire.CONFIG_UPDATE, "config", root, now)


def _died_to_list(died: Died) -> list[int | str]:
    return [died.revision, died.digest, died.times]


def _died_from_list(value: Any) -> Died:
    revision, digest, times = value
    return Died(int(revision), str(digest), int(times))


def _seen_to_list(seen: Seen) -> list[int | str]:
    return [seen.mark.epoch_seq, seen.mark.revision, seen.digest]


def _seen_from_list(value: Any) -> Seen:
    epoch_seq, revision, digest = value
    return Seen(Mark(int(epoch_seq), int(revision)), str(digest))


def _order_from_list(value: Any) -> tuple[int, int]:
    boot_seq, seq = value
    return int(boot_seq), int(seq)
