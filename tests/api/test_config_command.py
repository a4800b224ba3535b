"""What `set` and `rollback` ask of a server that others write to, too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from config_manager.api.config_command import rollback_config, set_config
from tests.api.test_operator import Fake


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
