"""What the page about capacity says can be measured again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CPU: Final = re.compile(r"^\| (\S+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)
PARTS: Final = re.compile(r"^\| (\w+) \| ([\d,]+) \| ([\d,]+) \| [^|]", re.MULTILINE)

NAMES: Final = {"postgres": "PostgreSQL", "caddy": "Caddy", "redis": "Redis"}
"""What the page calls the programs of the results, where that is another name."""


def number(text: str) -> int:
    """Read a number as tables write it."""
    return int(text.replace(",", ""))


def test_commands_exist() -> None:
    """Each command that the page names is a recipe."""
    page = (ROOT / "caddy" / "CAPACITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`uv run just ([\w-]+)", page))
    recipes = set(
        re.findall(r"^([\w-]+)[^:\n]*:", (ROOT / "justfile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {"bench", "bench-growth"} <= named <= recipes


def test_parts_cost_what_was_measured() -> None:
    """The CPU time of each part is that of the results beside it, and a core serves what follows from it."""
    results = (ROOT / "tests" / "bench" / "RESULTS.md").read_text(encoding="utf-8")
    measured: dict[str, int] = {}
    for program, user, system in CPU.findall(results.rpartition("gateway:")[2]):
        name = program.partition("-")[0]
        part = NAMES.get(name, name)
        measured[part] = measured.get(part, 0) + number(user) + number(system)
    page = (ROOT / "caddy" / "CAPACITY.md").read_text(encoding="utf-8")
    parts = {part: (number(us), number(rate)) for part, us, rate in PARTS.findall(page)}
    assert measured == {part: us for part, (us, _) in parts.items()}
    assert all(abs(rate * us / 1e6 - 1) < 0.02 for us, rate in parts.values())
