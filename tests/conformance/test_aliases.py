"""A model that is asked for by another name answers as itself, but for the name, and is billed as itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import anthropic
import asyncpg
import httpx
import pytest

from tests.conformance.sending import EMBEDDINGS, GENERATIONS, MODEL, UNREPORTED, Request, masked, settled
from tests.gateway import Gateway
from tests.up.stacks import until

ALIASES = {"toy": "claude-opus-9", "toy-embed": "text-embedding-3-small"}
"""What clients call each model."""


@contextmanager
def _alias(gateway: Gateway, alias: str, model: str) -> Iterator[None]:
    done = gateway.stack.run("alias", "set", alias, model)
    assert 0 == done.returncode, done.stderr
    index = gateway.stack.state / "tables" / "index.json"
    until(lambda: alias in json.loads(index.read_bytes())["aliases"])
    yield
    assert 0 == gateway.stack.run("alias", "remove", alias).returncode


@pytest.fixture(scope="module", autouse=True)
def aliases(gateway: Gateway) -> Iterator[None]:
    """A beginning of names means the model of texts, a name the other; Caddy knows both."""
    with _alias(gateway, "claude-*", "toy"), _alias(gateway, "text-embedding-3-small:latest", "toy-embed"):
        yield


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "prompt", ["tokens=5 cache=0", "tokens=9 pertoken=4 cache=0", "think=3 tokens=4 cache=0"]
)
@pytest.mark.parametrize("request_", [*GENERATIONS, *EMBEDDINGS, UNREPORTED], ids=str)
async def test_only_the_name_differs(
    gated: httpx.AsyncClient,
    direct: httpx.AsyncClient,
    ledger: asyncpg.Connection,
    request_: Request,
    prompt: str,
) -> None:
    """Every answer has the backend's bytes with the name that was asked for; the ledger has both names."""
    content, alias = request_.content(prompt), ALIASES[request_.model]
    model = f'"model":"{request_.model}"'.encode()
    plain = await direct.post(request_.path, content=content)
    asked = json.dumps(json.loads(content) | {"model": alias})
    via = await gated.post(request_.path, content=asked)
    assert plain.status_code == via.status_code
    expected = plain.content.replace(model, f'"model":"{alias}"'.encode())
    assert masked(expected) == masked(via.content)
    assert "model" in via.headers["x-gateway-changed"]
    row = await settled(ledger, via.headers["x-request-id"])
    assert (request_.model, alias) == (row["model"], row["model_asked"])
    own = await gated.post(request_.path, content=content)
    same = await settled(ledger, own.headers["x-request-id"])
    for column in ("input_tokens", "output_tokens", "usage_source", "bound", "bound_table"):
        assert same[column] == row[column], column
    assert same["model_asked"] is None


def test_a_coding_agent_asks_for_its_vendors_model(gateway: Gateway) -> None:
    """An SDK that knows one vendor's models alone is served, streams too."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        asked = {
            "model": ALIASES[MODEL],
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "tokens=5"}],
        }
        message = client.messages.create(**asked)  # type: ignore[call-overload]
        assert (ALIASES[MODEL], 5) == (message.model, message.usage.output_tokens)
        with client.messages.stream(**asked) as stream:  # type: ignore[arg-type]
            assert ALIASES[MODEL] == stream.get_final_message().model
