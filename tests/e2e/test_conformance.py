"""The conformance kit can fail: clients that are wrong on purpose, and command lines that are. Ours passes all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from config_manager.api.commands.conformance import conformance
from config_manager.config.errors import SettingsInvalid
from tests.kit import wrong_client
from tests.kit.conformance import OURS, SETUP, Kit
from tests.kit.pages import Page
from tests.kit.processes import COMMAND, MOSQUITTO, Processes, descendants, eventually

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

torture = (pytest.mark.torture, pytest.mark.timeout(600))


def play(shop: tuple[Processes, Path], how: str, *groups: str) -> Kit:
    processes, directory = shop
    script = (sys.executable, wrong_client.__file__, how)
    client = (*script, "{mqtt_url}", "{service}", "{root}")
    return Kit.play(processes, directory / "kept", *groups, client=client, setup="")


# ── it fails ───────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_believes_everything_is_found_out(shop: tuple[Processes, Path]) -> None:
    kit = play(shop, "believes-everything", "order")
    assert kit.exit_code == 5
    assert len(kit.failed) == 5
    assert kit.report["unsafe"] == 4  # what was deleted runs on
    case = kit.case("order", "a replay of yesterday's")
    assert case["unsafe"].startswith("went back from revision")
    name = "order-an-equal-revision-with-other-content.json"
    kept = json.loads((kit.kept / "failed" / name).read_text())
    assert json.loads(kept["sent"][0]["message"])["payloadType"].endswith("config-update.v1+json")
    assert kept["said"][0]["config"] == {"evil": True}


@pytest.mark.parametrize(
    ("how", "unsafe", "got"),
    [
        pytest.param("forgets-marks", 4, "applied", marks=torture),
        pytest.param("wrong-reason", 0, "refused (model)", marks=torture),
        pytest.param("silent", 0, "nothing", marks=torture),
        pytest.param("deaf", 0, "nothing; then not the next good one", marks=torture),
    ],
)
def test_a_client_that_is_wrong_in_one_way_is_found_out(
    shop: tuple[Processes, Path], how: str, unsafe: int, got: str
) -> None:
    kit = play(shop, how, "order")
    assert kit.exit_code == 5
    assert len(kit.failed) == 5
    assert kit.report["unsafe"] == unsafe
    assert got in kit.case("order", "a rollback")["got"]


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_what_a_small_client_lacks_fails_and_nothing_else(shop: tuple[Processes, Path]) -> None:
    groups = ("signers", "contents", "order", "numbers", "bytes", "thresholds", "restarts")
    kit = play(shop, "in-nothing", *groups)
    assert kit.exit_code == 5
    for group in groups:
        failed = [case["name"] for case in kit.cases(group) if not case["passed"]]
        assert bool(failed) is (group == "restarts"), (group, failed)


# ── it passes ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_our_client_passes_everything(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    kit = Kit.play(processes, directory / "kept")
    assert kit.failed == {}
    assert kit.exit_code == 0
    assert kit.report["passed"] > 200


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_the_pages_walk_through(tmp_path: Path) -> None:
    script = Page("conformance.md").block("--only order")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", script],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    shown = Page("conformance.md").block("order: a configuration never goes back")
    assert shown.strip() in done.stdout
    assert done.stdout.strip().endswith("6 passed, 0 failed (0 unsafe), 0 not played")


@pytest.mark.torture
@pytest.mark.timeout(120)
def test_stopped_half_way_it_leaves_no_process_behind(shop: tuple[Processes, Path]) -> None:
    processes, _ = shop
    process = processes.start([COMMAND, "conformance", "--setup", SETUP, "--", *OURS])
    many = 6  # brokers and clients
    eventually(lambda: len(descendants(process.pid)) > many, within=60, what="it is at work")
    below = descendants(process.pid)
    assert process.terminate(within=30) == 130, process.text[-30:]
    eventually(lambda: not any(map(is_alive, below)), within=10, what="what it started is gone")


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


# ── command lines ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--", "/no/such/client"), "/no/such/client: No such file"),
        # what it leaves behind holds its standard output open
        (("--", "sh", "-c", r"sleep 30 & printf 'no such \a option' >&2; exit 3"), r"ended (3) and had applied nothing: no such \x07 option"),
        (("--setup", "false", "--", "true"), "--setup false ended with 1"),
    ],
)  # fmt: skip
def test_a_client_that_does_not_start_is_said_with_exit_code_2(
    shop: tuple[Processes, Path], arguments: tuple[str, ...], words: str
) -> None:
    processes, _ = shop
    code, process = processes.run("conformance", *arguments, within=60)
    assert code == 2, process.text
    assert words in "\n".join(process.text)


def test_a_command_line_that_asks_for_nothing_is_said_at_once(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "which client?" in runner.invoke(conformance, []).output
    for arguments, words in (
        (("--only", "roofs"), "no group 'roofs'; there are start, signers,"),
        (("--keep", str(tmp_path)), "it is there already"),
    ):
        said = runner.invoke(conformance, [*arguments, "--", "true"]).exception
        assert isinstance(said, SettingsInvalid)
        assert words in said.detail


def test_the_list_names_every_case_without_a_client() -> None:
    listed = json.loads(CliRunner().invoke(conformance, ["--list", "--json"]).output)
    assert len(listed) > 200
    assert {"group": "order", "name": "a rollback", "expected": "refused (rolled-back)"} in listed
