"""The progress of running streams in Postgres: one merged row for each Caddy process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

import sql
from metering.connection import Connection
from metering.days import moment_of
from metering.progress import BootProgress, Delivered

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from metering.journal import Page


@define
class ProgressStore(Connection):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    _queries: ClassVar[Any] = sql.load("progress")

    async def note(self, page: Page) -> None:
        """Remember when each process has written last, and what its streams have delivered."""
        last = _last_lines(page)
        if last:
            places = sorted(last)
            await self._do(
                "note_boots",
                boots=[boot for boot, _ in places],
                nodes=[node for _, node in places],
                moments=[last[place] for place in places],
            )
        for moved in page.progress:
            running = moved.progress.running
            await self._do(
                "note_progress",
                boot=moved.progress.boot,
                at=moved.at,
                ids=[request_id for request_id, *_ in running],
                deltas=[deltas for _, deltas, _, _ in running],
                text_bytes=[text for _, _, text, _ in running],
                tool_bytes=[tool for *_, tool in running],
            )

    async def of(self, boots: Collection[UUID]) -> dict[UUID, BootProgress]:
        """Return what is known of processes."""
        if not boots:
            return {}
        return {
            row["boot"]: BootProgress(
                row["last_at"],
                row["progress_at"],
                {
                    request_id: Delivered(*counts)
                    for request_id, *counts in zip(
                        row["ids"], row["deltas"], row["text_bytes"], row["tool_bytes"], strict=True
                    )
                },
            )
            for row in await self._rows("progress_of", boots=list(boots))
        }

    async def forget(self, node: UUID, boot: UUID) -> None:
        """Forget the processes of a node before this one."""
        await self._do("forget_boots", node=node, boot=boot)


def _last_lines(page: Page) -> dict[tuple[UUID, UUID], datetime]:
    """Return when the last line of each boot and node was written; ids say when their requests began."""
    moments = [(line.boot, line.node, moment_of(line.boot)) for line in page.boots]
    moments += [(line.boot, line.node, moment_of(line.id)) for line in page.opens]
    moments += [(line.progress.boot, line.progress.node, line.at) for line in page.progress]
    moments += [(line.record.boot, line.record.node, line.at) for line in page.ended]
    last: dict[tuple[UUID, UUID], datetime] = {}
    for boot, node, at in moments:
        last[boot, node] = max(at, last.get((boot, node), at))
    return last
