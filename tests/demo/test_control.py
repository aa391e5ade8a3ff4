"""The truth of the demo backend: its tally, its hits, its gates."""

import json
import socket
from contextlib import ExitStack

import httpx
import pytest

from authz.demo.app import create

METERED = (
    ("/api/chat", {"messages": [{"role": "user", "content": "PROMPT"}]}),
    ("/api/generate", {"prompt": "PROMPT"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "PROMPT"}], "stream": True}),
    ("/v1/completions", {"prompt": "PROMPT", "stream": True}),
    ("/v1/responses", {"input": "PROMPT", "stream": True}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "PROMPT"}], "max_tokens": 99, "stream": True}),
)


def body(shape: dict[str, object], prompt: str) -> dict[str, object]:
    """Put a prompt into a request's shape."""
    filled: dict[str, object] = json.loads(json.dumps(shape).replace("PROMPT", prompt))
    return {"model": "toy"} | filled


def entries(demo: httpx.Client, **query: str | int) -> list[dict[str, object]]:
    """List the tally, once it has what the query waits for."""
    listed: list[dict[str, object]] = demo.get("/demo/tally", params=query).json()
    return listed


@pytest.mark.parametrize(("path", "shape"), METERED)
def test_tally_tells_what_was_produced(demo: httpx.Client, path: str, shape: dict[str, object]) -> None:
    """An answer's entry has its tag, tokens and end, and says that it finished."""
    demo.post(path, json=body(shape, "one two tokens=4 tag=a cache=2"))
    (entry,) = entries(demo, tag="a", ended=1)
    wanted = {
        "path": path,
        "tag": "a",
        "model": "toy",
        "stream": True,
        "input_tokens": 8,
        "output_tokens": 4,
        "cached_tokens": 2,
        "status": 200,
        "end": "stop",
        "finished": True,
        "cancelled": False,
    }
    assert wanted == {key: entry[key] for key in wanted}


@pytest.mark.parametrize(("path", "shape"), METERED)
def test_leaving_client_is_cancelled(demo: httpx.Client, path: str, shape: dict[str, object]) -> None:
    """A client that leaves stops its answer; the entry counts what was produced until then."""
    release(demo, "left", 2)
    with demo.stream("POST", path, json=body(shape, "tokens=9 hold=left tag=a")) as reply:
        lines = reply.iter_lines()
        assert any("scatter" in line for line in lines)
    (entry,) = entries(demo, tag="a", ended=1)
    wanted = {"output_tokens": 2, "end": "cancel", "finished": False, "cancelled": True}
    assert wanted == {key: entry[key] for key in wanted}


def test_client_of_a_single_answer_may_leave(demo: httpx.Client) -> None:
    """A client that leaves before a single answer is cancelled with the tokens made so far."""
    release(demo, "single", 3)
    request = body({"prompt": "PROMPT", "stream": False}, "tokens=9 hold=single tag=a")
    content = json.dumps(request).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: demo\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((demo.base_url.host, demo.base_url.port or 80)) as client:
        client.sendall(head.encode() + content)
        entries(demo, tag="a", running=1)
    (entry,) = entries(demo, tag="a", ended=1)
    assert entry["cancelled"]
    assert entry["output_tokens"] in range(4)


def test_withheld_chunk_comes_when_released(demo: httpx.Client) -> None:
    """A frame is sent when its gate opens, and its tokens count from then on."""
    release(demo, "gate", 1)
    request = body({"prompt": "PROMPT"}, "tokens=2 hold=gate tag=a")
    with demo.stream("POST", "/api/generate", json=request) as reply:
        lines = reply.iter_lines()
        assert "Rayleigh" == json.loads(next(lines))["response"]
        (entry,) = entries(demo, tag="a", running=1)
        assert (1, "") == (entry["output_tokens"], entry["end"])
        release(demo, "gate", 2)
        assert " scatter" == json.loads(next(lines))["response"]
        assert json.loads(next(lines))["done"]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api%2Fpush"),
        ("DELETE", "/api/delete"),
        ("HEAD", "/api/blobs/sha256-0"),
        ("POST", "/api/experimental/web_search"),
    ],
)
def test_mutation_leaves_a_hit_and_an_entry(demo: httpx.Client, method: str, target: str) -> None:
    """A mutation route answers 200 in any spelling that Ollama's router takes, and is recorded."""
    reply = demo.request(method, f"{target}?a=b", content=b"{}")
    assert 200 == reply.status_code
    (hit,) = demo.get("/demo/hits").json()
    assert (method, f"{target}?a=b", "{}") == (hit["method"], hit["target"], hit["body"])
    assert ["mutation"] == [entry["end"] for entry in entries(demo)]


def test_gauges_count_what_runs_together(demo: httpx.Client) -> None:
    """In flight falls back to zero when all have ended, its maximum stays."""
    with ExitStack() as streams:
        for gate in ("left", "right"):
            release(demo, gate, 1)
            request = body({"prompt": "PROMPT"}, f"tokens=1 hold={gate}")
            streams.enter_context(demo.stream("POST", "/api/generate", json=request))
        assert {"in_flight": 2, "max_in_flight": 2} == demo.get("/demo/gauges").json()
    entries(demo, ended=2)
    assert {"in_flight": 0, "max_in_flight": 2} == demo.get("/demo/gauges").json()


def test_clear_forgets_everything(demo: httpx.Client) -> None:
    """After a clear there are no hits, no entries and no cached prompt."""
    for _ in range(2):
        demo.post("/api/generate", json=body({"prompt": "PROMPT"}, "tokens=1"))
        demo.delete("/demo/tally")
    assert ([], []) == (entries(demo), demo.get("/demo/hits").json())
    demo.post("/api/generate", json=body({"prompt": "PROMPT"}, "tokens=1"))
    assert [0] == [entry["cached_tokens"] for entry in entries(demo, ended=1)]


def test_refused_request_costs_nothing(demo: httpx.Client) -> None:
    """A request for an unknown model has an entry without tokens."""
    demo.post("/api/generate", json={"model": "none", "prompt": "one two"})
    (entry,) = entries(demo, ended=1)
    assert (404, "refused", 0) == (entry["status"], entry["end"], entry["input_tokens"])


@pytest.mark.parametrize("content", [b'{"model": 5}', b"[1]", b'{"model": "toy", x}'])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/chat", None),
        ("/api/embed", None),
        ("/v1/chat/completions", "invalid_request_error"),
        ("/v1/embeddings", "invalid_request_error"),
        ("/v1/responses", "invalid_request_error"),
        ("/v1/messages", "invalid_request_error"),
    ],
)
def test_malformed_body_is_refused_in_its_dialect(
    demo: httpx.Client, path: str, kind: str | None, content: bytes
) -> None:
    """A body that is no request is a 400 whose error has the dialect's shape."""
    reply = demo.post(path, content=content)
    error = reply.json()["error"]
    assert (400, kind) == (reply.status_code, error["type"] if isinstance(error, dict) else None)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/api/chat", 405, "POST"),
        ("HEAD", "/v1/models", 405, "GET"),
        ("PUT", "/api/tags", 405, "HEAD, GET"),
        ("GET", "/nope", 404, None),
        ("POST", "/v1/messages/count_tokens", 404, None),
        ("HEAD", "/", 200, None),
        ("GET", "/v1/models/none", 404, None),
    ],
)
def test_router_is_ollamas(
    demo: httpx.Client, method: str, path: str, status: int, allow: str | None
) -> None:
    """Unknown paths are 404, known ones with another method 405 with the methods allowed."""
    reply = demo.request(method, path)
    assert (status, allow) == (reply.status_code, reply.headers.get("allow"))


def test_hanging_answer_ends_with_its_client(demo: httpx.Client) -> None:
    """A backend that hangs is left by its client, which is a cancel like any other."""
    request = body({"prompt": "PROMPT"}, "tokens=3 mode=hang at=2 tag=a")
    with demo.stream("POST", "/api/generate", json=request) as reply:
        lines = reply.iter_lines()
        assert [False, False] == [json.loads(next(lines))["done"] for _ in range(2)]
    (entry,) = entries(demo, tag="a", ended=1)
    assert (2, True) == (entry["output_tokens"], entry["cancelled"])


def test_embedding_waits_at_its_gate(demo: httpx.Client) -> None:
    """A request for vectors is one frame: its tokens count when its gate has opened."""
    release(demo, "vector", 1)
    demo.post("/api/embed", json={"model": "toy-embed", "input": "one two hold=vector tag=a"})
    (entry,) = entries(demo, tag="a", ended=1)
    assert (6, 0, "stop") == (entry["input_tokens"], entry["output_tokens"], entry["end"])


def test_tally_answers_when_the_wait_is_over(demo: httpx.Client) -> None:
    """Who waits for what does not come gets the tally as it is."""
    assert [] == entries(demo, ended=1, wait_ms=1)


def test_unknown_control_route_is_not_found(demo: httpx.Client) -> None:
    """The test routes are these and no others, and are no hits."""
    assert 404 == demo.get("/demo/nothing").status_code
    assert [] == demo.get("/demo/hits").json()


async def test_greeting_names_the_demo_and_the_way_out() -> None:
    """Without knobs the answer says that it is a demo and which setting connects an Ollama."""
    transport = httpx.ASGITransport(create())
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        request = {"model": "demo", "prompt": "Why is the sky blue?", "stream": False}
        told = (await client.post("/api/generate", json=request)).json()["response"]
    assert "demo backend" in told
    assert "OLLAMA_URL" in told


def release(demo: httpx.Client, name: str, chunks: int) -> None:
    """Let that many frames of a gate pass."""
    demo.post("/demo/release", params={"name": name, "chunks": chunks})
