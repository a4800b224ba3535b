"""`config-manager report` and `report verify`: what is printed, and which exit code ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config_manager.api.main import cli
from config_manager.config.errors import (
    ConfigManagerError,
    ReportBroken,
    RootRefused,
    SettingsInvalid,
)
from tests.api.commands.test_remote import Fake
from tests.kit import documents as m
from tests.kit.reports import pinned, signed_root, story


def run(*command: str) -> Result:
    return CliRunner().invoke(cli, ["report", *command], env={"CONFIG_MANAGER_TOKEN": "t"})


def code_of(result: Result) -> int:
    if isinstance(result.exception, ConfigManagerError):
        return result.exception.description.exit_code
    return result.exit_code


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    fleet = story()
    del fleet.receipts[4]
    report, root = tmp_path / "report.json", tmp_path / "root.json"
    report.write_bytes(fleet.report(0, 5000))
    root.write_bytes(pinned(fleet))
    return str(report), str(root)


def test_it_prints_who_ran_what_the_holes_and_what_it_cannot_prove(files: tuple[str, str]) -> None:
    report, root = files
    result = run("verify", report, "--root", root)
    assert result.exit_code == 0, result.exception
    told = [" ".join(line.split()) for line in result.output.splitlines()]
    for line in (
        "stt-worker r2 2027-01-15 08:16:40.000 ada why not",
        "stt-worker kitchen-pi r1 in line 2027-01-15 08:01:41.000 2027-01-15 08:16:40.000 between",
        "stt-worker hall-pi ? silent 2027-01-15 08:33:20.000 2027-01-15 09:23:20.000 none",
        "hole: stt-worker/kitchen-pi: 1 receipt is missing between 1.4 and 1.6",
        "What no report proves:",
    ):
        assert line in told, result.output
    shown = json.loads(run("verify", report, "--root", root, "--json").output)
    assert (shown["ok"], shown["findings"], shown["root_version"]) == (True, [], 1)
    assert shown["holes"][0]["missing"] == 1
    assert shown["services"]["stt-worker"]["instances"]["kitchen-pi"]["missing_seq"] == 1


def test_what_does_not_verify_is_exit_5_and_every_finding_is_printed(
    files: tuple[str, str], tmp_path: Path
) -> None:
    report, root = files
    value = json.loads(Path(report).read_bytes())
    value["evidence"]["receipts"][0]["payload"] = value["evidence"]["receipts"][1]["payload"]
    Path(report).write_text(json.dumps(value))
    result = run("verify", report, "--root", root)
    assert isinstance(result.exception, ReportBroken)
    assert code_of(result) == 5
    assert "NOT PROVED, report: it was made of other evidence than this" in result.output
    assert "NOT PROVED, receipts: number 1" in result.output
    assert not json.loads(run("verify", report, "--root", root, "--json").output)["ok"]
    other = tmp_path / "other.json"
    other.write_bytes(signed_root(m.make_root(root=(m.STRANGER,)), m.STRANGER).to_bytes())
    foreign = run("verify", report, "--root", str(other))
    assert (type(foreign.exception), code_of(foreign)) == (ReportBroken, 5)
    other.write_text("{}")
    assert isinstance(run("verify", report, "--root", str(other)).exception, RootRefused)


def test_what_is_typed_wrong_is_exit_2(files: tuple[str, str], tmp_path: Path) -> None:
    report, root = files
    wrong = (
        ("verify", str(tmp_path / "none"), "--root", root),
        ("verify", report, "--root", str(tmp_path / "none")),
        ("verify", report),
        (),
        ("--at", "x", "--to", "y"),
        ("--from", "x"),
        ("--at", "x", "--out", report),
    )
    for command in wrong:
        result = run(*command)
        assert code_of(result) == 2, command
        if result.exception and not isinstance(result.exception, SystemExit):
            assert isinstance(result.exception, SettingsInvalid)


def test_a_report_is_written_as_it_was_answered_and_told_of(
    files: tuple[str, str], tmp_path: Path
) -> None:
    report, root = files
    fake, out = Fake(), tmp_path / "out.json"
    try:
        fake.answers(Path(report).read_bytes())
        span = ("--from", "2027-01-15T08:00:00Z", "--to", "2027-01-15T09:00:00Z", "--url", fake.url)
        result = run(*span, "--service", "stt-worker", "--out", str(out))
        assert result.exit_code == 0, result.exception
        assert "&service=stt-worker" in fake.asked[0][1]
        assert f"config-manager report verify {out} --root root.json" in result.output
        assert run(*span).output.encode() == out.read_bytes()
    finally:
        fake.close()
    assert run("verify", str(out), "--root", root).exit_code == 0
