from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import structlog

from config_manager.config import logging

# as a shell's `&` has it, and each child then
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# curl, schemathesis and other tools that tests start would ask the environment's proxy for our servers
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "localhost,127.0.0.1,::1")))


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The log belongs to the process: put back what a test, or a command that it ran here, has set up."""
    yield
    logging._straight = None  # noqa: SLF001
    if structlog.is_configured():
        structlog.reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long modules first (with xdist's `--no-loadscope-reorder`): what is short fills the gaps at
    the end, where otherwise one worker ends a long one while the others are idle."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
