"""What `config-manager client run` prints of an event."""

from __future__ import annotations

from typing import Any

import pytest

from config_manager.client.commands.running import to_line
from config_manager.client.rules.events import (
    Applied,
    Deleted,
    Fresh,
    Offered,
    Refused,
    Resigned,
    RootTrusted,
    Stale,
)
from config_manager.config import wire
from tests.kit import documents as m
from tests.kit import roots as r

ENVELOPE = wire.parse_envelope(m.update_bytes(6))


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Applied(m.make_update(6), ENVELOPE, "broker"), "applied"),
        (Refused("model", "n: not a number"), "refused"),
        (Deleted(m.make_update(6)), "deleted"),
        (Stale("no-beacon", 1.0), "stale"),
        (Fresh(), "fresh"),
    ],
)
def test_each_event_has_its_name(event: Any, said: str) -> None:
    assert to_line(m.SERVICE, event)["event"] == said


@pytest.mark.parametrize(
    "event",
    [Offered(m.make_update(6), ENVELOPE), Resigned(ENVELOPE), RootTrusted(r.first())],
)
def test_what_says_nothing_of_freshness_is_not_said_to_be_fresh(event: Any) -> None:
    with pytest.raises(AssertionError):
        to_line(m.SERVICE, event)
