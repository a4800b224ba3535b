"""docs/operating.md as somebody on the night shift would: its drill, with two real services, one of an old build."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.processes import MOSQUITTO, Processes
from tests.kit.shell import walked

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operating.md"

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def test_the_drill_of_the_page_does_what_it_says(shop: tuple[Processes, Path]) -> None:
    _, said = walked(shop, PAGE)
    told = [" ".join(line.split()) for line in said.splitlines()]
    for line in (
        "2 of 2 run what is wanted",
        "takes back revision 1",
        "- volume = 150",
        "+ volume = 60",
        "no drift of doorbell",
    ):
        assert line in told, said
    why = "model: volume: Input should be less than or equal to 100"
    for pattern in (
        rf"doorbell gate refused 1\d s 1 {why}",
        r"doorbell/gate refused .*",
        r"doorbell/door applied .*",
        rf"doorbell gate refused \S+ \S+ \d+ s 1 {why}",
    ):
        assert [line for line in told if re.fullmatch(pattern, line)], f"{pattern}\n{said}"
