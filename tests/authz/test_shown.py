"""What /api/show answers: facts for everybody, texts for those who may read them, asked for once."""

from __future__ import annotations

import asyncio
import json

import pytest

from authz.accounts.keys import CreatedKey
from authz.accounts.limits import set_key_limits
from authz.accounts.session import Session
from authz.backends.backend import Backend
from authz.backends.shown import KEPT, MOST_KEPT_BYTES, Shown, facts
from authz.types import Policy
from tests.authz.asking import Guard
from tests.authz.backend_kinds import Scripted
from tests.backend.serving import served

WHOLE = {
    "license": "SECRET",
    "modelfile": "FROM x\nSYSTEM SECRET",
    "parameters": "stop <end>",
    "template": "SECRET {{ .Prompt }}",
    "system": "SECRET",
    "messages": [{"role": "user", "content": "SECRET"}],
    "remote_host": "https://SECRET",
    "something_new": "SECRET",
    "details": {"family": "llama"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 4096,
        "tokenizer.chat_template": "SECRET",
        "tokenizer.chat_template.tool_use": "SECRET",
        "general.license": "SECRET",
        "general.license.link": "SECRET",
    },
    "capabilities": ["completion"],
    "modified_at": "2026-11-27T00:00:00Z",
}


def test_only_facts_are_left() -> None:
    """Whatever field is not known to be a fact is withheld, also one of a later Ollama."""
    left = facts(json.dumps(WHOLE).encode())
    assert left is not None
    assert "SECRET" not in left.decode()
    assert json.loads(left) == {
        "parameters": "stop <end>",
        "details": {"family": "llama"},
        "model_info": {"general.architecture": "llama", "llama.context_length": 4096},
        "capabilities": ["completion"],
        "modified_at": "2026-11-27T00:00:00Z",
    }


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'"text"', b'{"model_info":3}', b"\xff", b"[" * 100_000, b'{"system":']
)
def test_what_is_no_description_is_not_passed_on(body: bytes) -> None:
    """A backend that answers something else can't make the gateway repeat it."""
    assert facts(body) is None


async def test_a_digest_is_asked_for_once() -> None:
    """Two names of one digest are one question; another digest, or an unknown one, is another."""
    backend, shown = Scripted(lambda _: b'{"details":{}}'), Shown()
    with served(backend) as url:
        for name, digest in (("m0", "a"), ("m1", "a"), ("m0", "a"), ("m2", "b"), ("m2", "b")):
            assert b'{"details":{}}' == await shown.of(Backend("one", url), name, digest=digest)
        assert 2 == backend.asked.count("/api/show")
        for _ in range(2):
            await shown.of(Backend("one", url), "m3", digest=None)
        assert 4 == backend.asked.count("/api/show")


async def test_many_at_once_ask_once() -> None:
    """A model that many ask for at the same moment is asked for once, though the first of them leaves."""
    backend, shown = Scripted(lambda _: b'{"details":{}}'), Shown()
    with served(backend) as url:
        asking = [asyncio.create_task(shown.of(Backend("one", url), "m0", digest="a")) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        found = await asyncio.gather(*asking[1:])
    assert [b'{"details":{}}'] * 19 == found
    assert ["/api/show"] == backend.asked


async def test_what_is_kept_is_bounded() -> None:
    """Neither many models nor large descriptions stay in memory."""
    backend, shown = Scripted(lambda _: b"{}"), Shown()
    with served(backend) as url:
        one = Backend("one", url)
        for number in range(KEPT + 1):
            await shown.of(one, f"m{number}", digest=str(number))
        backend.asked.clear()
        await shown.of(one, f"m{KEPT}", digest=str(KEPT))
        assert [] == backend.asked
        await shown.of(one, "m0", digest="0")
        assert ["/api/show"] == backend.asked
        backend.answer = lambda _: b" " * (MOST_KEPT_BYTES + 1)
        for _ in range(2):
            await shown.of(one, "large", digest="large")
        assert 3 == backend.asked.count("/api/show")


async def test_a_key_sees_texts_if_it_may(guard: Guard, session: Session, key: CreatedKey) -> None:
    """System prompt, template and license are withheld, unless the policy shows them."""
    withheld = (await guard.read("/api/show", method="POST", model="demo")).json()
    assert not {"template", "modelfile", "license", "system"} & withheld.keys()
    assert "completion" in withheld["capabilities"]
    await set_key_limits(session, key.prefix, policy=lambda _: Policy(details=1))
    whole = (await guard.read("/api/show", method="POST", model="demo")).json()
    assert whole.keys() > withheld.keys()
    assert whole["template"]
