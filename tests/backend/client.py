"""End an answer when its client disconnects, as Ollama does, so that the tally counts what was produced."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from authz.stack.demo.exchange import Exchange, Receive, Scope


def given(body: bytes) -> Receive:
    """Return the receiving side of a request whose body has been read."""

    async def receive() -> Scope:
        return {"type": "http.request", "body": body}

    return receive


async def until_disconnect(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
    """Run until done, or cancel the work as soon as the client disconnects; the body has been read."""
    task = asyncio.create_task(work)
    # A server reports a disconnect only to an application that waits for one.
    disconnect = asyncio.create_task(_disconnect(exchange))
    try:
        await asyncio.wait((task, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for each in (task, disconnect):
            each.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def _disconnect(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
