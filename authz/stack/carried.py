"""The Caddy of the wheel `neuronetz-gateway-caddy`, which `up` uses where it fits.

Both wheels of one build hold the same digest of Caddy's sources (see authz/stack/wheels.py); the versions
alone would not say that a record of this Caddy is read by this metering.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Final

from attrs import frozen

from authz.errors import CommandError

PACKAGE: Final = "neuronetz-gateway"
WHEEL: Final = "neuronetz-gateway-caddy"
FOLDER: Final = "neuronetz_gateway_caddy"
DIGEST: Final = "caddy.digest"
"""The file in both wheels' metadata that names Caddy's sources."""


@frozen
class Carried:
    """An installed Caddy, and the sources that it was built from."""

    version: str
    digest: str
    binary: Path
    config: Path


def find() -> Carried | None:
    """Find the wheel's Caddy, whatever sources it was built from."""
    try:
        wheel = metadata.distribution(WHEEL)
    except metadata.PackageNotFoundError:
        return None
    folder = Path(str(wheel.locate_file(FOLDER)))
    digest = wheel.read_text(DIGEST) or ""
    return Carried(wheel.version, digest.strip(), folder / "caddy", folder / "Caddyfile")


def fitting() -> Carried:
    """Find the Caddy that this package was built with. Raises CommandError."""
    found = find()
    if found is None:
        raise CommandError(
            f"There is no Caddy here: run `pip install {WHEEL}` (wheels of {PACKAGE} name it in their extra "
            "`embedded`), or run from a checkout of the project, which builds it."
        )
    if found.digest != (expected := _expected_digest()):
        raise CommandError(
            f"The Caddy of {WHEEL} {found.version} was built from other sources ({found.digest}) than "
            f"{PACKAGE} expects ({expected}): install both from one release."
        )
    return found


def _expected_digest() -> str:
    try:
        written = metadata.distribution(PACKAGE).read_text(DIGEST) or ""
    except metadata.PackageNotFoundError:
        return "none"
    return written.strip() or "none"
