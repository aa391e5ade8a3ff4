"""Every Redis key and hash field there is, once.

All keys of a tenant carry its id as hash tag, so each script runs on one slot of a cluster:

nz:{T}           hash   epoch (the run of Redis it is valid in) · mark, mark_us of its loss
                        cleared: the newest id without its tombstone · v, v:<key> versions
                        per scope: b its clock and its buckets of requests and tokens, packed
                        per scope and window: u used, w its version
nz:{T}:closed    zset   request id -> when it was closed: the tombstones
nz:{T}:past      set    earlier runs of Redis, of which something may be left under the names below
nz:{T}:R:slots   zset   request id -> its end, all of the tenant's running requests
nz:{T}:R:slots:K zset   the same for key K
nz:{T}:R:open    zset   request id -> when its reservation is overdue
nz:{T}:R:held    hash   request id -> the reservation, packed; h per scope and window: held in all
nz:{T}:reads:K   string when key K has all of its reads again; forgotten then
nz:{T}:signed:S  string the source that a signature S is good for; forgotten when S is too old
nz:metering:N    string lag in ms of node N's metering, expires 60 s after it last vouched
nz:probe         string written to see whether Redis takes writes; forgotten at once

The last two are on each master of a cluster, with a tag behind their name whose slot is the master's.
R is a run of Redis: what was running in an earlier one is unread without being looked for.
A scope is `t` for the tenant or a key's id; a window is `d:2026-11-25`, `m:2026-11` or `t`; so
`u:t:m:2026-11` is what the tenant has used in November. Times are µs; a bucket is the time from its clock
on until it is full again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from authz.types import Period

if TYPE_CHECKING:
    from datetime import date
    from uuid import UUID

    from authz.types import Windows

TENANT_SCOPE = "t"


def tenant(tenant_id: UUID) -> str:
    """Name the hash of a tenant: epoch, versions, buckets and used."""
    return f"nz:{{{tenant_id}}}"


@lru_cache(maxsize=4096)
def slots(tenant_id: UUID, run: str, key_id: UUID | str | None = None) -> str:
    """Name the set of the running requests of a tenant, or of one of its keys."""
    of_tenant = f"nz:{{{tenant_id}}}:{run}:slots"
    return of_tenant if key_id is None else f"{of_tenant}:{key_id}"


def opened(tenant_id: UUID, run: str) -> str:
    """Name the set of the deadlines of a tenant's reservations."""
    return f"nz:{{{tenant_id}}}:{run}:open"


def held(tenant_id: UUID, run: str) -> str:
    """Name the hash of the reservations of a tenant."""
    return f"nz:{{{tenant_id}}}:{run}:held"


def past(tenant_id: UUID) -> str:
    """Name the set of the earlier runs of Redis of which a tenant may have something left."""
    return f"nz:{{{tenant_id}}}:past"


def closed(tenant_id: UUID) -> str:
    """Name the set of the tombstones of a tenant's requests."""
    return f"nz:{{{tenant_id}}}:closed"


def reads(tenant_id: UUID, key_id: UUID) -> str:
    """Name the bucket of a key's reads."""
    return f"nz:{{{tenant_id}}}:reads:{key_id}"


def signed(tenant_id: UUID, name: str) -> str:
    """Name the string with the source of a signature."""
    return f"nz:{{{tenant_id}}}:signed:{name}"


@lru_cache(maxsize=4096)
def of_admission(tenant_id: UUID, key_id: UUID, run: str) -> tuple[str, ...]:
    """List the keys of admit.lua; cached, since making the names costs more than sending them."""
    return (
        tenant(tenant_id),
        slots(tenant_id, run),
        slots(tenant_id, run, key_id),
        opened(tenant_id, run),
        held(tenant_id, run),
        closed(tenant_id),
    )


def of_settlement(tenant_id: UUID, run: str) -> tuple[str, ...]:
    """List the keys of settle.lua, and the first of rebuild.lua, ahead of the slots of keys."""
    return (
        tenant(tenant_id),
        slots(tenant_id, run),
        opened(tenant_id, run),
        held(tenant_id, run),
        closed(tenant_id),
    )


def metering(node: UUID | str, tag: str = "") -> str:
    """Name the string by which a node's metering vouches, on the master with this tag."""
    return f"nz:metering:{node}{tag}"


def probe(tag: str = "") -> str:
    """Name the string that is written to see whether a master takes writes."""
    return f"nz:probe{tag}"


@lru_cache(maxsize=4096)
def scope(key_id: UUID | None) -> str:
    """Name a key in fields of its tenant's hash; None is the tenant itself."""
    return TENANT_SCOPE if key_id is None else str(key_id)


def version(key_id: UUID | None) -> str:
    """Name the field of a key's version; None is the tenant's own."""
    return "v" if key_id is None else f"v:{key_id}"


def standing(key_id: UUID | None, windows: Windows) -> tuple[str, ...]:
    """Name the fields of a scope's use: buckets, then what was used of each window."""
    name = scope(key_id)
    return (f"b:{name}", *_of_windows("u", name, windows))


def holding(key_id: UUID | None, windows: Windows) -> tuple[str, ...]:
    """Name the fields, among the reservations, of what a scope holds of each window."""
    return _of_windows("h", scope(key_id), windows)


def _of_windows(kind: str, name: str, windows: Windows) -> tuple[str, ...]:
    return (f"{kind}:{name}:t", f"{kind}:{name}:m:{windows.month}", f"{kind}:{name}:d:{windows.day}")


@lru_cache(maxsize=512)
def window(period: str, start: date) -> str:
    """Name a budget window inside a hash field."""
    if period == Period.DAY:
        return f"d:{start.isoformat()}"
    if period == Period.MONTH:
        return f"m:{start.isoformat()[:7]}"
    return "t"
