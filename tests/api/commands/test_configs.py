"""What `set` and `rollback` ask of a server that others write to, too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from config_manager.api.commands.configs import (
    diff_config,
    rollback_config,
    set_config,
    show_history,
)
from tests.api.commands.test_remote import Fake


@pytest.fixture
def fake() -> Iterator[Fake]:
    """It holds `a` at revision 7, since revision 3, and knows of a write that came after it."""
    server = Fake()
    entries = [
        {"revision": 9, "action": "put", "changes": [{"key": "c", "old": 8, "new": 9}]},
        {
            "revision": 7,
            "action": "put",
            "changes": [
                {"key": "a", "old": 0, "new": 1},
                {"key": "n", "old": None, "new": 5, "nulls": ["old"]},
                {"key": "o", "old": None, "new": 6},
            ],
        },
        {"revision": 3, "action": "put", "changes": [{"key": "a", "old": None, "new": 0}]},
    ]
    server.answers(
        {
            "config": {"a": 1, "n": 5, "o": 6},
            "revision": 7,
            "propagation": "pending",
            "entries": entries,
            "next_before": None,
        }
    )
    yield server
    server.close()


def test_set_writes_on_top_of_what_it_has_read_and_of_nothing_newer(fake: Fake) -> None:
    result = CliRunner().invoke(set_config, ["--url", fake.url, "door", "b=2"])
    assert result.exit_code == 0, result.output
    read, written = fake.asked
    assert (read[0], read[1]) == ("GET", "/api/v1/config/door?view=stored")
    assert (written[0], written[2]["if-match"]) == ("PUT", '"7"')
    assert json.loads(written[3]) == {"a": 1, "b": 2, "n": 5, "o": 6}


def test_rollback_undoes_what_it_has_read_and_not_what_came_meanwhile(fake: Fake) -> None:
    result = CliRunner().invoke(rollback_config, ["--url", fake.url, "door", "4"])
    assert result.exit_code == 0, result.output
    *_, written = fake.asked
    assert (written[0], written[2]["if-match"]) == ("PUT", '"7"')
    assert json.loads(written[3]) == {"a": 0, "n": None}, "null was its value; o was not there"


def test_rollback_brings_back_a_plain_value_that_is_the_mask(fake: Fake) -> None:
    mask = "********"
    fake.answers(
        {
            "config": {"plain": "x"},
            "revision": 3,
            "propagation": "pending",
            "entries": [
                {
                    "revision": 3,
                    "action": "put",
                    "changes": [{"key": "plain", "old": mask, "new": "x", "masked": False}],
                },
                {
                    "revision": 2,
                    "action": "secret",
                    "changes": [{"key": "pin", "old": mask, "new": mask, "masked": True}],
                },
                {
                    "revision": 1,
                    "action": "put",
                    "changes": [{"key": "plain", "old": None, "new": mask, "masked": False}],
                },
            ],
            "next_before": None,
        }
    )
    shown = CliRunner().invoke(diff_config, ["--url", fake.url, "door"])
    assert '- plain = "********"' in shown.output
    assert CliRunner().invoke(rollback_config, ["--url", fake.url, "door", "1"]).exit_code == 0
    *_, written = fake.asked
    assert json.loads(written[3]) == {"plain": mask}, "the secret stays as it is"


def test_history_is_asked_for_until_there_is_as_much_as_was_wanted(fake: Fake) -> None:
    fake.answers(
        {"service": "door", "entries": [{"revision": 9}, {"revision": 8}], "next_before": 8}
    )
    result = CliRunner().invoke(show_history, ["--url", fake.url, "door", "--limit", "5", "--json"])
    assert [path.partition("?")[2] for _, path, *_ in fake.asked] == [
        "limit=5",
        "limit=3&before=8",
        "limit=1&before=8",
    ]
    assert len(json.loads(result.output)["entries"]) == 6


def test_diff_asks_for_little_first(fake: Fake) -> None:
    assert CliRunner().invoke(diff_config, ["--url", fake.url, "door"]).exit_code == 0
    assert fake.asked[-1][1].endswith("/history?limit=4")
