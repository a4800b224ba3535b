"""Keeping keys and secrets out of core files, and out of reach of debuggers."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def forbid_dumps(*, children: bool = False) -> None:
    """No core file of this process, whatever ends it, and no debugger of this user may look into it.

    children: none of theirs either (a limit that they inherit). Linux asks the first of the two
    before it writes a core file or feeds a crash handler such as systemd-coredump, which the limit
    does not hold back; elsewhere the limit is all there is. See prctl(2), PR_SET_DUMPABLE, and
    core(5). It also makes this process's files in /proc root's: its environment, where a bootstrap
    token may stand, can't be read by other processes of the same user.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    can_not = prctl is None or prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0
    if children or can_not:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
