"""The real clock, randomness and disk: what every replacement has to keep, too."""

from __future__ import annotations

import os
import re
import stat
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.world import (
    SystemClock,
    SystemDisk,
    SystemRandomness,
    World,
    backoff_s,
    parse_rfc3339,
    rfc3339,
)
from tests.kit.documents import STEADY


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.0, "2027-01-15T08:00:00.000Z"),
        (1_800_000_000.9996, "2027-01-15T08:00:00.999Z"),
        (-0.001, "1969-12-31T23:59:59.999Z"),
        (951_782_400.5, "2000-02-29T00:00:00.500Z"),
    ],
)
def test_a_time_is_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


@STEADY
@given(st.integers(0, 4_000_000_000_000))
def test_a_time_comes_back_to_the_millisecond(milliseconds: int) -> None:
    text = rfc3339(milliseconds / 1000)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert abs(parse_rfc3339(text) * 1000 - milliseconds) < 1.001


@pytest.mark.parametrize(
    "text",
    ["2027-01-15T08:00:00Z", "2027-01-15T10:00:00+02:00", "2027-01-14T23:30:00.000-08:30"],
)
def test_any_offset_is_the_same_instant(text: str) -> None:
    assert parse_rfc3339(text) == 1_800_000_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2027-01-15",
        "2027-01-15T08:00:00",
        "2027-02-30T00:00:00Z",
        "1800000000",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:59.999999Z",
    ],
)
def test_a_time_without_its_zone_or_that_never_was_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rfc3339(text)


def test_the_clock_is_the_systems() -> None:
    before = time.time()
    assert before <= SystemClock().now() <= time.time()


def test_randomness_is_of_the_shape_that_was_asked_for_and_never_the_same() -> None:
    randomness = SystemRandomness()
    assert [len(randomness.token(size)) for size in (0, 1, 32)] == [0, 1, 32]
    assert len({randomness.token(16) for _ in range(200)}) == 200
    made = [randomness.uuid() for _ in range(200)]
    assert len(set(made)) == 200
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
    assert all(0 <= randomness.fraction() < 1 for _ in range(200))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_whole_private_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path, disk = tmp_path / "f", SystemDisk()
    assert not disk.exists(path)
    old = os.umask(0)
    try:
        disk.write_atomic(path, b"one")
    finally:
        os.umask(old)
    assert (disk.exists(path), disk.read(path), mode_of(path)) == (True, b"one", 0o600)
    disk.write_atomic(path, b"", mode=0o644)
    assert (disk.read(path), mode_of(path)) == (b"", 0o644)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_there_is_said_by_the_systems_own_error(tmp_path: Path) -> None:
    disk, nowhere = SystemDisk(), tmp_path / "none" / "f"
    with pytest.raises(FileNotFoundError):
        disk.read(nowhere)
    with pytest.raises(FileNotFoundError):
        disk.write_atomic(nowhere, b"")
    with pytest.raises(FileNotFoundError):
        disk.rename(nowhere, tmp_path / "g")


def test_a_rename_replaces(tmp_path: Path) -> None:
    disk = SystemDisk()
    disk.write_atomic(tmp_path / "a", b"a")
    disk.write_atomic(tmp_path / "b", b"b")
    disk.rename(tmp_path / "a", tmp_path / "b")
    assert disk.read(tmp_path / "b") == b"a"
    assert not disk.exists(tmp_path / "a")


def test_the_world_is_the_real_one_unless_another_is_passed_in() -> None:
    world = World()
    assert isinstance(world.clock, SystemClock)
    assert isinstance(world.randomness, SystemRandomness)
    assert isinstance(world.disk, SystemDisk)


@pytest.mark.parametrize(
    ("failures", "pause_s"),
    [(0, 0.5), (1, 1.0), (3, 4.0), (4, 5.0), (1_023, 5.0), (1_024, 5.0), (10**9, 5.0)],
)
def test_a_pause_doubles_up_to_its_limit_however_often_it_failed(
    failures: int, pause_s: float
) -> None:
    assert backoff_s(failures, first_s=0.5, longest_s=5.0) == pause_s


def test_no_pause_is_asked_for_where_the_first_is_none() -> None:
    assert backoff_s(2_000, first_s=0.0, longest_s=0.0) == 0.0


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999Z"],
)
def test_a_time_that_could_not_be_said_in_utc_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="within the years"):
        parse_rfc3339(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.000Z"])
def test_the_first_and_the_last_time_of_all_can_be_said(text: str) -> None:
    assert rfc3339(parse_rfc3339(text)) == text
