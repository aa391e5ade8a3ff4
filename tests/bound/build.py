"""Build the program that prints the gateway's bounds, and what it reads."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from authz.stack.build import SOURCE, go_environ
from authz.stack.embedded import wheel_folder

if TYPE_CHECKING:
    from tests.bound.published import Published


@cache
def built() -> Path:
    """Return the program, built in this process's lifetime."""
    binary = Path(mkdtemp(prefix="nz")) / "wordbound"
    argv = [str(wheel_folder("go") / "bin" / "go"), "build", "-o", str(binary)]
    subprocess.run(
        [*argv, "./internal/wordtable/wordbound"], cwd=SOURCE, env=go_environ(os.environ), check=True
    )
    return binary


def described(model: Published) -> Path:
    """Return the file of what /api/show says of a model."""
    path = model.folder / "show.json"
    path.write_text(json.dumps(model.show()))
    return path
