"""Streams that are killed, parts that are restarted and killed, edits, another backend, an upgrade."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.compose.engine.conftest import OLLAMA_IMAGE, new_key
from tests.compose.engine.deployment import AS_ROOT, Client, Deployment, Refused
from tests.up.stacks import until

ALERT_TOKEN: Final = "alert-token-of-the-test"
RECEIVER: Final = """
import http.server, json
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(self.headers["Authorization"], body["name"], flush=True)
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("", 8000), Receiver).serve_forever()
"""
"""A receiver of alerts that prints their tokens and names."""
SERVICES = ("postgres", "redis", "authz-0", "authz-1", "metering", "caddy", "ollama")


@contextmanager
def streaming(client: Client, tokens: int, delay_ms: int) -> Iterator[list[dict[str, Any]]]:
    """Stream an answer meanwhile; the lines that have come."""
    lines: list[dict[str, Any]] = []

    def follow() -> None:
        lines.extend(client.stream(tokens, delay_ms=delay_ms))

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: lines)
    yield lines
    thread.join(timeout=120)
    assert not thread.is_alive()


def test_revoke_with_kill(deployment: Deployment, client: Client) -> None:
    """`revoke-key --kill` in `cli` ends a running stream with a last frame, and admits no other."""
    key = new_key(deployment, "killed")
    mine = Client(client.root, key)
    with streaming(mine, 5000, 20) as lines:
        assert "killed" in deployment.cli("streams", "list")
        printed = deployment.cli("revoke-key", "--prefix", key[:11], "--kill")
        assert "1" in printed
    assert lines[-1]["done"]
    assert len(lines) < 5000
    with pytest.raises(Refused) as refused:
        mine.chat()
    assert 401 == refused.value.args[0]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("how", ["restart", "kill -9"])
def test_each_part_comes_back(
    deployment: Deployment, client: Client, spent: dict[str, int], service: str, how: str
) -> None:
    """A part that is restarted or killed is healthy again by itself, and the gateway serves."""
    if how == "restart":
        deployment.compose("restart", service)
    else:
        deployment.kill(service)
    spent["exact"] += client.chats()
    until(deployment.healthy)


def test_the_bill_is_exact(deployment: Deployment, client: Client, spent: dict[str, int]) -> None:
    """B1: after every restart and kill, the key has paid what its answers reported, and not a token more."""
    until(lambda: deployment.usage(tenant="acme").get("exact") == spent["exact"])
    status = json.loads(deployment.cli("status", "--json"))["bill"]
    wrong = ("lost_lines", "dead_letters", "overrun_tokens", "drift_tokens")
    assert dict.fromkeys(wrong, 0) == {name: status[name] for name in wrong}


def test_an_edit_rebuilds_nothing(deployment: Deployment, client: Client) -> None:
    """An edited Caddyfile and snippet are no part of an image, and SIGUSR1 puts them to use."""
    before = {name: each["Image"] for name, each in deployment.states().items()}
    deployment.edit(
        "caddy/Caddyfile", "\t\timport gateway_cors\n", "\t\theader X-Edited yes\n\t\timport gateway_cors\n"
    )
    line = "import gateway_backend_open default http://ollama:11434"
    deployment.edit("caddy/backends.d/default.caddy", line, f"{line} {{\n\theader_down X-Snippet yes\n}}")
    deployment.compose("build")
    deployment.compose("kill", "--signal", "SIGUSR1", "caddy")
    until(lambda: client.get("/healthz").headers.get("X-Edited") == "yes")
    assert (
        before["caddy"]
        == deployment.run(
            "docker", "inspect", "--format={{.Id}}", "neuronetz-gateway-caddy:0.1.0"
        ).stdout.strip()
    )
    assert (
        before["authz-0"]
        == deployment.run(
            "docker", "inspect", "--format={{.Id}}", "neuronetz-gateway-python:0.1.0"
        ).stdout.strip()
    )


def test_another_backend(deployment: Deployment, client: Client, spent: dict[str, int]) -> None:
    """`add-backend --write-env` in `cli` changes .env on the host; `render` and a signal put it to use."""
    owner = (deployment.folder / ".env").stat()
    deployment.cli("render", "--force")
    deployment.cli(
        "add-backend", "second", "http://ollama:11434", "--token", "SECRET-T", "--write-env", ".env"
    )
    assert '"name":"second"' in (deployment.value("OLLAMA_BACKENDS") or "")
    after = (deployment.folder / ".env").stat()
    assert (owner.st_uid, owner.st_gid, owner.st_mode) == (after.st_uid, after.st_gid, after.st_mode)
    before = deployment.states()
    with streaming(client, 200, 20) as lines:
        deployment.cli("render")
        deployment.compose("kill", "--signal", "SIGUSR1", "caddy")
    spent["exact"] += lines[-1]["prompt_eval_count"] + lines[-1]["eval_count"]
    until(lambda: client.get("/readyz").json()["backends"] == {"default": True, "second": True})
    deployment.compose("up", "--detach")
    again = deployment.states()
    kept = [name for name in ("authz-0", "authz-1", "caddy") if before[name]["Id"] == again[name]["Id"]]
    assert ["authz-0", "authz-1", "caddy"] == kept
    assert "second" in json.dumps(json.loads(deployment.cli("status", "--json"))["backends"])
    assert "SECRET-T" not in deployment.compose("logs", "--no-color").stdout


def test_wire_multi_backend(deployment: Deployment, client: Client, spent: dict[str, int]) -> None:
    """Each container of ollama/ollama is found, attached, written down, used; the same again is the same."""
    toys = deployment.folder / "toys"
    deployment.run("docker", "rm", "--force", "gwtest-neuro")
    deployment.run(
        *("docker", "run", "--detach", "--name=gwtest-neuro", "--volume", f"{toys}:/models"),
        *("--env=OLLAMA_MODELS=/models", "--env=OLLAMA_AUTH=true", "--env=OLLAMA_AUTH_TOKEN=SECRET-N"),
        OLLAMA_IMAGE,
    )
    try:
        wire = ("wire-multi-backend", "--env", ".env", "--url", "http://127.0.0.1")
        first = deployment.ours(*wire)
        assert "SECRET" not in first.stdout + first.stderr
        names = [each["name"] for each in json.loads(deployment.value("OLLAMA_BACKENDS") or "[]")]
        assert ["embedded", "gwtest-neuro"] == names
        until(lambda: client.get("/readyz").json()["backends"] == {"embedded": True, "gwtest-neuro": True})
        until(lambda: client.get("/readyz").status_code == 200)
        spent["exact"] += client.chat(4, model="toy2")  # which only the new one has
        line = deployment.value("OLLAMA_BACKENDS")
        assert first.stdout.splitlines()[0] == deployment.ours(*wire).stdout.splitlines()[0]
        assert line == deployment.value("OLLAMA_BACKENDS")
    finally:
        deployment.run("docker", "rm", "--force", "gwtest-neuro")
    deployment.set(OLLAMA_BACKENDS="")
    deployment.compose("up", "--detach")
    deployment.compose("kill", "--signal", "SIGUSR1", "caddy")
    until(lambda: client.get("/readyz").json()["backends"] == {"default": True})


def test_an_alert_with_a_token(deployment: Deployment, client: Client, spent: dict[str, int]) -> None:
    """A token in a file of .env reaches what posts alerts, and the receiver gets it as Bearer."""
    token = deployment.folder / "secrets" / "alert_token"
    token.write_text(f"{ALERT_TOKEN}\n")
    deployment.run(*AS_ROOT, "chown", "65532:65532", str(token))
    deployment.run(*AS_ROOT, "chmod", "0440", str(token))
    deployment.set(
        GATEWAY_ALERT_URL="http://gwtest-receiver:8000/", GATEWAY_ALERT_TOKEN_FILE="./secrets/alert_token"
    )
    image = deployment.states()["metering"]["Image"]
    started = ("--detach", "--name=gwtest-receiver", "--network=proxy")
    deployment.run("docker", "run", *started, image, "python", "-c", RECEIVER)
    try:
        deployment.compose("up", "--detach")
        until(deployment.healthy)
        assert "The receiver answered 204." in deployment.cli("alerts", "test")
        seen = deployment.run("docker", "logs", "gwtest-receiver").stdout
        assert [f"Bearer {ALERT_TOKEN} test"] == seen.splitlines()
    finally:
        deployment.run("docker", "rm", "--force", "gwtest-receiver")
    spent["exact"] += client.chats()
    assert ALERT_TOKEN not in deployment.compose("logs", "--no-color").stdout
    deployment.set(GATEWAY_ALERT_URL="", GATEWAY_ALERT_TOKEN_FILE="")
    deployment.compose("up", "--detach")
    until(deployment.healthy)


def test_upgrade(deployment: Deployment, client: Client, spent: dict[str, int]) -> None:
    """Another version takes the place of this one; a stream meanwhile ends whole, and all data stay."""
    pyproject = deployment.folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('version = "0.1.0"', 'version = "0.1.1"', 1))
    deployment.set(GATEWAY_VERSION="0.1.1")
    deployment.compose("build")
    with streaming(client, 300, 20) as lines:
        deployment.compose("up", "--detach")
    assert lines[-1]["done"]
    assert 301 == len(lines)
    spent["exact"] += lines[-1]["prompt_eval_count"] + lines[-1]["eval_count"]
    assert "0.1.1" in deployment.cli("--version")
    spent["exact"] += client.chats()
    until(lambda: deployment.usage(tenant="acme").get("exact") == spent["exact"])


def test_down_and_up_with_a_port_taken(deployment: Deployment, client: Client, spent: dict[str, int]) -> None:
    """A taken port is named and nothing is lost; then keys, the bill and the certificate are as before."""
    stored = deployment.folder / "certificate"
    deployment.compose("cp", "caddy:/data/caddy/certificates", str(stored))
    deployment.compose("down")
    with socket.create_server(("0.0.0.0", 443)):  # noqa: S104 (as whoever takes the port would)
        done = deployment.compose("up", "--detach", is_checked=False)
        assert 0 != done.returncode
        assert "443" in done.stderr.strip().splitlines()[-1]
        assert "address already in use" in done.stderr
    deployment.compose("up", "--detach")
    spent["exact"] += client.chats()
    until(deployment.healthy)
    until(lambda: deployment.usage(tenant="acme").get("exact") == spent["exact"])
    again = deployment.folder / "certificate-again"
    deployment.compose("cp", "caddy:/data/caddy/certificates", str(again))
    assert [path.read_bytes() for path in sorted(stored.rglob("*.crt"))] == [
        path.read_bytes() for path in sorted(again.rglob("*.crt"))
    ]
    shutil.rmtree(stored)
