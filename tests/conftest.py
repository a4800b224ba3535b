from __future__ import annotations

import os
import signal

import pytest

# as a shell's `&` has it, and each child then
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# curl, schemathesis and other tools that tests start would ask the environment's proxy for our servers
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "localhost,127.0.0.1,::1")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long modules first (with xdist's `--no-loadscope-reorder`): what is short fills the gaps at
    the end, where otherwise one worker ends a long one while the others are idle."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
