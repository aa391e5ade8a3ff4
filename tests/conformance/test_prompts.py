"""The prompt log: what is opened is what was sent and received, and the text is nowhere else."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from attrs import frozen

from authz.accounts.prompts import open_prompt
from authz.accounts.session import opened
from authz.accounts.vault import PrivateKeys
from tests.conformance.sending import EMBEDDINGS, FAULTS, GENERATIONS, STREAMS, UNREPORTED, Request, seen
from tests.gateway import Gateway
from tests.ollama.server import Ollama
from tests.security import canary
from tests.up.stacks import until


@frozen
class Vault:
    """A key of a tenant of its own whose prompts are kept, and the private key that opens them."""

    gateway: Gateway
    private_key: Path
    key: str

    def show(self, request: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Open a prompt."""
        return self.gateway.run(
            "prompts", "show", request, "--private-key", str(self.private_key), *arguments
        )

    def opened(self, *requests: str) -> dict[str, tuple[bytes, bytes, tuple[str, ...]]]:
        """Open prompt and answer of each of these, once all of them are in Postgres."""
        until(lambda: set(requests) <= {row["request"] for row in self.listed()})
        return asyncio.run(self._opened(requests))

    async def _opened(self, requests: Iterable[str]) -> dict[str, tuple[bytes, bytes, tuple[str, ...]]]:
        keys = PrivateKeys.read(self.private_key)
        async with opened(self.gateway.stack.state) as session:
            shown = {request: await open_prompt(session, UUID(request), keys) for request in requests}
        return {request: (each.prompt, each.answer, each.problems) for request, each in shown.items()}

    def listed(self) -> list[dict[str, str]]:
        """What of the tenant's is whole in Postgres."""
        done = self.gateway.run("prompts", "list", "--tenant", "vaulted", "--limit", "1000", "--json")
        rows: list[dict[str, str]] = json.loads(done.stdout)
        return [row for row in rows if row["state"] == "whole"]


@pytest.fixture(scope="module")
def vault(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """Prompts are kept from now on."""
    private = tmp_path_factory.mktemp("away") / "vault.key"
    made = gateway.run("vault", "init", "--private-key", str(private), "--json")
    assert 0 == made.returncode, made.stderr
    gateway.run("create-tenant", "--name", "vaulted")
    created = gateway.run(
        "create-key", "--tenant", "vaulted", "--name", "only", "--log-prompts", "7d", "--json"
    )
    found = Vault(gateway, private, json.loads(created.stdout)["secret"])
    until(lambda: _is_kept(found))
    yield found
    gateway.run("prompts", "erase", "--tenant", "vaulted")


def _is_kept(vault: Vault) -> bool:
    """Return whether Caddy has found the public key: what it seals reaches Postgres."""
    headers = {"Authorization": f"Bearer {vault.key}"}
    httpx.post(
        f"{vault.gateway.url}/api/embed",
        headers=headers,
        json={"model": "toy-embed", "input": "a"},
        timeout=20,
    ).raise_for_status()
    return bool(vault.listed())


@pytest.fixture
def client(vault: Vault) -> Iterator[httpx.Client]:
    """A client with that key."""
    headers = {"Authorization": f"Bearer {vault.key}"}
    with httpx.Client(base_url=vault.gateway.url, headers=headers, timeout=20) as made:
        yield made


@pytest.mark.timeout(300)
def test_what_is_opened_is_what_was_exchanged(vault: Vault, client: httpx.Client) -> None:
    """Of every dialect, streamed and not, of errors and broken answers too: the same bytes both ways."""
    cases = [
        (request, prompt)
        for request in GENERATIONS
        for prompt in (
            "say=%E2%82%AC%3Cb%3E%20%F0%9F%98%80 cache=0",
            "think=2 tokens=30 cache=0",
            *(f"tokens=6 mode={fault} at=3 cache=0" for fault in FAULTS),
        )
    ]
    cases += [(request, "a text") for request in (*EMBEDDINGS, UNREPORTED)]
    exchanged: dict[str, tuple[bytes, bytes, tuple[str, ...]]] = {}
    for request, prompt in cases:
        content = b" " + request.content(prompt) + b"\n"
        received = b""
        with client.stream("POST", request.path, content=content) as reply:
            try:
                for chunk in reply.iter_raw():
                    received += chunk
            except httpx.RemoteProtocolError:
                assert "mode=" in prompt
        exchanged[reply.headers["x-request-id"]] = (content, received, ())
    assert exchanged == vault.opened(*exchanged)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("request_", STREAMS[::3], ids=str)
async def test_a_client_that_leaves(vault: Vault, ollama: Ollama, tag: str, request_: Request) -> None:
    """What a client had received when it left is there; so is no more than the backend had produced."""
    headers = {"Authorization": f"Bearer {vault.key}"}
    content = request_.content(f"tokens=50 hold={tag} tag={tag}")
    received = b""
    with ollama.gate(tag) as gate:
        gate.release(3)
        async with (
            httpx.AsyncClient(base_url=vault.gateway.url, headers=headers, timeout=20) as leaving,
            leaving.stream("POST", request_.path, content=content) as reply,
        ):
            async for chunk in reply.aiter_raw():
                received += chunk
                if b"scatter" in received:
                    break
        gate.release(50)
    request = reply.headers["x-request-id"]
    ((prompt, answer, problems),) = (await asyncio.to_thread(vault.opened, request)).values()
    assert (content, ()) == (prompt, problems)
    assert answer.startswith(received)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(120)
async def test_a_killed_stream(vault: Vault, ollama: Ollama, tag: str) -> None:
    """The last frame that the gateway itself writes is a part of the answer."""
    headers = {"Authorization": f"Bearer {vault.key}"}
    content = STREAMS[0].content(f"tokens=50 hold={tag} tag={tag}")
    with ollama.gate(tag) as gate:
        gate.release(3)
        async with (
            httpx.AsyncClient(base_url=vault.gateway.url, headers=headers, timeout=20) as patient,
            patient.stream("POST", STREAMS[0].path, content=content) as reply,
        ):
            lines = reply.aiter_lines()
            await seen(lines, "scatter")
            request = reply.headers["x-request-id"]
            assert 0 == vault.gateway.run("streams", "kill", request).returncode
            rest = [line async for line in lines]
        gate.release(50)
    ((_, answer, problems),) = (await asyncio.to_thread(vault.opened, request)).values()
    assert () == problems
    assert answer.splitlines()[-1].decode() == rest[-1]
    assert json.loads(rest[-1])["done"]


@pytest.mark.timeout(120)
def test_the_text_is_nowhere(vault: Vault, client: httpx.Client) -> None:
    """No file, table, key of Redis, log or metric of the gateway holds what was asked or answered."""
    asked, said = f"asked{uuid4().hex}", f"said{uuid4().hex}"
    ids = []
    for request in GENERATIONS:
        reply = client.post(request.path, content=request.content(f"{asked} say={said} cache=0"))
        assert said in reply.text
        ids.append(reply.headers["x-request-id"])
    for request_id, (prompt, answer, _) in vault.opened(*ids).items():
        assert asked.encode() in prompt, request_id
        assert said.encode() in answer, request_id
    needles = tuple(
        form
        for text in (asked.encode(), said.encode())
        for form in (
            text,
            text.hex().encode(),
            *(base64.b64encode(b"x" * shift + text)[4:-4] for shift in range(3)),
        )
    )
    assert [] == canary.found(canary.sinks(vault.gateway), needles)
    sinks = {sink.name for sink in canary.sinks(vault.gateway)}
    assert any(name.startswith("table prompt_pieces_") for name in sinks)


def test_opening_is_audited_and_raw(vault: Vault, client: httpx.Client) -> None:
    """`--part` prints the bytes alone; each opening is a row of the audit; without the key none opens."""
    content = GENERATIONS[0].content("tokens=3 cache=0")
    reply = client.post(GENERATIONS[0].path, content=content)
    request = reply.headers["x-request-id"]
    vault.opened(request)
    for part, text in (("prompt", content.decode()), ("answer", reply.text)):
        done = vault.show(request, "--part", part)
        assert (0, text, "") == (done.returncode, done.stdout, done.stderr)
    public = vault.gateway.stack.state / "vault.pub"
    refused = vault.gateway.run("prompts", "show", request, "--private-key", str(public))
    assert 1 == refused.returncode
    assert "holds a public key, which opens nothing" in refused.stderr
    events = json.loads(vault.gateway.run("audit", "--tenant", "vaulted", "--json").stdout)
    assert 3 == len([event for event in events if (event["new"] or {}).get("request") == request])
