"""Every group of cases: what it is about, where docs/wire.md says what is right, and its scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from config_manager.api.conformance import vectors
from config_manager.api.conformance.cases import Case
from config_manager.api.conformance.freshness import FRESHNESS
from config_manager.api.conformance.receipts import RECEIPTS
from config_manager.api.conformance.stories import KEYS, RESTARTS, START, Scene, Story, attacks
from config_manager.api.conformance.timelines import timeline_scenes
from config_manager.config.errors import SettingsInvalid


@dataclass(frozen=True)
class Group:
    """section: the heading of docs/wire.md. scenes: at a time, in Unix seconds. waits: they take half a minute
    each, and nearly no work."""

    name: str
    about: str
    section: str
    scenes: Callable[[float], tuple[Scene, ...]]
    waits: bool = False

    def case(self, story: Story) -> Case:
        return Case(self.name, story.name, story.expected)

    def cases(self, now: float) -> Iterator[Case]:
        for scene in self.scenes(now):
            yield from map(self.case, scene.stories)


def _always(scenes: tuple[Scene, ...]) -> Callable[[float], tuple[Scene, ...]]:
    return lambda _: scenes


def _attacks(name: str, about: str, section: str) -> Group:
    return Group(name, about, section, _always(attacks(name)))


_TRUST = "Whom to believe"
_CONFIG = "Configurations"
_FRESH = "Fresh is not the same as valid"

GROUPS = (
    Group("start", "the client starts, and applies what is good", "Topics", _always(START)),
    _attacks("signers", "who signed a configuration", "Envelopes"),
    _attacks("contents", "what was signed", _CONFIG),
    _attacks("order", "a configuration never goes back", _CONFIG),
    _attacks("numbers", "integers that readers take differently", "JSON and encodings"),
    _attacks("bytes", "messages that are no documents, or too large", _CONFIG),
    _attacks("beacons", "who may vouch for the publisher", _FRESH),
    _attacks("roots", "who may change whom to believe", _TRUST),
    _attacks("thresholds", "where two keys have to sign", _TRUST),
    Group("keys", "keys that come and go", _TRUST, _always(KEYS)),
    Group("restarts", "what survives stops, kills and a broker that is gone", "What to keep on disk, and when", _always(RESTARTS)),
    Group("updates", "configurations of docs/vectors.json", _CONFIG, vectors.update_scenes),
    Group("root-versions", "root versions of docs/vectors.json", _TRUST, vectors.root_scenes),
    Group("proofs", "beacons of docs/vectors.json", _FRESH, vectors.beacon_scenes),
    Group("timelines", "timelines of docs/vectors.json, in real time", _FRESH, timeline_scenes, waits=True),
    Group("freshness", "what else is fresh or stale", _FRESH, _always(FRESHNESS), waits=True),
    Group("receipts", "what an instance says of itself", "Receipts", _always(RECEIPTS)),
)  # fmt: skip


def chosen(only: Iterable[str], but: Iterable[str]) -> tuple[Group, ...]:
    """The groups of these names, or all of them, without those; always the first, which shows that the client starts.
    Raises SettingsInvalid if no group has a name, or if no group is left."""
    only, but = tuple(only), tuple(but)
    names = [group.name for group in GROUPS]
    for name in (*only, *but):
        if name not in names:
            raise SettingsInvalid(f"no group {name!r}; there are {', '.join(names)}")
    first, *others = GROUPS
    found = [g for g in others if (not only or g.name in only) and g.name not in but]
    if not found and first.name not in only:
        raise SettingsInvalid("no group is left to be played")
    return (first, *found)
