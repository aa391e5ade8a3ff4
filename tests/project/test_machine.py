"""What only Linux has stands in one file, so that a port to another system is one file."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LINUX_ONLY: Final = ("/proc", "prctl", "/sys/")


def linux_only(source: Path) -> set[str]:
    """Return the texts of a module, its docstrings apart, that name what only Linux has."""
    tree = ast.parse(source.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    )
    return {text for text in texts if text.startswith(LINUX_ONLY)}


def test_linux_stands_in_one_module() -> None:
    """Only authz/stack/machine.py opens /proc or calls what only Linux has."""
    modules = [path for part in ("authz", "metering") for path in (ROOT / part).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in modules if linux_only(path)}
    assert {"authz/stack/machine.py"} == found
