"""Read routes, readiness and decisions follow what the backends say and what was rendered."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from datetime import datetime

import pytest
from redis.asyncio import Redis

from authz.accounts.keys import create_key
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.limiter.limiter import READS_PER_MINUTE
from authz.settings import Settings
from tests.authz.asking import Guard, grant, reason
from tests.authz.backend_kinds import Answer, Scripted, ollama
from tests.backend.serving import served

COUNT = "/v1/messages/count_tokens"


async def test_reads_are_answered_from_the_inventory(guard: Guard, demo_url: str) -> None:
    """C1: a read route repeats what the backend says of the models a key may use."""
    tags = await guard.read("/api/tags")
    assert ["demo:latest", "demo-embed:latest"] == [model["name"] for model in tags.json()["models"]]
    models = await guard.read("/v1/models")
    assert ["demo:latest", "demo-embed:latest"] == [model["id"] for model in models.json()["data"]]
    assert 200 == (await guard.read("/api/version")).status_code
    assert "demo" == (await guard.read("/v1/models/demo")).json()["id"]
    assert 404 == (await guard.read("/v1/models/none")).status_code
    named = await guard.read("/v1/models/registry.ollama.ai/library/demo:latest")
    assert "registry.ollama.ai/library/demo:latest" == named.json()["id"]
    assert 404 == (await guard.read("/v1/models/hf.co/x/y:Q4")).status_code
    assert 200 == (await guard.read("/api/show", method="POST", model="demo")).status_code
    assert "model_missing" == reason(await guard.read("/api/show", method="POST"))
    assert {"models": []} == (await guard.read("/api/ps")).json() or (await guard.read("/api/ps")).json()[
        "models"
    ]
    head = await guard.read("/api/tags", method="HEAD")
    assert (200, b"") == (head.status_code, head.content)


async def test_models_have_the_shape_of_the_sdk_that_asks(guard: Guard) -> None:
    """Anthropic's SDK, which sends its version, reads models of its own shape, from the same path."""
    headers = {"anthropic-version": "2023-06-01"}
    listed = (await guard.read("/v1/models", headers=headers)).json()
    assert ("demo:latest", "demo-embed:latest") == (listed["first_id"], listed["last_id"])
    assert not listed["has_more"]
    first = listed["data"][0]
    assert ("model", "demo:latest", "demo:latest") == (first["type"], first["id"], first["display_name"])
    assert datetime.fromisoformat(first["created_at"]).tzinfo is not None
    assert {**first, "id": "demo", "display_name": "demo"} == (
        await guard.read("/v1/models/demo", headers=headers)
    ).json()


async def test_an_ollama_without_cloud(guard: Guard) -> None:
    """What the CLI asks of a cloud is answered as by an Ollama that has none."""
    assert {"cloud": {"disabled": True, "source": "env"}} == (await guard.read("/api/status")).json()
    found = await guard.read("/api/experimental/model-recommendations")
    assert {"recommendations": []} == found.json()
    assert "path_mutation" == reason(await guard.ask("/api/experimental/web_search"))


@pytest.mark.parametrize(
    ("prompt_bytes", "bounds", "tokens"),
    [(4000, {"bytes": 4048}, 1000), (4001, {"bytes": 4048}, 1001), (4000, {"bytes": 700}, 700), (0, None, 1)],
)
async def test_tokens_of_a_prompt_are_estimated(
    guard: Guard, prompt_bytes: int, bounds: dict[str, int] | None, tokens: int
) -> None:
    """An agent may ask how long its prompt is: about so long, says a header, and never above the bound."""
    answer = await guard.read(COUNT, method="POST", model="demo", prompt_bytes=prompt_bytes, bounds=bounds)
    assert {"input_tokens": tokens} == answer.json()
    assert "input_tokens" == answer.headers["x-gateway-estimate"]


async def test_tokens_of_what_a_key_may_not_use_are_not_counted(guard: Guard, session: Session) -> None:
    """The same refusals as of a request, in Anthropic's shape."""
    unknown = await guard.read(COUNT, method="POST", model="none")
    assert (404, "not_found_error") == (unknown.status_code, unknown.json()["error"]["type"])
    assert "model_missing" == reason(await guard.read(COUNT, method="POST"))
    guard.key = (
        await create_key(session, tenant="acme", name="one", scope=Scope(models=("demo-embed",)))
    ).key
    assert "model_not_allowed" == reason(await guard.read(COUNT, method="POST", model="demo"))


async def test_transcriptions_are_refused_with_the_reason(guard: Guard) -> None:
    """Ollama turns speech into text without saying what it cost: the refusal says why it is not asked."""
    answer = await guard.ask("/v1/audio/transcriptions")
    assert (404, "path_unknown") == (answer.status_code, reason(answer))
    assert (
        "This gateway does not serve transcriptions, since Ollama does not report what tokens they cost: "
        "use a documented inference route."
    ) == answer.json()["error"]["message"]
    assert "does not serve that path:" in (await guard.ask("/v1/audio/speech")).text


async def test_reads_are_limited_for_each_key(guard: Guard, session: Session) -> None:
    """A key has so many reads in a minute, whatever it reads; another one of its tenant has its own."""
    taken, began_s = 0, time.monotonic()
    while (refused := await guard.read(("/api/tags", "/v1/models")[taken % 2])).status_code == 200:
        taken += 1
    come_back = (time.monotonic() - began_s) * READS_PER_MINUTE / 60
    assert READS_PER_MINUTE <= taken <= READS_PER_MINUTE + come_back + 1
    assert (429, "rate_reads") == (refused.status_code, reason(refused))
    assert refused.headers["retry-after"] in {"1", "2"}
    assert "asked 120 times" in refused.text
    guard.key = (await create_key(session, tenant="acme", name="other")).key
    assert 200 == (await guard.read("/api/tags")).status_code


async def test_reads_show_what_the_key_may_use(guard: Guard, session: Session) -> None:
    """A key does not learn of models it may not use."""
    listed = await create_key(session, tenant="acme", name="listed", scope=Scope(models=("demo-embed",)))
    guard.key = listed.key
    assert ["demo-embed:latest"] == [
        model["name"] for model in (await guard.read("/api/tags")).json()["models"]
    ]
    assert 404 == (await guard.read("/v1/models/demo")).status_code
    assert "model_not_allowed" == reason(await guard.read("/api/show", method="POST", model="demo"))


async def test_ready_says_what_is_missing(guard: Guard) -> None:
    """`/readyz` is 503 as long as no metering vouches for a journal."""
    answer = await guard._client.get("/readyz")
    assert 503 == answer.status_code
    assert [
        (
            "No metering vouches for a journal: check that metering and Caddy run and keep up, "
            "and that the journal is at its path."
        )
    ] == answer.json()["missing"]


async def test_ready_says_that_redis_is_full(guard: Guard, redis_url: str) -> None:
    """`/readyz` is 503 while Redis answers but takes no writes: no request could be admitted."""
    async with Redis.from_url(redis_url) as redis:
        await redis.config_set("maxmemory", "1")
        try:
            missing = (await guard._client.get("/readyz")).json()["missing"]
        finally:
            await redis.config_set("maxmemory", "0")
    assert any("Redis is full: raise its maxmemory" in sentence for sentence in missing)
    missing = (await guard._client.get("/readyz")).json()["missing"]
    assert not any("Redis" in sentence for sentence in missing)


async def test_ready_compares_backends_with_snippets(guard: Guard, settings: Settings) -> None:
    """`/readyz` is 503 while authz would name backends that Caddy does not know, or the other way round."""
    (settings.snippets / "default.caddy").rename(settings.snippets / "other.caddy")
    missing = (await guard._client.get("/readyz")).json()["missing"]
    assert (
        f"OLLAMA_BACKENDS names default, but Caddy's snippets in {settings.snippets} other: "
        "run `neuronetz-gateway render`."
    ) in missing
    shutil.rmtree(settings.snippets)
    assert "snippets" in str((await guard._client.get("/readyz")).json()["missing"])


def render(settings: Settings, text: str) -> None:
    """Replace the list that authz follows, as `render` does."""
    (settings.snippets / "new").write_text(text)
    (settings.snippets / "new").rename(settings.snippets / "backends.json")


async def test_rendered_list_is_followed(guard: Guard, settings: Settings, demo_url: str) -> None:
    """A list that is rendered while authz runs is used without a restart, a broken one is not."""
    render(settings, '[{"name":"default"')
    render(settings, json.dumps([{"name": "renamed", "url": demo_url}]))
    async with asyncio.timeout(10):
        while grant(await guard.ask())["backends"] != ["renamed"]:
            await asyncio.sleep(0.01)


async def test_hanging_backend_delays_no_decision(guard: Guard, settings: Settings, demo_url: str) -> None:
    """One of two backends never answers: an unknown model is 404 at once, a known one is granted."""
    with served(Scripted(lambda _: None)) as hanging:
        both = [{"name": "default", "url": demo_url}, {"name": "hanging", "url": hanging}]
        render(settings, json.dumps(both))
        async with asyncio.timeout(10):
            while "hanging" not in str((await guard._client.get("/readyz")).json()["missing"]):
                await asyncio.sleep(0.01)

        took_s: list[float] = []
        for _ in range(5):
            began = time.monotonic()
            answer = await guard.ask(model="none")
            took_s.append(time.monotonic() - began)
            assert (404, "model_unknown") == (answer.status_code, reason(answer))
            assert ["default"] == grant(await guard.ask())["backends"]
        assert max(took_s) < 0.5
        render(settings, json.dumps(both[:1]))
        async with asyncio.timeout(10):
            while "hanging" in str((await guard._client.get("/readyz")).json()["missing"]):
                await asyncio.sleep(0.01)


def having(digest: str) -> Answer:
    """What an Ollama answers that has the model `m` with a digest."""
    tags = json.dumps({"models": [{"name": "m:latest", "digest": digest * 64}]}).encode()
    return lambda path: tags if path == "/api/tags" else ollama()(path)


async def test_grant_names_backends_with_the_very_model(guard: Guard, settings: Settings) -> None:
    """Any backend of a Grant may answer: what has another model under the same name is none of them."""
    with (
        served(Scripted(having("a"))) as a,
        served(Scripted(having("b"))) as b,
        served(Scripted(having("a"))) as c,
    ):
        render(settings, json.dumps([{"name": n, "url": url} for n, url in (("a", a), ("b", b), ("c", c))]))
        async with asyncio.timeout(10):
            named: object = None
            while named != ["a", "c"]:
                answer = await guard.ask(model="m")
                named = grant(answer)["backends"] if answer.is_success else None
