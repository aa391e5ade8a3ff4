"""What the images of compose.yaml and compose.dev.yaml are made of, read from the files."""

from __future__ import annotations

import re
import tomllib

from authz.configuration.variables import COMPOSE, VARIABLES
from tests.compose.project import BOTH, ROOT, Project


@BOTH
def test_each_image_is_built_once(project: Project) -> None:
    """One service builds an image of ours; the others use what it has built, and ask no registry for it."""
    ours = [service for service in project.services.values() if service.image.startswith("neuronetz-")]
    built = [service.image for service in ours if service.build]
    assert sorted({service.image for service in ours}) == sorted(built)
    assert {"never"} == {service.pull_policy for service in ours if not service.build}


@BOTH
def test_images_have_full_versions(project: Project) -> None:
    """Every image is a variable whose default is a whole version, in the Dockerfile too."""
    dockerfile = dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    default = {v.name: v.default for v in VARIABLES if v.readers == (COMPOSE,)}
    assert {name: default[name] for name in ("GO_IMAGE", "PYTHON_IMAGE")} == dockerfile
    for service in project.services.values():
        used = [service.image, *(service.build.args.values() if service.build else ())]
        assert all(re.fullmatch(r"[a-z/-]+:\d+\.\d+\.?\d*(-[a-z]+)?", image) for image in used), used
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == default["GATEWAY_VERSION"]
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {"${GO_IMAGE}", "${PYTHON_IMAGE}", "scratch"} == set(bases)


def test_what_is_installed_has_a_hash() -> None:
    """Whatever an image installs is one of the lock's hashes, or our own wheel."""
    joined = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install [^&\n]*", joined)
    assert installs
    assert [] == [line for line in installs if "--require-hashes" not in line and "--no-index" not in line]


def test_no_edit_reaches_an_image() -> None:
    """What operators edit, and what holds credentials, is no part of what images are made of."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" == ignored[0]
    assert not {"!.env", "!secrets"} & set(ignored)
    for path in ("caddy/Caddyfile", "caddy/backends.d"):
        assert ignored.index("!caddy") < ignored.index(path)
