"""The nouns that more than one module uses: frozen values, without behaviour that needs a store."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from attrs import evolve, field, fields, frozen

if TYPE_CHECKING:
    from uuid import UUID


class Dialect(StrEnum):
    """The API that a path's clients expect errors and headers of."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Period(StrEnum):
    """The span of a budget before it starts again; a total never does."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


GREATEST_COUNT: Final = 2**40
"""The greatest number of tokens that any part takes (caddy/testdata/contract/bounds.json).

A million of them still fit Postgres's bigint; what enters above it is clamped, or refused as a setting.
"""

TOTAL_START = date(1970, 1, 1)
"""The start of every window of period total: it has none, but a primary key needs one."""


@frozen
class Windows:
    """The day and the month, in the tenant's time zone, that pay for a request."""

    day: str  # YYYY-MM-DD
    month: str  # YYYY-MM


@frozen
class Limits:
    """Limits of a tenant or a key; None means there is none. Tokens are input plus output."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    tokens_total: int | None = None

    @property
    def has_budget(self) -> bool:
        """Return whether any of these limits is a budget."""
        return (self.tokens_per_day, self.tokens_per_month, self.tokens_total) != (None,) * 3


LEAST_KEEP_ALIVE_S: Final = 300
"""Ollama keeps a model that long by itself: less unloads it for all others."""


@frozen
class Policy:
    """What a request may ask of the machines that all share; None leaves it to the tenant, or the default.

    The first three are allowances: a field is lowered to its allowance, and dropped without one. Then come
    counts, above which a request is refused, and the longest time of an answer. Batch and weight say which
    request goes first where some wait for a backend: with batch 1 behind interactive ones, and of several
    tenants each by its weight.
    """

    num_ctx: int | None = None
    keep_alive_s: int | None = None
    num_gpu: int | None = None
    stop: int | None = None
    images: int | None = None
    inputs: int | None = None
    schema_bytes: int | None = None
    logprobs: int | None = None
    deadline_s: int | None = None
    batch: int | None = None
    weight: int | None = None
    details: int | None = None
    """1 if /api/show may answer with a model's system prompt, template and license."""
    end_users: int | None = None
    """1 if the ledger has the end users that clients name."""
    in_path: int | None = None
    """1 if a key may stand in the path of a request; of keys alone."""

    def over(self, other: Policy) -> Policy:
        """Return this policy, with the other's where this one is silent."""
        return evolve(other, **self.given)

    @property
    def given(self) -> dict[str, int]:
        """Return what this policy says, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(Policy)}
        return {name: value for name, value in values.items() if value is not None}


SAFE_POLICY: Final = Policy(stop=64, images=64, inputs=2048, schema_bytes=262_144, logprobs=20)
"""Of a tenant that has none: nothing of a shared GPU is a client's to decide, and counts are those of honest
clients (2048 texts to embed and 20 alternatives are what OpenAI takes)."""


@frozen
class Identity:
    """The tenant and key that a secret belongs to, as Postgres had them at their two versions."""

    lookup: str
    tag: bytes = field(repr=False)
    pepper_id: str
    hash: str = field(repr=False)
    secret_expires_at: datetime | None
    tenant: UUID
    tenant_name: str
    tenant_state: str
    tenant_version: int
    tenant_limits: Limits
    timezone: str
    key: UUID
    key_name: str
    key_state: str
    key_version: int
    key_limits: Limits
    models: tuple[str, ...] | None
    cidrs: tuple[str, ...] | None
    expires_at: datetime | None
    max_output: int | None
    log_prompts_s: int | None
    """How long prompts and answers are kept, sealed; None keeps none."""
    policy: Policy
    """The key's over the tenant's over the default."""
    has_budget: bool = field(init=False)
    """Return whether the tenant or the key has any budget."""

    @has_budget.default
    def _has_budget(self) -> bool:
        return self.tenant_limits.has_budget or self.key_limits.has_budget


@frozen
class Closed:
    """A settled request: what it really cost, in tokens, input plus output."""

    request_id: UUID
    key: UUID
    tokens: int


@frozen
class Total:
    """The use of a window by a tenant or a key (scope), absolute, with the row's version."""

    scope: UUID
    period: str
    start: date
    used: int
    version: int


@frozen
class OpenRequest:
    """A request without a committed record; it holds the most tokens that it can be charged."""

    request_id: UUID
    key: UUID
    held_input: int
    held_output: int
    day: date
    month: date
    deadline: datetime


@frozen
class AnswerSums:
    """Sums over the answers of a tenant and a model that reported their usage."""

    answer_tokens: float
    generations: float
    prompt_bytes: float
    prompt_tokens: float
