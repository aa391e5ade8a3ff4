"""Web pages of other origins use the gateway with a key, where GATEWAY_CORS_ORIGIN lets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from attrs import frozen
from playwright.async_api import Browser, BrowserContext, Page

from authz.stack.demo.exchange import Receive, Scope, Send
from tests.backend.serving import served
from tests.conformance.browser import browsing
from tests.gateway import Gateway, running
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = """async ([url, key, prompt, fields]) => {
    window.parts = [];
    const headers = {"Content-Type": "application/json", "Authorization": `Bearer ${key}`};
    const messages = [{role: "user", content: prompt}];
    const body = JSON.stringify({model: "toy", stream: true, messages});
    try {
        const answer = await fetch(`${url}/v1/chat/completions`, {method: "POST", headers, body, ...fields});
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
            const {done, value} = await reader.read();
            if (done) return [answer.status, answer.headers.get("x-request-id") || ""];
            window.parts.push(value);
        }
    } catch (error) {
        return [0, error.name];
    }
}"""
"""What a chat in a browser does: it asks, and shows each part as it comes."""


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>chat</title>"})


@frozen
class Sites:
    """Where web pages come from: two that the gateway allows, and one that it does not."""

    first: str
    second: str
    other: str


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    """Three origins: each has a port of its own."""
    with served(_page) as first, served(_page) as second, served(_page) as other:
        yield Sites(first, second, other)


@pytest.fixture(scope="module")
def listed(ollama: Ollama, sites: Sites) -> Iterator[Gateway]:
    """A gateway that lets pages of two origins in."""
    origins = f"{sites.first} {sites.second}"
    with running(ollama.url, OLLAMA_URL=ollama.url, GATEWAY_CORS_ORIGIN=origins) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with browsing() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A person's browser, with nothing in it."""
    opened = await browser.new_context()
    yield opened
    await opened.close()


async def visit(context: BrowserContext, url: str) -> Page:
    """Open a web page there."""
    page = await context.new_page()
    await page.goto(url)
    return page


@pytest.mark.parametrize("site", ["first", "second"])
async def test_page_of_an_allowed_origin_streams(
    context: BrowserContext, listed: Gateway, sites: Sites, ollama: Ollama, tag: str, site: str
) -> None:
    """A page of each origin in the list shows the first word while the last is not yet generated."""
    page = await visit(context, getattr(sites, site))
    with ollama.gate(tag) as gate:
        gate.release(2)
        prompt = f"tokens=6 hold={tag} tag={tag}"
        asking = asyncio.create_task(page.evaluate(ASK, [listed.url, listed.key, prompt, {}]))
        await page.wait_for_function("(window.parts || []).join('').includes('Rayleigh')")
        assert "" == (await ollama.last(tag)).end
        assert not asking.done()
        gate.release(100)
        status, request_id = await asking
    assert 200 == status
    assert request_id
    assert "data: [DONE]" in await page.evaluate("window.parts.join('')")


async def test_page_of_another_origin_is_refused_by_the_browser(
    context: BrowserContext, listed: Gateway, sites: Sites, ollama: Ollama, tag: str
) -> None:
    """A page that is not in the list gets no answer, though it has a key, and Ollama is not asked."""
    page = await visit(context, sites.other)
    answer = await page.evaluate(ASK, [listed.url, listed.key, f"tokens=3 tag={tag}", {}])
    assert [0, "TypeError"] == answer
    assert 0 == ollama.started(tag)


async def test_credentials_of_the_browser_are_never_taken(
    context: BrowserContext, listed: Gateway, sites: Sites, ollama: Ollama, tag: str
) -> None:
    """An allowed page that wants its cookies sent along gets nothing: only a key in a header counts."""
    page = await visit(context, sites.first)
    fields = {"credentials": "include"}
    answer = await page.evaluate(ASK, [listed.url, listed.key, f"tokens=3 tag={tag}", fields])
    assert [0, "TypeError"] == answer
    assert 0 == ollama.started(tag)


async def test_preflight_is_asked_once(context: BrowserContext, listed: Gateway, sites: Sites) -> None:
    """The browser keeps the answer to its preflight: three requests ask for it once."""
    page = await visit(context, sites.first)
    session = await context.new_cdp_session(page)
    await session.send("Network.enable")
    asked: list[str] = []

    def note(event: dict[str, Any]) -> None:
        if event["request"]["url"].startswith(listed.url):  # the page's icon is asked for when it likes
            asked.append(event["request"]["method"])

    session.on("Network.requestWillBeSent", note)
    for _ in range(3):
        status, _ = await page.evaluate(ASK, [listed.url, listed.key, "tokens=2", {}])
        assert 200 == status
    assert ["OPTIONS", "POST", "POST", "POST"] == sorted(asked)


async def test_any_page_is_allowed_by_default(
    context: BrowserContext, gateway: Gateway, sites: Sites
) -> None:
    """Without a list every page may ask, with a key; a wrong key is read as what it is."""
    page = await visit(context, sites.other)
    status, _ = await page.evaluate(ASK, [gateway.url, gateway.key, "tokens=2", {}])
    assert 200 == status
    status, _ = await page.evaluate(ASK, [gateway.url, "nz_wrong", "tokens=2", {}])
    assert 401 == status
    assert "Invalid or missing API key" in await page.evaluate("window.parts.join('')")
