"""Hold what only Linux has and the stack needs: to run on another system, port this file.

Run as a script, `python -I -S machine.py SIGNAL PARENT USER|- PROGRAM ARGUMENT...`: the child dies
with its parent, gains no privilege, and is not root where its program refuses root. The script
replaces itself with the program, so the process id that the parent knows stays the program's.
It imports nothing but the standard library, because every start waits for it.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_LISTENING: Final = "0A"
"""TCP_LISTEN, as /proc/net/tcp writes it (linux/tcp_states.h)."""
_UNPRIVILEGED_UID: Final = 65534
"""The user and group that root becomes for PostgreSQL; the same number on every Linux."""

# linux/prctl.h and linux/securebits.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_SECUREBITS: Final = 28
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_SECBIT_NO_SETUID_FIXUP: Final = 1 << 2
# linux/capability.h
_CAP_VERSION_3: Final = 0x20080522
_CAP_DAC_OVERRIDE: Final = 1
_CAP_DAC_READ_SEARCH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


def unprivileged_user() -> int | None:
    """Return the user and group of a program that refuses root, None where we are not root."""
    return _UNPRIVILEGED_UID if os.geteuid() == 0 else None


def started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None when it has ended.

    From /proc/PID/stat (man 5 proc). Together with the process id it identifies one process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def program_of(pid: int) -> tuple[Path, dict[str, str]]:
    """Return what a process runs and its environment. Raises OSError for one of another user."""
    proc = Path("/proc") / str(pid)
    pairs = (entry.partition("=") for entry in (proc / "environ").read_text().split("\0") if entry)
    return (proc / "exe").readlink(), {name: value for name, _, value in pairs}


def cover_argument(secret: str) -> None:
    """Overwrite a secret in this process's arguments, which other users can read in the list of processes.

    From /proc/self/stat (man 5 proc): arg_start and arg_end. What the shell keeps in its history is
    out of reach.
    """
    own = Path("/proc/self")
    try:
        fields = (own / "stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with (own / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            covered = arguments.replace(secret.encode(), b"*" * len(secret.encode()))
            memory.seek(start)
            memory.write(covered)
    except (OSError, ValueError, IndexError):
        return  # no /proc, or one that is closed to us: then it is closed to others too


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


def _keep_capabilities() -> None:
    """Let capabilities outlive the change of user.

    With the secure bit, access(2) honours them too: PostgreSQL asks it whether it may run its own
    programs, which lie in a folder that root alone may enter. The bit needs CAP_SETPCAP.
    """
    try:
        _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    except PermissionError:
        _prctl(_PR_SET_KEEPCAPS, 1)


def _become(user: int) -> None:
    """Turn from root into this user, who may still look into folders that only root owns.

    The state folder is 0700 and the programs may lie under /root; what a container does not
    give (Docker withholds DAC_READ_SEARCH) is replaced by DAC_OVERRIDE.
    """
    _keep_capabilities()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    try:
        _keep_only(_CAP_DAC_READ_SEARCH)
    except PermissionError:
        _keep_only(_CAP_DAC_OVERRIDE)


def _refuse_closed(program: str) -> None:
    """Exit with a sentence if the user may not enter the folder of the program."""
    for folder in reversed(Path(program).parents):
        if not os.access(folder, os.X_OK):
            sys.exit(
                f"{folder} can't be entered by user {os.getuid()}, which PostgreSQL must run as in place of "
                "root: run `up` as a plain user, install elsewhere, or set DATABASE_URL."
            )


def main(signal: int, parent: int, user: str, *program: str) -> None:
    """Replace this process with the program."""
    if user != "-":
        try:
            _become(int(user))
        except OSError as error:
            sys.exit(
                f"Root can't become user {user} here ({error.strerror}), as PostgreSQL demands: "
                "run `up` as a plain user, or set DATABASE_URL."
            )
        _refuse_closed(program[0])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Last, because a change of user clears it; a parent that ended before this line sends no signal.
    _prctl(_PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(program[0], program)


def listening(port: int) -> list[bytes]:
    """Return the addresses, 4 or 16 bytes each, on which something listens at a TCP port (man 5 proc)."""
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for line in lines:
            local, _, state = line.split()[1:4]
            host, _, number = local.partition(":")
            if state == _LISTENING and int(number, 16) == port:  # words of 32 bits in the machine's order
                words = [host[start : start + 8] for start in range(0, len(host), 8)]
                found.append(b"".join(bytes.fromhex(word)[::-1] for word in words))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
