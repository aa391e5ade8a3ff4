"""What stands beside the loop may fail in any way: it is logged, counted and done again; the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable


async def failure_of(work: Awaitable[object]) -> Exception | None:
    """Do some work; return what it raised, whatever that is, and None if it has ended well."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 (the only place: a fault of ours, too, must stop nothing else)
        return error
    return None
