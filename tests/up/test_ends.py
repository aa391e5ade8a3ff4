"""A stack ends and begins again: nothing is lost between two runs, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.authz.json_names import ELSEWHERE, names_of
from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)


def test_up_again_continues(running: Stack) -> None:
    """`down` leaves no process, and the next `up` has the same tenant, key and data."""
    stopped = json.loads(running.run("down", "--json").stdout)
    assert str(running.state) == stopped["folder"]
    assert {"caddy", "metering", "postgres", "redis", "authz-0"} <= set(stopped["stopped"])
    assert [] == running.processes()
    assert [] == json.loads(running.run("down", "--json").stdout)["stopped"]

    again = running.up()

    assert [ELSEWHERE["up"], ELSEWHERE["down"]] == [set(names_of(each)) for each in (again, stopped)]
    assert again["secret"] is None
    assert "demo" == again["tenant"]
    assert 200 == running.chat().status_code


def test_killed_supervisor_takes_its_children_along(running: Stack) -> None:
    """No child outlives its supervisor, even one killed by force, and `up` starts anew."""
    os.kill(running.facts()["supervisor"]["pid"], signal.SIGKILL)

    until(lambda: not running.processes())
    assert running.up()["secret"] is None
    assert 200 == running.chat().status_code


def test_child_that_keeps_dying_ends_the_stack(running: Stack) -> None:
    """Five deaths within 30 s are a defect that restarts cannot heal: all ends, with a reason."""
    killed: set[int] = set()

    def kill_demo() -> bool:
        pid = running.pid("demo")
        if pid is not None and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return len(killed) >= 5

    until(kill_demo)
    until(lambda: not running.processes())
    assert "error: demo keeps dying (killed by signal 9)" in running.supervisor_log()
    assert "not ready" in running.run("status").stdout
