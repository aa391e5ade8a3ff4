"""The unmodified `ollama` program works through the gateway: it signs its requests, and sends no key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from tests.authz.signing import Signer
from tests.conformance.ollama_cli import Cli
from tests.conformance.sending import SETTLED_WITHIN_S
from tests.gateway import Gateway
from tests.ollama.server import Ollama
from tests.up.stacks import until

MUTATION = "Models and accounts can't be changed through this gateway"
BILLED = """
SELECT l.input_tokens, l.output_tokens FROM ledger AS l JOIN secrets AS s ON s.key_id = l.key_id
WHERE s.lookup = $1 AND l.path = '/api/generate'
"""


@pytest.fixture(scope="module")
def signer(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """A key of the program, registered as its holder would."""
    made = Signer()
    file = tmp_path_factory.mktemp("key") / "id_ed25519.pub"
    file.write_text(f"{made.line} somebody\n")
    gateway.create_key("cli", "--ssh-key", str(file), "--details", "shown")
    return made


def _home(folder: Path, signer: Signer) -> Path:
    (folder / ".ollama").mkdir(parents=True)
    (folder / ".ollama" / "id_ed25519").write_text(signer.private)
    return folder


@pytest.fixture(scope="module")
def gated(gateway: Gateway, signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The program that asks the gateway."""
    return Cli(_home(tmp_path_factory.mktemp("gated"), signer), gateway.url)


@pytest.fixture
def direct(ollama: Ollama, tmp_path: Path) -> Cli:
    """The program that asks Ollama itself."""
    return Cli(tmp_path, ollama.url, auth="")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("ls", "toy2"),
        ("show", "toy"),
        ("show", "toy", "--modelfile"),
        ("run", "toy", "say something tokens=6"),
        ("run", "toy-think", "say something tokens=6"),
        ("run", "toy-embed", "some text"),
    ],
    ids=" ".join,
)
def test_commands_are_as_with_ollama(gated: Cli, direct: Cli, arguments: tuple[str, ...]) -> None:
    """What the program prints is what it prints of a local Ollama, but for the order of equal times."""
    expected = direct.shown(*arguments)
    assert expected
    assert sorted(expected.splitlines()) == sorted(gated.shown(*arguments).splitlines())


def test_what_runs_is_as_with_ollama(gated: Cli, direct: Cli) -> None:
    """`ps` shows what a local Ollama shows, as soon as the backend has been asked again."""

    def is_same() -> bool:
        direct.shown("run", "toy2", "say something tokens=6")  # Ollama may have unloaded it for another model
        expected = direct.shown("ps")
        return "toy2:latest" in expected and sorted(expected.splitlines()) == sorted(
            gated.shown("ps").splitlines()
        )

    until(is_same)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pull", "toy"), "none can be pulled through this gateway"),
        (("run", "nope", "hi"), "none can be pulled through this gateway"),
        (("push", "me/toy"), MUTATION),
        (("cp", "toy", "mine"), MUTATION),
        (("rm", "toy"), MUTATION),
        (("create", "mine"), MUTATION),
        (("signin",), MUTATION),
        (("signout",), MUTATION),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refusals_are_in_its_words(gated: Cli, arguments: tuple[str, ...], sentence: str) -> None:
    """What no key may do is refused by the program with the gateway's sentence, in an error of its own."""
    (gated.home / "Modelfile").write_text("FROM toy\n")
    done = gated.run(*arguments)
    assert 1 == done.returncode, done.stdout
    assert "Error: " in done.stderr
    assert sentence in done.stderr


@pytest.mark.parametrize("auth", ["1", ""])
def test_who_is_not_registered_is_shown_what_to_do(gateway: Gateway, tmp_path: Path, auth: str) -> None:
    """Without a registered key the program prints how it would get one, signed or not."""
    done = Cli(_home(tmp_path, Signer()), gateway.url, auth).run("list")
    assert 1 == done.returncode
    assert "Error: Invalid or missing API key" in done.stderr
    assert "OLLAMA_AUTH=1" in done.stderr


def test_run_shows_why_a_key_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    """`run` with a key that is not registered fails with the reason, and does not speak of signing in."""
    done = Cli(_home(tmp_path, Signer()), gateway.url).run("run", "toy", "hi")
    assert 1 == done.returncode
    assert "Error: " in done.stderr
    assert "Invalid or missing API key" in done.stderr
    assert "signed in" not in done.stdout


@pytest.mark.asyncio(loop_scope="module")
async def test_its_requests_are_billed(
    gateway: Gateway, ollama: Ollama, ledger: asyncpg.Connection, tmp_path: Path, tag: str
) -> None:
    """B1: what the program generated is on its key's bill, as Ollama counted it."""
    signer = Signer()
    file = tmp_path / "key.pub"
    file.write_text(signer.line)
    gateway.create_key(f"billed-{tag}", "--ssh-key", str(file))
    Cli(_home(tmp_path / "home", signer), gateway.url).shown(
        "run", "toy", f"say something tokens=6 tag={tag}"
    )
    (truth,) = await ollama.truths(tag)
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while not (rows := await ledger.fetch(BILLED, signer.handle)):
            await asyncio.sleep(0.05)
    assert [(truth.input_tokens, truth.output_tokens)] == [tuple(row) for row in rows]
