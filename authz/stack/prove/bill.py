"""The bill: what an answer reports is what the ledger has, and what was refused costs nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

import sql
from authz.accounts.scope import Scope
from authz.stack.doctor.finding import Finding, fail, ok, summed
from authz.stack.prove.bodies import GENERATIONS
from authz.stack.prove.gate import Request

if TYPE_CHECKING:
    from authz.accounts.session import Session
    from authz.stack.prove.gate import Gate
    from authz.stack.prove.throwaway import Throwaway

CAP: Final = 3
"""Of the key; its client asks for more."""
ASKED: Final = 64
SETTLED_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.1
_SERVED: Final = 200

_queries = sql.load("doctor")


async def exact(gate: Gate, throwaway: Throwaway, model: str) -> list[Finding]:
    """Ask each route that generates for more than the key may have; compare answer, cap and ledger."""
    key = (await throwaway.key("max-output", scope=Scope(max_output=CAP))).key
    found: list[Finding] = []
    over = []
    for each in GENERATIONS:
        body = msgspec.json.encode(each.body(model, ASKED))
        answer = await gate.ask(Request("POST", each.path, key, body))
        if answer.status != _SERVED:
            text = answer.body[:120].decode(errors="replace").strip()
            found.append(
                fail("bill", f"{each.path} is answered {answer.status} ({text}): no answer to bill.")
            )
            continue
        reported = each.usage(answer.json())
        if reported[1] > CAP:
            over.append(fail("output cap", f"{each.path} has {reported[1]} tokens where {CAP} are allowed."))
        found.append(await _billed(throwaway.session, each.path, answer.request_id, reported))
    fine = f"No answer to a key of --max-output {CAP} is longer, where {ASKED} were asked for."
    return [*found, *summed("output cap", over, fine)]


async def free(gate: Gate, session: Session) -> list[Finding]:
    """Look for requests that were refused and yet are billed, or had reached a backend."""
    ids = [UUID(each) for each in gate.refused]
    async with session.store.connection() as connection:
        charged = await _queries.charged(connection, ids=ids)
    if charged:
        sentence = f"{charged} refused requests are billed or reached a backend: keep the journal, report it."
        return [fail("refusals", sentence)]
    return [ok("refusals", f"{len(ids)} reached no backend, and cost nothing.")]


async def _billed(session: Session, path: str, request_id: str, reported: tuple[int, int]) -> Finding:
    row = await _row(session, request_id)
    if row is None:
        sentence = (
            f"{path}: no record has reached the ledger in {SETTLED_WITHIN_S:.0f} s, look at metering's log."
        )
        return fail("bill", sentence)
    if row != reported:
        sentence = (
            f"{path} reports {reported[0]} + {reported[1]} tokens and the ledger has {row[0]} + {row[1]} "
            f"(request {request_id}): keep the journal and report it."
        )
        return fail("bill", sentence)
    return ok("bill", f"{path}: {row[0]} + {row[1]} tokens reported, and in the ledger.")


async def _row(session: Session, request_id: str) -> tuple[int, int] | None:
    """Return the tokens billed for a request, once metering has settled it; None if it never does."""
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while True:
                async with session.store.connection() as connection:
                    row = await _queries.billed(connection, request_id=UUID(request_id))
                if row["entries"]:
                    return row["input_tokens"], row["output_tokens"]
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return None
