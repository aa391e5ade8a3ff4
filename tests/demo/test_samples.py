"""The demo backend answers what a real Ollama v0.34.4 answered, frame by frame."""

import json
import re
import socket
from pathlib import Path
from typing import Final

import httpx
import pytest
from attrs import frozen

FOLDER: Final = Path(__file__).parent / "samples"
_ROUTES: Final = {
    "chat": "/api/chat",
    "generate": "/api/generate",
    "embed": "/api/embed",
    "embeddings": "/api/embeddings",
    "v1-chat": "/v1/chat/completions",
    "v1-completions": "/v1/completions",
    "v1-embeddings": "/v1/embeddings",
    "v1-messages": "/v1/messages",
    "v1-responses": "/v1/responses",
}
_BY_PATH: Final = re.compile(r"(?:badjson|nobody|nomodel)-(api|v1)-(.+)")
_MASKS: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rb'"((?:item_|request_)?id)":"(chatcmpl-|cmpl-|resp_|msg_|rs_resp_|rs_|req_)\w+"', rb'"\1":"\2"'),
        (rb'"id":"fc_(?:resp_)?\d+_(\d+)"', rb'"id":"fc_\1"'),
        (rb'"item_id":"fc_\d+_(\d+)"', rb'"item_id":"fc_\1"'),
        (rb'"created_at":"[^"]+"', rb'"created_at":""'),
        (rb'"(created|created_at|completed_at)":\d+', rb'"\1":0'),
        (rb'"(\w+_duration)":\d+', rb'"\1":0'),
    )
)
_CONTEXT: Final = re.compile(rb'"context":\[([\d,]+)\]')
_CACHED: Final = re.compile(rb'"(?:prompt_eval_cached_count|cached_tokens|cache_read_input_tokens)":(\d+)')


@frozen
class Sample:
    """One recorded exchange."""

    name: str
    path: str
    request: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def cached_tokens(self) -> int:
        """How many prompt tokens the real server had seen just before."""
        found = _CACHED.findall(self.body)
        return int(found[-1]) if found else 0


def names() -> list[str]:
    """Name every sample that has a request."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> Sample:
    """Read one recorded exchange."""
    head, _, body = (FOLDER / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    request = FOLDER / f"{name}.json"
    return Sample(
        name=name,
        path=_path(name),
        request=request.read_bytes() if request.exists() else b"",
        status=int(status.split()[1]),
        headers=headers,
        body=body,
    )


def masked(body: bytes) -> list[bytes]:
    """Cut a body into its frames, without ids, times, durations and the numbers of tokens."""
    for pattern, replacement in _MASKS:
        body = pattern.sub(replacement, body)
    body = _CONTEXT.sub(_renumbered, body)
    return body.split(b"\n\n" if b"data: " in body else b"\n")


def _renumbered(context: re.Match[bytes]) -> bytes:
    order: dict[bytes, int] = {}
    numbers = [order.setdefault(token, len(order)) for token in context[1].split(b",")]
    return b'"context":%a' % numbers


def _path(name: str) -> str:
    if match := _BY_PATH.fullmatch(name):
        return f"/{match[1]}/{match[2].replace('chat-completions', 'chat/completions')}"
    longest = max((key for key in _ROUTES if f"{name}-".startswith(f"{key}-")), key=len, default="")
    return _ROUTES.get(longest, "")


_PRIMERS: Final = {
    "chat-stream-logprobs": "chat-stream",
    "v1-responses-stream-tool": "chat-stream-tool",
}
"""Samples whose prompt only began like the one before it."""
_HEADERS: Final = ("content-type", "cache-control", "transfer-encoding")


@pytest.mark.parametrize("name", names())
def test_answer_is_ollamas(demo: httpx.Client, name: str) -> None:
    """Status, headers and every frame equal the recorded ones; ids, times and durations aside."""
    sample = read(name)
    if sample.cached_tokens:
        primer = read(_PRIMERS.get(name, name))
        demo.post(primer.path, content=primer.request)
    reply = demo.post(sample.path, content=sample.request)
    assert sample.status == reply.status_code
    assert [sample.headers.get(key) for key in _HEADERS] == [reply.headers.get(key) for key in _HEADERS]
    assert masked(sample.body) == masked(reply.content)


def test_chunks_are_ollamas(demo: httpx.Client) -> None:
    """Every frame is an HTTP chunk of its own, as on the wire of the real server."""
    sample = read("chat-stream")
    wire = (FOLDER / "chat-stream.raw").read_bytes()
    # Its prompt shared two words with the prompt before it.
    demo.post(sample.path, content=sample.request.replace(b"something", b"anything"))
    with socket.create_connection((demo.base_url.host, demo.base_url.port or 80)) as client:
        text = sample.request.replace(b"tokens=6", b"tokens=3")
        head = f"POST {sample.path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        reply = b"".join(iter(lambda: client.recv(65_536), b""))
    assert [masked(chunk) for chunk in _chunks(wire)] == [masked(chunk) for chunk in _chunks(reply)]


def test_models_are_shaped_as_ollamas(demo: httpx.Client) -> None:
    """Each model of `/api/tags` has the recorded fields in order; file facts and times aside."""
    wanted, ours = (
        {model["name"]: list(_facts(model)) for model in json.loads(body)["models"]}
        for body in (read("tags").body, demo.get("/api/tags").content)
    )
    assert {name: wanted[name] for name in ours} == ours


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("version", "/api/version"),
        ("v1-model", "/v1/models/toy"),
    ],
)
def test_reads_are_ollamas(demo: httpx.Client, name: str, path: str) -> None:
    """The small read routes answer byte for byte, times aside."""
    sample = read(name)
    reply = demo.get(path)
    assert sample.headers["content-type"] == reply.headers["content-type"]
    assert masked(sample.body) == masked(reply.content)


def test_openai_models_are_shaped_as_ollamas(demo: httpx.Client) -> None:
    """`/v1/models` lists what `/api/tags` lists, each as recorded; times aside."""
    wanted = {model["id"]: model for model in json.loads(masked(read("v1-models").body)[0])["data"]}
    ours = json.loads(masked(demo.get("/v1/models").content)[0])["data"]
    assert [list(wanted[model["id"]].items()) for model in ours] == [list(m.items()) for m in ours]


def _chunks(wire: bytes) -> list[bytes]:
    rest = wire.partition(b"\r\n\r\n")[2]
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return chunks


def _facts(model: dict[str, object]) -> list[tuple[str, object]]:
    aside = {"modified_at", "size", "digest"}
    return [(key, "" if key in aside else value) for key, value in model.items()]
