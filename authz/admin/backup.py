"""The commands `backup` and `restore`."""

import os
import sys
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

from cyclopts import Parameter

from authz import settings as settings_
from authz.accounts.session import Session, opened
from authz.admin import output
from authz.admin.options import ChangeOptions
from authz.errors import LimiterUnavailable
from authz.settings import Settings
from authz.stack import backup, embedded
from authz.stack.backup import Description
from authz.stack.folder import existing_folder, hold

_UNKNOWN: Final = timedelta(days=365)
"""How far metering is behind, as long as nothing is known."""


async def backup_command(
    *,
    to: Annotated[Path, Parameter(help="A new folder for this backup.")],
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Write what Postgres holds into a folder, while everything runs.

    The pepper is not in it: keep that in another place, for without it no key works again.

    Example: neuronetz-gateway backup --to backups/2026-11-27
    """
    settings = settings_.load(os.environ, state=options.state)
    made = await backup.back_up(settings.database_url, to)
    async with (
        opened(options.state, actor=options.actor) as session,
        session.store.connection() as connection,
    ):
        await session.audit(connection, "backup_made", new={"folder": str(to), "sha256": made.sha256})
    if options.json:
        output.show_json({"folder": str(to), "made_at": made.made_at, "sha256": made.sha256})
    else:
        output.say(
            f"The backup is in {to}. The pepper is not: keep {settings.pepper_file} in another place, "
            "for without it no key works again."
        )
    return 0


async def restore_command(
    *,
    from_: Annotated[Path, Parameter(name="--from", help="The folder that `backup --to` has written.")],
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Put a backup into an empty database, while authz and metering do not run.

    What was billed after it is settled again from the journals that are still there; commands given after it
    must be given again.

    Example: neuronetz-gateway restore --from backups/2026-11-27
    """
    settings = settings_.load(os.environ, state=options.state)
    with ExitStack() as stack:
        _serve_embedded(settings, stack)
        made = await backup.restore(settings.database_url, from_)
        async with (
            opened(options.state, actor=options.actor) as session,
            session.store.connection() as connection,
        ):
            await session.audit(connection, "backup_restored", new={"sha256": made.sha256})
            await _close_budgets(session, made)
    missing = backup.missing_peppers(made, settings.pepper_file)
    if missing:
        sys.stderr.write(
            f"Keys need the pepper {', '.join(missing)}, which is not in {settings.pepper_file}: "
            "put it there before the gateway starts.\n"
        )
    if options.json:
        output.show_json({"made_at": made.made_at, "missing_peppers": missing})
    else:
        output.say(
            f"The database is as it was {made.made_at:%Y-%m-%d %H:%M:%S}Z. Start authz and metering: what "
            "was billed since is settled again from the journals. Give again the commands of that time."
        )
    return 0


async def _close_budgets(session: Session, made: Description) -> None:
    """Let no budget be spent until metering has read each journal to its end again."""
    for position in made.positions:
        with suppress(LimiterUnavailable):  # a Redis that is away has to be rebuilt, which waits as long
            await session.limiter.vouch(UUID(position.node), lag_ms=_UNKNOWN // timedelta(milliseconds=1))


def _serve_embedded(settings: Settings, stack: ExitStack) -> None:
    """Run the built-in server of a stack that does not run, for as long as the restore takes."""
    if settings.database_url != embedded.postgres_url(settings.state):
        return
    if embedded.postgres_answers(settings.state):
        return
    stack.enter_context(hold(existing_folder(settings.state)))
    stack.enter_context(embedded.postgres_server(settings.state, durable=True))
