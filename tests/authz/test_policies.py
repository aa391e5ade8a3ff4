"""What reaches a backend never exceeds what a key may ask of it: any request, any policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from authz.accounts.keys import CreatedKey
from authz.accounts.limits import set_key_limits, set_tenant_limits
from authz.accounts.session import Session
from authz.backends.backend import Backend
from authz.backends.inventory import Model, Seen
from authz.decision import calendar, checks, routes
from authz.decision.forecasts import Forecast
from authz.decision.refusals import Reason, word
from authz.decision.terms import DROPPED_FIELDS, Terms
from authz.limiter.admission import Admitted
from authz.messages import Ask, Asked, Grant
from authz.settings import Settings
from authz.types import GREATEST_COUNT, LEAST_KEEP_ALIVE_S, SAFE_POLICY, Policy
from tests.authz.asking import BOOT, NODE, Guard, grant, reason, uuid7
from tests.authz.test_terms import IDENTITY

NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
MADE: Final = Model("demo", b"", "", 131_072, "a" * 64)
SETTINGS: Final = Settings()

amounts = st.none() | st.sampled_from([0, 1, 299, 300, 4095, 4096, GREATEST_COUNT]) | st.integers(0, 2**41)
asks = st.builds(Asked, num_ctx=amounts, keep_alive_s=amounts, num_gpu=amounts)
policies = st.builds(Policy, num_ctx=amounts, keep_alive_s=amounts, num_gpu=amounts)


def seen(running: int = 0) -> Seen:
    """A backend that runs the model with such a context, 0 if it has not loaded it."""
    loaded = (evolve(MADE, context_length=running),) if running else ()
    return Seen(Backend("local", "http://a"), models=(MADE,), loaded=loaded)


def terms(asked: Asked | None, policy: Policy, *, running: int = 0, **fields: Any) -> Terms:
    """The terms of a chat that asks for such."""
    path = fields.pop("path", "/api/chat")
    ask = Ask(
        v=1,
        id=uuid7(),
        node=NODE,
        boot=BOOT,
        ip="",
        method="POST",
        path=path,
        model="demo",
        asked=asked,
        **fields,
    )
    identity = evolve(IDENTITY, policy=policy.over(SAFE_POLICY))
    return Terms(ask, identity, routes.EXACT[path], (seen(running),), SETTINGS, 1, Forecast(256))


def granted(of: Terms) -> Grant:
    """The Grant of such terms, under no limit."""
    at = calendar.at(NOW, "UTC")
    return of.grant(of.admission(at), Admitted(1, 1, at.windows, None, None), NOW)


def reached(field: str, asked: int | None, right: Grant) -> int | None:
    """What of a field reaches the backend; None if it does not."""
    return None if field in right.drop else right.set.get(field, asked)


@given(asked=asks, policy=policies, running=st.sampled_from([0, 4096, 8192, 131_072]))
def test_no_field_exceeds_its_allowance(asked: Asked, policy: Policy, running: int) -> None:
    """What a backend gets is at most allowed, unloads nothing, and no context is below that of the others."""
    right = granted(terms(asked, policy, running=running))
    context = reached("options.num_ctx", asked.num_ctx, right)
    if context is not None:
        assert max(SETTINGS.least_num_ctx, running) <= context <= (policy.num_ctx or 0)
    kept = reached("keep_alive", asked.keep_alive_s, right)
    if kept is not None:
        assert LEAST_KEEP_ALIVE_S <= kept <= (policy.keep_alive_s or 0)
    layers = reached("options.num_gpu", asked.num_gpu, right)
    if layers is not None:
        assert policy.num_gpu is not None
        assert layers <= policy.num_gpu
    assert not {*right.drop} & {*right.set}
    allowed = {"options.num_ctx", "keep_alive", "options.num_gpu"}
    assert {*DROPPED_FIELDS} - {*right.drop} <= allowed
    assert {*right.set} <= allowed


@given(asked=st.none() | asks, running=st.sampled_from([0, 4096]))
def test_a_key_without_policy_changes_nothing(asked: Asked | None, running: int) -> None:
    """Without a policy every field is dropped, and the bounds are those of the running context."""
    of = terms(asked, Policy(), running=running, bounds={"bytes": GREATEST_COUNT})
    right = granted(of)
    assert (DROPPED_FIELDS, {}, SETTINGS.deadline_s) == (right.drop, right.set, right.deadline_s)
    assert (running or 131_072) == of.admission(calendar.at(NOW, "UTC")).bound_in


@pytest.mark.parametrize(
    ("asked", "running", "context"),
    [
        (32_768, 0, 32_768),
        (99_999, 0, 32_768),
        (99_999, 4096, 32_768),
        (32_769, 32_768, 32_768),
        (8192, 32_768, 32_768),
        (4096, 4096, 4096),
        (4095, 0, None),
        (8192, 65_536, None),
        (None, 4096, None),
        (0, 4096, 4096),
    ],
)
def test_a_context_is_lowered_and_never_below_the_running(
    asked: int | None, running: int, context: int | None
) -> None:
    """Above the allowance it is lowered; below what runs it would only reload the model for all others."""
    right = granted(terms(Asked(num_ctx=asked), Policy(num_ctx=32_768), running=running))
    assert context == reached("options.num_ctx", asked, right)


@pytest.mark.parametrize(("running", "bound"), [(4096, 32_768), (65_536, 65_536)])
def test_a_bound_knows_the_granted_context(running: int, bound: int) -> None:
    """A prompt may fill the context that was let through, or the running one if that is greater."""
    of = terms(
        Asked(num_ctx=99_999), Policy(num_ctx=32_768), running=running, bounds={"bytes": GREATEST_COUNT}
    )
    admission = of.admission(calendar.at(NOW, "UTC"))
    assert (bound, 10 * bound) == (admission.bound_in, admission.wanted)


@pytest.mark.parametrize(
    ("asked", "most", "kept"),
    [
        (GREATEST_COUNT, 1800, 1800),
        (1801, 1800, 1800),
        (1800, 1800, 1800),
        (300, 1800, 300),
        (299, 1800, None),
        (0, 1800, None),
        (600, 0, None),
        (None, 1800, None),
    ],
)
def test_a_model_is_kept_and_never_unloaded(asked: int | None, most: int, kept: int | None) -> None:
    """What would keep it without end is lowered, and what would unload it for all others is dropped."""
    right = granted(terms(Asked(keep_alive_s=asked), Policy(keep_alive_s=most)))
    assert kept == reached("keep_alive", asked, right)


@pytest.mark.parametrize(("asked", "most", "layers"), [(99, 10, 10), (9, 10, 9), (0, 10, 0), (9, 0, None)])
def test_an_allowance_of_0_allows_nothing(asked: int, most: int, layers: int | None) -> None:
    """A key that may use no layers of a GPU does not move the model of all others to the processor."""
    right = granted(terms(Asked(num_gpu=asked), Policy(num_gpu=most)))
    assert layers == reached("options.num_gpu", asked, right)


@pytest.mark.parametrize(("policy", "deadline_s"), [(Policy(), 1800), (Policy(deadline_s=300), 300)])
def test_a_deadline_of_a_key(policy: Policy, deadline_s: int) -> None:
    """The longest time of an answer is the policy's, in the Grant and where its slot is counted."""
    of = terms(None, policy)
    assert deadline_s == granted(of).deadline_s == of.admission(calendar.at(NOW, "UTC")).deadline_s


@pytest.mark.parametrize(
    ("path", "name", "field"),
    [
        ("/api/chat", "stop", "options.stop"),
        ("/v1/chat/completions", "stop", "stop"),
        ("/v1/messages", "stop", "stop_sequences"),
        ("/api/chat", "images", "images"),
        ("/api/embed", "inputs", "input"),
        ("/api/chat", "schema_bytes", "format"),
        ("/v1/chat/completions", "schema_bytes", "response_format"),
        ("/v1/responses", "schema_bytes", "text"),
        ("/v1/messages", "schema_bytes", "output_config"),
        ("/api/chat", "logprobs", "logprobs"),
    ],
)
@pytest.mark.parametrize("policy", [Policy(), Policy(stop=1, images=0, inputs=3, schema_bytes=7, logprobs=2)])
def test_what_is_too_much(policy: Policy, path: str, name: str, field: str) -> None:
    """As many as allowed pass; one more is a 400 that names the field and the limit, and never a retry."""
    most = getattr(policy.over(SAFE_POLICY), name)
    for count, is_refused in ((most, False), (most + 1, True)):
        fields = {"images": count} if name == "images" else {}
        asked = Asked() if name == "images" else Asked(**{name: count})
        of = terms(asked, policy, path=path, **fields)
        refusal = checks.body_problem(of.ask, of.identity)
        assert is_refused == (refusal is not None)
        if refusal is not None:
            answer = word(refusal, dialect=of.route.dialect, request_id=of.ask.id)
            assert (Reason.BODY_TOO_MUCH, 400) == (refusal.reason, answer.status)
            assert "false" == answer.headers["x-should-retry"]
            assert f"'{field}'" in answer.body.decode()
            assert f"{most}" in answer.body.decode()
            assert f"{most + 1}" in answer.body.decode()


async def test_a_policy_holds_for_the_next_request(guard: Guard, session: Session, key: CreatedKey) -> None:
    """What set-limits allows is granted to the next request, and what it bounds is refused."""
    asked = {"num_ctx": 99_999, "keep_alive_s": 600, "stop": 3}
    assert {} == grant(await guard.ask(asked=asked))["set"]
    policy = Policy(num_ctx=32_768, keep_alive_s=1800, deadline_s=300)
    await set_key_limits(session, key.prefix, policy=lambda _: policy)
    found = grant(await guard.ask(asked=asked))
    assert ({"options.num_ctx": 32_768}, 300) == (found["set"], found["deadline_s"])
    assert not {"keep_alive", "options.num_ctx"} & set(str(found["drop"]).split("'"))
    await set_key_limits(session, key.prefix, policy=lambda _: Policy(stop=2))
    refused = await guard.ask(asked=asked)
    assert (400, "body_too_much") == (refused.status_code, reason(refused))


async def test_turns_at_a_backend_are_those_of_the_key(
    guard: Guard, session: Session, key: CreatedKey
) -> None:
    """A Grant has the key's priority and weight, else its tenant's, else those of everybody."""
    first = grant(await guard.ask())
    assert ("interactive", 1) == (first["priority"], first["weight"])
    await set_tenant_limits(
        session, "acme", limits=lambda old: old, policy=lambda _: Policy(batch=1, weight=7)
    )
    tenants = grant(await guard.ask())
    assert ("batch", 7) == (tenants["priority"], tenants["weight"])
    await set_key_limits(session, key.prefix, policy=lambda _: Policy(batch=0))
    own = grant(await guard.ask())
    assert ("interactive", 7) == (own["priority"], own["weight"])
