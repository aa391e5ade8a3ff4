"""The command `migrate`."""

from __future__ import annotations

import os
import sys

from authz import settings
from authz.admin import output
from authz.admin.options import Options
from authz.schema import migrate, newer


async def migrate_command(*, options: Options = Options()) -> int:
    """Make the database where there is none and apply every migration that it lacks.

    Example: neuronetz-gateway migrate
    """
    chosen = settings.load(os.environ, state=options.state)
    migrate(chosen.database_url)
    if note := await newer(chosen.database_url):
        sys.stderr.write(f"{note}\n")
    if options.json:
        output.show_json({"migrated": True})
    else:
        output.say("The schema is up to date.")
    return 0
