"""The commands `audit verify` and `audit prove`: what is wrong with the books, and what is certain."""

import os
import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

from attrs import asdict
from cyclopts import Parameter

from authz import settings as settings_
from authz.admin import output
from authz.admin.options import Options
from authz.chains import books
from authz.chains import checkpoint as checkpoints
from authz.chains.checkpoint import Checkpoint, PublicKey
from authz.chains.proof import prove
from authz.chains.verify import Verification
from authz.errors import CommandError, UsageError, complaint


async def verify_command(
    *,
    checkpoint: Annotated[Path | None, Parameter(help="A file of checkpoints; the last one counts.")] = None,
    key: Annotated[Path | None, Parameter(help="The file of the public key that checks them.")] = None,
    options: Options = Options(),
) -> int:
    """Find the first row of the ledger or the audit that was altered, removed, moved or invented.

    Exits 1 if there is one. Without --checkpoint only what was done without writing the hashes anew is found.

    Example: neuronetz-gateway audit verify --checkpoint checkpoints --key checkpoints.key.pub
    """
    known = None if checkpoint is None else _known(checkpoint, key)[0]
    async with books.opened(settings_.load(os.environ, state=options.state).database_url) as opened:
        report = await Verification(opened, known).run()
    if options.json:
        named = asdict(report)
        problems = named.pop("faults")
        output.show_json({**named, "problems": problems})
        return 1 if report.faults else 0
    sys.stderr.write("".join(complaint(CommandError(fault)) for fault in report.faults))
    until = f", and the checkpoint of {known.made}" if known else "; no checkpoint was given"
    output.say(
        f"Compared {report.rows:,} rows with {report.links:,} links of {report.chains} chains{until}: "
        f"{'all fit' if not report.faults else 'see above'}."
    )
    if report.oldest_day.year > 1970:  # noqa: PLR2004 (the day of a ledger that keeps all)
        output.say(f"Of days before {report.oldest_day}, which are dropped, only the roots are left.")
    return 1 if report.faults else 0


async def prove_command(
    request: Annotated[str, Parameter(help="Its X-Request-Id.")],
    *,
    checkpoint: Annotated[Path, Parameter(help="A file of checkpoints; the last one counts.")],
    key: Annotated[Path, Parameter(help="The file of the public key that checks them.")],
    state: Annotated[Path | None, Parameter(help="The stack's folder.")] = None,
) -> int:
    """Write a proof that a request is in the ledger as it is billed, as JSON, for whoever pays for it.

    `authz/chains/check_proof.py` checks it anywhere.

    Example: neuronetz-gateway audit prove 01998b5e-0000-7000-8000-000000000000 --checkpoint f --key key.pub
    """
    try:
        request_id = UUID(request)
    except ValueError as error:
        raise UsageError(f"{request!r} is no request id: take it from X-Request-Id.") from error
    known, note = _known(checkpoint, key)
    async with books.opened(settings_.load(os.environ, state=state).database_url) as opened:
        output.show_value(await prove(opened, request_id, known, note))
    return 0


def _known(path: Path, key: Path | None) -> tuple[Checkpoint, str]:
    if key is None:
        raise UsageError("--checkpoint needs --key: the public key that checks its signature.")
    try:
        note = checkpoints.last_note(path.read_text())
        return checkpoints.parse(note, PublicKey.parse(key.read_text())), note
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The checkpoint or its key can't be read ({error}).") from error
