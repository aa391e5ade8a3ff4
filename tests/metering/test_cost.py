"""The table of what a request costs, row by row."""

from __future__ import annotations

from uuid import UUID

import pytest

from metering.cost import Cost, cost
from metering.figures import Ratios
from metering.lines import Record, Tokens
from metering.rows import Source

ID = UUID("019ab5c0-1c00-7000-8000-000000000001")
RATIOS = Ratios(
    input_bytes_per_token=4.0,
    embedding_bytes_per_token=5.0,
    output_bytes_per_token=3.0,
    tool_bytes_per_token=2.0,
    output_ms_per_token=50.0,
    prompt_ms_per_token=0.5,
    load_ms=10_000,
)

REPORTED, COUNTED, PROGRESS, NONE = Source.REPORTED, Source.COUNTED, Source.PROGRESS, Source.NONE


def record(**fields: object) -> Record:
    """A stream that ended well, with a ceiling of 100 + 200 tokens, unless a test changes it."""
    usual: dict[str, object] = {
        "v": 1,
        "id": ID,
        "node": ID,
        "boot": ID,
        "seq": 1,
        "outcome": "completed",
        "path": "/api/chat",
        "backend": "local",
        "sent": True,
        "stream": True,
        "upstream_status": 200,
        "reserved": Tokens(25, 150),
        "ceiling": Tokens(100, 200),
        "max_output": 200,
        "cold": False,
        "terminal": True,
        "input_tokens": 10,
        "output_tokens": 20,
        "deltas": 20,
        "text_bytes": 60,
        "tool_bytes": 0,
        "output_bytes": 60,
        "prompt_bytes": 80,
        "images": 0,
        "duration_ms": 2010,
    }
    return Record(**usual | fields)  # type: ignore[arg-type]


NOTHING = {"deltas": 0, "text_bytes": 0, "tool_bytes": 0, "output_bytes": 0}
TOOL = NOTHING | {"tool_bytes": 50, "output_bytes": 50}
GLUED = {"deltas": 5}  # of four tokens each
CUT = {"terminal": False, "input_tokens": None, "output_tokens": None, "outcome": "client_gone"}
SINGLE = CUT | NOTHING | {"stream": False, "upstream_status": None}
FAILED = SINGLE | {"outcome": "upstream_error", "upstream_status": 500}
BROKEN = CUT | {"outcome": "upstream_error"}
ORPHAN = CUT | {"outcome": "orphaned", "upstream_status": None, "sent": None}
COLD = {"cold": True}

EMBED = {"path": "/api/embed", "output_tokens": None, "max_output": None, "ceiling": Tokens(100, 0)}

TABLE = {
    # Heard out: what the backend reported.
    "reported": ({}, (10, 20, 0, REPORTED)),
    "reported, a tool call": (TOOL, (10, 20, 0, REPORTED)),
    "reported, client left after the last frame": ({"outcome": "client_gone"}, (10, 20, 0, REPORTED)),
    "reported, fewer deltas than tokens": (GLUED, (10, 20, 0, REPORTED)),
    "reported, 4 deltas more than tokens": ({"deltas": 24}, (10, 20, 0, REPORTED)),
    "reported, 5 % more deltas than tokens": ({"output_tokens": 200, "deltas": 210}, (10, 200, 0, REPORTED)),
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
    "terminal, input not reported": ({"input_tokens": None}, (32, 20, 0, COUNTED)),
    "terminal, output not reported": ({"output_tokens": None}, (10, 20, 0, COUNTED)),
    "reported above the ceiling": ({"input_tokens": 150, "output_tokens": 170}, (150, 170, 20, REPORTED)),
    "reported above what was held": ({"input_tokens": 90, "output_tokens": 170}, (90, 170, 0, REPORTED)),
    # Streams cut: text by deltas, tool calls by bytes, never less than was delivered.
    "stream cut: deltas": (CUT | {"deltas": 40}, (32, 40, 0, COUNTED)),
    "stream cut: deltas count more than bytes": (
        CUT | {"text_bytes": 90, "output_bytes": 90},
        (32, 20, 0, COUNTED),
    ),
    "stream cut: a tool call alone": (CUT | TOOL, (32, 25, 0, COUNTED)),
    "stream cut: text, then a tool call": (
        CUT | {"tool_bytes": 50, "output_bytes": 110},
        (32, 45, 0, COUNTED),
    ),
    "stream cut: several tokens in a frame, as the key has shown": (CUT | GLUED, (32, 5, 0, COUNTED)),
    "stream cut: bytes, where there are no deltas": (
        CUT | {"deltas": 0, "text_bytes": 90, "output_bytes": 90},
        (32, 30, 0, COUNTED),
    ),
    "stream cut: output that was reported so far": (CUT | {"output_tokens": 50}, (32, 50, 0, COUNTED)),
    "stream cut: input as reported": (CUT | {"input_tokens": 12}, (12, 20, 0, COUNTED)),
    "stream cut: what is only reckoned is never above the ceiling": (
        CUT | {"deltas": 0, "text_bytes": 60_000, "output_bytes": 60_000, "prompt_bytes": 4000},
        (100, 200, 0, COUNTED),
    ),
    "stream cut: what was delivered is, and counted": (
        CUT | {"deltas": 5000},
        (32, 5000, 4732, COUNTED),
    ),
    "stream cut before its first token": (CUT | NOTHING | {"upstream_status": None}, (32, 0, 0, COUNTED)),
    "stream cut while the model was loaded": (
        CUT | NOTHING | COLD | {"upstream_status": None},
        (0, 0, 0, NONE),
    ),
    "stream cut by the cap": (CUT | {"outcome": "cut_cap", "deltas": 210}, (32, 210, 0, COUNTED)),
    "stream cut by the backend": (CUT | {"outcome": "upstream_gone"}, (32, 20, 0, COUNTED)),
    "stream killed": (CUT | {"outcome": "killed"}, (32, 20, 0, COUNTED)),
    "stream killed in a tool call": (CUT | TOOL | {"outcome": "killed"}, (32, 25, 0, COUNTED)),
    "stream ended by a shutdown": (CUT | {"outcome": "shutdown"}, (32, 20, 0, COUNTED)),
    "an image counts 768": (CUT | {"images": 1, "ceiling": Tokens(4096, 200)}, (800, 20, 0, COUNTED)),
    # Failures: what was delivered, else what can have been produced; nothing before any work.
    "stream that ended in an error frame": (BROKEN, (32, 20, 0, COUNTED)),
    "stream that ended in an error behind a tool call": (BROKEN | TOOL, (32, 25, 0, COUNTED)),
    "stream of an error frame alone": (BROKEN | NOTHING, (0, 0, 0, NONE)),
    "single answer that failed late": (FAILED, (32, 30, 0, COUNTED)),
    "single answer that failed very late: no more than the ceiling": (
        FAILED | {"duration_ms": 60_000},
        (32, 200, 0, COUNTED),
    ),
    "single answer that failed at once": (FAILED | {"duration_ms": 40}, (0, 0, 0, NONE)),
    "model that could not be loaded": (FAILED | COLD, (0, 0, 0, NONE)),
    "backend that broke off": (FAILED | {"upstream_status": None}, (32, 30, 0, COUNTED)),
    "backend that was not reached": (FAILED | {"upstream_status": None, "sent": False}, (0, 0, 0, NONE)),
    "backend that was busy": (FAILED | {"upstream_status": 503}, (0, 0, 0, NONE)),
    "backend that refused": (FAILED | {"upstream_status": 404}, (0, 0, 0, NONE)),
    "backend that changed the protocol unasked": ({"upstream_status": 101}, (0, 0, 0, NONE)),
    "2xx without usage": (
        {"input_tokens": None, "output_tokens": None, "deltas": None},
        (32, 20, 0, COUNTED),
    ),
    "2xx without anything is not free": (
        CUT | NOTHING | {"outcome": "completed", "prompt_bytes": None},
        (1, 0, 0, COUNTED),
    ),
    # Single answers abandoned: three quarters of what can have been produced in the time.
    "single answer abandoned": (SINGLE, (32, 30, 0, COUNTED)),
    "single answer abandoned late: no more than the ceiling": (
        SINGLE | {"duration_ms": 60_000},
        (32, 200, 0, COUNTED),
    ),
    "single answer that waited for a slot": (
        SINGLE | {"duration_ms": 62_010, "waited_ms": 60_000},
        (32, 30, 0, COUNTED),
    ),
    "single answer cut on its way: what was delivered": (
        SINGLE | {"text_bytes": 60, "output_bytes": 60},
        (32, 20, 0, COUNTED),
    ),
    "single answer abandoned at once": (SINGLE | {"duration_ms": 0}, (32, 0, 0, COUNTED)),
    "single answer cut at its deadline": (SINGLE | {"outcome": "cut_deadline"}, (32, 30, 0, COUNTED)),
    "single answer killed": (SINGLE | {"outcome": "killed"}, (32, 30, 0, COUNTED)),
    "single answer abandoned while the model was loaded": (SINGLE | COLD, (0, 0, 0, NONE)),
    "single answer abandoned after the load": (
        SINGLE | COLD | {"duration_ms": 12_010},
        (32, 30, 0, COUNTED),
    ),
    "single answer abandoned: the prompt takes its time, too": (
        SINGLE | {"prompt_bytes": 8080, "duration_ms": 2010},
        (100, 15, 0, COUNTED),
    ),
    # Embeddings.
    "embeddings report their input": (EMBED | NOTHING, (10, 0, 0, REPORTED)),
    "embeddings that report nothing cost what others have shown": (
        EMBED | NOTHING | {"path": "/api/embeddings", "input_tokens": None, "stream": False},
        (16, 0, 0, COUNTED),
    ),
    "embeddings abandoned": (SINGLE | EMBED | {"path": "/v1/embeddings"}, (16, 0, 0, COUNTED)),
    "embeddings above the ceiling": (EMBED | {"input_tokens": 130}, (130, 0, 30, REPORTED)),
    # What never ran.
    "denied": ({"outcome": "denied", "reserved": None, "upstream_status": None}, (0, 0, 0, NONE)),
    "authz did not answer": (
        {"outcome": "authz_failed", "reserved": None, "upstream_status": None},
        (0, 0, 0, NONE),
    ),
    "refused by the tap, after its Grant": ({"outcome": "refused", "upstream_status": None}, (0, 0, 0, NONE)),
    "refused, whatever status came": ({"outcome": "refused"}, (0, 0, 0, NONE)),
    "a status without a reservation": ({"reserved": None}, (0, 0, 0, NONE)),
    "client disconnected before a backend was named": (SINGLE | {"backend": None}, (0, 0, 0, NONE)),
    "a read route": ({"path": "/api/tags", "reserved": None, "upstream_status": None}, (0, 0, 0, NONE)),
    # Requests whose record never came.
    "orphaned stream": (ORPHAN, (32, 20, 0, PROGRESS)),
    "orphaned stream in a tool call": (ORPHAN | TOOL, (32, 25, 0, PROGRESS)),
    "orphaned stream: progress has no bytes of the whole": (
        ORPHAN | {"deltas": 0, "output_bytes": None},
        (32, 20, 0, PROGRESS),
    ),
    "orphaned stream without progress": (ORPHAN | NOTHING, (32, 0, 0, PROGRESS)),
    "orphaned single answer": (ORPHAN | NOTHING | {"stream": False}, (32, 30, 0, PROGRESS)),
    # Lines of the release before have no ceiling: what was held bounds what is only reckoned.
    "no ceiling": (
        CUT | {"deltas": 0, "output_bytes": 6000, "text_bytes": None, "tool_bytes": None, "ceiling": None},
        (25, 150, 0, COUNTED),
    ),
}


@pytest.mark.parametrize(("fields", "expected"), TABLE.values(), ids=TABLE.keys())
def test_table(fields: dict[str, object], expected: tuple[int, int, int, Source]) -> None:
    """Each outcome charges exactly this."""
    assert Cost(*expected) == cost(record(**fields), RATIOS)


@pytest.mark.parametrize(("unseen_s", "tokens"), [(0, 20), (0.5, 30), (1, 40), (60, 200)])
def test_an_orphan_pays_what_no_line_can_tell(unseen_s: float, tokens: int) -> None:
    """Behind its last progress line a stream has run on for a moment, at the speed of its model."""
    assert tokens == cost(record(**ORPHAN), RATIOS, unseen_s=unseen_s).output_tokens


@pytest.mark.parametrize("outcome", ["client_gone", "killed", "upstream_gone", "upstream_error", "orphaned"])
@pytest.mark.parametrize(
    ("content", "tokens"),
    [({}, 80), (TOOL, 25), (GLUED, 20)],
    ids=["text", "tool call", "several tokens in a frame"],
)
def test_a_cut_costs_what_the_key_has_shown(outcome: str, content: dict[str, object], tokens: int) -> None:
    """B1: however a stream ends, each of its frames is charged at the tokens that others have had."""
    glued = Ratios(output_tokens_per_delta=4.0, tool_bytes_per_token=2.0)
    assert tokens == cost(record(**CUT | content | {"outcome": outcome}), glued).output_tokens


def test_a_dense_prompt_is_not_cheaper_cut_than_whole() -> None:
    """A key that sends digits pays its own density; one that sends prose, a cautious one."""
    dense = Ratios(input_bytes_per_token=1.8)
    asked = CUT | {"prompt_bytes": 180, "ceiling": Tokens(1000, 200)}
    assert (100, 72) == (
        cost(record(**asked), dense).input_tokens,
        cost(record(**asked), RATIOS).input_tokens,
    )


def test_a_key_without_answers_is_taken_for_an_ordinary_one() -> None:
    """Without learned figures a token of an answer is four bytes."""
    charged = cost(record(**CUT | {"deltas": 0, "text_bytes": 81, "output_bytes": 81}), Ratios())
    assert Cost(32, 21, 0, COUNTED) == charged
