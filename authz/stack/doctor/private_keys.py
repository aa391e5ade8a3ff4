"""Private keys where a service could read them: whoever breaks into this server must find none."""

from __future__ import annotations

import re
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from authz.accounts import vault
from authz.chains import checkpoint
from authz.stack.doctor.finding import Finding, fail, summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from authz.settings import Settings

CHECK: Final = "private-keys"

_KINDS: Final = (
    (
        re.compile("(?m)^" + re.escape(vault.PRIVATE) + r"[A-Za-z0-9+/]{43}="),
        (
            "the vault's private key, which opens every prompt: move it to a machine that no client reaches, "
            "and run `vault rotate` there"
        ),
    ),
    (
        re.compile("(?m)^" + re.escape(checkpoint.PRIVATE) + r"[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}"),
        (
            "the private key that signs checkpoints, by which altered books could be signed: move it to a "
            "machine that no client reaches, and make another there with `audit keygen`"
        ),
    ),
)

# A key begins its line: what clients have written into the journal is in the middle of one.

_MOST_FILES: Final = 1000
"""In a folder."""

_MOST_BYTES: Final = 65_536
"""Of a file: a key stands in a small one."""


def places(settings: Settings) -> Iterator[Path]:
    """Yield the files that a setting names, those beside them, and those in folders that one names."""
    named = {
        path
        for field in attrs.fields(type(settings))
        if isinstance(path := getattr(settings, field.name), Path)
    }
    folders = {path.parent for path in named} | {path for path in named if path.is_dir()}
    folders.discard(settings.state.parent)
    for folder in sorted(folders):
        yield from _files(folder)
        if folder == settings.state:
            yield from chain.from_iterable(_files(inner) for inner in sorted(folder.glob("*/")))


def gather(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the first words of all places, by how they are called; of files that we can't read none."""
    found = {f"The variable {name}": value for name, value in environ.items()}
    return found | {str(path): text for path in places(settings) if (text := _text(path))}


def judge(texts: Mapping[str, str]) -> list[Finding]:
    """Judge whether any holds a private key; the key itself is not shown."""
    found = [
        fail(CHECK, f"{place} holds {what}.")
        for place, text in texts.items()
        for key, what in _KINDS
        if key.search(text)
    ]
    return summed(CHECK, found, "None is in the settings, or where they lead to.")


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [path for path in islice(folder.iterdir(), _MOST_FILES) if path.is_file()]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("latin-1")
    except OSError:
        return ""
