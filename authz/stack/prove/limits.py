"""Limits: each is set to the least on a key of its own, and the request that exceeds it must be refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx

from authz.accounts.keys import set_key_state
from authz.decision.refusals import Reason
from authz.stack import streams
from authz.stack.doctor.finding import Finding, fail, warn
from authz.stack.prove import bodies
from authz.stack.prove.gate import Request
from authz.stack.prove.judged import Case, judge, problem
from authz.types import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from authz.stack.prove.gate import Gate
    from authz.stack.prove.throwaway import Throwaway

ATTEMPTS: Final = 3
"""A stream may end by itself before the request beside it has come."""
BUDGETS: Final = {
    "budget of a day": Limits(tokens_per_day=1),
    "budget of a month": Limits(tokens_per_month=1),
    "budget in total": Limits(tokens_total=1),
}
RATES: Final = {
    "requests per minute": (Limits(requests_per_minute=1), Reason.RATE_REQUESTS),
    "tokens per minute": (Limits(tokens_per_minute=1), Reason.RATE_TOKENS),
}

_TODO: Final = "the limit does not hold, run `doctor` for Redis and metering."
_SERVED: Final = 200


async def rates(gate: Gate, throwaway: Throwaway, model: str) -> list[Finding]:
    """Ask twice at once where a minute allows one: the first may pass, the second may not."""
    found = []
    for check, (limits, reason) in RATES.items():
        key = (await throwaway.key(check.replace(" ", "-"), limits=limits)).key
        asked = Request("POST", "/api/chat", key, bodies.chat(model))
        first, second = await gate.ask(asked), await gate.ask(asked)
        case = Case(check, asked, (reason,))
        if first.status != _SERVED and problem(case, first) is not None:
            found += judge(check, [(case, first)], "", _TODO)
            continue
        retry = second.headers.get("retry-after", "0")
        found += judge(check, [(case, second)], f"The second is 429, to be tried again in {retry} s.", _TODO)
    return found


async def budgets(gate: Gate, throwaway: Throwaway, model: str) -> list[Finding]:
    """Ask for more than a budget has left."""
    found = []
    for check, limits in BUDGETS.items():
        key = (await throwaway.key(check.replace(" ", "-"), limits=limits)).key
        asked = Request("POST", "/api/chat", key, bodies.chat(model))
        case = Case(check, asked, (Reason.BUDGET_TOO_SMALL, Reason.BUDGET_EXHAUSTED))
        answer = await gate.ask(asked)
        found += judge(check, [(case, answer)], "What exceeds it is refused, for good.", _TODO)
    return found


async def concurrency(gate: Gate, throwaway: Throwaway, control: Path, model: str) -> list[Finding]:
    """Ask while a stream holds the one slot of its key."""
    check = "concurrency"
    key = (await throwaway.key(check, limits=Limits(concurrency=1))).key
    case = Case(check, Request("POST", "/api/chat", key, bodies.chat(model)), (Reason.CONCURRENCY,))
    for _ in range(ATTEMPTS):
        async with gate.stream(Request("POST", "/api/chat", key, bodies.long_chat(model))) as stream:
            if stream.status_code != _SERVED:
                return [fail(check, f"A stream is answered {stream.status_code}: look at Caddy's log.")]
            pieces = stream.aiter_raw()  # held: what reads no more closes the connection
            await anext(pieces)
            answer = await gate.ask(case.request)
            still = {each.id for each in await streams.streams(control)}
        if problem(case, answer) is None or stream.headers.get("x-request-id") in still:
            return judge(check, [(case, answer)], "A second request beside a stream is 429.", _TODO)
    return [warn(check, f"Not proven: {model} answers too fast to hold a slot; name another with --model.")]


async def kill(gate: Gate, throwaway: Throwaway, control: Path, model: str) -> list[Finding]:
    """Revoke a key while it streams, and end what runs."""
    check = "revoke --kill"
    for attempt in range(ATTEMPTS):
        created = await throwaway.key(f"kill-{attempt}")
        request = Request("POST", "/api/chat", created.key, bodies.long_chat(model))
        async with gate.stream(request) as stream:
            pieces = stream.aiter_raw()
            await anext(pieces)
            row = await set_key_state(throwaway.session, created.prefix, "revoked")
            ending = asyncio.create_task(
                streams.kill_all(throwaway.session, tenant=row["tenant_id"], key=row["id"])
            )
            try:
                last = b""
                async for piece in pieces:
                    last = piece
            except httpx.HTTPError as error:
                await ending
                return [fail(check, f"The stream broke off without a last frame ({type(error).__name__}).")]
            killed = await ending
        if not killed:
            continue
        case = Case(check, request, (Reason.KEY_REVOKED,))
        if b'"done":true' not in last:
            return [fail(check, "The stream ended without its last frame: look at Caddy's log.")]
        answer = await gate.ask(request)
        return judge(check, [(case, answer)], "The stream ends with a last frame, and the key is 401.", _TODO)
    return [warn(check, f"Not proven: {model} answers too fast to be ended; name another with --model.")]


async def disabled_tenant(gate: Gate, key: str, model: str) -> list[Finding]:
    """Use a key of the tenant, which is disabled by now."""
    case = Case("end", Request("POST", "/api/chat", key, bodies.chat(model)), (Reason.TENANT_DISABLED,))
    fine = "The tenant of these proofs is disabled, its keys are revoked and 401."
    return judge("end", [(case, await gate.ask(case.request))], fine, _TODO)
