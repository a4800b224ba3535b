from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_recipes_that_people_are_told_about_exist() -> None:
    just = Path(sys.executable).with_name("just")
    if not just.exists():
        pytest.skip("just is not installed beside this python")
    done = subprocess.run(
        [just, "--justfile", ROOT / "justfile", "--summary"],
        capture_output=True,
        text=True,
        check=True,
    )
    promised = {"serve", "demo", "client", "test", "check", "bench", "torture", "wheel", "docs"}
    assert promised <= set(done.stdout.split())


def test_the_wrapper_is_executable() -> None:
    assert (ROOT / "just").stat().st_mode & 0o111
