"""The audit of a whole stack: what its operators did, and no refusal of its own probes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.authz.json_names import ELSEWHERE
from tests.backend.app import backend
from tests.backend.serving import served
from tests.up.stacks import Stack

pytestmark = pytest.mark.timeout(300)

LONG = {"model": "demo", "messages": [{"role": "user", "content": "tokens=5000 delay_ms=20"}]}


@pytest.fixture
def slow_url() -> Iterator[str]:
    """The URL of a backend that answers for as long as the prompt says."""
    with served(backend("demo")) as url:
        yield url


def events(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    """What the audit lists."""
    found: list[dict[str, Any]] = json.loads(stack.run("audit", "--json", *arguments).stdout)
    return found


def test_a_fresh_stack_has_refused_nothing(stack: Stack, slow_url: str) -> None:
    """What `up`, `doctor` and `status` ask is no refusal, and a request that is ended has who ended it."""
    stack.up(OLLAMA_BACKENDS=json.dumps([{"name": "slow", "url": slow_url}]))
    assert stack.run("doctor").returncode == 0
    assert stack.status()["ready"]
    assert ["tenant_created", "key_created"] == [event["action"] for event in events(stack)]

    headers = {"Authorization": f"Bearer {stack.key}"}
    url = f"http://127.0.0.1:{stack.port}/api/chat"
    with httpx.stream("POST", url, headers=headers, json=LONG, timeout=60) as stream:
        chunks = stream.iter_raw()
        next(chunks)
        request = stream.headers["X-Request-Id"]
        said = json.loads(stack.run("streams", "kill", request, "--actor", "carol", "--json").stdout)
        assert {"request": request, "killed": 1} == said
        assert ELSEWHERE["streams kill"] == said.keys()
        for _ in chunks:
            pass
    (event,) = events(stack, "--actor", "carol")
    assert ("requests_killed", "demo", "first") == (event["action"], event["tenant"], event["key"])
    assert {"request": request} == event["new"]
    with httpx.stream("POST", url, headers=headers, json=LONG, timeout=60) as stream:
        chunks = stream.iter_raw()
        next(chunks)
        assert 0 == stack.run("disable-tenant", "--tenant", "demo", "--kill", "--actor", "dave").returncode
        for _ in chunks:
            pass
    disabled, killed = events(stack, "--actor", "dave")
    assert ("tenant_disabled", {"state": "disabled"}) == (disabled["action"], disabled["new"])
    assert ("requests_killed", {"requests": 1}) == (killed["action"], killed["new"])
