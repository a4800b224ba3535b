"""Keeping keys and secrets out of core files, and out of reach of debuggers."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def forbid_dumps(*, children: bool = False) -> None:
    """No core file of this process, whatever ends it, and no debugger of the same user.

    children: no core files of children either (they inherit the limit). On Linux the process becomes
    undumpable, which also stops crash handlers such as systemd-coredump, as the limit does not; see
    prctl(2), PR_SET_DUMPABLE, and core(5). Other processes of the user then can't read its /proc files,
    such as the environment with a bootstrap token. Elsewhere there is only the limit.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    can_not = prctl is None or prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0
    if children or can_not:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
