"""Read a secret from a file that a setting names, and refuse one that others can read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from authz.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def read(variable: str, path: Path, *, is_group_trusted: bool = True) -> str:
    """Return what stands in the file, without the line's end. Raises SettingsError."""
    try:
        secret, mode = path.read_text(encoding="utf-8").rstrip("\r\n"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(
            f"{variable}={str(path)!r} can't be read by user {os.geteuid()} ({reason}): "
            "name a file of this user with the secret alone."
        ) from error
    mask, others = (0o007, "o=") if is_group_trusted else (0o077, "go=")
    if mode & mask:
        raise SettingsError(f"{variable}={str(path)!r} can be read by others: run `chmod {others} {path}`.")
    if not secret:
        raise SettingsError(f"{variable}={str(path)!r} is empty: write the secret into it.")
    return secret
