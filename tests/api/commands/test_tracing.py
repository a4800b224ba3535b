"""`config-manager trace --follow`, on answers of a server that go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from config_manager.api.main import cli
from tests.api.commands.test_remote import Fake
from tests.api.commands.test_waterfall import instance, stage, trace


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Pending twice, then settled; nothing is waited for."""
    server = Fake()
    settled = trace(instance(stage("applied", 40)))
    answers = iter([{**trace(), "state": "pending"}, settled])
    server.answers({**trace(), "state": "pending"})
    monkeypatch.setattr("time.sleep", lambda _s: server.answers(next(answers)))
    yield server
    server.close()


def follow(fake: Fake, *options: str) -> list[str]:
    result = CliRunner().invoke(
        cli,
        ["trace", "7", "--follow", "--url", fake.url, *options],
        env={"CONFIG_MANAGER_TOKEN": ""},
    )
    assert result.exit_code == 0, result.output
    assert [path for _, path, *_ in fake.asked] == ["/api/v1/changes/7"] * 3
    return result.output.splitlines()


def test_for_a_script_the_trace_is_drawn_once_it_is_settled(fake: Fake) -> None:
    lines = follow(fake)
    assert sum(line.startswith("revision 7") for line in lines) == 1
    assert any(line.startswith("a/one") for line in lines)


def test_for_a_program_there_is_a_line_for_each_change_of_it(fake: Fake) -> None:
    told: list[Any] = list(map(json.loads, follow(fake, "--json")))
    assert [one["state"] for one in told] == ["pending", "settled"]
