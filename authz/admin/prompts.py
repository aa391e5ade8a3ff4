"""Commands about prompts that are kept: list them, open one, erase those of a tenant."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 (cyclopts reads it)
from typing import TYPE_CHECKING, Annotated, Final, Literal
from uuid import UUID

from cyclopts import Parameter

from authz.accounts import prompts
from authz.accounts.session import opened
from authz.accounts.vault import PrivateKeys
from authz.admin import limit_options, output
from authz.admin.limit_options import moment
from authz.admin.options import ChangeOptions, ListOptions
from authz.errors import UsageError

if TYPE_CHECKING:
    from authz.accounts.prompts import Opened

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What could rewrite a terminal's screen; lines and tabs stay."""


async def prompts_list_command(
    *,
    tenant: Annotated[str | None, Parameter(help="Only of this tenant.")] = None,
    prefix: limit_options.KeyPrefix = None,
    since: Annotated[str, Parameter(help="From when on: a date, a time, or a span like 7d.")] = "366d",
    options: ListOptions = ListOptions(),
) -> int:
    """List the requests of which prompt and answer are kept; nothing is opened.

    Example: neuronetz-gateway prompts list --tenant acme --since 7d
    """
    start, after = moment(since, datetime.now(UTC), is_past=True), _id(options.after)
    async with opened(options.state) as session:
        rows = await prompts.list_prompts(
            session, tenant=tenant, prefix=prefix, since=start, after=after, most=options.limit + 1
        )
    found = output.page(rows, lambda row: row.request, limit=options.limit)
    if options.json:
        output.show_list(found)
    else:
        columns = ("request", "at", "tenant", "key", "prefix", "model", "bytes", "state", "expires")
        output.show_table(found, columns=columns, empty="No prompt is kept: see `set-limits --log-prompts`.")
    return 0


async def prompts_show_command(
    request: Annotated[UUID, Parameter(name="ID", help="As in X-Request-Id and `prompts list`.")],
    /,
    *,
    private_key: Annotated[Path, Parameter(help="File of the private key, from `vault init`.")],
    part: Annotated[
        Literal["prompt", "answer"] | None, Parameter(help="Print this text alone, byte for byte.")
    ] = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Open a prompt and its answer, which the audit notes; exit 1 if either is not whole.

    Example: neuronetz-gateway prompts show 01998b5e-0000-7000-8000-000000000000 --private-key vault.key
    """
    keys = PrivateKeys.read(private_key)
    async with opened(options.state, actor=options.actor) as session:
        found = await prompts.open_prompt(session, request, keys)
    if part is not None:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.prompt if part == "prompt" else found.answer)
    elif options.json:
        output.show_json(_json(found))
    else:
        _print(found)
    for problem in found.problems:
        sys.stderr.write(problem + "\n")
    return 1 if found.problems else 0


async def prompts_erase_command(
    *,
    tenant: Annotated[str, Parameter(help="The tenant's name.")],
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Erase all prompts and answers of a tenant, for good.

    Example: neuronetz-gateway prompts erase --tenant acme
    """
    async with opened(options.state, actor=options.actor) as session:
        requests = await prompts.erase_prompts(session, tenant)
    if options.json:
        output.show_json({"tenant": tenant, "requests": requests})
    else:
        output.say(f"The prompts of {requests} requests of {tenant} are erased.")
    return 0


def _id(after: str | None) -> UUID | None:
    try:
        return None if after is None else UUID(after)
    except ValueError as error:
        raise UsageError(f"--after {after} is no request: give one as `prompts list` shows it.") from error


def _json(found: Opened) -> dict[str, object]:
    return {
        "request": found.request,
        "at": found.at,
        "tenant": found.tenant,
        "expires": found.expires,
        "prompt": found.prompt.decode(errors="replace"),
        "answer": found.answer.decode(errors="replace"),
        "problems": found.problems,
    }


def _print(found: Opened) -> None:
    output.say(
        f"{found.request} of {found.tenant}, {found.at:%Y-%m-%d %H:%M:%S}Z, kept until {found.expires:%F %R}Z"
    )
    for name, text in (("prompt", found.prompt), ("answer", found.answer)):
        output.say(f"\n--- {name} ({len(text):,} bytes)\n{_CONTROL.sub('?', text.decode(errors='replace'))}")
