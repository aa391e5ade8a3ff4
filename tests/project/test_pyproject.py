"""The promises of pyproject.toml: a reason for each exception, and types for those who import us."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
ENTRY_WITH_REASON = re.compile(r'^\s*"(?P<entry>[^"]+)",\s*# \S+ \S+')


def _ruff() -> dict[str, Any]:
    lint: dict[str, Any] = tomllib.loads(PYPROJECT.read_text())["tool"]["ruff"]["lint"]
    return lint


def test_each_ignored_rule_has_a_reason() -> None:
    """A rule that is off stands on a line of its own, which says why."""
    lint = _ruff()
    ignored = [*lint["ignore"], *(rule for rules in lint["per-file-ignores"].values() for rule in rules)]
    matches = [ENTRY_WITH_REASON.match(line) for line in PYPROJECT.read_text().splitlines()]
    reasoned = [found["entry"] for found in matches if found]

    assert [] == [rule for rule in ignored if ignored.count(rule) > reasoned.count(rule)]


@pytest.mark.parametrize("package", ["authz", "metering", "sql"])
def test_each_package_carries_its_types(package: str) -> None:
    """PEP 561: type checkers read the annotations of a package that holds py.typed."""
    assert importlib.resources.files(package).joinpath("py.typed").is_file()
