"""Whether Home Assistant was told of us: then what lies on the brokers has to be emptied once it is not wanted any more.

Registry kind `discovery`, one row, bookkeeping: the setting decides, and the row only remembers.
"""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.storage.decisions.administration import noted
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.state import Committed, RegistryRow

_KIND = "discovery"
_KEY = "home-assistant"


def is_discovered(committed: Committed) -> bool:
    return _KEY in committed.registered(_KIND)


@dataclass(frozen=True, slots=True)
class NoteDiscovery:
    discovered: bool

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        value = {"since": on.at} if self.discovered else None
        return noted(before, on, (RegistryRow(_KIND, _KEY, value),))
