"""Where an instance's things lie, and what to do if this process may not reach them."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from config_manager.config.errors import SettingsInvalid

WHERE_ROOTS_COME_FROM = (
    "the server has it as data/trust/root.json, and answers with it: "
    "curl http://server:8081/api/v1/trust/root > root.json"
)


def expanded(path: Path | str) -> Path:
    """With the home directory for `~`; raises SettingsInvalid if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SettingsInvalid(f"{path}: {_us()} has no such home directory; write it out") from None


def default_state_dir(environment: Mapping[str, str]) -> str:
    """Raises SettingsInvalid if it would be in a home directory and there is none."""
    if named := environment.get("CONFIG_MANAGER_STATE_DIR"):
        return str(expanded(named))
    if listed := environment.get("STATE_DIRECTORY"):
        return listed.split(":")[0]  # systemd lists several
    if base := environment.get("XDG_STATE_HOME"):
        return f"{expanded(base)}/config-manager"
    return str(home(environment) / ".local" / "state" / "config-manager")


def home(environment: Mapping[str, str]) -> Path:
    """Raises SettingsInvalid if there is none, as for a container's user that is in no passwd."""
    if named := environment.get("HOME"):
        return Path(named)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise SettingsInvalid(f"{_us()} has no home directory: {_another_directory()}") from None


def no_root(state_dir: Path) -> SettingsInvalid:
    """Nothing is pinned there."""
    return SettingsInvalid(
        f"{state_dir} holds no trust root. Name the publisher's root.json in CONFIG_MANAGER_ROOT, or "
        f"as root=, and the next start pins it: {WHERE_ROOTS_COME_FROM}. By hand: "
        "config-manager client trust init"
    )


def unreadable_root(root_file: Path, error: OSError) -> SettingsInvalid:
    """The root that is to be pinned."""
    why = f"{error.strerror or error}"
    denied = isinstance(error, PermissionError)
    if denied and (place := _obstacle(root_file, writes=False)) is not None:
        why = helps_against(place)
    return SettingsInvalid(
        f"the trust root {root_file} can't be read: {why}; {WHERE_ROOTS_COME_FROM}"
    )


def helps_against(place: Path) -> str:
    """What to do about a file or directory that this process may not use."""
    try:
        return _locked(place) or f"{_whose(place)}: chown it, or run as that user"
    except OSError as error:  # the file was removed meanwhile
        return f"{place}: {error.strerror}"


def unreadable(path: Path, state_dir: Path, error: OSError) -> SettingsInvalid:
    """What lies in the state directory and was there before."""
    if isinstance(error, FileNotFoundError):
        return SettingsInvalid(
            f"{path} is missing, and other files of this instance are there: put it back from a "
            f"backup, or begin anew: {_another_directory()}"
        )
    why = _why([path], state_dir, error, writes=False)
    return SettingsInvalid(f"{path} can't be read: {why}")


def unwritable(paths: Sequence[Path], state_dir: Path, error: OSError) -> SettingsInvalid:
    """paths: what was to be written; it failed at one of them."""
    why = _why(paths, state_dir, error, writes=True)
    return SettingsInvalid(f"{state_dir} can't be written: {why}")


def _why(paths: Sequence[Path], state_dir: Path, error: OSError, *, writes: bool) -> str:
    """What stands in the way, and what helps."""
    if isinstance(error, NotADirectoryError | FileExistsError):
        for above in (above for one in paths for above in _way(one)[:-1]):
            if above.exists() and not above.is_dir():
                return f"{above} is no directory: {_another_directory()}"
    place: Path | None = None
    if isinstance(error, PermissionError):
        obstacles = (_obstacle(one, writes=writes) for one in paths)
        place = next((one for one in obstacles if one is not None), None)
    if place is None:
        return f"{error.strerror or error}: {_another_directory()}"
    if locked := _locked(place):
        return locked
    # directories above the state directory must not change their owner
    is_ours = state_dir.absolute() in (place, *place.parents)
    helps = "chown it, run as that user, or " if is_ours else ""
    return f"{_whose(place)}: {helps}{_another_directory()}"


def _locked(place: Path) -> str | None:
    """If it is this process's own, and only its mode is in the way."""
    status = place.stat()
    if status.st_uid != os.geteuid():
        return None
    mode = stat.S_IMODE(status.st_mode)
    right = "u+rwx" if place.is_dir() else "u+rw"
    return f"{place} has mode {mode:04o}: run chmod {right} {place}"


def _whose(place: Path) -> str:
    uid = place.stat().st_uid
    try:
        owner = f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        owner = f"uid {uid}"
    return f"{place} belongs to {owner}, this process is {_us()}"


def _obstacle(path: Path, *, writes: bool) -> Path | None:
    """The first on the way to a file that this process may not pass."""
    *above, last = _way(path)
    for place, following in zip(above, (*above[1:], last), strict=True):
        if not _may(place, os.X_OK):
            return place
        is_end = following is last or not os.path.lexists(following)
        if is_end and writes and not _may(place, os.W_OK | os.X_OK):
            return place
        if is_end:
            break
    return last if not writes and os.path.lexists(last) and not _may(last, os.R_OK) else None


def _way(path: Path) -> list[Path]:
    whole = path.absolute()
    return [*reversed(whole.parents), whole]


def _may(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _another_directory() -> str:
    return f"set CONFIG_MANAGER_STATE_DIR to a directory that {_us()} may write"


def _us() -> str:
    return f"uid {os.geteuid()}"
