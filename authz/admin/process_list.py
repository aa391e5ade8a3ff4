"""A secret given as an argument is covered where other users could read it: in the list of processes."""

from __future__ import annotations

from pathlib import Path

_SELF = Path("/proc/self")


def cover(secret: str) -> None:
    """Overwrite a secret in this process's arguments (proc(5): arg_start and arg_end of /proc/self/stat).

    What the shell keeps in its history is out of reach: --token-file avoids both.
    """
    try:
        fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with (_SELF / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            covered = arguments.replace(secret.encode(), b"*" * len(secret.encode()))
            memory.seek(start)
            memory.write(covered)
    except (OSError, ValueError, IndexError):
        return  # no /proc, or one that is closed to us: then it is closed to others too
