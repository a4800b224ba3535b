"""Errors of a disk in our words: which file, what is wrong with it, and what helps."""

from __future__ import annotations

import errno
import os

from config_manager.config.errors import DiskRefused, Refusal, StorageFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SICK = frozenset(
    {errno.EIO, errno.EUCLEAN, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EBADMSG}
)
_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM})
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
_NO_SUCH_PLACE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_ONLY_DISKS_SAY = _FULL | _SICK | {errno.EROFS, errno.EFBIG}

_YOURS = (
    "{directory}, with everything in it, must belong to uid {user} (chown -R {user}), which must be able "
    "to get there; or choose another directory"
)
_HELPS = (
    (_NO_PERMISSION, _YOURS),
    (
        {errno.EROFS},
        "the file system is read-only: mount it for writing, or choose another directory",
    ),
    (_FULL, "free some space, and start again"),
    (_IN_THE_WAY, "something else is in the way: move it, or choose another directory"),
    (
        _NO_SUCH_PLACE,
        "there is no such place (a link that leads nowhere, or a bad name): choose another directory",
    ),
    (_NO_DESCRIPTORS, "raise the limit on open files (ulimit -n)"),
)


def is_of_a_disk(error: OSError) -> bool:
    """Whether it is about a file. Errors of sockets name none."""
    return error.filename is not None or error.errno in _ONLY_DISKS_SAY


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


def is_read_only(error: OSError) -> bool:
    """The file system takes no writes at all."""
    return error.errno == errno.EROFS


def reason(error: OSError) -> str:
    """`PATH: Permission denied`; without the path if it is unknown."""
    why = error.strerror or str(error)
    name = error.filename  # or a descriptor's number
    if name is None:
        return why
    return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {why}"


def what_helps(error: OSError, directory: str) -> str:
    """What an operator can do about it. directory: where our files are."""
    user = os.geteuid()
    for codes, helps in _HELPS:
        if error.errno in codes:
            return helps.format(directory=directory, user=user)
    return "the disk fails: look at the kernel's log, and save what can still be read"


def refused(error: OSError) -> Refusal:
    """What the caller of a request that needed the file is told. Repairing is the operator's task."""
    if is_full(error):
        return StorageFull(
            f"the disk is full ({reason(error)}): nothing was changed; free some space and retry"
        )
    code = errno.errorcode.get(error.errno or 0, "no errno")
    return DiskRefused(
        f"a file can't be read or written ({reason(error)}, {code}): nothing was changed; repair that "
        "and try again"
    )
