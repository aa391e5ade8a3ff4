"""The words of a prompt that steer its answer, such as `tokens=6 delay_ms=20 mode=eof at=3`."""

import re
from typing import Final
from urllib.parse import unquote_plus

from attrs import frozen

_KNOB: Final = re.compile(r"\s([a-z_]+)=(\S+)")


@frozen
class Knobs:
    """How a prompt wants to be answered; a knob that is absent or no number has its default."""

    tokens: int | None
    """Words of the answer."""
    delay_ms: int
    """Pause before every token."""
    first_ms: int
    """Pause before the first token, on top."""
    mode: str
    """Fault at token `at`: crash hang eof repeat error garbage, or status before any."""
    at: int
    code: int
    """HTTP status of `mode=status`."""
    think: int | None
    """Reasoning words that come first."""
    tool: bool | None
    """Force or forbid a tool call."""
    say: str
    """Answer text, percent-encoded."""
    cached: int | None
    """Cached prompt tokens to report."""
    glue: int
    """Words per streamed frame (`pertoken`)."""
    tag: str
    """Name of the request in the tally."""
    hold: str
    """Name of the gate that withholds every frame until a test releases it."""


def read(text: str) -> Knobs:
    """Find the knobs of a prompt; of two with one name the later wins."""
    found = dict(knob for word in text.split() for knob in _KNOB.findall(f" {word}")[:1])
    tool = found.get("tool")
    return Knobs(
        tokens=_number(found, "tokens"),
        delay_ms=_number(found, "delay_ms") or 0,
        first_ms=_number(found, "first_ms") or 0,
        mode=found.get("mode", ""),
        at=_at_least(_number(found, "at"), 0, default=5),
        code=_at_least(_number(found, "code"), 400, default=500),
        think=_number(found, "think"),
        tool=None if tool is None else tool == "1",
        say=unquote_plus(found.get("say", "")),
        cached=_number(found, "cache"),
        glue=_at_least(_number(found, "pertoken"), 1, default=1),
        tag=found.get("tag", ""),
        hold=found.get("hold", ""),
    )


def _number(found: dict[str, str], name: str) -> int | None:
    value = found.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else None


def _at_least(value: int | None, least: int, *, default: int) -> int:
    return default if value is None else max(least, value)
