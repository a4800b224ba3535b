from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.kit.processes import MOSQUITTO, Processes, Server, workshop  # noqa: E402


@pytest.fixture
def shop() -> Iterator[tuple[Processes, Path]]:
    with workshop() as both:
        yield both


@pytest.fixture(scope="module")
def module_shop() -> Iterator[tuple[Processes, Path]]:
    with workshop() as both:
        yield both


@pytest.fixture(scope="module")
def server(module_shop: tuple[Processes, Path]) -> Server:
    """One server on a stock Mosquitto, shared by a module."""
    processes, directory = module_shop
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    return processes.server(directory / "data", processes.broker(directory / "broker").url)
