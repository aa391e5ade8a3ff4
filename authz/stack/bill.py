"""How far the bill is behind, and what is wrong with it: read from metering's own metrics."""

from __future__ import annotations

import math
import socket
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S: Final = 3.0


@frozen(kw_only=True)
class Bill:
    """None is what metering has not looked at yet; all but lag, open and unpublished ought to be 0."""

    lag_bytes: int | None
    lag_s: float | None
    open_requests: int | None
    unpublished: int | None
    lost_lines: int | None
    dead_letters: int | None
    orphaned_requests: int | None
    overrun_tokens: int | None
    drift_tokens: int | None


class _Connection(HTTPConnection):
    """HTTP over a unix socket; httpx takes longer to import than all the rest of `status`."""

    def __init__(self, path: Path) -> None:
        super().__init__("metering", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path) -> Bill | None:
    """Ask the metering that listens there; None if none does."""
    connection = _Connection(path)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return _bill(answer.read().decode()) if answer.status == HTTPStatus.OK else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def _bill(text: str) -> Bill:
    """Read the samples, one a line; a family with labels counts as the sum of them."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("gateway_"):
            sample, _, value = line.rpartition(" ")
            name = sample.partition("{")[0]
            found[name] = found.get(name, 0) + float(value)
    lag_s = found["gateway_lag_seconds"]
    return Bill(
        lag_bytes=_whole(found["gateway_lag_bytes"]),
        lag_s=None if math.isnan(lag_s) else round(lag_s, 3),
        open_requests=_whole(found["gateway_open_requests"]),
        unpublished=_whole(found["gateway_unpublished"]),
        lost_lines=_whole(found["gateway_sequence_gaps_total"]),
        dead_letters=_whole(found["gateway_dead_letters"]),
        orphaned_requests=_whole(found["gateway_orphans_total"]),
        overrun_tokens=_whole(found["gateway_overrun_tokens_total"]),
        drift_tokens=_whole(found["gateway_drift_tokens"]),
    )


def _whole(number: float) -> int | None:
    return None if math.isnan(number) else int(number)
