"""What is asked of the ceilings, and what they answer: values only, Redis is in `limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from authz.types import Limits, OpenRequest, Total, Windows


@frozen
class Admission:
    """What a request asks of the ceilings, in tokens; `bound_in` can't be exceeded by its prompt."""

    request_id: UUID
    tenant: UUID
    key: UUID
    tenant_version: int
    key_version: int
    tenant_limits: Limits
    key_limits: Limits
    windows: Windows
    valid_from: datetime
    valid_until: datetime
    bound_in: int
    wanted: int
    estimated_input: int
    estimated_output: int
    deadline_s: int


MINUTE_US: Final = 60_000_000


@frozen
class Rate:
    """A rate limit per minute: what is left, and when it will be full again."""

    limit: int
    left: int
    full_in_us: int

    @classmethod
    def at(cls, limit: int, full_in_us: int) -> Rate:
        """The rate of a bucket that will be full again in a while; a debt leaves nothing."""
        return cls(limit, max(0, (MINUTE_US - full_in_us) * limit // MINUTE_US), full_in_us)


@frozen
class Admitted:
    """The request may run: what is reserved for it, which windows pay, what its rates have left."""

    input: int
    output: int
    windows: Windows
    requests: Rate | None
    tokens: Rate | None


@frozen
class Refused:
    """A ceiling is reached: which, whose (`tenant` or `key`), its use, when another try makes sense.

    The limit is `requests`, `tokens`, `concurrency`, a budget that is exhausted (`day`, `month`,
    `total`), or one whose rest is held by running requests (`held_day`, `held_month`, `held_total`).
    """

    limit: str
    scope: str
    used: int
    value: int
    wait_us: int
    held: int


@frozen
class Lost:
    """The tenant's hash is of another run of Redis, or gone: it must be rebuilt first."""

    mark: str
    marked_at: datetime


@frozen
class Unfit:
    """The request can't be judged as it stands: `lost`, `stale`, `closed`, `late` or `calendar`."""

    reason: str
    now: datetime


@frozen
class Use:
    """What was used of a budget's window, and what running requests hold of it."""

    used: int
    held: int


@frozen
class Standing:
    """How a tenant or a key (scope) stands, whatever its limits are; buckets are full again in a while."""

    scope: UUID
    requests_full_in_us: int
    tokens_full_in_us: int
    running: int
    day: Use
    month: Use
    total: Use


@frozen
class Reading:
    """What one snapshot of Postgres says of a tenant; `read_at` is Redis's clock before it."""

    tenant: UUID
    mark: str
    read_at: datetime
    tenant_version: int
    key_versions: dict[UUID, int]
    totals: tuple[Total, ...]
    open_requests: tuple[OpenRequest, ...]
    closed: tuple[UUID, ...]
