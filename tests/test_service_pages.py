"""The tests that docs/services shows run, and nothing in its code is only prose."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.pages import DOCS, Page

PAGES = sorted(path.name for path in (DOCS / "services").glob("*.md"))

INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:Using `httpx` with `starlette.testclient`
"""


@pytest.mark.parametrize("name", ["fastapi.md", "flask.md", "pytest.md"])
def test_a_pages_tests_pass_as_they_stand_there(name: str, tmp_path: Path) -> None:
    page = Page(f"services/{name}")
    page.write(tmp_path)
    tests = [text for file, text in page.files.items() if file.startswith("test_")]
    (tmp_path / "pytest.ini").write_text(INI)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={
            k: v for k, v in os.environ.items() if not k.startswith(("CONFIG_MANAGER_", "PYTEST_"))
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(tests), done.stdout


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_all_that_a_newcomer_lacks(name: str) -> None:
    text = (DOCS / "services" / name).read_text()
    for needed in (
        "CONFIG_MANAGER_MQTT_URL",
        "CONFIG_MANAGER_ROOT",
        "CONFIG_MANAGER_STATE_DIR",
    ):
        assert needed in text
    if name != "pytest.md":
        for needed in (
            "/api/v1/trust/root",
            '"Authorization: Bearer $CONFIG_MANAGER_TOKEN"',
            "config_manager.client",
            "within 10 s of a change",
        ):
            assert needed in text


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_python_is_python(name: str) -> None:
    for language, text in Page(f"services/{name}").blocks:
        assert language in ("python", "bash", "ini")
        if language == "python":
            compile(text, name, "exec")
