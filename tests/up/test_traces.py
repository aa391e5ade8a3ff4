"""A request's trace: from its client through Caddy, authz and the backend into the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest
from attrs import define

from tests.backend.app import backend
from tests.backend.serving import served
from tests.gateway import Gateway, running
from tests.up.stacks import until

pytestmark = pytest.mark.timeout(300)

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT: Final = f"00-{TRACE}-00f067aa0ba902b7-01"


@define
class Collector:
    """Stands in for a collector of OpenTelemetry: it keeps what is exported to it, over HTTP."""

    exported: bytes = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take one export."""
        if scope["type"] != "http":
            return
        is_whole = False
        while not is_whole:
            message = await receive()
            self.exported += message.get("body", b"")
            is_whole = not message.get("more_body")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def collector() -> Collector:
    """A collector of all spans of these tests."""
    return Collector()


@contextmanager
def traced(collector: Collector, **environ: str) -> Iterator[Gateway]:
    """A gateway that knows where the collector is."""
    with served(backend("demo")) as behind, served(collector) as endpoint:
        known = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with running(behind, OLLAMA_URL=behind, **known, **environ) as started:
            yield started


@pytest.fixture(scope="module")
def gateway(collector: Collector) -> Iterator[Gateway]:
    """A gateway that traces."""
    with traced(collector, GATEWAY_TRACING="on") as started:
        yield started


def _chat(gateway: Gateway, parent: str | None) -> tuple[httpx.Response, str]:
    """Ask once; returns the answer, and the traceparent that the backend got."""
    httpx.delete(f"{gateway.backend_url}/test/tally").raise_for_status()
    headers = {"Authorization": f"Bearer {gateway.key}"} | ({"traceparent": parent} if parent else {})
    body = {"model": "demo", "messages": [{"role": "user", "content": "tokens=2"}]}
    answer = httpx.post(f"{gateway.url}/api/chat", headers=headers, json=body).raise_for_status()
    hits = httpx.get(f"{gateway.backend_url}/test/hits").json()
    (hit,) = (hit for hit in hits if hit["target"] == "/api/chat")
    return answer, dict(hit["headers"]).get("traceparent", "")


def _exported(gateway: Gateway, answer: httpx.Response) -> dict[str, Any]:
    """The row of a request in the ledger as it is exported, once it is there."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        done = gateway.stack.run("usage", "export")
        rows = map(json.loads, done.stdout.splitlines())
        found[:] = [row for row in rows if row["request_id"] == answer.headers["x-request-id"]]
        return bool(found)

    until(is_there)
    return found[0]


def test_a_trace_goes_all_the_way(gateway: Gateway, collector: Collector) -> None:
    """A request of a client's trace is a span of it: backend, ledger and collector have the trace."""
    answer, passed = _chat(gateway, PARENT)
    assert "traceparent" not in answer.headers
    assert TRACE == _exported(gateway, answer)["trace_id"] == passed[3:35]
    assert passed != PARENT
    until(lambda: bytes.fromhex(TRACE) in collector.exported)
    assert bytes.fromhex(passed[36:52]) in collector.exported


@pytest.mark.parametrize("sent", [None, "00-forged", PARENT.upper()])
def test_a_request_without_a_trace_begins_one(
    gateway: Gateway, collector: Collector, sent: str | None
) -> None:
    """A new trace takes the place of none, or of one that can't be read."""
    answer, passed = _chat(gateway, sent)
    begun = passed[3:35]
    assert begun != TRACE
    assert begun == _exported(gateway, answer)["trace_id"]
    until(lambda: bytes.fromhex(begun) in collector.exported)


def test_a_key_in_a_path_is_in_no_span(gateway: Gateway, collector: Collector) -> None:
    """C3: a request with a key in its path, or with what is left of one, is no span."""
    key = gateway.create_key("in-path", "--in-path", "allowed")
    cut = key[11:40]
    for path in (
        f"/k/{key}",
        f"/K/nz_{cut}",
        f"/%6b/nz_{cut}",
        f"/%256b/nz_{cut}",
        f"/x/%2e%2e/k%2Fnz_{cut}",
    ):
        answer = httpx.get(f"{gateway.url}{path}/api/tags")
        assert (answer.status_code == 200) == (key in path)
    traced_after = _chat(gateway, None)[1]
    until(lambda: bytes.fromhex(traced_after[3:35]) in collector.exported)
    assert cut.encode() not in collector.exported


def test_nothing_is_traced_unless_it_is_asked_for() -> None:
    """Without GATEWAY_TRACING a client's trace passes untouched, into the ledger too; nothing is exported."""
    collector = Collector()
    with traced(collector) as gateway:
        answer, passed = _chat(gateway, PARENT)
        assert (PARENT, TRACE) == (passed, _exported(gateway, answer)["trace_id"])
        answer, passed = _chat(gateway, "00-forged")
        assert ("", None) == (passed, _exported(gateway, answer)["trace_id"])
    assert b"" == collector.exported
