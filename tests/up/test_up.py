"""Other ways to have a stack: two of them, stores of one's own, attached to a terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.backend.app import backend
from tests.backend.serving import served
from tests.up.stacks import Stack

pytestmark = pytest.mark.timeout(300)


def test_two_stacks_side_by_side(new_stack: Callable[[], Stack]) -> None:
    """Two folders and two ports are two gateways that share nothing, each with its own settings."""
    one, other = new_stack(), new_stack()
    one.up(GATEWAY_AUTHZ_PROCESSES="1")
    assert 3 == len(other.up(GATEWAY_AUTHZ_PROCESSES="3")["pids"]["authz"])

    assert [one.chat().status_code, other.chat().status_code] == [200, 200]
    one.key = other.key
    assert 401 == one.chat().status_code
    one.run("down")
    assert other.status()["ready"]


def test_up_twice_at_once(new_stack: Callable[[], Stack]) -> None:
    """Of two that start in one new folder, one comes up and the other says so in one sentence."""
    one, other = new_stack(), new_stack()
    other.state = one.state
    with ThreadPoolExecutor() as both:
        ups = [
            both.submit(each.run, "up", "--port", str(each.port), "--demo", "--detach")
            for each in (one, other)
        ]
    codes, errors = zip(*((up.result().returncode, up.result().stderr) for up in ups), strict=True)

    assert [0, 1] == sorted(codes)
    refusal = errors[codes.index(1)]
    assert refusal.startswith("error: A stack already runs in ")
    assert 1 == len(refusal.splitlines())
    assert one.status()["ready"]


def test_backend_with_a_token(stack: Stack) -> None:
    """A backend sees the token that it was named with, and never the key of a client."""
    with served(backend("demo")) as url:
        stack.up(OLLAMA_BACKENDS=json.dumps([{"name": "gpu", "url": url, "token": 'a"b {c}'}]))

        assert 200 == stack.chat().status_code

        hits = [hit for hit in httpx.get(f"{url}/test/hits").json() if hit["target"] == "/api/chat"]
    headers = [value for name, value in hits[0]["headers"] if name.lower() == "authorization"]
    assert ['Bearer a"b {c}'] == headers
    assert stack.key is not None
    assert stack.key not in str(hits)


def test_own_stores_replace_the_embedded(stack: Stack, database: str, redis_url: str) -> None:
    """DATABASE_URL and REDIS_URL are used instead of servers of the stack's own."""
    answer = stack.up(DATABASE_URL=database, REDIS_URL=redis_url)

    assert answer["pids"]["postgres"] is None
    assert answer["pids"]["redis"] is None
    assert {"database_url": database, "redis_url": redis_url} == json.loads(
        (stack.state / "stores.json").read_text()
    )
    assert 200 == stack.chat().status_code


def test_attached_stack_ends_by_ctrl_c(stack: Stack) -> None:
    """Ctrl-C stops everything, and that is no error."""
    argv = [sys.executable, "-m", "authz", "up", "--state", str(stack.state), "--demo", "--json"]
    with subprocess.Popen([*argv, "--port", str(stack.port)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        stack.key = json.loads(process.stdout.readline())["secret"]
        assert 200 == stack.chat().status_code

        process.send_signal(signal.SIGINT)

        assert 0 == process.wait()
    assert [] == stack.processes()


def test_down_without_a_stack_is_refused(stack: Stack) -> None:
    """A folder in which no stack has run is not touched by `down`."""
    done = stack.run("down")

    assert 1 == done.returncode
    assert "There is no stack in" in done.stderr
    assert not stack.state.exists()
