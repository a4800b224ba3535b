"""Playing the groups against a client: one scene after the other, and those that only wait side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import trio

from config_manager.api.commands.output import clean
from config_manager.api.conformance.cases import Case, Deaf, Result, Unmet
from config_manager.api.conformance.client_process import Command
from config_manager.api.conformance.groups import GROUPS, Group
from config_manager.api.conformance.rig import Rig, rigged
from config_manager.api.conformance.stories import Scene, Story
from config_manager.config.errors import SettingsInvalid
from config_manager.config.world import World

_AT_ONCE = 2
"""Clients that work at the same time; those that only wait come on top."""

_DEAF = 3
"""Cases in a row in which a client did not listen; then the rest of a scene is not worth waiting for."""

Tell = Callable[[Result], None]


class _Session(NamedTuple):
    """What one client is given. cases: of the scene's stories."""

    scene: Scene
    cases: tuple[Case, ...]
    waits: bool
    place: Path


def _sessions(groups: Sequence[Group], directory: Path, now: float) -> list[_Session]:
    sessions: list[_Session] = []
    for group in groups:
        for number, scene in enumerate(group.scenes(now), 1):
            cases = tuple(map(group.case, scene.stories))
            before = sessions[-1] if sessions else None
            if before is not None and before.scene.leaves_no_trace and scene.leaves_no_trace:
                both = replace(scene, stories=before.scene.stories + scene.stories)
                sessions[-1] = before._replace(scene=both, cases=before.cases + cases)
            else:
                place = directory / f"{group.name}-{number}"
                sessions.append(_Session(scene, cases, group.waits, place))
    return sessions


async def play(
    command: Command, groups: Sequence[Group], directory: Path, world: World, tell: Tell
) -> list[Result]:
    """The results, in the groups' order. tell: is given each as it comes.

    The first group is always played, and first of all. Raises SettingsInvalid if the client does not start.
    """
    first, *others = GROUPS
    now = world.clock.now()
    found: dict[int, list[Result]] = {}
    works, begins = trio.CapacityLimiter(_AT_ONCE), trio.CapacityLimiter(_AT_ONCE)

    async def one(number: int, session: _Session) -> None:
        # a session that only waits needs no turn, but starting its client is work
        whole, beginning = (nullcontext(), begins) if session.waits else (works, nullcontext())
        async with whole:
            found[number] = await _played(command, session, world, beginning)
        for result in found[number]:
            tell(result)

    (start,) = _sessions([first], directory, now)
    await one(0, start)
    if found[0][0].passed:
        sessions = _sessions([group for group in others if group in groups], directory, now)
        async with trio.open_nursery() as nursery:
            for number, session in enumerate(sessions, 1):
                nursery.start_soon(one, number, session)
    return [result for number in sorted(found) for result in found[number]]


async def _played(
    command: Command,
    session: _Session,
    world: World,
    beginning: AbstractAsyncContextManager[None],
) -> list[Result]:
    """beginning: around each start of a new client."""
    if all(story.why_skipped for story in session.scene.stories):
        return [
            _skipped(case, story)
            for case, story in zip(session.cases, session.scene.stories, strict=True)
        ]
    async with rigged(command, session.scene.publisher(), session.place, world) as rig:
        try:
            return await _Playing(session, rig, beginning).results()
        except _NotStarted:
            raise SettingsInvalid(_why_not_started(command, rig, session.place)) from None


class _NotStarted(Exception):
    """The client ended before it had ever applied anything."""


def _why_not_started(command: Command, rig: Rig, place: Path) -> str:
    said = clean((place / "stderr.log").read_text(errors="replace"), keep="\n").strip().splitlines()
    last = said[-1] if said else "it said nothing on standard error"
    return f"{command.run[0]} ended ({rig.exit_code}) and had applied nothing: {last}"


def _skipped(case: Case, story: Story) -> Result:
    return Result(case, passed=False, got="", skipped=story.why_skipped)


class _Playing:
    """One scene."""

    def __init__(
        self, session: _Session, rig: Rig, beginning: AbstractAsyncContextManager[None]
    ) -> None:
        self._session = session
        self._scene = session.scene
        self._beginning = beginning
        self._rig = rig
        self._results: list[Result] = []
        self._deaf = 0
        self._begun_at: int | None = None
        """The first result of the client that runs; None: it has to begin anew."""

    async def results(self) -> list[Result]:
        for case, story in zip(self._session.cases, self._scene.stories, strict=True):
            if story.why_skipped is not None:
                self._results.append(_skipped(case, story))
            else:
                self._results.append(await self._one(case, story))
                if self._results[-1].failed:
                    self._begun_at = None
        await self._end()
        return self._results

    async def _one(self, case: Case, story: Story) -> Result:
        rig = self._rig
        if self._deaf == _DEAF:
            rig.new_case()
            return self._result(case, "not played: it no longer listened", passed=False)
        about_freshness = "fresh" in case.expected or "stale" in case.expected
        try:
            if self._begun_at is None or rig.has_ended:
                self._begun_at = len(self._results)
                await self._begin()
            rig.new_case(about_freshness=about_freshness)
            await story.play(rig)
            self._deaf = 0
        except Unmet as unmet:
            self._deaf = self._deaf + 1 if isinstance(unmet, Deaf) else 0
            if case.group == GROUPS[0].name and rig.has_ended:
                raise _NotStarted from None
            return self._result(case, unmet.got, passed=False)
        return self._result(case, rig.got, passed=rig.unsafe is None)

    async def _begin(self) -> None:
        self._rig.new_case()
        try:
            async with self._beginning:
                await self._scene.begin(self._rig)
        except Unmet as unmet:
            raise Deaf(f"it did not begin well: {unmet.got}") from None

    def _result(self, case: Case, got: str, *, passed: bool) -> Result:
        rig = self._rig
        return Result(case, passed, got, rig.unsafe, tuple(rig.sent), rig.told)

    async def _end(self) -> None:
        """A client that does not listen refuses nothing."""
        if self._begun_at is None:
            return
        self._rig.new_case()
        try:
            await self._scene.at_the_end(self._rig)
        except Unmet as unmet:
            for at, result in enumerate(self._results[self._begun_at :], self._begun_at):
                if result.passed:
                    got = f"{result.got}; after all of them not the next good one: {unmet.got}"
                    self._results[at] = replace(result, passed=False, got=got)


def file_name(case: Case) -> str:
    """For what is kept of a case that failed."""
    return re.sub(r"[^a-z0-9]+", "-", f"{case.group} {case.name}".lower()).strip("-")
