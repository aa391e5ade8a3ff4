"""The record: from Caddy's journal through metering into the bill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authz.stack.doctor.finding import Finding, fail, ok, summed, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from authz.stack.bill import Bill
    from authz.stack.doctor.postgres import Node
    from authz.stack.journal import Journal

SILENT_S: Final = 60
"""As long authz admits keys with budgets without news of the metering of a node."""


def judge_nodes(nodes: Sequence[Node], lags_ms: Mapping[UUID, int | None], *, now: datetime) -> list[Finding]:
    """Judge if the journal of each node is read to its end; `now` is of Redis's clock."""
    if not nodes:
        return [fail("metering", "No node is known: start Caddy and metering, which share a journal.")]
    found = []
    for node in nodes:
        lag_ms = lags_ms.get(node.id)
        todo = f"start its metering (its log says why), or `neuronetz-gateway node retire {node.id}`."
        if lag_ms is None:
            found.append(fail("metering", f"The metering of node {node.id} does not live: {todo}"))
        elif node.read_until is None or (now - node.read_until).total_seconds() > SILENT_S:
            since = "never" if node.read_until is None else f"not since {node.read_until:%Y-%m-%d %H:%M:%S}Z"
            found.append(
                fail("metering", f"The journal of node {node.id} was {since} read to its end: {todo}")
            )
    return summed("metering", found, f"Each node's journal ({len(nodes)}) is read to its end.")


def judge_bill(bill: Bill | None) -> list[Finding]:
    """Judge what metering says of itself; None if it can't be asked from here."""
    if bill is None:
        return [warn("bill", "Metering's socket does not answer here: name it in GATEWAY_METRICS_SOCKET.")]
    wrongs = {
        "lost lines": (bill.lost_lines, "what they were of is on no bill; look for a cut or moved journal"),
        "dead letters": (bill.dead_letters, "see `neuronetz-gateway dead-letters list`"),
        "overrun tokens": (bill.overrun_tokens, "answers exceeded what was granted; look at the backends"),
        "drift tokens": (bill.drift_tokens, "sums disagree with the ledger; keep the logs and report it"),
    }
    found = [warn("bill", f"{count:,} {name}: {todo}.") for name, (count, todo) in wrongs.items() if count]
    return summed("bill", found, "No line is lost, dead or overrun, and the sums agree.")


def judge_journal(journal: Journal | None) -> list[Finding]:
    """Judge what Caddy says of its journal; None if Caddy can't be asked."""
    if journal is None:
        return []
    found = []
    if not journal.is_open:
        sentence = (
            f"Caddy can't write {journal.path}, so it refuses every request: free the disk or its folder."
        )
        found.append(fail("journal", sentence))
    if journal.reopened:
        sentence = (
            f"{journal.path} was moved, removed or cut {journal.reopened} times: let nothing but Caddy and "
            "metering touch it (no logrotate)."
        )
        found.append(warn("journal", sentence))
    if journal.records_by_guard:
        suspects = "; ".join(journal.suspects) or "the site's `log`"
        sentence = f"The access log did not carry {journal.records_by_guard} records: correct {suspects}."
        found.append(warn("journal", sentence))
    if found:
        return found
    return [ok("journal", f"{journal.path} takes every record.")]
