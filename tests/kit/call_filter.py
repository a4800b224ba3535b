"""`python call_filter.py CALLS FAMILIES COMMAND…`: the command behind the filter of system calls that systemd would set.

Done are what a unit's SystemCallFilter=, MemoryDenyWriteExecute=, RestrictAddressFamilies= and
RestrictNamespaces= say, with SystemCallErrorNumber=EPERM. Needs libseccomp, as systemd does. A program of its
own: a filter can't be taken off again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_int,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
)

_ALLOW = 0x7FFF0000
_MASKED_EQUAL, _EQUAL = 7, 4
_WRITE, _EXECUTE = 2, 4
_SHM_EXEC = 0o100000
_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET, TIME."""
_FAMILIES = 46


class _Compared(Structure):
    """scmp_arg_cmp"""

    _fields_ = [("arg", c_uint), ("op", c_int), ("a", c_uint64), ("b", c_uint64)]


def calls_of(filters: list[str]) -> set[str]:
    """What SystemCallFilter= lines leave, in their order: the first allows, others add or take away."""
    allowed: set[str] = set()
    for line in filters:
        named = {call for name in line.removeprefix("~").split() for call in _expanded(name)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    # what a program needs to begin at all, whatever the lines say
    return allowed | set(_expanded("@default"))


def _expanded(name: str) -> list[str]:
    if not name.startswith("@"):
        return [name]
    shown = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name],
        capture_output=True,
        text=True,
        check=True,
    )
    inside = re.findall(r"^ +([@a-z_0-9-]+)$", shown.stdout, re.MULTILINE)
    return [call for one in inside for call in _expanded(one)]


class _Filter:
    def __init__(self, library: ctypes.CDLL, by_default: int) -> None:
        self._library = library
        library.seccomp_init.restype = c_void_p
        library.seccomp_init.argtypes = [c_uint32]
        library.seccomp_syscall_resolve_name.argtypes = [c_char_p]
        library.seccomp_rule_add_array.argtypes = [
            *(c_void_p, c_uint32, c_int, c_uint, POINTER(_Compared))
        ]
        library.seccomp_load.argtypes = [c_void_p]
        self._context = library.seccomp_init(by_default)
        assert self._context

    def add(self, action: int, call: str, *compared: tuple[int, int, int, int]) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # of another architecture
        rules = (_Compared * len(compared))(*(_Compared(*one) for one in compared))
        given = ctypes.cast(rules, POINTER(_Compared)) if compared else None
        done = self._library.seccomp_rule_add_array(
            self._context, action, number, len(compared), given
        )
        assert done == 0, (call, os.strerror(-done))

    def load(self) -> None:
        done = self._library.seccomp_load(self._context)
        assert done == 0, os.strerror(-done)


def _refuse(number: int) -> int:
    return 0x00050000 | number


def apply(calls: set[str], families: set[str]) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    calls = calls - {"unshare", "setns", "clone3"}
    by_arguments = {"mmap", "mprotect", "pkey_mprotect", "shmat", "clone"}
    allowing = _Filter(library, _refuse(errno.EPERM))
    for call in calls - by_arguments:
        allowing.add(_ALLOW, call)
    # nothing both written and executed: mapped with one of them at most, and never made executable later
    allowing.add(_ALLOW, "mmap", (2, _MASKED_EQUAL, _WRITE, 0))
    allowing.add(_ALLOW, "mmap", (2, _MASKED_EQUAL, _WRITE | _EXECUTE, _WRITE))
    allowing.add(_ALLOW, "mprotect", (2, _MASKED_EQUAL, _EXECUTE, 0))
    allowing.add(_ALLOW, "pkey_mprotect", (2, _MASKED_EQUAL, _EXECUTE, 0))
    allowing.add(_ALLOW, "shmat", (2, _MASKED_EQUAL, _SHM_EXEC, 0))
    allowing.add(_ALLOW, "clone", (0, _MASKED_EQUAL, _NEW_NAMESPACES, 0))
    allowing.add(_refuse(errno.ENOSYS), "clone3")  # its flags are out of a filter's sight
    refusing = _Filter(library, _ALLOW)
    wanted = {getattr(socket, family).value for family in families}
    for family in set(range(_FAMILIES)) - wanted:
        refusing.add(_refuse(errno.EAFNOSUPPORT), "socket", (0, _EQUAL, family, 0))
    refusing.load()
    allowing.load()


if __name__ == "__main__":
    apply(set(sys.argv[1].split(",")), set(sys.argv[2].split(",")))
    os.execvp(sys.argv[3], sys.argv[3:])
