"""The demo's answer: the same greeting to every client, one word a token."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from authz.stack.demo.call import Call

Speak = Callable[[Call], AsyncGenerator[str, None]]
"""Yields the words of an answer, with the space before each; nothing for a request for vectors."""

_GREETING: Final = (
    "Hello! This is the built-in demo backend of neuronetz-gateway: no language model runs here, "
    "these words are canned. To get real answers, set OLLAMA_URL to the address of your Ollama, "
    "for example OLLAMA_URL=http://127.0.0.1:11434, and start the gateway again."
)
_PACE_S: Final = 0.02
"""Before each word, so that a person sees the answer stream."""


async def greet(call: Call) -> AsyncGenerator[str, None]:
    """Say what this is and how to connect an Ollama."""
    if call.is_embedding:
        return
    for index, word in enumerate(_GREETING.split()):
        await asyncio.sleep(_PACE_S)
        yield f" {word}" if index else word
