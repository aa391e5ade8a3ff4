"""Programs that take an address alone work with a key in it, and Ollama never sees that."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import openai
import pytest

from tests.authz.signing import Signer
from tests.conformance.ollama_cli import Cli
from tests.conformance.sending import MODEL, SETTLED_WITHIN_S
from tests.gateway import Gateway
from tests.ollama.server import Ollama
from tests.security import canary

BILLED = """
SELECT l.path, l.input_tokens, l.output_tokens FROM ledger AS l JOIN secrets AS s ON s.key_id = l.key_id
WHERE s.lookup = $1 AND l.input_tokens + l.output_tokens > 0
"""


@pytest.fixture
def key(gateway: Gateway, tag: str) -> str:
    """A key that may stand in a path."""
    return gateway.create_key(tag, "--in-path", "allowed", "--details", "shown")


@pytest.fixture
def gated(gateway: Gateway, key: str, tmp_path: Path) -> Cli:
    """The program with the key in its OLLAMA_HOST."""
    return Cli(tmp_path, f"{gateway.url}/k/{key}", auth="")


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("show", "toy"), ("run", "toy", "say something tokens=6"), ("run", "toy-embed", "some text")],
    ids=" ".join,
)
def test_commands_are_as_with_ollama(
    gated: Cli, ollama: Ollama, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """What the program prints is what it prints of a local Ollama, but for the order of equal times."""
    expected = Cli(tmp_path, ollama.url, auth="").shown(*arguments)
    assert expected
    assert sorted(expected.splitlines()) == sorted(gated.shown(*arguments).splitlines())


def test_refusals_are_in_its_words(gateway: Gateway, gated: Cli, key: str, tmp_path: Path) -> None:
    """A mutation, a key that may not be there, and a signature beside it: each says what is wrong."""
    other = gateway.create_key(f"{tmp_path.name}-not-in-path")
    refused = {
        "can't be changed through this gateway": gated.run("rm", "toy"),
        "Invalid or missing API key": Cli(tmp_path, f"{gateway.url}/k/{other}", auth="").run("list"),
        "More than one credential": Cli(_signing(tmp_path), f"{gateway.url}/k/{key}").run("list"),
    }
    for sentence, done in refused.items():
        assert (1, True) == (done.returncode, sentence in done.stderr), done.stderr


def _signing(folder: Path) -> Path:
    """Make a home with a key of the program."""
    file = folder / "home" / ".ollama" / "id_ed25519"
    file.parent.mkdir(parents=True)
    file.write_text(Signer().private)
    return folder / "home"


@pytest.mark.asyncio(loop_scope="module")
async def test_its_answers_are_billed(
    *, gateway: Gateway, ollama: Ollama, ledger: asyncpg.Connection, gated: Cli, key: str, tag: str
) -> None:
    """B1, C3: both dialects are billed as Ollama counted, and neither its log nor the gateway has the key."""
    gated.shown("run", MODEL, f"say something tokens=6 tag={tag}")
    client = openai.OpenAI(base_url=f"{gateway.url}/k/{key}/v1/", api_key="none", max_retries=0)
    with client.chat.completions.create(
        model=MODEL, stream=True, messages=[{"role": "user", "content": f"tokens=7 tag={tag}"}]
    ) as stream:
        assert list(stream)
    truths = await ollama.truths(tag, ended=2)
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while len(rows := await ledger.fetch(BILLED, key[:11])) < 2:
            await asyncio.sleep(0.05)
    assert {"/api/generate", "/v1/chat/completions"} == {row["path"] for row in rows}
    assert sorted((row["input_tokens"], row["output_tokens"]) for row in rows) == sorted(
        (truth.input_tokens, truth.output_tokens) for truth in truths
    )
    logged = (ollama.folder / "server.log").read_bytes()
    assert re.search(rb'POST +"/api/generate"', logged)
    places = [
        canary.Sink("Ollama's log", logged),
        *await asyncio.to_thread(lambda: list(canary.sinks(gateway))),
    ]
    assert [] == canary.found(iter(places), canary.needles(key))
