"""Whether the torture can still plant its bugs, said at once when somebody changes what they are planted in."""

from __future__ import annotations

import subprocess

import pytest

from tests.torture.planted import ROOT, SHORT, Bug, bugs

BUGS = bugs()


def test_there_are_enough_for_the_short_torture_and_each_has_a_number() -> None:
    assert len(BUGS) > SHORT
    assert len({bug.path.name[:2] for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.path.stem)
def test_it_applies_and_its_tests_are_there(bug: Bug) -> None:
    done = subprocess.run(
        ["git", "apply", "--check", str(bug.path)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bug.tests
    assert [name for name in bug.tests if not (ROOT / name).is_file()] == []
