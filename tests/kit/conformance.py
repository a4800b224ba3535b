"""`config-manager conformance` as a test runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.processes import COMMAND, Processes

SETUP = f"{COMMAND} client trust init --state {{state}} --root {{root}}"
OURS = (
    *(COMMAND, "client", "run", "--state", "{state}", "--service", "{service}"),
    *("--instance", "{instance}", "--mqtt-url", "{mqtt_url}"),
)
_WITHIN_S = 400.0


@dataclass(frozen=True)
class Kit:
    """What it said of a client, and what it kept."""

    exit_code: int
    report: dict[str, Any]
    kept: Path

    @classmethod
    def play(
        cls,
        processes: Processes,
        kept: Path,
        *groups: str,
        client: Sequence[str] = OURS,
        setup: str = SETUP,
    ) -> Kit:
        """groups: these alone; all where none is named. kept: a directory that is not there yet."""
        only = [word for group in groups for word in ("--only", group)]
        options = ("--json", "--keep", str(kept), "--setup", setup, *only)
        code, process = processes.run("conformance", *options, "--", *client, within=_WITHIN_S)
        (report,) = process.lines or [{}]
        assert report, process.text
        return cls(code, report, kept)

    def cases(self, group: str) -> list[dict[str, Any]]:
        return [case for case in self.report["cases"] if case["group"] == group]

    def case(self, group: str, name: str) -> dict[str, Any]:
        (case,) = [case for case in self.cases(group) if case["name"] == name]
        return case

    @property
    def failed(self) -> dict[str, str]:
        """Name → what the client did instead."""
        cases = self.report["cases"]
        return {c["name"]: c["got"] for c in cases if not c["passed"] and not c["not_played"]}

    def states(self, group: str) -> list[Path]:
        """Where the group's clients kept what they keep."""
        return sorted(self.kept.glob(f"{group}-*/state-*"))
