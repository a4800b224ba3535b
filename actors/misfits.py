"""Stored values that the active schema of their service does not take, for `GET /health`.

They stay as they are and are published. They were there when a breaking schema became active: one of a newer
catalogue, or one that somebody asked for.
"""

from __future__ import annotations

from config_manager.actors.views import CommittedView
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.shapes import Shapes, row
from config_manager.storage.state import Committed, ServiceState


class Misfits:
    """Each service is looked at once for each of its revisions and schemas."""

    def __init__(self, view: CommittedView, shapes: Shapes) -> None:
        self._view = view
        self._shapes = shapes
        self._seen: Committed | None = None
        self._judged: dict[str, tuple[ServiceState, JsonObject | None, str | None]] = {}
        self._reasons: list[str] = []

    def reasons(self) -> list[str]:
        """A line for each service that has such values."""
        committed = self._view.committed
        if committed is not self._seen:
            self._judged = {
                name: self._judge(committed, name, state)
                for name, state in committed.services.items()
                if not state.deleted
            }
            self._reasons = [line for _, _, line in self._judged.values() if line is not None]
            self._seen = committed
        return self._reasons

    def _judge(
        self, committed: Committed, name: str, state: ServiceState
    ) -> tuple[ServiceState, JsonObject | None, str | None]:
        put, known = row(committed, name), self._judged.get(name)
        if known is not None and known[0] is state and known[1] is put:
            return known
        shape = self._shapes.of(committed, name)
        errors = [] if shape is None else shape.errors(state.stored)
        if not errors:
            return state, put, None
        keys = sorted({error.pointer[1:].partition("/")[0] for error in errors})
        shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if keys[5:] else "")
        return state, put, f"{name}: its schema does not take what is stored of {shown}"
