"""The tokens that a request is held for before it runs: pure rules."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from authz import settings as settings_
from authz.backends.backend import Backend
from authz.backends.inventory import Model, Seen
from authz.decision import calendar, routes
from authz.decision.forecasts import Forecast
from authz.decision.terms import Terms
from authz.limiter.admission import Admitted
from authz.messages import Ask
from authz.types import SAFE_POLICY, Identity, Limits
from tests.authz.asking import BOOT, NODE, uuid7

NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
BIG: Final = Seen(Backend("big", "http://a"), models=(Model("toy:latest", b"", "", 8192, "a" * 64),))
SMALL: Final = Seen(Backend("small", "http://b"), models=(Model("TOY", b"", "", 2048, "b" * 64),))
RUNNING: Final = Seen(BIG.backend, models=BIG.models, loaded=(Model("toy:latest", b"", "", 4096, "a" * 64),))
SILENT: Final = Seen(Backend("silent", "http://c"), models=(Model("toy", b""),))
USUAL: Final = Forecast(256)
IDENTITY: Final = Identity(
    lookup="nz_3bVSxmba",
    tag=b"",
    pepper_id="",
    hash="",
    secret_expires_at=None,
    tenant=UUID(int=1),
    tenant_name="acme",
    tenant_state="active",
    tenant_version=1,
    tenant_limits=Limits(),
    timezone="UTC",
    key=UUID(int=2),
    key_name="first",
    key_state="active",
    key_version=1,
    key_limits=Limits(),
    expires_at=None,
    models=None,
    cidrs=None,
    max_output=None,
    log_prompts_s=None,
    policy=SAFE_POLICY,
)


def _terms(
    *backends: Seen,
    path: str = "/api/chat",
    nodes: int = 1,
    forecast: Forecast = USUAL,
    **fields: Any,
) -> Terms:
    ask = Ask(
        v=1,
        id=uuid7(),
        node=NODE,
        boot=BOOT,
        ip="",
        method="POST",
        path=path,
        model="Toy",
        **{"prompt_bytes": 1, "messages": 1} | fields,
    )
    settings = settings_.load(
        {"DATABASE_URL": "postgresql://x", "REDIS_URL": "unix://x", "GATEWAY_TEMPLATE_TOKENS": "16"},
        state=Path("x"),
    )
    return Terms(ask, IDENTITY, routes.EXACT[path], backends, settings, nodes, forecast)


def _bound_in(*backends: Seen, **fields: Any) -> int:
    """Return the bound of a prompt's tokens on any of these backends."""
    return _terms(*backends, **fields).admission(calendar.at(NOW, "UTC")).bound_in


@pytest.mark.parametrize(("nodes", "slots"), [(1, (8, 0)), (3, (2, 0)), (9, (1, 0))])
def test_slots_are_the_nodes_share(nodes: int, slots: tuple[int, ...]) -> None:
    """What a backend takes at a time is shared by the nodes that live, at least one each."""
    bounded = Seen(Backend("bounded", "http://a", max_in_flight=8), models=BIG.models)
    terms = _terms(bounded, BIG, nodes=nodes)
    admission = terms.admission(calendar.at(NOW, "UTC"))
    admitted = Admitted(1, 1, calendar.at(NOW, "UTC").windows, None, None)

    assert slots == terms.grant(admission, admitted, NOW).slots


@pytest.mark.parametrize(
    ("backends", "fields", "bound"),
    [
        ((BIG,), {"bounds": {"bytes": 500, "a" * 64: 100}}, 100),
        ((SMALL,), {"bounds": {"bytes": 500, "a" * 64: 100}}, 516),
        ((BIG, SMALL), {"bounds": {"bytes": 500, "a" * 64: 100, "b" * 64: 120}}, 120),
        ((SMALL, BIG), {"bounds": {"bytes": 500, "a" * 64: 100}}, 516),
        ((SMALL,), {"bounds": {"bytes": 5000}}, 2048),
        ((SMALL, BIG), {"bounds": {"bytes": 5000}}, 5016),
        ((SMALL, BIG), {"bounds": {"bytes": 50_000}}, 8192),
        ((RUNNING,), {"bounds": {"bytes": 50_000}}, 4096),
        ((BIG,), {"bounds": {"bytes": 50, "a" * 64: 338}, "images": 1}, 338),
        ((BIG,), {"bounds": {"bytes": 50}, "images": 1}, 8192),
        ((SMALL, BIG), {"bounds": {"bytes": 50, "a" * 64: 338}, "images": 1}, 2048),
        ((BIG,), {"bounds": None}, 8192),
        ((SILENT,), {"bounds": {"bytes": 1 << 40}}, 262_144),
        ((SMALL,), {"path": "/api/embed", "messages": 3, "bounds": {"bytes": 50_000}}, 3 * 2048),
        ((SMALL,), {"path": "/api/embed", "messages": 3, "bounds": {"bytes": 50}}, 66),
    ],
)
def test_bound_is_the_greatest_of_the_backends(
    backends: tuple[Seen, ...], fields: dict[str, Any], bound: int
) -> None:
    """L3: by each backend's own model, within its context as it runs; of texts to embed, a context each."""
    assert bound == _bound_in(*backends, **fields)
