"""Replace authz and metering when their code changes: `up --reload`, for those who develop them.

Caddy, the stores and the backend stay, so no running stream is cut. authz is replaced one process
after the other, so one of them answers at any time. Code that can't be imported replaces nothing.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from authz.stack.checklist import News, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from authz.stack.supervisor import Supervisor

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = ("authz", "metering", "sql")
_SUFFIXES: Final = frozenset({".lua", ".py", ".sql"})
_IMPORTS: Final = "import authz.app, metering.__main__"
_POLL_S: Final = 0.3
"""The pause between comparisons of the files: 200 calls of stat cost 2 ms, so no library is needed."""
_LISTENS_S: Final = 30.0
_AVOIDED_S: Final = 1.0
"""Caddy avoids a process for 500 ms after a failed connection (fail_duration): the other must live."""

_Files: TypeAlias = dict[Path, tuple[int, int]]


async def reload_services(
    supervisor: Supervisor,
    environ: Mapping[str, str],
    report: Callable[[News], None],
    *,
    authz_processes: int,
) -> None:
    """Replace the services after each change of their files, until cancelled."""
    seen = _files()
    while True:
        seen = await _changed(seen)
        problem = await _import_problem(environ)
        if problem:
            report(News(Stage.FAILED, "reload", f"the old code goes on: {problem}"))
            continue
        try:
            await _replace_services(supervisor, authz_processes)
        except TimeoutError:
            report(News(Stage.FAILED, "reload", f"authz does not listen after {_LISTENS_S:.0f} s"))


async def _replace_services(supervisor: Supervisor, authz_processes: int) -> None:
    for index in range(authz_processes):
        await supervisor.replace(f"authz-{index}")
        async with asyncio.timeout(_LISTENS_S):
            await _listens(supervisor.folder.authz_socket(index))
        await asyncio.sleep(_AVOIDED_S)
    await supervisor.replace("metering")


async def _changed(seen: _Files) -> _Files:
    """Wait for a change to be complete: it is when two looks in a row see the same."""
    last = seen
    while True:
        await asyncio.sleep(_POLL_S)
        found = _files()
        if found == last != seen:
            return found
        last = found


def _files() -> _Files:
    """Return when each file was last written, in ns, and how long it is."""
    files: _Files = {}
    for package in _PACKAGES:
        for path in (_ROOT / package).rglob("*"):
            # Editors write beside a file and rename: what was listed may be away when looked at.
            with suppress(FileNotFoundError):
                if path.suffix in _SUFFIXES:
                    found = path.stat()
                    files[path] = (found.st_mtime_ns, found.st_size)
    return files


async def _import_problem(environ: Mapping[str, str]) -> str:
    """Import the services in a process of its own; return the error's last line, or nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _IMPORTS),
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    if process.returncode == 0:
        return ""
    return errors.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {process.returncode}"


async def _listens(socket: Path) -> None:
    """Wait until a process accepts connections there."""
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(socket)
        except OSError:
            await asyncio.sleep(_POLL_S)
        else:
            writer.close()
            return
