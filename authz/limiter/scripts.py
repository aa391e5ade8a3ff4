"""The Lua scripts: known to Redis by digest, loaded on every connection, sent again if it forgot them."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from attrs import frozen
from redis.exceptions import NoScriptError, ResponseError

from authz.errors import LimiterUnavailable

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Sequence

    from authz.limiter.connection import Argument, Link


@frozen
class Script:
    """A Lua script behind the prelude of all of them, and the digest Redis knows it by."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read a script of this package."""
        folder = files("authz.limiter") / "lua"
        text = "\n".join(
            (folder / part).read_text(encoding="utf-8") for part in ("prelude.lua", f"{name}.lua")
        )
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def evaluate(self, link: Link, keys: Sequence[str], clock_us: int, *arguments: Argument) -> Any:
        """Run it once; its first argument is the clock, 0 for Redis's own."""
        command = ("EVALSHA", self.sha, len(keys), *keys, clock_us, *arguments)
        try:
            return await link.send(*command)
        except NoScriptError:  # after SCRIPT FLUSH: it has not run, so it can't run twice
            await answer(link.send("SCRIPT", "LOAD", self.text))
            return await answer(link.send(*command))
        except ResponseError as error:
            raise refused(error) from error


ADMIT, SETTLE, NOTICE, REBUILD, RAISE, CREATE, PRUNE = SCRIPTS = tuple(
    Script.load(name) for name in ("admit", "settle", "notice", "rebuild", "raise", "create", "prune")
)


async def load(link: Link) -> None:
    """Make every script known to the Redis of a new connection."""
    for script in SCRIPTS:
        await answer(link.send("SCRIPT", "LOAD", script.text))


async def answer(future: Future[Any]) -> Any:
    """Wait for the answer to a command; raises LimiterUnavailable if it was refused."""
    try:
        return await future
    except ResponseError as error:
        raise refused(error) from error


def refused(error: ResponseError) -> LimiterUnavailable:
    """What an operator is told when Redis answers with an error."""
    return LimiterUnavailable(f"Redis refused a command: {error}")
