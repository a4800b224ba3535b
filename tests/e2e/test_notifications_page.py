"""docs/notifications.md as a newcomer would: its receiver, and every command of it, in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kit.pages import Page
from tests.kit.processes import Processes, eventually, free_port
from tests.kit.shell import Shell


@pytest.mark.torture
def test_the_walk_through_of_the_page_does_what_it_says(shop: tuple[Processes, Path]) -> None:
    (processes, directory), port = shop, str(free_port())
    page = Page("notifications.md")
    shell = Shell(processes.server(directory / "data", "none:", "--dev"), directory)
    page.write(directory)
    receiver = directory / "receiver.py"
    receiver.write_text(receiver.read_text().replace("8099", port))
    steps = page.block("notifications add mine").replace("8099", port)
    heard = directory / "heard"

    def run(step: str) -> str:
        code, said = shell.run("bash", "-ec", step)
        assert code == 0, said
        return said

    for step in steps.splitlines():
        if step.endswith("&"):
            command = f"exec {step.removesuffix('&')} > {heard}".replace("python3", sys.executable)
            processes.start(["bash", "-c", command], cwd=directory)
        elif " remove " in step:
            eventually(lambda: "rollback stt-worker" in heard.read_text(), within=10, what="told")
            assert "told nothing any more" in run(step)
        elif " list" in step:
            assert f"http://127.0.0.1:{port}/hook" in run(step)
        else:
            run(step)
    lines = heard.read_text().splitlines()
    assert lines[0] == "test -"
    assert lines[-3:-1] == ["revision stt-worker -", "revision stt-worker hears the fan"]
