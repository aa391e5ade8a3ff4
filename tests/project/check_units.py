"""`just check-units`: systemd reads our units without a warning, and finds each exposed by 2.0 at most."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from authz.stack import units
from authz.stack.build import caddy_binary, caddy_config

PROGRAM: Final = "systemd-analyze"
GREATEST_EXPOSURE: Final = 20
"""In tenths, as --threshold takes it; 2.0 is the end of what systemd calls OK."""
BROKEN: Final = "[Service]\nExecStart=/nowhere/at-all\nProtectEverything=yes\n"


def main() -> int:
    """Check every unit; first that the check finds a broken one."""
    if shutil.which(PROGRAM) is None:
        sys.stderr.write(f"error: There is no {PROGRAM}: install systemd (`apt-get install systemd`).\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        broken = path / "broken.service"
        broken.write_text(BROKEN)
        if not _complaints(broken) or _is_sheltered(broken):
            sys.stderr.write(
                f"error: {PROGRAM} finds nothing wrong with a unit that is: use another version.\n"
            )
            return 1
        broken.unlink()
        binary = caddy_binary(os.environ, lambda _: None)
        units.write(units.render(caddy=binary, caddyfile=caddy_config(), user=units.USER), path)
        bad = [unit for unit in sorted(path.iterdir()) if not _is_good(unit)]
        return int(bool(bad))


def _is_good(unit: Path) -> bool:
    complaints = _complaints(unit)
    is_good = not complaints and (unit.suffix != ".service" or _is_sheltered(unit))
    sys.stdout.write(f"{'good' if is_good else 'BAD '} {unit.name}\n{complaints}")
    return is_good


def _complaints(unit: Path) -> str:
    """Return what systemd says about a unit beside its like; nothing is right."""
    instance = unit.with_name(unit.name.replace("@.", "@0."))
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{unit.parent}:"}
    command = [PROGRAM, "verify", "--man=no", str(instance)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr or ("" if done.returncode == 0 else f"exit {done.returncode}\n")


def _is_sheltered(unit: Path) -> bool:
    """Return whether systemd finds little that a unit could do beyond its work; print the figure."""
    command = [
        PROGRAM,
        "security",
        "--offline=yes",
        "--no-pager",
        f"--threshold={GREATEST_EXPOSURE}",
        str(unit),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stdout.write(f"     {done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr.strip()}\n")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
