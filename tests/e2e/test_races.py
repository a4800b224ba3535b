"""A hundred writers with one If-Match; callers that hang up before the answer."""

from __future__ import annotations

from tests.kit.processes import Server
from tests.torture.stories import hang_ups, race


def test_of_a_hundred_simultaneous_puts_with_one_if_match_one_succeeds(server: Server) -> None:
    for round_number in range(5):
        statuses = race(server, f"race-{round_number % 2}", writers=100)
        assert statuses.count(200) == 1, statuses
        assert statuses.count(412) == 99, statuses


def test_what_a_caller_who_hung_up_committed_ends_up_retained(server: Server) -> None:
    committed = hang_ups(server, "hang-up", calls=200)
    assert committed > 0
