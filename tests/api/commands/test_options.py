"""What operators' commands take alike."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from config_manager.api.commands.options import moment
from config_manager.api.main import cli
from config_manager.config.errors import SettingsInvalid
from config_manager.config.world import parse_rfc3339
from tests.api.commands.test_remote import Fake


def test_a_moment_is_a_time_or_how_long_ago() -> None:
    assert moment("--since", None) is None
    assert moment("--since", "2026-01-31T13:00:00+01:00") == "2026-01-31T13:00:00+01:00"
    told = moment("--since", "7d")
    assert told is not None
    assert 0 <= time.time() - 7 * 86_400 - parse_rfc3339(told) < 60


@pytest.mark.parametrize("text", ["", "yesterday", "7", "0d", "2026-01-31T12:00:00", "2026-01-31"])
def test_what_is_no_moment_is_refused_with_both_forms(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="^--until: .*2026-01-31T12:00:00Z.* 7d"):
        moment("--until", text)


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        ("changes --since 2h", {"changes": [], "next_before": None}, "no changes"),
        ("drift --since 2h", {"drift": [], "next_before": None, "checked_at": "x"}, "no drift since 2h"),
        ("drift", {"drift": [], "checked_at": "x"}, "no drift"),
        ("drift a", {"drift": [], "checked_at": "x", "instances": [{}]}, "no drift of a"),
        ("drift a", {"drift": [], "checked_at": "x", "instances": []}, "no instance of a has reported or enrolled"),
        ("notifications list", {"notifications": []}, "notifications add NAME URL"),
    ],
)  # fmt: skip
def test_where_there_is_nothing_that_is_said(
    fake: Fake, command: str, answer: object, said: str
) -> None:
    fake.answers(answer)
    result = CliRunner().invoke(cli, [*command.split(), "--url", fake.url])
    assert result.exit_code == 0, result.output
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert "since=2h" not in fake.asked[0][1]
