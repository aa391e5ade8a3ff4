"""`status` reads of the bill what metering exposes to Prometheus."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry

from authz.stack import bill
from authz.stack.bill import Bill
from metering.listener import listening
from metering.metrics import LEDGER_WINDOWS, WINDOWS_REDIS, Metrics
from metering.rows import Tally


async def test_the_bill_is_read_from_metrics() -> None:
    """Every figure is the metric of its name; what has labels is summed up."""
    metrics = Metrics(CollectorRegistry())
    metrics.counted(Tally(open_requests=1, dead_letters=2, lost_lines=3, unpublished=4, learned_models=7))
    metrics.drifted({LEDGER_WINDOWS: 5, WINDOWS_REDIS: 6})
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        socket = Path(folder) / "metering.sock"
        async with listening(socket, metrics):
            found = await asyncio.to_thread(bill.ask, socket)
    expected = Bill(
        lag_bytes=None,
        lag_s=None,
        open_requests=1,
        unpublished=4,
        lost_lines=3,
        dead_letters=2,
        orphaned_requests=0,
        overrun_tokens=0,
        drift_tokens=11,
        learned_models=7,
    )
    assert expected == found


async def test_what_was_not_looked_at_is_unknown() -> None:
    """Before the first look there is no figure, not a 0 that calms."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        socket = Path(folder) / "metering.sock"
        async with listening(socket, Metrics(CollectorRegistry())):
            found = await asyncio.to_thread(bill.ask, socket)
    assert found is not None
    assert {None} == {
        found.open_requests,
        found.unpublished,
        found.lost_lines,
        found.drift_tokens,
        found.learned_models,
    }


def test_without_metering_there_is_no_bill(tmp_path: Path) -> None:
    """If metering does not listen, nothing is known."""
    assert bill.ask(tmp_path / "metering.sock") is None
