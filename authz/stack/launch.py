"""A child dies with its parent, gains no privilege, and is no root user where its program refuses.

Run as a script, `python -I -S launch.py SIGNAL PARENT USER|- PROGRAM ARGUMENT...`; it replaces
itself with the program, so the process id that the parent knows stays the program's.
It imports nothing but the standard library: it is on the way of every start.
"""

import ctypes
import os
import sys
from typing import Final

NOBODY: Final = 65534
"""The user and group that a root user becomes for PostgreSQL; the same number on every Linux."""

# linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
# linux/capability.h
_CAP_VERSION_3: Final = 0x20080522
_CAP_DAC_OVERRIDE: Final = 1
_CAP_DAC_READ_SEARCH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int, value: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(value), 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _keep_only(capability: int) -> None:
    """Hold this one capability, and hand it on through execve (man 7 capabilities, ambient)."""
    bit = 1 << capability
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if _libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset failed")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def become(user: int) -> None:
    """Turn from root into this user, who may still look into folders that only root owns.

    The state folder is 0700 and the programs may lie under /root; what a container does not
    give (Docker withholds DAC_READ_SEARCH) is replaced by DAC_OVERRIDE.
    """
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    try:
        _keep_only(_CAP_DAC_READ_SEARCH)
    except PermissionError:
        _keep_only(_CAP_DAC_OVERRIDE)


def main(signal: int, parent: int, user: str, *program: str) -> None:
    """Replace this process with the program."""
    if user != "-":
        become(int(user))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Last, because a change of user clears it; a parent gone before this line never tells us.
    _prctl(_PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 - the caller's own argument vector, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
