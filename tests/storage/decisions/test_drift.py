"""Whether an instance runs what it should."""

from __future__ import annotations

import pytest

from config_manager.config.documents.receipt import Running
from config_manager.config.names import Epoch
from config_manager.storage.decisions.drift import is_in_sync
from config_manager.storage.state import ServiceState

WANTED = ServiceState(
    "door", 7, 3, Epoch(2, "e"), {}, {}, (), {}, False, "at", "ada", "id", b"{}", "d" * 64
)
AS_WANTED = Running(2, 7, "d" * 64)


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize(
    ("wanted", "running", "in_sync"),
    [
        (WANTED, AS_WANTED, True),
        (WANTED, Running(2, 6, "d" * 64), False),
        (WANTED, Running(1, 7, "d" * 64), False),
        (WANTED, Running(2, 7, "e" * 64), False),
        (WANTED, None, False),
        (None, AS_WANTED, False),
        (None, None, True),
    ],
)
def test_an_instance_that_is_there_runs_exactly_what_is_wanted(
    wanted: ServiceState | None, running: Running | None, in_sync: bool, gone: bool
) -> None:
    assert is_in_sync(wanted, running, gone=gone) is (in_sync and not gone)
