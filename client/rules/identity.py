"""Which instance this is, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from config_manager.client.rules.root_chain import Link
from config_manager.config.documents.root import Root
from config_manager.config.names import InstanceName


@dataclass(frozen=True, slots=True)
class Identity:
    """What `trust init` made, and the roots that were trusted since. The keys are raw bytes and
    never shown.

    chain: from the pinned root to the newest. enrolled: the `service/instance` of each enrolment that
    a server took. broken: why a kept root was left out, for the log.
    """

    state_dir: Path
    instance: InstanceName
    chain: tuple[Link, ...]
    sign_key: bytes = field(repr=False)
    seal_key: bytes = field(repr=False)
    file_key: bytes = field(repr=False)
    broken: str | None = None
    enrolled: frozenset[str] = frozenset()

    @property
    def root(self) -> Root:
        """The newest that is trusted."""
        return self.chain[-1].root

    @property
    def roots(self) -> tuple[Root, ...]:
        return tuple(link.root for link in self.chain)
