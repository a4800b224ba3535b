"""Playing the groups against a client: one scene after the other, and those that only wait side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import trio

from config_manager.api.conformance.cases import Case, Result, Unmet
from config_manager.api.conformance.client_process import Command
from config_manager.api.conformance.groups import GROUPS, Group
from config_manager.api.conformance.rig import Rig, rigged
from config_manager.api.conformance.stories import Scene, Story
from config_manager.config.errors import SettingsInvalid
from config_manager.config.world import World

_AT_ONCE = 2
"""Clients that work at the same time; those that only wait come on top."""

Tell = Callable[[Result], None]


async def play(
    command: Command, groups: Sequence[Group], directory: Path, world: World, tell: Tell
) -> list[Result]:
    """The results, in the groups' order. tell: is given each as it comes.

    The first group is always played, and first of all. Raises SettingsInvalid if the client does not start.
    """
    start, now = GROUPS[0], world.clock.now()
    (first,) = start.scenes(now)
    place = directory / start.name
    started = await _in_a_rig(command, start, first, place, world, nullcontext())
    tell(started[0])
    if not started[0].passed:
        return started
    scenes = [
        (group, scene, directory / f"{group.name}-{number}")
        for group in groups
        if group is not start
        for number, scene in enumerate(group.scenes(now), 1)
    ]
    found: dict[Path, list[Result]] = {}
    works, begins = trio.CapacityLimiter(_AT_ONCE), trio.CapacityLimiter(_AT_ONCE)

    async def one(group: Group, scene: Scene, place: Path) -> None:
        # who waits for half a minute stands in nobody's way, but starting a client is work
        whole, beginning = (nullcontext(), begins) if group.waits else (works, nullcontext())
        async with whole:
            found[place] = await _in_a_rig(command, group, scene, place, world, beginning)
        for result in found[place]:
            tell(result)

    async with trio.open_nursery() as nursery:
        for arguments in scenes:
            nursery.start_soon(one, *arguments)
    return [*started, *(result for _, _, place in scenes for result in found[place])]


async def _in_a_rig(
    command: Command,
    group: Group,
    scene: Scene,
    directory: Path,
    world: World,
    beginning: AbstractAsyncContextManager[None],
) -> list[Result]:
    """beginning: around each start of a new client."""
    if all(story.why_skipped for story in scene.stories):
        return [_skipped(group, story) for story in scene.stories]
    async with rigged(command, scene.publisher(), directory, world) as rig:
        try:
            return await _Playing(group, scene, rig, beginning).results()
        except _NotStarted:
            raise SettingsInvalid(_why_not_started(command, rig, directory)) from None


class _NotStarted(Exception):
    """The client ended before it had ever applied anything."""


def _why_not_started(command: Command, rig: Rig, directory: Path) -> str:
    said = (directory / "stderr.log").read_text(errors="replace").strip().splitlines()
    last = said[-1] if said else "it said nothing on standard error"
    return f"{command.run[0]} ended ({rig.exit_code}) and had applied nothing: {last}"


def _skipped(group: Group, story: Story) -> Result:
    return Result(group.case(story), passed=False, got="", skipped=story.why_skipped)


class _Playing:
    """One scene."""

    def __init__(
        self, group: Group, scene: Scene, rig: Rig, beginning: AbstractAsyncContextManager[None]
    ) -> None:
        self._group = group
        self._beginning = beginning
        self._scene = scene
        self._rig = rig
        self._results: list[Result] = []
        self._begun_at: int | None = None
        """The first result of the client that runs; None: it has to begin anew."""

    async def results(self) -> list[Result]:
        for story in self._scene.stories:
            if story.why_skipped is not None:
                self._results.append(_skipped(self._group, story))
            else:
                self._results.append(await self._one(story))
                if self._results[-1].failed:
                    self._begun_at = None
        await self._end()
        return self._results

    async def _one(self, story: Story) -> Result:
        rig = self._rig
        rig.new_case()
        try:
            if self._begun_at is None or rig.has_ended:
                self._begun_at = len(self._results)
                await self._begin()
            await story.play(rig)
        except Unmet as unmet:
            if self._group is GROUPS[0] and rig.has_ended:
                raise _NotStarted from None
            return self._result(self._group.case(story), unmet.got, passed=False)
        return self._result(self._group.case(story), rig.got, passed=rig.unsafe is None)

    async def _begin(self) -> None:
        try:
            async with self._beginning:
                await self._scene.begin(self._rig)
        except Unmet as unmet:
            raise Unmet(f"it did not begin well: {unmet.got}") from None
        self._rig.new_case()

    def _result(self, case: Case, got: str, *, passed: bool) -> Result:
        rig = self._rig
        return Result(case, passed, got, rig.unsafe, tuple(rig.sent), rig.said)

    async def _end(self) -> None:
        """What does not listen refuses nothing."""
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
