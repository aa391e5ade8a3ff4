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
from authz.decision.terms import Terms
from authz.messages import Ask
from authz.types import Identity, Limits
from tests.authz.asking import BOOT, NODE, uuid7

NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
BIG: Final = Seen(Backend("big", "http://a"), models=(Model("toy:latest", b"", "", 8192, "a" * 64),))
SMALL: Final = Seen(Backend("small", "http://b"), models=(Model("TOY", b"", "", 2048, "b" * 64),))
RUNNING: Final = Seen(BIG.backend, models=BIG.models, loaded=(Model("toy:latest", b"", "", 4096, "a" * 64),))
SILENT: Final = Seen(Backend("silent", "http://c"), models=(Model("toy", b""),))
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
)


def _bound_in(*backends: Seen, path: str = "/api/chat", **fields: Any) -> int:
    """Return the bound of a prompt's tokens on any of these backends."""
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
        {"DATABASE_URL": "x", "REDIS_URL": "x", "GATEWAY_TEMPLATE_TOKENS": "16"}, state=Path("x")
    )
    terms = Terms(ask, IDENTITY, routes.EXACT[path], backends, settings)
    return terms.admission(calendar.at(NOW, "UTC")).bound_in


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
        ((BIG,), {"bounds": {"bytes": 50, "a" * 64: 50}, "images": 1}, 8192),
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
