"""The command `migrate`."""

from __future__ import annotations

import os

from authz import settings
from authz.admin import output
from authz.admin.options import Options
from authz.schema import migrate


def migrate_command(*, options: Options = Options()) -> int:
    """Make the database where there is none and apply every migration that it lacks."""
    chosen = settings.load(os.environ, state=options.state)
    migrate(chosen.database_url)
    if options.json:
        output.show_json({"migrated": True})
    else:
        output.say("The schema is up to date.")
    return 0
