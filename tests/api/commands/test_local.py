"""The one place where what a disk says becomes a line and an exit code."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from config_manager.api.commands.local import disk_explained, file_explained
from config_manager.api.commands.trust import make_key
from config_manager.config.errors import DataDirUnusable, DiskFailed, PortTaken
from config_manager.storage.store import DatabaseUnavailable, DiskFull
from tests.kit.platter import platter


def failing(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([] if path is None else [str(path)]))


NUMBERS = [
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
    *(errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_it_is_2_without_a_database_3_with_one_and_always_one_line_with_the_path(
    tmp_path: Path, number: int
) -> None:
    file = tmp_path / ".lock"
    start = f"CONFIG_MANAGER_DATA_DIR: {file}: {os.strerror(number)}; "
    with pytest.raises(DataDirUnusable) as without, disk_explained(tmp_path):
        raise failing(number, file)
    with pytest.raises(DiskFailed), disk_explained(tmp_path, is_in_use=True):
        raise failing(number, file)
    (tmp_path / "config.db").touch()  # an empty one holds nothing
    with pytest.raises(DataDirUnusable), disk_explained(tmp_path):
        raise failing(number, file)
    (tmp_path / "config.db").write_bytes(b"x")
    with pytest.raises(DiskFailed) as beside, disk_explained(tmp_path):
        raise failing(number, file)
    for caught, code in ((without, 2), (beside, 3)):
        assert caught.value.description.exit_code == code
        assert caught.value.detail.startswith(start)
        assert len(caught.value.detail) > len(start), "what helps"
        assert "\n" not in caught.value.detail


@pytest.mark.parametrize("error", [DatabaseUnavailable("SQLITE_IOERR"), DiskFull("SQLITE_FULL")])
def test_what_the_database_says_names_its_file(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "config.db").write_bytes(b"x")
    with (
        pytest.raises(DiskFailed, match=f"{tmp_path}/config.db: SQLITE_"),
        disk_explained(tmp_path),
    ):
        raise error


def test_it_is_found_in_the_groups_of_nurseries_but_what_we_said_ourselves_goes_first(
    tmp_path: Path,
) -> None:
    inner = ExceptionGroup("", [ValueError(), failing(errno.EIO, tmp_path)])
    with pytest.raises(DataDirUnusable), disk_explained(tmp_path):
        raise ExceptionGroup("", [inner])
    said = ExceptionGroup("", [inner, PortTaken("taken")])
    with pytest.raises(ExceptionGroup) as caught, disk_explained(tmp_path):
        raise said
    assert caught.value is said  # `main` tells it


@pytest.mark.parametrize(
    "error",
    [
        failing(errno.ECONNREFUSED),
        failing(errno.EADDRNOTAVAIL),
        failing(errno.EACCES),  # a port below 1024
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ValueError("ours"),
    ],
)
def test_what_is_no_matter_of_a_disk_passes(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, disk_explained(tmp_path):
        raise error
    assert caught.value is error
    assert not isinstance(error, OSError) or file_explained(error) is None


def test_a_file_of_any_command_is_3(tmp_path: Path) -> None:
    told = file_explained(failing(errno.EACCES, tmp_path / "out"))
    assert told is not None
    assert told.description.exit_code == 3
    assert told.detail.startswith(f"{tmp_path}/out: Permission denied; ")


def test_a_root_key_that_was_made_and_its_public_half_survive_a_power_cut(tmp_path: Path) -> None:
    with platter() as done:
        made = CliRunner().invoke(make_key, ["--out", str(tmp_path / "root.key")])
    assert made.exit_code == 0, made.output
    assert done == ["file", "directory"] * 2
