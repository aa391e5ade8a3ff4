"""compose.dev.yaml by the two commands of its head."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.compose.engine.deployment import Deployment
from tests.up.stacks import answers, until

READY = "http://127.0.0.1:8080/readyz"
DEV = ("--file", "compose.dev.yaml")


def test_development(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The example as it is and one command: it serves on 8080, and /readyz says that no backend is there."""
    made = Deployment.copied(tmp_path_factory.mktemp("development"))
    made.run("cp", ".env.example", ".env")
    try:
        made.compose(*DEV, "up", "--build", "--detach")
        until(lambda: answers("http://127.0.0.1:8080/healthz"))
        assert {"status": "ok"} == httpx.get("http://127.0.0.1:8080/healthz", trust_env=False).json()
        only = ["No backend answers: check OLLAMA_URL or OLLAMA_BACKENDS and that Ollama runs."]
        until(lambda: httpx.get(READY, trust_env=False).json()["missing"] == only)
        assert 503 == httpx.get(READY, trust_env=False).status_code
        made.compose(*DEV, "run", "--rm", "--no-TTY", "cli", "create-tenant", "--name", "acme")
        status = made.compose(*DEV, "run", "--rm", "--no-TTY", "cli", "status", "--json", is_checked=False)
        assert not json.loads(status.stdout)["ready"]
    finally:
        made.compose(*DEV, "--profile", "cli", "down", "--volumes", "--timeout", "5")
