"""What the tests of client programs ask, and what the scripted runner answers."""

from __future__ import annotations

from typing import Final

PROMPT: Final = "say something tokens=6"
ANSWER: Final = "Rayleigh scatter makes the atmosphere look"
MODEL: Final = "toy"
EMBED_MODEL: Final = "toy-embed"
DIMENSIONS: Final = 64
WEATHER: Final[dict[str, object]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
ASKED: Final = "call get_weather for Paris"
