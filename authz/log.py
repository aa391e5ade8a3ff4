"""One JSON line per event on stderr: `<package>.<past_tense_fact>` with flat keys, and no secret."""

from __future__ import annotations

import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any
    from uuid import UUID

_SECRET: Final = re.compile(r"(?i:nz_)[0-9A-Za-z]{9}[0-9A-Za-z_]*|(?i:bearer|basic) +[^\s\"']+")
"""More of a key than its public handle, or whatever follows a credential's scheme."""

about: Final[ContextVar[tuple[UUID, str | None] | None]] = ContextVar("about", default=None)
"""The request that is being decided, and its trace: structlog's own bindings cost more than the checks."""


def redacted(text: str) -> str:
    """Return a text without the secrets in it; of a key its public handle stays."""
    return _SECRET.sub(lambda found: f"{found[0][:11]}***" if found[0][:3].lower() == "nz_" else "***", text)


def name_request(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the request that an event is about, and its trace."""
    request, trace_id = about.get() or (None, None)
    return event if request is None else {"request": request, "trace_id": trace_id, **event}


def _redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redacted(value)
    return event


def _encode(event: MutableMapping[str, Any], **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


def configure() -> None:
    """Set up structlog for a process of the gateway; called once, first."""
    structlog.configure(
        processors=[
            name_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
