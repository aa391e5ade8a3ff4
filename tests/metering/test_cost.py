"""The table of what a request costs, row by row."""

from __future__ import annotations

from uuid import UUID

import pytest

from metering.cost import Cost, cost
from metering.journal import Record, Reserved
from metering.rows import Ratios, Source

ID = UUID("019ab5c0-1c00-7000-8000-000000000001")
RATIOS = Ratios(input_bytes_per_token=4.0, output_bytes_per_token=3.0, output_tokens_per_s=20.0)

REPORTED, COUNTED, NONE = Source.REPORTED, Source.COUNTED, Source.NONE


def record(**fields: object) -> Record:
    """A stream that ended well, with 100 + 200 tokens reserved, unless said otherwise."""
    usual: dict[str, object] = {
        "v": 1,
        "id": ID,
        "node": ID,
        "boot": ID,
        "seq": 1,
        "outcome": "completed",
        "path": "/api/chat",
        "backend": "local",
        "stream": True,
        "upstream_status": 200,
        "reserved": Reserved(100, 200),
        "max_output": 200,
        "terminal": True,
        "input_tokens": 10,
        "output_tokens": 20,
        "deltas": 20,
        "output_bytes": 60,
        "prompt_bytes": 80,
        "images": 0,
        "duration_ms": 2000,
    }
    return Record(**usual | fields)  # type: ignore[arg-type]


CUT = {"terminal": False, "input_tokens": None, "output_tokens": None, "outcome": "client_gone"}
SINGLE = CUT | {"stream": False, "upstream_status": None, "deltas": 0, "output_bytes": 0}

EMBED = {"path": "/api/embed", "output_tokens": None, "max_output": None, "reserved": Reserved(100, 0)}

TABLE = {
    "reported": ({}, (10, 20, 0, REPORTED)),
    "reported, client left after the last frame": ({"outcome": "client_gone"}, (10, 20, 0, REPORTED)),
    "reported, fewer deltas than tokens": ({"deltas": 3}, (10, 20, 0, REPORTED)),
    "reported, 4 deltas more than tokens": ({"deltas": 24}, (10, 20, 0, REPORTED)),
    "reported, 5 % more deltas than tokens": (
        {"output_tokens": 200, "deltas": 210, "max_output": 300},
        (10, 200, 0, REPORTED),
    ),
    "under-reported": ({"deltas": 25}, (10, 25, 0, COUNTED)),
    "under-reported by much: what was delivered is charged": ({"deltas": 900}, (10, 900, 610, COUNTED)),
    "anthropic leaves cached input out": (
        {"path": "/v1/messages", "cached_tokens": 7},
        (17, 20, 0, REPORTED),
    ),
    "openai counts cached input in": (
        {"path": "/v1/chat/completions", "cached_tokens": 7},
        (10, 20, 0, REPORTED),
    ),
    "load or unload": ({"input_tokens": 0, "output_tokens": 0, "deltas": 0}, (0, 0, 0, REPORTED)),
    "terminal, input not said": ({"input_tokens": None}, (20, 20, 0, COUNTED)),
    "terminal, output not said": ({"output_tokens": None, "output_bytes": 90}, (10, 20, 0, COUNTED)),
    "stream cut: deltas": (CUT | {"deltas": 40}, (20, 40, 0, COUNTED)),
    "stream cut: deltas say more than bytes": (CUT | {"output_bytes": 90}, (20, 20, 0, COUNTED)),
    "stream cut: bytes, where there are no deltas": (
        CUT | {"deltas": 0, "output_bytes": 90},
        (20, 30, 0, COUNTED),
    ),
    "stream cut: input as reported": (CUT | {"input_tokens": 12}, (12, 20, 0, COUNTED)),
    "stream cut: what is only reckoned is never more than reserved": (
        CUT | {"deltas": 0, "output_bytes": 60_000, "prompt_bytes": 4000},
        (100, 200, 0, COUNTED),
    ),
    "stream cut without a budget: the reservation is a guess, what was delivered is not": (
        CUT | {"deltas": 5000, "reserved": Reserved(100, 50), "max_output": None},
        (20, 5000, 0, COUNTED),
    ),
    "stream cut before its first token": (
        CUT | {"deltas": 0, "output_bytes": 0, "upstream_status": None},
        (20, 0, 0, COUNTED),
    ),
    "stream cut by the cap": (CUT | {"outcome": "cut_cap", "deltas": 210}, (20, 210, 0, COUNTED)),
    "stream cut by the backend": (CUT | {"outcome": "upstream_gone"}, (20, 20, 0, COUNTED)),
    "stream that ended in an error frame": (CUT | {"outcome": "upstream_error"}, (20, 20, 0, COUNTED)),
    "stream killed": (CUT | {"outcome": "killed"}, (20, 20, 0, COUNTED)),
    "stream ended by a shutdown": (CUT | {"outcome": "shutdown"}, (20, 20, 0, COUNTED)),
    "an image counts 768": (
        CUT | {"images": 1, "reserved": Reserved(4096, 200)},
        (788, 20, 0, COUNTED),
    ),
    "2xx without usage": (
        {"terminal": True, "input_tokens": None, "output_tokens": None, "deltas": None},
        (20, 20, 0, COUNTED),
    ),
    "2xx that says nothing at all is not free": (
        CUT | {"outcome": "completed", "deltas": None, "output_bytes": None, "prompt_bytes": None},
        (1, 0, 0, COUNTED),
    ),
    "single answer abandoned: by the time it took": (SINGLE, (20, 40, 0, COUNTED)),
    "single answer abandoned late: no more than reserved": (
        SINGLE | {"duration_ms": 60_000},
        (20, 200, 0, COUNTED),
    ),
    "single answer abandoned at once": (SINGLE | {"duration_ms": 0}, (20, 0, 0, COUNTED)),
    "single answer cut at its deadline": (SINGLE | {"outcome": "cut_deadline"}, (20, 40, 0, COUNTED)),
    "single answer the backend gave up": (SINGLE | {"outcome": "upstream_error"}, (0, 0, 0, NONE)),
    "embeddings say their input": (
        {"path": "/api/embed", "output_tokens": None, "deltas": 0},
        (10, 0, 0, REPORTED),
    ),
    "embeddings that say nothing": (
        {"path": "/api/embeddings", "input_tokens": None, "output_tokens": None},
        (20, 0, 0, COUNTED),
    ),
    "embeddings abandoned": (SINGLE | {"path": "/v1/embeddings"}, (20, 0, 0, COUNTED)),
    "upstream 404": (
        {"upstream_status": 404, "terminal": False, "outcome": "upstream_error"},
        (0, 0, 0, NONE),
    ),
    "upstream 500": ({"upstream_status": 500, "outcome": "upstream_error"}, (0, 0, 0, NONE)),
    "upstream 101 nobody asked for": ({"upstream_status": 101}, (0, 0, 0, NONE)),
    "upstream not reached": (
        {"upstream_status": None, "terminal": False, "outcome": "upstream_error"},
        (0, 0, 0, NONE),
    ),
    "denied": ({"outcome": "denied", "reserved": None, "upstream_status": None}, (0, 0, 0, NONE)),
    "authz did not answer": (
        {"outcome": "authz_failed", "reserved": None, "upstream_status": None},
        (0, 0, 0, NONE),
    ),
    "refused by the tap, after its Grant": ({"outcome": "refused", "upstream_status": None}, (0, 0, 0, NONE)),
    "client gone before a backend was named": (SINGLE | {"backend": None}, (0, 0, 0, NONE)),
    "a read route": ({"path": "/api/tags", "reserved": None, "upstream_status": None}, (0, 0, 0, NONE)),
    "reported above the reservation": ({"input_tokens": 150, "output_tokens": 170}, (150, 170, 20, REPORTED)),
    "no cap, so no budget, so no overrun": (
        {"input_tokens": 150, "output_tokens": 700, "max_output": None},
        (150, 700, 0, REPORTED),
    ),
    "embeddings above the reservation": (EMBED | {"input_tokens": 130}, (130, 0, 30, REPORTED)),
    "embeddings above an estimate": (
        EMBED | {"input_tokens": 130, "prompt_bytes": 390},
        (130, 0, 0, REPORTED),
    ),
}


@pytest.mark.parametrize(("fields", "expected"), TABLE.values(), ids=TABLE.keys())
def test_table(fields: dict[str, object], expected: tuple[int, int, int, Source]) -> None:
    """Each outcome charges exactly this."""
    assert Cost(*expected) == cost(record(**fields), RATIOS)


def test_a_model_never_seen_is_taken_for_an_ordinary_one() -> None:
    """Without learned ratios a token is four bytes."""
    charged = cost(record(**CUT, deltas=0, output_bytes=81), Ratios())
    assert Cost(20, 21, 0, COUNTED) == charged
