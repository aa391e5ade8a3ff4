"""The books compared with their chains, as an auditor does it."""

from __future__ import annotations

from authz.chains import books
from authz.chains.checkpoint import Checkpoint
from authz.chains.verify import Report, Verification


async def verified(database: str, known: Checkpoint | None = None) -> Report:
    """Compare everything, with a checkpoint if there is one."""
    async with books.opened(database) as opened:
        return await Verification(opened, known).run()
