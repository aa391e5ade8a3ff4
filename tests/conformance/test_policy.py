"""What a key may ask of the machines: the real Ollama gets no more, and unloads no model of others."""

from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
import pytest

from tests.conformance.sending import MODEL
from tests.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLD_MODEL: Final = "toy-think"
ALLOWED: Final = 8192
KEPT: Final = timedelta(minutes=30)


async def loaded(direct: httpx.AsyncClient, model: str) -> tuple[int, timedelta]:
    """With which context Ollama runs a model, and for how long it will keep it."""
    answer = await direct.get("/api/ps")
    (found,) = (each for each in answer.json()["models"] if each["name"] == f"{model}:latest")
    return found["context_length"], datetime.fromisoformat(found["expires_at"]) - datetime.now(UTC)


async def chat(gateway: Gateway, key: str, model: str, **fields: object) -> httpx.Response:
    """Send a chat with such fields."""
    body = {"model": model, "messages": [{"role": "user", "content": "tokens=2"}], "stream": False, **fields}
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        return await client.post("/api/chat", json=body)


async def test_the_backend_gets_what_is_allowed(gateway: Gateway, direct: httpx.AsyncClient) -> None:
    """A context and a time above the allowance reach Ollama lowered to it, and the client is shown which."""
    key = gateway.create_key("allowed", "--allow", f"num_ctx<={ALLOWED}", "--allow", "keep_alive<=30m")
    await direct.post("/api/generate", json={"model": COLD_MODEL, "keep_alive": 0})
    for keep in (-1, "-5s", 99_999_999_999, "9999h"):
        answer = await chat(
            gateway, key, COLD_MODEL, keep_alive=keep, options={"num_ctx": 16_384, "num_gpu": 9}
        )
        assert 200 == answer.status_code, answer.text
        assert "keep_alive, options.num_ctx, options.num_gpu" == answer.headers["x-gateway-changed"]
        context, kept = await loaded(direct, COLD_MODEL)
        assert ALLOWED == context
        assert KEPT - timedelta(minutes=1) < kept <= KEPT
    await direct.post("/api/generate", json={"model": COLD_MODEL, "keep_alive": 0})


async def test_no_client_unloads_the_model_of_others(gateway: Gateway, direct: httpx.AsyncClient) -> None:
    """Less than Ollama does by itself is dropped, with an allowance and without one."""
    allowed = gateway.create_key("less", "--allow", f"num_ctx<={ALLOWED}", "--allow", "keep_alive<=30m")
    await chat(gateway, gateway.key, MODEL)
    default, _ = await loaded(direct, MODEL)
    for key in (allowed, gateway.key):
        for keep in (0, "0s", "299s", "1ns", None):
            answer = await chat(gateway, key, MODEL, keep_alive=keep, options={"num_ctx": 512})
            assert 200 == answer.status_code, answer.text
            context, kept = await loaded(direct, MODEL)
            assert default == context
            assert kept > timedelta(minutes=4)


async def test_too_much_of_a_kind(gateway: Gateway) -> None:
    """Above the count of its key a request is refused, with the field and the limit named."""
    key = gateway.create_key("few", "--allow", "stop<=2")
    assert 200 == (await chat(gateway, key, MODEL, options={"stop": ["a", "b"]})).status_code
    refused = await chat(gateway, key, MODEL, options={"stop": ["a", "b", "c"]})
    assert (400, "false") == (refused.status_code, refused.headers["x-should-retry"])
    assert "3 stop strings in 'options.stop', and this key may ask for 2" in refused.json()["error"]
