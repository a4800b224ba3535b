"""docs/security.md as a new user would: every block, in order, by copy and paste."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import MOSQUITTO, Processes, free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_from_first_start_to_an_offline_root_and_rotated_keys(
    shop: tuple[Processes, Path],
) -> None:
    for tool in ("bash", "curl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    _, directory = shop
    page = (ROOT / "docs" / "security.md").read_text()
    walk = page[page.index("## From first start") : page.index("## Attackers")]
    blocks = re.findall(r"```bash\n(.*?)```", walk, re.DOTALL)
    assert len(blocks) == 7
    port, mqtt_port = free_port(), free_port()
    script = "\n".join(blocks).replace("127.0.0.1:8081", f"127.0.0.1:{port}")
    script = script.replace("auto:", f"auto:{mqtt_port}")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
    environment = {
        **clean,
        "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}",
        "CONFIG_MANAGER_BIND": f"127.0.0.1:{port}",
        "CONFIG_MANAGER_URL": f"http://127.0.0.1:{port}",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", "trap 'kill $(jobs -p); wait' EXIT\n" + script],
        capture_output=True, text=True, timeout=90, cwd=directory, env=environment, check=False,
    )  # fmt: skip
    log = (directory / "instance.log").read_text()
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:], log[-2000:])
    assert '"refused"' not in log, "no valid message was refused on the way"
    assert re.search(r'"event":"applied".*"openai_model":"gpt-4o"', log)
    assert "root version 2" in done.stdout
    assert not list((directory / "data" / "keys").glob("root*"))
    assert "sk-a-key-of-your-own" not in log + (directory / "server.log").read_text()
