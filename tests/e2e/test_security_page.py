"""docs/security.md as a new user would: every block of a walk-through, in order, by copy and paste."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config_manager.api.commands.doctor_findings import remedy
from tests.kit.processes import MOSQUITTO, Processes, free_port

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def walk(
    directory: Path, begin: str, end: str, *, blocks: int, ports: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """What bash says to the blocks between two headings. ports: what stands on the page → what is free."""
    for tool in ("bash", "curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    page = (ROOT / "docs" / "security.md").read_text()
    found = re.findall(r"```bash\n(.*?)```", page[page.index(begin) : page.index(end)], re.DOTALL)
    assert len(found) == blocks
    script, port = "\n".join(found), free_port()
    for here, there in {**ports, "127.0.0.1:8081": f"127.0.0.1:{port}"}.items():
        assert here in script
        script = script.replace(here, there)
    assert MOSQUITTO is not None
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
    environment = {
        **clean,
        "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}:{Path(MOSQUITTO).parent}",
        "CONFIG_MANAGER_BIND": f"127.0.0.1:{port}",
        "CONFIG_MANAGER_URL": f"http://127.0.0.1:{port}",
    }
    return subprocess.run(
        ["bash", "-e", "-c", "trap 'kill $(jobs -p); wait' EXIT\n" + script],
        capture_output=True, text=True, timeout=120, cwd=directory, env=environment, check=False,
    )  # fmt: skip


def test_from_first_start_to_an_offline_root_and_rotated_keys(
    shop: tuple[Processes, Path],
) -> None:
    _, directory = shop
    done = walk(
        directory, "## From first start", "## Attackers",
        blocks=7, ports={"auto:": f"auto:{free_port()}"},
    )  # fmt: skip
    log = (directory / "instance.log").read_text()
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:], log[-2000:])
    assert '"refused"' not in log, "no valid message was refused on the way"
    assert re.search(r'"event":"applied".*"openai_model":"gpt-4o"', log)
    assert "root version 2" in done.stdout
    assert not list((directory / "data" / "keys").glob("root*"))
    assert "sk-a-key-of-your-own" not in log + (directory / "server.log").read_text()


def test_going_on_with_an_old_data_directory(shop: tuple[Processes, Path]) -> None:
    _, directory = shop
    port = free_port()
    done = walk(
        directory, "### Going on with an old one", "### What this does not see",
        blocks=5, ports={"-p 1883": f"-p {port}", "127.0.0.1:1883": f"127.0.0.1:{port}"},
    )  # fmt: skip
    log = (directory / "instance.log").read_text()
    said = (done.stdout[-6000:], done.stderr[-3000:], log[-2000:])
    assert done.returncode == 0, said
    assert '"read-only"' in done.stdout, said
    assert "rollback-suspected: the database is at revision 1" in done.stdout, said
    assert remedy("rollback-suspected: ") in done.stdout, said
    assert "1 service would get revision 3 in epoch 2" in done.stdout, said
    assert done.stdout.count("lost is revoked") == 2, said
    assert '"refused"' not in log, log
    applied = [json.loads(line) for line in log.splitlines() if '"config":' in line]
    assert [(a["epoch_seq"], a["revision"], a["config"]["openai_model"]) for a in applied] == [
        (1, 1, "gpt-4o"),
        (1, 2, "gpt-4o-mini"),
        (2, 3, "gpt-4o"),
    ]
    after = done.stdout.rpartition("lost is revoked")[2]
    assert re.search(r"llm-worker +\S+ +3 +3 +unproven ", after), said
    assert "the disk was lost" in after
    assert "rows, each as it was written" in after
