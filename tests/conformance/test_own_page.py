"""The page at /me in a real browser: the use and the limits of a key, for its holder alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from authz.types import Limits
from tests.conformance.browser import browsing
from tests.conformance.sending import settled
from tests.gateway import Gateway, NewKey

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZES = {"desk": (1100, 900), "phone": (360, 740)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with browsing() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def holder(gateway: Gateway, new_key: NewKey, ledger: asyncpg.Connection, tag: str) -> str:
    """A key with limits of its own and of its tenant, that has asked for an answer of six tokens."""
    key = await new_key(
        tenant=Limits(tokens_per_month=1_000_000, concurrency=8),
        key=Limits(60, 20_000, 4, 1_000, 5_000, 80_000),
    )
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "toy", "messages": [{"role": "user", "content": f"hi tokens=6 tag={tag}"}]}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        answer = await client.post("/api/chat", json=body | {"options": {"num_predict": 20}, "stream": False})
        assert answer.is_success, answer.text
        await settled(ledger, answer.headers["x-request-id"])
        while (await client.get("/v1/usage")).json()["requests"] == 0:
            await ledger.execute("SELECT pg_sleep(0.5)")
    return key


async def shown(page: Page, url: str, key: str) -> None:
    """Open the page, and show what a key has."""
    await page.goto(f"{url}/me")
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Show", exact=True).click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_page_shows_use_and_limits(
    browser: Browser, gateway: Gateway, holder: str, tmp_path: Path, size: str, scheme: str
) -> None:
    """A key's holder sees its use and its limits, in light and dark, on a desk and on a phone."""
    width, height = SIZES[size]
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": height}
    )
    page = await context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await shown(page, gateway.url, holder)
    await expect(page.get_by_role("heading", name="only")).to_be_visible()
    await expect(page.get_by_role("meter")).to_have_count(8)
    requests, input_tokens, output_tokens = await page.locator("#sums dd").all_inner_texts()
    assert ("1", "6") == (requests, output_tokens)
    assert int(input_tokens) > 0
    cells = await page.locator("#days tr").first.locator("td").all_inner_texts()
    assert ["toy:latest", "1", input_tokens, "6"] == cells[1:]
    left = 1_000 - int(input_tokens) - 6
    await expect(page.locator("#bars")).to_contain_text(
        f"Tokens today\n{left} of 1,000 left", use_inner_text=True
    )
    await page.screenshot(path=tmp_path / f"{size}-{scheme}.png", full_page=True)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert 0 == await page.evaluate(overflow)
    assert [] == said
    assert {urlsplit(gateway.url).netloc} == {urlsplit(url).netloc for url in asked if url[:5] != "data:"}
    assert {"/me", "/v1/usage", "/v1/limits"} == {urlsplit(url).path for url in asked if url[:5] != "data:"}
    await context.close()


async def test_key_stays_in_the_page(browser: Browser, gateway: Gateway, holder: str) -> None:
    """The key is in no storage, no address and no field, is shown when asked for, and is lost by a reload."""
    context = await browser.new_context()
    page = await context.new_page()
    await shown(page, gateway.url, holder)
    await expect(page.locator("#curl")).to_contain_text(f"Bearer {holder[:11]}...")
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    assert holder not in await page.evaluate(kept)
    assert holder not in await page.content()
    assert "" == await page.get_by_label("API key").input_value()
    await page.get_by_role("button", name="Put my key in").click()
    await expect(page.locator("#curl")).to_contain_text(f"Bearer {holder}'")
    await page.reload()
    await expect(page.locator("#found")).to_be_hidden()
    assert holder not in await page.content()
    assert [] == await context.cookies()
    await context.close()


async def test_pasted_curl_streams(browser: Browser, gateway: Gateway, holder: str) -> None:
    """The command that the page shows can be pasted, and streams an answer of a model the key has used."""
    context = await browser.new_context()
    page = await context.new_page()
    await shown(page, gateway.url, holder)
    await page.get_by_role("button", name="Put my key in").click()
    command = await page.locator("#curl").inner_text()
    answer = await asyncio.create_subprocess_exec(
        "sh", "-c", command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    streamed, _ = await answer.communicate()
    assert b"data: [DONE]" in streamed
    await context.close()


async def test_wrong_key_is_said(browser: Browser, gateway: Gateway, holder: str) -> None:
    """A wrong key is shown as what it is, and what was shown before goes."""
    context = await browser.new_context()
    page = await context.new_page()
    await shown(page, gateway.url, holder)
    await expect(page.locator("#found")).to_be_visible()
    await page.get_by_label("API key").fill(holder[:-1] + ("a" if holder[-1] != "a" else "b"))
    await page.get_by_role("button", name="Show", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("Invalid or missing API key: send a valid key")
    await expect(page.locator("#found")).to_be_hidden()
    await context.close()


async def test_nothing_else_runs_in_the_page(browser: Browser, gateway: Gateway) -> None:
    """A script that got into the page does not run, and can ask no one else: its policy forbids both."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{gateway.url}/me")
    violated = await page.evaluate(
        """async () => {
            const broken = [];
            const note = (event) => broken.push(event.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const script = document.createElement("script");
            script.textContent = "window.isTaken = true";
            document.body.append(script);
            await fetch("http://127.0.0.1:9/").catch(() => 0);
            await new Promise((done) => setTimeout(done));
            return [window.isTaken, ...broken.sort()];
        }"""
    )
    assert [None, "connect-src", "script-src-elem"] == violated
    await context.close()
