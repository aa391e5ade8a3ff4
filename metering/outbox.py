"""The outbox: ledger rows that are not in Redis yet, and what is published of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from attrs import frozen

if TYPE_CHECKING:
    from datetime import date
    from uuid import UUID

    from authz.types import Closed, Total


@frozen
class Publication:
    """The changes to publish of one tenant; rows are the ledger rows (id, entry) that they come from."""

    tenant: UUID
    closed: tuple[Closed, ...]
    totals: tuple[Total, ...]
    rows: tuple[tuple[UUID, int], ...]

    @property
    def outbox(self) -> list[OutboxRow]:
        """The rows of the outbox that this is about."""
        return [OutboxRow(self.tenant, request_id, entry) for request_id, entry in self.rows]


class OutboxRow(NamedTuple):
    """A place in the outbox, in its order: by tenant, id and entry."""

    tenant: UUID
    request_id: UUID
    entry: int


@frozen
class Unpublished:
    """A ledger row that is not published yet."""

    tenant: UUID
    entry: int
    closed: Closed
    day: date | None
    month: date | None
