"""Commands about alerts: list what was raised, and post one by hand."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

from cyclopts import Parameter

from authz import settings as settings_
from authz.accounts.session import opened
from authz.admin import output
from authz.admin.limit_options import moment
from authz.admin.options import ListOptions, Options
from authz.alerts.alert import TEST
from authz.alerts.book import Book, Due
from authz.alerts.webhook import Unposted, Webhook, body
from authz.errors import CommandError


async def alerts_list_command(
    *,
    since: Annotated[str, Parameter(help="From when on: a date, a time, or a span like 7d.")] = "7d",
    tenant: Annotated[str | None, Parameter(help="Only of this tenant.")] = None,
    options: ListOptions = ListOptions(),
) -> int:
    """List what needed a person, newest first, and what still does however old it is.

    Example: neuronetz-gateway alerts list --since 30d
    """
    start = moment(since, datetime.now(UTC), is_past=True)
    async with opened(options.state) as session:
        rows = [row for row in await Book(session.store).latest(start) if tenant in {None, row.tenant}]
    rest = output.behind(rows, lambda row: row.id, after=options.after)
    found = output.page(rest, lambda row: row.id, limit=options.limit)
    if options.json:
        output.show_list(found)
    else:
        columns = ("raised", "severity", "name", "summary", "recovered", "posted")
        output.show_table(found, columns=columns, empty="Nothing has needed a person.")
    return 0


async def alerts_test_command(*, options: Options = Options()) -> int:
    """Post an alert to GATEWAY_ALERT_URL, as authz would, and say what its receiver answers.

    Example: neuronetz-gateway alerts test
    """
    settings = settings_.load(os.environ, state=options.state, needs_stores=False)
    receiver = Webhook.of(settings)
    if receiver is None:
        raise CommandError("No receiver is set: write its URL into GATEWAY_ALERT_URL, for authz too.")
    alert = Due(
        id=uuid4(),
        name=TEST.name,
        severity=TEST.severity,
        tenant=None,
        key=None,
        node=None,
        backend=None,
        value=0,
        summary="This alert was posted by hand",
        action=TEST.action,
        raised_at=datetime.now(UTC),
        recovered_at=None,
        posted_at=None,
        attempts=0,
    )
    try:
        status = await receiver.post(body(alert))
    except Unposted as error:
        raise CommandError(
            f"The receiver of GATEWAY_ALERT_URL {error}: check the URL and its token."
        ) from error
    if options.json:
        output.show_json({"id": str(alert.id), "status": status})
    else:
        output.say(f"The receiver answered {status}.")
    return 0
