"""With GATEWAY_METRICS=on a Prometheus on the same machine can ask every part of a stack."""

from __future__ import annotations

import re

import httpx
import pytest

from authz.stack.build import SOURCE
from authz.stack.discovery import free_port
from tests.up.stacks import Stack

pytestmark = pytest.mark.timeout(300)

DASHBOARD = SOURCE / "grafana.json"
PARTS = {
    "authz/0": "gateway_decisions_total",
    "authz/1": "gateway_decisions_total",
    "metering": "gateway_lag_bytes",
    "caddy": "caddy_",
}


def test_prometheus_can_ask_every_part(stack: Stack) -> None:
    """Each part answers at its own path, with all that the dashboard shows; nothing else is there."""
    port = free_port()
    stack.up(GATEWAY_METRICS="on", GATEWAY_METRICS_PORT=str(port))
    site = f"http://127.0.0.1:{port}"
    served = {part: httpx.get(f"{site}/{part}").text for part in PARTS}
    assert dict.fromkeys(PARTS, True) == {part: PARTS[part] in served[part] for part in PARTS}
    shown = set(re.findall(r"gateway_[a-z_]+", DASHBOARD.read_text()))
    assert {name for name in shown if name not in "".join(served.values())} == set()
    others = ("", "verify", "authz/0/verify", "authz/../verify", "authz/77", "readyz", "metrics")
    assert {404} == {httpx.get(f"{site}/{path}").status_code for path in others}
