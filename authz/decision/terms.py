"""The terms of one request: what it may use, what it asks of the limits, and the Grant it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from attrs import field, frozen

from authz.backends.inventory import Seen
from authz.decision import calendar as calendar_
from authz.decision import rate_headers
from authz.decision.forecasts import Forecast
from authz.decision.routes import Route
from authz.limiter.admission import Admission
from authz.messages import Ask, Grant, Tokens, WindowIds
from authz.settings import Settings
from authz.types import GREATEST_COUNT, LEAST_KEEP_ALIVE_S, Identity

if TYPE_CHECKING:
    from datetime import datetime

    from authz.decision.calendar import Calendar
    from authz.limiter.admission import Admitted

TOKENS_PER_MESSAGE: Final = 8
TOKENS_PER_TOOL: Final = 64

LEAST_SHARE: Final = 1024
"""Output tokens that an answer without a cap may have, however little a budget has left."""

OUTPUT_PER_CONTEXT: Final = 10
"""Ollama ends an answer without a cap at so many contexts (its openEndedGenerationContextMultiplier)."""

DROPPED_FIELDS: Final = (
    "keep_alive",
    "shift",
    "template",
    "_debug_render_only",
    "options.num_ctx",
    "options.num_batch",
    "options.num_gpu",
    "options.main_gpu",
    "options.use_mmap",
    "options.num_thread",
    "options.draft_num_predict",
)
"""Body fields by which one client could evict, reload or starve the models of all others."""


@frozen
class Calendars:
    """The newest calendar of each time zone that was asked for, since one lasts a day."""

    _newest: dict[str, Calendar] = field(init=False, factory=dict)

    def at(self, now: datetime, timezone: str) -> Calendar:
        """Return the calendar of a moment."""
        newest = self._newest.get(timezone)
        if newest is None or not newest.valid_from <= now < newest.valid_until:
            newest = self._newest[timezone] = calendar_.at(now, timezone)
        return newest


class Terms(msgspec.Struct, frozen=True):
    """What one request is judged by: its Ask, its key, its route and the backends that may serve it."""

    ask: Ask
    identity: Identity
    route: Route
    backends: tuple[Seen, ...]
    settings: Settings
    nodes: int
    """How many nodes share the backends."""
    forecast: Forecast
    model: str | None = None
    """What the client's name of the model means, if that is an alias; the Ask has the model's own."""

    def admission(self, calendar: Calendar) -> Admission:
        """Return what the request asks of the limits.

        The input is bounded by its text and the model's context, the output by every cap there is.
        Without any it is what the backends can produce; a budget caps every answer.
        """
        ask, identity, settings = self.ask, self.identity, self.settings
        framing = TOKENS_PER_MESSAGE * ask.messages + TOKENS_PER_TOOL * ask.tools + settings.template_tokens
        contexts = self._contexts()
        bound_in = max(map(self._bound_at, self.backends, contexts))
        cap = self._cap(contexts)
        likely_in = int(ask.prompt_bytes / self.forecast.bytes_per_token) + framing
        return Admission(
            request_id=ask.id,
            tenant=identity.tenant,
            key=identity.key,
            tenant_version=identity.tenant_version,
            key_version=identity.key_version,
            tenant_limits=identity.tenant_limits,
            key_limits=identity.key_limits,
            windows=calendar.windows,
            valid_from_us=calendar.valid_from_us,
            valid_until_us=calendar.valid_until_us,
            bound_in=bound_in,
            wanted=_producible(contexts) if cap is None else cap,
            share=settings.uncapped_share if ask.max_output is None and self.route.has_output else 0,
            least_share=LEAST_SHARE,
            estimated_input=max(1, min(likely_in, bound_in)),
            estimated_output=self._expected(cap),
            deadline_s=identity.policy.deadline_s or settings.deadline_s,
        )

    def grant(self, admission: Admission, admitted: Admitted, now: datetime) -> Grant:
        """Return the Grant that the tap enforces.

        A budget shortens the answer to what it has left, and holds the most that it can cost. Without
        one the cap is what was wanted, if anything, and what is reserved is what is likely.
        """
        ceiling = Tokens(admitted.input, admitted.output)
        likely = Tokens(admission.estimated_input, admission.estimated_output)
        has_budget = self.identity.has_budget
        max_output = ceiling.output if has_budget else self._cap(self._contexts())
        allowed = self._allowed()
        return Grant(
            id=self.ask.id,
            tenant=self.identity.tenant,
            key=self.identity.key,
            backends=tuple([seen.backend.name for seen in self.backends]),
            slots=tuple([self._slots(seen.backend.max_in_flight) for seen in self.backends]),
            priority="batch" if self.identity.policy.batch else "interactive",
            weight=self.identity.policy.weight or 1,
            model=self.model,
            digest=self.backends[0].digest(self.ask.model or ""),
            max_output=max_output or None,
            reserved=ceiling if has_budget else likely,
            ceiling=ceiling,
            windows=WindowIds(admitted.windows.day, admitted.windows.month),
            drop=tuple(name for name in DROPPED_FIELDS if name not in allowed) if allowed else DROPPED_FIELDS,
            set={name: most for name, (asked, most) in allowed.items() if most != asked},
            headers=rate_headers.of_rates(
                admitted.requests, admitted.tokens, dialect=self.route.dialect, now=now
            ),
            cold=not self.backends[0].has_loaded(self.ask.model or ""),
            deadline_s=admission.deadline_s,
            log_prompt_s=self.identity.log_prompts_s or 0,
            end_user=bool(self.identity.policy.end_users),
        )

    def _allowed(self) -> dict[str, tuple[int, int]]:
        """Return the fields that are let through, each with what is asked and what is granted.

        What Ollama could not read as a number is dropped, as is what would reload or unload the model
        of all others: a context below its own, or a time below its own.
        """
        asked, policy = self.ask.asked, self.identity.policy
        if asked is None:
            return {}
        allowed = {}
        if asked.num_ctx is not None and self._num_ctx():
            allowed["options.num_ctx"] = (asked.num_ctx, self._num_ctx())
        if asked.keep_alive_s is not None and policy.keep_alive_s is not None:
            kept_s = min(asked.keep_alive_s, policy.keep_alive_s)
            if kept_s >= LEAST_KEEP_ALIVE_S:
                allowed["keep_alive"] = (asked.keep_alive_s, kept_s)
        if asked.num_gpu is not None and policy.num_gpu:
            allowed["options.num_gpu"] = (asked.num_gpu, min(asked.num_gpu, policy.num_gpu))
        return allowed

    def _num_ctx(self) -> int:
        """Return the context that is let through, 0 if none is.

        Less than a model runs with would reload it, so it is raised to that where it is allowed.
        """
        asked, most = self.ask.asked, self.identity.policy.num_ctx
        if most is None or asked is None or asked.num_ctx is None:
            return 0
        running = self.backends[0].running_tokens(self.ask.model or "")
        context = max(running, min(asked.num_ctx, most))
        return context if self.settings.least_num_ctx <= context <= most else 0

    def _slots(self, most: int | None) -> int:
        """Return this node's share of the requests that a backend gets at a time; 0 is any number."""
        return max(1, most // self.nodes) if most else 0

    def _contexts(self) -> list[int]:
        """Return the context that a prompt gets on each backend."""
        model, default, num_ctx = self.ask.model or "", self.settings.context_length, self._num_ctx()
        return [max(num_ctx, seen.context_tokens(model) or default) for seen in self.backends]

    def _bound_at(self, seen: Seen, context: int) -> int:
        """Return the most input tokens that this backend can report for the request.

        A prompt that does not fit into the context is cut or refused; of several texts to embed each
        has a context of its own. Without any bound in the Ask, or with images of which the guard does not
        know what this model makes of them, only the context limits it.
        """
        ask, settings = self.ask, self.settings
        if not self.route.has_output:
            context *= max(1, ask.messages)
        bounds = ask.bounds or {}
        bound = bounds.get(seen.digest(ask.model or "") or "")
        if bound is None:
            bound = bounds.get("bytes", GREATEST_COUNT) + settings.template_tokens
            bound = GREATEST_COUNT if ask.images else bound
        return min(GREATEST_COUNT, context, bound)

    def _cap(self, contexts: list[int]) -> int | None:
        """Return the most output tokens; None without any cap, 0 on a route without output."""
        if not self.route.has_output:
            return 0
        most = self.settings.max_output if self.identity.has_budget else None
        caps = (self.ask.max_output, self.identity.max_output, most)
        known = [cap for cap in caps if cap is not None]
        return min(_producible(contexts), *known) if known else None

    def _expected(self, cap: int | None) -> int:
        """Return how long the answer probably is, in tokens; a client's cap is a wish, not a forecast."""
        return self.forecast.output if cap is None else min(cap, self.forecast.output)


def _producible(contexts: list[int]) -> int:
    """Return the most output tokens that any backend can produce with these contexts."""
    return min(GREATEST_COUNT, OUTPUT_PER_CONTEXT * max(contexts))
