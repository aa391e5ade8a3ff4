"""Metrics are for insiders: no client reaches them through the gateway."""

from __future__ import annotations

import httpx
import pytest

from tests.gateway import Gateway


@pytest.mark.parametrize("path", ["/metrics", "/metrics?", "/metrics/", "/verify"])
@pytest.mark.parametrize("is_known", [True, False])
def test_metrics_are_no_route(gateway: Gateway, path: str, *, is_known: bool) -> None:
    """`GET /metrics` is an unknown path like any other: 404, with a key and without one."""
    headers = {"Authorization": f"Bearer {gateway.key}"} if is_known else {}
    url = httpx.URL(gateway.url).copy_with(raw_path=path.encode())
    answer = httpx.get(url, headers=headers)
    assert 404 == answer.status_code
    assert "gateway_" not in answer.text
