"""A fixture that the whole run shares is the same one, whichever test asks for it first."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
SHARED: Final = (TESTS / "conftest.py", TESTS / "gateway.py")
"""The files whose fixtures every test may ask for."""


def fixtures(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the fixtures that a file defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            "pytest.fixture" in ast.unparse(each) for each in node.decorator_list
        ):
            yield node


def test_what_shared_fixtures_are_made_of_has_one_definition() -> None:
    """No other file defines a fixture that one of the whole run asks for.

    Pytest makes a fixture of the whole run for the first test that asks for it, out of what has the names of
    its arguments there: another definition of one of these would go into the fixture of all later tests.
    """
    parts = {
        argument.arg
        for path in SHARED
        for each in fixtures(path)
        if any("session" in ast.unparse(decorator) for decorator in each.decorator_list)
        for argument in each.args.args
    }
    defined = Counter(each.name for path in sorted(TESTS.rglob("*.py")) for each in fixtures(path))
    assert "backend_url" in parts
    assert dict.fromkeys(parts, 1) == {each: defined[each] for each in parts}
