"""What Caddy was given: the folder of its snippets, and the list that they were rendered from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
from attrs import define

from authz.backends import backend as backend_
from authz.backends.snippets import SUFFIX
from authz.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from authz.backends.backend import Backend

log = structlog.get_logger()

LIST: Final = "backends.json"
FOLLOW_S: Final = 0.25
"""How often a process looks whether the list was rendered anew."""

Stamp: TypeAlias = "tuple[int, int, int] | None"


@define
class Rendered:
    """The folder of the snippets, as this process can read it."""

    folder: Path
    used: Stamp = None
    """Of the list that this process uses."""

    @property
    def list(self) -> Path:
        """Return where the list lies that the snippets were rendered from."""
        return self.folder / LIST

    def names(self) -> frozenset[str]:
        """Return the names of the backends that Caddy knows; none where there is no folder."""
        return frozenset(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"[!.]*{SUFFIX}"))

    def load(self) -> tuple[Backend, ...]:
        """Return the list that was rendered last, empty if there is none. Raises SettingsError."""
        try:
            return backend_.parse(self.list.read_text(), None)
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{self.list} can't be read ({error}): run `neuronetz-gateway render`."
            ) from error

    def difference(self, backends: Sequence[Backend]) -> str | None:
        """Return in one sentence how the names of a list and those of the snippets differ."""
        listed, rendered = {backend.name for backend in backends}, self.names()
        if listed == rendered:
            return None
        return (
            f"OLLAMA_BACKENDS names {_words(listed)}, but Caddy's snippets in {self.folder} "
            f"{_words(rendered)}: run `neuronetz-gateway render`."
        )

    async def follow(self, use: Callable[[Sequence[Backend]], None], *, since: Stamp) -> None:
        """Call `use` with the list whenever it is rendered anew after a stamp, until cancelled."""
        self.used = since
        while True:
            await asyncio.sleep(FOLLOW_S)
            if (found := self.stamp()) in {self.used, None}:
                continue
            try:
                backends = self.load()
            except SettingsError as error:
                log.warning("authz.backends_rejected", error=str(error))
                self.used = found  # it is said once
                continue
            log.info("authz.backends_changed", backends=[backend.name for backend in backends])
            use(backends)
            self.used = found

    def stamp(self) -> Stamp:
        """Return what changes whenever the list is written."""
        try:
            found = self.list.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _words(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
