"""What the demo backend says it has, and how it is started."""

import json
import signal
import socket
import subprocess
import sys

import httpx
import pytest


def test_shown_model_says_what_it_can(demo: httpx.Client) -> None:
    """`/api/show` gives capabilities and the context length under the model's architecture."""
    shown = demo.post("/api/show", json={"model": "toy-embed"}).json()
    architecture = shown["model_info"]["general.architecture"]
    assert (["embedding"], 512) == (
        shown["capabilities"],
        shown["model_info"][f"{architecture}.context_length"],
    )


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "none"}, 404, "model 'none:latest' not found"),
        ({"name": "none:1b"}, 404, "model 'none:1b' not found"),
        ({}, 400, "model is required"),
        (None, 400, "missing request body"),
    ],
)
def test_unknown_model_is_not_shown(
    demo: httpx.Client, body: dict[str, str] | None, status: int, error: str
) -> None:
    """`/api/show` refuses as Ollama does."""
    reply = demo.post("/api/show", content=b"" if body is None else json.dumps(body))
    assert (status, {"error": error}) == (reply.status_code, reply.json())


def test_models_are_loaded_by_use_and_unloaded_on_demand(demo: httpx.Client) -> None:
    """`/api/ps` lists what was used or loaded, the newest first, until it is unloaded."""
    demo.post("/api/chat", json={"model": "TOY2:latest", "messages": []})
    demo.post("/api/generate", json={"model": "toy", "prompt": "tokens=1"})
    assert ["toy:latest", "toy2:latest"] == loaded(demo)
    demo.post("/api/generate", json={"model": "toy", "keep_alive": 0})
    assert ["toy2:latest"] == loaded(demo)


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("/api/chat", {"messages": [{"role": "user"}], "tools": [{"function": {"name": "f"}}]}, "tools"),
        (
            "/v1/messages",
            {"messages": [{"role": "user"}], "tools": [{"name": "f"}], "max_tokens": 1},
            "tools",
        ),
    ],
)
def test_model_without_tools_refuses_them(
    demo: httpx.Client, path: str, body: dict[str, object], wanted: str
) -> None:
    """A model whose template knows no tools refuses a request that brings some."""
    reply = demo.post(path, json={"model": "toy-tpl"} | body)
    assert 400 == reply.status_code
    assert f"does not support {wanted}" in reply.text


def test_chat_model_cannot_insert(demo: httpx.Client) -> None:
    """Only a model that can insert takes a suffix."""
    reply = demo.post("/api/generate", json={"model": "toy", "prompt": "a", "suffix": "b"})
    assert (400, {"error": "toy:latest does not support insert"}) == (reply.status_code, reply.json())


def test_process_serves_until_it_is_told_to_stop() -> None:
    """`python -m authz.demo` serves the named models and ends on SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "authz.demo", "--port", str(port), "--models", "demo,demo-embed"]
    with subprocess.Popen(command) as process:
        transport = httpx.HTTPTransport(retries=20)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:
            names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        process.send_signal(signal.SIGTERM)
    assert (["demo:latest", "demo-embed:latest"], -signal.SIGTERM) == (names, process.returncode)


def loaded(demo: httpx.Client) -> list[str]:
    """Name the loaded models."""
    return [model["name"] for model in demo.get("/api/ps").json()["models"]]
