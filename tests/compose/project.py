"""The Compose files of this repository as values, with the defaults of their variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
_VARIABLE: Final = re.compile(r"\$\{([A-Z0-9_]+)(?:(:-|:\?|:\+)([^}]*))?\}")


class Mount(msgspec.Struct, frozen=True):
    """A volume or a folder of the project (it begins with a dot), at a path of a container."""

    source: str
    target: str
    is_writable: bool

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Read the short form."""
        source, target, *rest = text.split(":")
        return cls(source, target, rest != ["ro"])


class Build(msgspec.Struct):
    """How an image is made."""

    target: str
    args: dict[str, str]


class Service(msgspec.Struct):
    """A service, as far as tests ask."""

    image: str
    user: str = "root"
    build: Build | None = None
    pull_policy: str = ""
    restart: str = "no"
    command: list[str] = []
    entrypoint: list[str] = []
    environment: dict[str, str | None] = {}
    env_file: str | list[str] = []
    secrets: list[str] = []
    networks: dict[str, Any] | list[str] = []
    network_mode: str = ""
    ports: list[str] = []
    volumes: list[str] = []
    depends_on: dict[str, dict[str, str]] = {}
    healthcheck: dict[str, Any] = {}
    profiles: list[str] = []
    read_only: bool = False
    cap_drop: list[str] = []
    cap_add: list[str] = []
    security_opt: list[str] = []
    stop_grace_period: str = ""

    @property
    def is_lasting(self) -> bool:
        """Return whether it runs on, unlike what prepares or is called by hand."""
        return bool(self.healthcheck.get("test")) and not self.profiles

    @property
    def mounts(self) -> list[Mount]:
        """Return what is mounted into it."""
        return [Mount.parse(text) for text in self.volumes]


class Project(msgspec.Struct):
    """A Compose file."""

    name: str
    services: dict[str, Service]
    networks: dict[str, dict[str, Any]]
    volumes: dict[str, dict[str, Any]]
    secrets: dict[str, dict[str, str]] = {}

    def users_of(self, network: str) -> set[str]:
        """Return the services on a network."""
        return {name for name, service in self.services.items() if network in service.networks}


def load(name: str, **values: str) -> Project:
    """Read a file of the repository, with these variables set."""
    return msgspec.convert(_filled(yaml.safe_load((ROOT / name).read_text()), values), Project)


def variables(name: str) -> dict[str, str | None]:
    """Return the variables of a file with their defaults; None where it demands one."""
    found = _VARIABLE.finditer((ROOT / name).read_text())
    return {each[1]: None if each[2] == ":?" else each[3] for each in found}


def _filled(node: Any, values: Mapping[str, str]) -> Any:
    """Fill variables in as Compose does: in every text, once the file is parsed."""
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if isinstance(node, str):
        return _VARIABLE.sub(lambda found: _value(found, values.get(found[1], "")), node)
    return node


def _value(found: re.Match[str], value: str) -> str:
    if found[2] == ":+":
        return found[3] if value else ""
    return value or (found[3] if found[2] == ":-" else f"<{found[1]}>")


PRODUCTION: Final = load("compose.yaml")
DEVELOPMENT: Final = load("compose.dev.yaml")
BOTH: Final = pytest.mark.parametrize(
    "project", [PRODUCTION, DEVELOPMENT], ids=["compose.yaml", "compose.dev.yaml"]
)
