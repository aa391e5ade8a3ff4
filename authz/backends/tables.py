"""The folder in which authz describes the models to Caddy, which makes a table of words of each.

`index.json` and a model's `.show.json` are authz's; `.table`, `.failed` and `.exceeded` are Caddy's. All
are named by the model's digest.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION: Final = 1
DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
"""What becomes the name of a file, whatever a backend calls its model."""


class _Index(msgspec.Struct, frozen=True):
    v: int
    models: dict[str, tuple[str, ...]]
    """The digests that each canonical name may mean."""
    described: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}
    """Likewise by canonical alias, or by the beginning of names and a star."""


@frozen
class Untabled:
    """A model by whose vocabulary no prompt is priced, and why: a token a byte counts instead."""

    model: str
    digest: str
    problem: str
    exceeded: int
    """How many answers reported more than their bound."""


@frozen
class Tables:
    """The folder; it need not exist."""

    folder: Path

    def show(self, digest: str) -> Path:
        """Return the file of what a backend says of a model."""
        return self.folder / f"{digest}.show.json"

    def write_index(
        self, models: Mapping[str, tuple[str, ...]], aliases: Mapping[str, tuple[str, ...]]
    ) -> None:
        """Say which models each name and each alias may mean, if that has changed; never a part of it.

        It changes too once another model is described: that is how Caddy notices.
        """
        described = sorted({d for digests in models.values() for d in digests if self.show(d).exists()})
        content = msgspec.json.encode(
            _Index(VERSION, dict(models), tuple(described), dict(aliases)), order="sorted"
        )
        path = self.folder / "index.json"
        if path.exists() and path.read_bytes() == content:
            return
        attempt = self.folder / f"index.json.{os.getpid()}"
        attempt.write_bytes(content)
        attempt.rename(path)

    def size(self) -> int:
        """Return the bytes of all descriptions; a table is smaller than what it is made of."""
        size = 0
        for path in self.folder.glob("*.show.json"):
            with suppress(FileNotFoundError):  # another process may have forgotten it
                size += path.stat().st_size
        return size

    def forget_all_but(self, digests: set[str]) -> None:
        """Delete the files of models that no backend has any more, but not what was counted."""
        for path in self.folder.iterdir():
            digest, _, kind = path.name.partition(".")
            if DIGEST.fullmatch(digest) and digest not in digests and kind != "exceeded":
                path.unlink(missing_ok=True)

    def untabled(self) -> tuple[Untabled, ...]:
        """Return the models whose prompts are priced a token a byte."""
        try:
            index = msgspec.json.decode((self.folder / "index.json").read_bytes(), type=_Index)
        except (OSError, msgspec.DecodeError):
            return ()
        found = [
            self._untabled(model, digest)
            for model, digests in sorted(index.models.items())
            for digest in digests
            if DIGEST.fullmatch(digest)
        ]
        return tuple(model for model in found if model is not None)

    def _untabled(self, model: str, digest: str) -> Untabled | None:
        count = self._read(digest, "exceeded")
        exceeded = int(count) if count.isdecimal() else bool(count)
        if exceeded:
            why = (
                f"{exceeded} answers had more tokens than their bound; delete {digest}.exceeded to try again"
            )
            return Untabled(model, digest, why, exceeded)
        if why := self._read(digest, "failed"):
            return Untabled(model, digest, why, 0)
        if not (self.folder / f"{digest}.table").exists():
            is_described = self.show(digest).exists()
            why = "it is being built" if is_described else "no backend has described it: authz logs why"
            return Untabled(model, digest, why, 0)
        return None

    def _read(self, digest: str, kind: str) -> str:
        try:
            return (self.folder / f"{digest}.{kind}").read_text(errors="replace").strip()
        except OSError:
            return ""
