"""docs/proof.md as a newcomer would: every command of it, with a real client, and once more after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from config_manager.storage.decisions.report_checks import verify
from tests.kit.processes import MOSQUITTO, Processes
from tests.kit.shell import walked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proof.md"

pytestmark = [
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
    pytest.mark.torture,
]


def test_the_walk_through_proves_what_it_says_and_so_does_a_report_after_a_restart(
    shop: tuple[Processes, Path],
) -> None:
    (_, directory), (server, said) = shop, walked(shop, PAGE)
    assert "exit code 5" in said
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert any(line.startswith("stt-worker r1 ") and "a first one" in line for line in lines), said
    assert any("kitchen r2 in line" in line for line in lines), said
    assert "NOT PROVED, report" in (directory / "auditor" / "altered.txt").read_text()
    first = verify((directory / "today.json").read_bytes(), _root(directory))
    assert first.ok, first.findings

    server.kill()
    server.start()
    assert first.report is not None
    span = f"from={first.report.begin}&to={first.report.end}&service=stt-worker"
    again = verify(server.http.get(f"/api/v1/reports?{span}").content, _root(directory))
    assert again.ok, again.findings
    assert again.claims == first.claims


def _root(directory: Path) -> bytes:
    return (directory / "data" / "trust" / "root.json").read_bytes()
