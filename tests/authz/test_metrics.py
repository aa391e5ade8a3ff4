"""The metrics of authz."""

from __future__ import annotations

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

from authz.accounts.keys import CreatedKey
from authz.backends.tables import Tables
from authz.decision.refusals import Reason
from authz.settings import Settings
from tests.authz.asking import Guard


def samples(answer: httpx.Response) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def scrape(guard: Guard) -> dict[tuple[str, ...], float]:
    """Return the metrics that Prometheus reads."""
    answer = await guard._client.get("/metrics")
    assert 200 == answer.status_code
    return samples(answer)


async def test_decisions_are_counted_by_reason(guard: Guard) -> None:
    """Every decision is counted once, with its reason, and timed."""
    before = await scrape(guard)
    assert (await guard.ask()).status_code in {204, 503}
    assert 401 == (await guard.ask(key="")).status_code
    assert 403 == (await guard.ask("/api/pull")).status_code
    after = await scrape(guard)
    risen = {
        sample: after[sample] - before[sample] for sample in after if sample[0].startswith("gateway_deci")
    }
    assert 1 == risen["gateway_decisions_total", "denied", "key_missing"]
    assert 1 == risen["gateway_decisions_total", "denied", "path_mutation"]
    assert 3 == sum(value for sample, value in risen.items() if sample[0] == "gateway_decisions_total")
    assert 3 == risen["gateway_decision_seconds_count",]


async def test_what_never_happened_is_zero(guard: Guard) -> None:
    """Every reason is there from the start, so that an alarm on it can be written."""
    found = await scrape(guard)
    counted = {sample[2] for sample in found if sample[0] == "gateway_decisions_total"}
    assert {"", *Reason} == counted


async def test_standing_is_read_at_the_scrape(guard: Guard) -> None:
    """Backends, Redis and the cache are shown as they are at that moment."""
    await guard.ask()
    found = await scrape(guard)
    assert 1 == found["gateway_backend_up", "default"]
    assert 1 == found["gateway_limiter_up",]
    assert 1 == found["gateway_identities_cached",]
    assert 0 == found["gateway_rebuilds_total",]


async def test_an_exceeded_bound_is_an_alarm(guard: Guard, settings: Settings) -> None:
    """Models without a table, and answers that reported more than their bound, are counted by their files."""
    tables = Tables(settings.tables)
    while not tables.untabled():  # until the backend's two models are described
        await asyncio.sleep(0.01)
    first, second = tables.untabled()
    (settings.tables / f"{first.digest}.exceeded").write_text("3\n")
    (settings.tables / f"{second.digest}.table").touch()
    found = await scrape(guard)
    assert 1 == found["gateway_untabled_models",]
    assert 3 == found["gateway_bound_exceeded_total",]


async def test_no_client_text_becomes_a_label(guard: Guard, key: CreatedKey) -> None:
    """C3: nothing that a client sent is in the metrics, neither its key nor its model nor its address."""
    await guard.ask(model="a-model-of-a-client", ip="203.0.113.77")
    text = (await guard._client.get("/metrics")).text
    assert not [shown for shown in (key.key[:11], "a-model-of-a-client", "203.0.113.77") if shown in text]
