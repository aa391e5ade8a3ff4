"""The content that running streams had delivered at the last progress line of their Caddy process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from metering.rows import OpenRow


@frozen
class Delivered:
    """The content that a stream had delivered by its boot's last progress line."""

    deltas: int
    text_bytes: int
    tool_bytes: int


@frozen
class BootProgress:
    """The last line of a Caddy process, and the content that its streams had delivered by then."""

    last_at: datetime
    progress_at: datetime | None
    delivered: dict[UUID, Delivered]


@frozen
class Orphan:
    """An open request whose record will not come; ended_at is when its process had ended at the latest."""

    row: OpenRow
    progress: BootProgress | None
    ended_at: datetime | None
