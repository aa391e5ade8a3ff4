"""Every kind that Ollama reads in a body is in our table, allowed or refused on purpose (B6)."""

import json
import re
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.ollama.build import module_folder
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT: Final = Path(__file__).parents[2]
KINDS: Final[dict[str, Any]] = json.loads((ROOT / "caddy/testdata/contract/kinds.json").read_text())

READERS: Final = (
    ("responses", "openai/responses.go", r"func unmarshalResponsesContent.*?\n}"),
    ("responses", "openai/responses.go", r"func unmarshalResponsesInputItem.*?\n}"),
    ("responses", "openai/responses.go", r"switch r\.Text\.Format\.Type .*?\n\t\t}"),
    ("responses", "openai/responses.go", r"type ResponsesTool struct {\n[^\n]*// ([^\n]*)"),
    ("v1_chat", "openai/openai.go", r'switch data\["type"\] .*?\n\t\t\t\t}'),
    (
        "v1_chat",
        "openai/openai.go",
        r"switch strings\.ToLower\(strings\.TrimSpace\(r\.ResponseFormat\.Type.*?\n\t\t}",
    ),
    ("messages", "anthropic/anthropic.go", r"switch block\.Type .*?\n\t\t\t}"),
)
"""The places where Ollama's sources switch on a kind; one that is not found any more fails as well."""

OWN_REQUESTS: Final = (
    ("/v1/responses", {"input": [{"type": "compaction_trigger"}]}, "input.type"),
    ("/v1/responses", {"input": "x", "tools": [{"type": "web_search"}]}, "tools.type"),
    ("/v1/messages", {"max_tokens": 9, "messages": [], "tools": [{"type": "web_search_1"}]}, "tools.type"),
)


@pytest.mark.parametrize(("api", "file", "reader"), READERS)
async def test_every_kind_of_ollama_is_known(api: str, file: str, reader: str) -> None:
    """A new version of Ollama that reads a new kind fails here, before a client can send it."""
    (source,) = re.findall(reader, (module_folder() / file).read_text(encoding="utf-8"), re.DOTALL)
    cases = re.findall(r"^\s*case (.*):", source, re.MULTILINE) or [source]
    read = {kind for case in cases for kind in re.findall(r'"([a-z_]+)"', case)}
    lists = KINDS["allowed"][api].values()
    known = {kind for kinds in lists for kind in kinds} | set(KINDS["refused"].get(api, ()))
    assert read
    assert read <= known


@pytest.mark.parametrize(("path", "body", "field"), OWN_REQUESTS)
async def test_what_makes_ollama_ask_by_itself_is_refused(
    *, gated: httpx.AsyncClient, ollama: Ollama, tag: str, path: str, body: dict[str, object], field: str
) -> None:
    """B6: one Grant is one generation; the refusal names the field, and nothing reaches Ollama."""
    prompt = {"instructions": f"tag={tag}", "system": f"tag={tag}"}
    content = json.dumps({"model": "toy", "stream": True} | prompt | body)
    reply = await gated.post(path, content=content)
    assert (400, "false") == (reply.status_code, reply.headers["x-should-retry"])
    assert f"'{field}'" in reply.text
    assert 0 == ollama.started(tag)
