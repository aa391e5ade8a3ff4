"""The programs as data, `programs/*.toml`: how each is installed, how it is configured, what it is asked.

`<GW>` stands for the address that it asks, `<KEY>` for a key, `<MODEL>` and `<EMBED>` for a model of each
kind, `<PROMPT>` for what a user asks. The commands have the names of what they do.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

import msgspec

from tests.conformance.client_prompts import ASKED, EMBED_MODEL, MODEL

FOLDER: Final = Path(__file__).parent / "programs"
CHAT: Final = "chat"
"""The command that every program has, and that is refused in each way."""
MODELS: Final = "models"
_PROMPT: Final = "say something tokens=6 cache=0 tool=0"
_PROMPTS: Final = {"tools": f"{ASKED} cache=0"}


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a user of the program installs, sets and runs."""

    title: str
    pypi: tuple[str, ...] = ()
    """Packages, each with its version, as those of npm are; installing.py chooses what they need."""
    without: tuple[str, ...] = ()
    """Packages that those need, and that nothing here uses: they are left out, since they are large."""
    npm: tuple[str, ...] = ()
    go: tuple[str, ...] = ()
    """Go modules that `main.go` uses, which is built into `main`."""
    is_signing: bool = False
    """It sends no key but signs its requests; `<KEY>` is then its private key."""
    settings: dict[str, str] = {}
    """The environment that it is configured by."""
    files: dict[str, str] = {}
    """Its configuration files, and scripts that use a library; relative to the user's home."""
    commands: dict[str, str]
    shown: dict[str, str] = {}
    """The program's own words for a refusal, where it does not show the gateway's."""
    late: dict[str, str] = {}
    """Refusals that it shows later, or not at all, for a reason that no answer of a gateway changes."""

    def argv(self, command: str) -> list[str]:
        """Return the words of a command, with what the user asks."""
        prompt = _PROMPTS.get(command, _PROMPT)
        return [word.replace("<PROMPT>", prompt) for word in shlex.split(self.commands[command])]


def filled(text: str, *, url: str, key: str) -> str:
    """Write what the placeholders of a setting or a file stand for."""
    for name, value in {"<GW>": url, "<KEY>": key, "<MODEL>": MODEL, "<EMBED>": EMBED_MODEL}.items():
        text = text.replace(name, value)
    return text


def programs() -> dict[str, Program]:
    """Read every program, by the name of its file."""
    files = sorted(FOLDER.glob("*.toml"))
    return {file.stem: msgspec.toml.decode(file.read_bytes(), type=Program) for file in files}
