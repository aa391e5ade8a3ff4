"""From what the limiter admitted to the Grant that the tap enforces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authz.decision import rate_headers, routes
from authz.messages import Grant, Reserved, WindowIds
from authz.settings import DROPPED_FIELDS

if TYPE_CHECKING:
    from datetime import datetime

    from authz.backends.inventory import Seen
    from authz.limiter.admission import Admission, Admitted
    from authz.messages import Ask
    from authz.types import Identity


def grant(
    ask: Ask,
    identity: Identity,
    admission: Admission,
    admitted: Admitted,
    *,
    backends: tuple[Seen, ...],
    now: datetime,
) -> Grant:
    """A budget shortens the answer to what it has left; else the cap is what was wanted, if anything."""
    max_output = admitted.output if identity.has_budget else admission.wanted
    return Grant(
        id=ask.id,
        tenant=identity.tenant,
        key=identity.key,
        backends=tuple(seen.backend.name for seen in backends),
        max_output=max_output or None,
        reserved=Reserved(admitted.input, admitted.output),
        windows=WindowIds(admitted.windows.day, admitted.windows.month),
        drop=DROPPED_FIELDS,
        headers=rate_headers.of_rates(
            admitted.requests, admitted.tokens, dialect=routes.dialect_of(ask.path), now=now
        ),
        deadline_s=admission.deadline_s,
    )
