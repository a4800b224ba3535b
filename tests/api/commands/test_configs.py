"""What `set` and `rollback` ask of a server that others write to, too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from config_manager.api.commands.configs import set_config, show_history
from config_manager.api.commands.rollback import rollback_config
from tests.api.commands.test_remote import Fake


@pytest.fixture
def fake() -> Iterator[Fake]:
    """It holds three keys at revision 7."""
    server = Fake()
    config = {"a": 1, "n": 5, "o": 6}
    server.answers({"config": config, "revision": 7, "propagation": "pending"})
    yield server
    server.close()


def test_set_writes_on_top_of_what_it_has_read_and_of_nothing_newer(fake: Fake) -> None:
    result = CliRunner().invoke(set_config, ["--url", fake.url, "door", "b=2"])
    assert result.exit_code == 0, result.output
    read, written = fake.asked
    assert (read[0], read[1]) == ("GET", "/api/v1/config/door?view=stored")
    assert (written[0], written[2]["if-match"]) == ("PUT", '"7"')
    assert json.loads(written[3]) == {"a": 1, "b": 2, "n": 5, "o": 6}


def test_rollback_does_what_it_has_shown_and_nothing_newer(fake: Fake) -> None:
    fake.answers({"revision": 7, "service": "door", "changes": [], "propagation": "pending"})
    result = CliRunner().invoke(rollback_config, ["--url", fake.url, "door", "4", "--key", "a"])
    assert result.exit_code == 0, result.output
    read, shown, written = fake.asked
    assert (read[0], read[1]) == ("GET", "/api/v1/config/door")
    assert (shown[0], shown[1]) == ("POST", "/api/v1/config/door/rollback?dry_run=true")
    assert (written[0], written[1]) == ("POST", "/api/v1/config/door/rollback")
    assert written[2]["if-match"] == '"7"'
    assert json.loads(shown[3]) == json.loads(written[3]) == {"to_revision": 4, "keys": ["a"]}


def test_the_newest_change_is_the_one_that_was_shown(fake: Fake) -> None:
    answer = {"revision": 8, "services": ["door"], "undone": 7, "changes": [], "kept": []}
    fake.answers({**answer, "propagation": "pending"})
    result = CliRunner().invoke(rollback_config, ["--url", fake.url, "--last", "--reason", "dark"])
    assert result.exit_code == 0, result.output
    shown, written = fake.asked
    assert json.loads(shown[3]) == {"last": True, "reason": "dark"}
    assert json.loads(written[3]) == {"undo": 7, "reason": "dark"}


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "door",
        "--last door 3",
        "--last --undo 3",
        "--last --key a",
        "--everything 3 --key a",
        "--undo -1",
    ],
)
def test_a_rollback_is_of_one_kind(fake: Fake, wrong: str) -> None:
    assert CliRunner().invoke(rollback_config, ["--url", fake.url, *wrong.split()]).exit_code != 0
    assert fake.asked == []


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
