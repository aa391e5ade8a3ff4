"""A stack that has lost its database goes on from a backup, with the bill that it had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.authz.json_names import ELSEWHERE, names_of
from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)


def _billed(stack: Stack) -> tuple[int, int]:
    """Return how many requests and tokens `usage` says."""
    (row,) = json.loads(stack.run("usage", "--by", "tenant", "--json").stdout)
    return row["requests"], row["input_tokens"] + row["output_tokens"]


def test_a_lost_database(stack: Stack, tmp_path: Path) -> None:
    """Backup while it runs, requests after it, the loss, restore, start: the same key, the same bill."""
    stack.up()
    until(lambda: 200 == stack.chat_status())
    backup = tmp_path / "backup"
    made = json.loads(stack.run("backup", "--to", str(backup), "--json").stdout)
    for _ in range(3):
        assert 200 == stack.chat_status()
    until(lambda: 4 <= _billed(stack)[0])
    before = _billed(stack)
    refused = stack.run("restore", "--from", str(backup))
    assert 1 == refused.returncode
    assert "restore into an empty one" in refused.stderr
    stack.run("down")
    shutil.rmtree(stack.state / "postgres")

    restored = stack.run("restore", "--from", str(backup), "--json")

    assert 0 == restored.returncode, restored.stderr
    said = json.loads(restored.stdout)
    assert (made["made_at"], []) == (said["made_at"], said["missing_peppers"])
    assert ELSEWHERE["restore"] == set(names_of(said))
    stack.up()
    until(lambda: before == _billed(stack))
    until(lambda: 200 == stack.chat_status())
    until(lambda: before[0] + 1 == _billed(stack)[0])
    bill = stack.status()["bill"]
    assert [0, 0, 0] == [bill["lost_lines"], bill["dead_letters"], bill["drift_tokens"]]
