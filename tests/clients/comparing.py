"""Compare what a program shows of Ollama itself with what it shows through the gateway, and the two books."""

from __future__ import annotations

import asyncio
import difflib
import re
import time
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
from attrs import frozen

from tests.clients.programs import MODELS
from tests.clients.using import Shown, User
from tests.ollama.server import Ollama

Tokens = tuple[int, int]
"""Input and output of one request."""

_SETTLED_WITHIN_S: Final = 15
_BILLED: Final = """
SELECT l.path, l.input_tokens, l.output_tokens FROM ledger AS l JOIN secrets AS s ON s.key_id = l.key_id
WHERE s.lookup = $1 AND l.input_tokens + l.output_tokens > 0
"""
_VARIABLE: Final = re.compile(
    r"\b(?:chatcmpl-|cmpl-|resp_|msg_|call_|toolu_)\w+"
    r"|\b\d+(?:\.\d+)?(?:ms|s| seconds?)\b|\d{4}-\d\d-\d\d[T ][\d:.]+Z?"
)


@frozen
class Compared:
    """One command, asked of Ollama and of the gateway."""

    command: str
    direct: Shown
    gated: Shown
    generated: list[Tokens]
    """What the backend did for the gated command, by its own account."""
    billed: list[Tokens]

    @property
    def complaints(self) -> list[str]:
        """Return what differs, if anything."""
        found = [
            f"{way} ends with {shown.code}: {shown.all[-2000:]}"
            for way, shown in (("direct", self.direct), ("gated", self.gated))
            if shown.code != 0 or not shown.output.strip()
        ]
        before, after = (_comparable(self.command, shown.output) for shown in (self.direct, self.gated))
        if before != after:
            found.append("\n".join(difflib.unified_diff(before, after, "direct", "gated", lineterm="", n=0)))
        if self.generated != self.billed:
            found.append(f"the backend did {self.generated}, of which the ledger has {self.billed}")
        return found


async def compared(
    direct: User, gated: User, command: str, ollama: Ollama, ledger: asyncpg.Connection
) -> Compared:
    """Run a command both ways; nothing else may ask this backend meanwhile, or use the key."""
    expected = await asyncio.to_thread(direct.run, command)
    earlier = len(ollama.ended())
    shown = await asyncio.to_thread(gated.run, command)
    give_up = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        generated = _tokens(
            (each.route, each.input_tokens, each.output_tokens) for each in ollama.ended()[earlier:]
        )
        billed = _tokens(await ledger.fetch(_BILLED, gated.credential.handle))
        if generated == billed or time.monotonic() > give_up:
            return Compared(command, expected, shown, generated, billed)
        await asyncio.sleep(0.05)


def _tokens(rows: Iterable[Iterable[Any]]) -> list[Tokens]:
    """Sort what requests cost; embeddings are one sum, as each text is a request of its own there."""
    embedded, found = 0, []
    for path, input_tokens, output_tokens in rows:
        if "embed" in path:
            embedded += input_tokens
        elif input_tokens or output_tokens:
            found.append((input_tokens, output_tokens))
    return sorted(found + [(embedded, 0)] * bool(embedded))


def _comparable(command: str, output: str) -> list[str]:
    """Cut into lines what a user sees, without what differs between two answers of Ollama itself."""
    lines = _VARIABLE.sub("*", output).splitlines()
    return sorted(lines) if command == MODELS else lines  # Ollama lists equally old ones in any order
