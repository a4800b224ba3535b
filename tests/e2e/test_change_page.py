"""docs/change.md as a newcomer would: every command of it, in order, with its two services running."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.processes import MOSQUITTO, Processes
from tests.kit.shell import walked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "change.md"

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def test_the_walk_through_of_the_page_does_what_it_says(shop: tuple[Processes, Path]) -> None:
    _, said = walked(shop, PAGE)
    told = [" ".join(line.split()) for line in said.splitlines()]
    for line in (
        "volume narrowed breaks breaks ok such as 99",
        "stored in base: volume = 80: expected an integer from 0 to 70 (%)",
        "volume=80 timeout_ms=2000",
        "volume=80 timeout_s=2.0",
        "volume widened ok ok breaks such as 119",
        "doorbell: version 3 is active",
        "doorbell volume 80 → 110",
        "doorbell volume 80 → 20",
        "doorbell is at revision 4; a broker holds it",
        "takes back revision 4",
        "+ timeout_s = 1.5",
        "- timeout_ms = 1500",
        "timeout_ms 1500",
    ):
        assert line in told, said
    assert [line for line in told if line.startswith("exit code")] == [
        "exit code 2",
        "exit code 2",
        "exit code 7",
    ]
    assert "did you mean volume?" in said
    assert re.search(r"^1\* .* instance +- +gate was built with it$", said, re.MULTILINE)
    for one in ("door", "gate"):
        why = rf"^ +{one} +refuses, not enrolled: /volume: .* from 0 to 100"
        assert re.search(why, said, re.MULTILINE), said
    assert re.search(r"^ +gate +hot, not enrolled$", said, re.MULTILINE)
    assert re.search(r"^volume +80 +base +revision 5, .* by dev +hides 60", said, re.MULTILINE)
    assert re.search(r"^doorbell +volume +80 +descriptions", said, re.MULTILINE)
