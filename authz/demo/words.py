"""The token rule of the demo: one token is one word, and a prompt has one token more."""

import re
from typing import Final

from attrs import define, field

_PIECE: Final = re.compile(r"\s*\S+", re.ASCII)
_TEXT: Final = (
    "Rayleigh scatter makes the atmosphere look blue because oxygen and nitrogen bend light ; "
    "once upon a time water droplet rain refract sun into rainbow color 😀 : Russia Tokyo 180 "
    "independence England Europe world story friend pacific ocean earth carbon dioxide methane "
    "vapor greenhouse mammal river"
)
CYCLE: Final = tuple(_TEXT.split())
"""The words that an answer of N tokens repeats."""
_FIRST_ID: Final = 1000


def pieces(text: str) -> list[str]:
    """Cut a text into tokens that join to the same text: trailing space stays on the last."""
    found = _PIECE.findall(text)
    if found:
        found[-1] += text[sum(map(len, found)) :]
    return found


def cycle(count: int) -> list[str]:
    """Say `count` words of the fixed cycle."""
    return [("" if index == 0 else " ") + CYCLE[index % len(CYCLE)] for index in range(count)]


@define
class Memory:
    """What a loaded model remembers: its last prompt (for cached tokens) and its token ids."""

    last_prompt: list[str] = field(factory=list)
    ids: dict[str, int] = field(factory=dict)

    def cached(self, prompt: list[str]) -> int:
        """Count the prompt tokens shared with the last prompt, and make this one the last."""
        shared = 0
        for word, last in zip(prompt, self.last_prompt, strict=False):
            if word != last:
                break
            shared += 1
        self.last_prompt = prompt
        # The token that every prompt starts with is shared too; the last one is always computed.
        return min(shared + 1, len(prompt)) if shared else 0

    def token_ids(self, text: str) -> tuple[int, ...]:
        """Name each token of a text by a number, in the order of their first appearance."""
        return tuple(self.ids.setdefault(piece, _FIRST_ID + len(self.ids)) for piece in pieces(text))
