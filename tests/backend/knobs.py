"""The words of a prompt that steer its answer, such as `tokens=6 delay_ms=20 tag=x`."""

import re
from typing import Final

from attrs import frozen

_KNOB: Final = re.compile(r"([a-z_]+)=(\S+)")
_TOKENS: Final = 32


@frozen
class Knobs:
    """The settings of an answer, read from its prompt; a knob that is absent has its default."""

    tokens: int
    """Words of the answer."""
    delay_ms: int
    """Pause before every word."""
    tag: str
    """Name of the request in the tally."""
    mode: str
    """Fault: `status` before any word; `crash` or `garbage` in place of the word `at`."""
    at: int
    code: int
    """HTTP status of `mode=status`."""
    hold: str
    """Name of the gate that withholds every word until a test releases it."""


def read(text: str) -> Knobs:
    """Find the knobs of a prompt; of two with one name the later wins."""
    found = {knob[1]: knob[2] for word in text.split() if (knob := _KNOB.match(word))}
    return Knobs(
        tokens=int(found.get("tokens", _TOKENS)),
        delay_ms=int(found.get("delay_ms", 0)),
        tag=found.get("tag", ""),
        mode=found.get("mode", ""),
        at=int(found.get("at", 1)),
        code=int(found.get("code", 500)),
        hold=found.get("hold", ""),
    )
