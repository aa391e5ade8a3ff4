"""The command `usage credit`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from cyclopts import Parameter

from authz.accounts.credits import credit_request, credit_tenant
from authz.accounts.session import opened
from authz.admin import limit_options, output
from authz.admin.options import ChangeOptions
from authz.errors import UsageError
from authz.log import redacted
from authz.types import GREATEST_COUNT

LONGEST_REASON: Final = 512


async def credit_command(
    *,
    request: Annotated[str | None, Parameter(help="A billed request, by its X-Request-Id.")] = None,
    tenant: Annotated[str | None, Parameter(help="Or a tenant: off what it has used today.")] = None,
    prefix: Annotated[
        str | None, Parameter(help="With --tenant: off this key's use, too.", validator=limit_options.prefix)
    ] = None,
    tokens: Annotated[int, Parameter(help="How many; of output first, then of input.")],
    reason: Annotated[str, Parameter(help="Why; it stays in the ledger and the audit.")],
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Take tokens off the bill, as a ledger entry of its own; nothing billed is rewritten.

    Example: neuronetz-gateway usage credit --tenant acme --tokens 50000 --reason 'outage of 27 November'
    """
    if (request is None) == (tenant is None) or (request is not None and prefix is not None):
        raise UsageError("Give --request ID, or --tenant NAME with or without --prefix KEY.")
    reason = _readable(reason)
    if not 0 < tokens <= GREATEST_COUNT:
        raise UsageError(f"--tokens {tokens} can't be credited: give a whole number above 0.")
    now = datetime.now(UTC)
    request_id = None if request is None else _id(request)
    async with opened(options.state, actor=options.actor) as session:
        if request_id is not None:
            made = await credit_request(session, request_id, tokens=tokens, reason=reason, at=now)
        else:
            name = tenant or ""
            made = await credit_tenant(session, name, prefix=prefix, tokens=tokens, reason=reason, at=now)
    if options.json:
        output.show_value(made)
    else:
        target = f"request {made.request}" if request else f"{tenant} today, under the id {made.request}"
        output.say(
            f"Credited {tokens:,} tokens to {target} (entry {made.entry}). "
            "Budgets follow within two seconds while metering runs."
        )
    return 0


def _readable(reason: str) -> str:
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise UsageError(f"--reason must say why, in one line of at most {LONGEST_REASON} characters.")
    if redacted(reason) != reason:
        raise UsageError("--reason holds an API key, and it stays in the ledger: leave the key out.")
    return reason


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        sentence = (
            f"{text!r} is no request id: take it from X-Request-Id or `neuronetz-gateway usage export`."
        )
        raise UsageError(sentence) from error
