"""The whole tree on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from config_manager.actors.actor import Actor
from config_manager.actors.views import CommittedView, Confirmations, HealthReport
from config_manager.config.catalogue import Catalogue
from config_manager.config.world import World


@dataclass(frozen=True)
class System:
    """What REST holds of the running system.

    storing: takes every write and history read. roots: version → the root's envelope, byte for
    byte as retained; the highest is current.
    """

    storing: Actor
    view: CommittedView
    confirmations: Confirmations
    health: Callable[[], HealthReport]
    roots: Mapping[int, bytes]
    catalogue: Catalogue
    world: World
