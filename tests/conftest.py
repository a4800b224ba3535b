from __future__ import annotations

import signal

import pytest

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as a shell's `&` has it, and each child then
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long modules first (with xdist's `--no-loadscope-reorder`): what is short fills the gaps at
    the end, where otherwise one worker ends a long one while the others are idle."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
