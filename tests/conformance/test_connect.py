"""The unmodified `ollama` program, without any key, works through `neuronetz-gateway connect`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.conformance.ollama_cli import Cli
from tests.conformance.sending import SETTLED_WITHIN_S
from tests.gateway import Gateway, NewKey
from tests.ollama.server import Ollama
from tests.up.connecting import Connected, connected
from tests.up.stacks import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MUTATION = "Models and accounts can't be changed through this gateway"
DELIVERED = 11
"""Words shown before the program is ended."""
BILLED = """
SELECT l.input_tokens, l.output_tokens, l.outcome, l.deltas FROM ledger AS l
JOIN secrets AS s ON s.key_id = l.key_id WHERE s.lookup = $1 AND l.path = '/api/generate'
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(new_key: NewKey) -> AsyncIterator[str]:
    """A key of a tenant of its own."""
    yield await new_key()


@pytest.fixture(scope="module")
def proxy(gateway: Gateway, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connected]:
    """The proxy that adds it."""
    with connected(gateway.url, key, folder=tmp_path_factory.mktemp("connect")) as started:
        yield started


@pytest.fixture
def gated(proxy: Connected, tmp_path: Path) -> Cli:
    """The program that asks the proxy."""
    return Cli(tmp_path, proxy.host, auth="")


@pytest.fixture
def direct(ollama: Ollama, tmp_path: Path) -> Cli:
    """The program that asks Ollama itself."""
    return Cli(tmp_path, ollama.url, auth="")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("run", "toy", "say something tokens=6"),
        ("run", "toy-think", "say something tokens=6"),
        ("run", "toy-embed", "some text"),
    ],
    ids=" ".join,
)
async def test_commands_are_as_with_ollama(gated: Cli, direct: Cli, arguments: tuple[str, ...]) -> None:
    """What the program prints is what it prints of a local Ollama, but for the order of equal times."""
    expected = direct.shown(*arguments)
    assert expected
    assert sorted(expected.splitlines()) == sorted(gated.shown(*arguments).splitlines())


async def test_what_runs_is_as_with_ollama(gated: Cli, direct: Cli) -> None:
    """`ps` shows what a local Ollama shows, as soon as the backend has been asked again."""

    def is_same() -> bool:
        direct.shown("run", "toy2", "say something tokens=6")  # Ollama may have unloaded it for another model
        expected = direct.shown("ps")
        return "toy2:latest" in expected and sorted(expected.splitlines()) == sorted(
            gated.shown("ps").splitlines()
        )

    until(is_same)


async def test_refusals_are_in_its_words(gated: Cli) -> None:
    """What no key may do is refused by the program with the gateway's sentence, in an error of its own."""
    done = gated.run("rm", "toy")
    assert 1 == done.returncode, done.stdout
    assert "Error: " in done.stderr
    assert MUTATION in done.stderr


@pytest.mark.parametrize("is_left", [False, True], ids=["to its end", "left"])
async def test_its_answers_are_billed(
    *,
    gateway: Gateway,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    new_key: NewKey,
    tmp_path: Path,
    tag: str,
    is_left: bool,
) -> None:
    """B1: a streamed answer is billed as Ollama counted it; one that is left ends at once, in Ollama too."""
    own = await new_key()
    with (
        connected(gateway.url, own, folder=tmp_path) as proxy,
        ollama.gate(tag) as gate,
        Cli(tmp_path, proxy.host, auth="").start("run", "toy", f"tokens=32 hold={tag} tag={tag}") as program,
    ):
        gate.release(DELIVERED if is_left else 64)
        assert program.stdout is not None
        if is_left:
            while program.stdout.read(1) != " ":  # its first word is on the screen
                pass
            await _delivered(ollama, tag)
            program.kill()
        else:
            program.communicate(timeout=SETTLED_WITHIN_S)
        (truth,) = await ollama.truths(tag)
    row = await _billed(ledger, own)
    if is_left:
        assert ("cancel", "client_gone") == (truth.end, row["outcome"])
        assert row["deltas"] <= row["output_tokens"] <= math.ceil(truth.output_tokens * 1.05)
    else:
        assert ("completed", truth.input_tokens) == (row["outcome"], row["input_tokens"])
        assert truth.output_tokens == row["output_tokens"]


async def test_a_stream_is_not_held_back(proxy: Connected, ollama: Ollama, tag: str) -> None:
    """C2: each word of an answer is there before Ollama produces the next."""
    body = {"model": "toy", "prompt": f"tokens=5 hold={tag} tag={tag}"}
    with ollama.gate(tag) as gate:
        gate.release(1)
        async with (
            httpx.AsyncClient(timeout=SETTLED_WITHIN_S) as client,
            client.stream("POST", f"{proxy.host}/api/generate", json=body) as answer,
        ):
            lines = answer.aiter_lines()
            for _ in range(5):
                assert '"done":false' in await anext(lines)
                gate.release(1)
            assert '"done":true' in await anext(lines)


async def _delivered(ollama: Ollama, tag: str) -> None:
    """Wait until the runner has written all that its gate lets pass."""
    await ollama.last(tag, lines=1 + DELIVERED)


async def _billed(ledger: asyncpg.Connection, key: str) -> asyncpg.Record:
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while not (rows := await ledger.fetch(BILLED, key[:11])):
            await asyncio.sleep(0.05)
    (row,) = rows
    return row
