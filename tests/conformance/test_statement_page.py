"""The page of a statement in a real browser: light, dark, on a phone and on paper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, ViewportSize

from authz.admin import statement_page
from authz.admin.statement_values import Completeness, Item, Journal, Source, Statement, Tokens
from tests.conformance.browser import browsing

pytestmark = pytest.mark.asyncio(loop_scope="module")

MADE = datetime(2026, 12, 2, 8, 30, tzinfo=UTC)
MODEL = "hf.co/bartowski/llama-3.3-70b-instruct-gguf:q4_k_m"

FULL = Statement(
    tenant="a-tenant-with-a-long-name-" + "x" * 40,
    month="2026-11",
    timezone="America/Argentina/ComodRivadavia",
    made_at=MADE,
    open="The journal of node 7c9e6679-7425-40de-944b-e07fc1f90ae7 is not read beyond the month yet.",
    items=[
        Item("(credits)", "", "", 0, 0, -12_345, -12_345),
        *(
            Item(
                f"key-of-team-{number}",
                f"nz_{number:08}",
                MODEL,
                10**6 + number,
                10**10,
                10**9,
                11 * 10**9,
                7e5,
            )
            for number in range(60)
        ),
    ],
    sources=[Source("corrected", 0, -12_345), Source("reported", 60 * 10**6, 660 * 10**9)],
    days=[
        Tokens(f"2026-11-{day:02}", day * 10**9 if day > 1 else 1, (30 - day) * 10**8) for day in range(1, 29)
    ]
    + [Tokens("2026-11-29", 0, 1)],
    tokens=660 * 10**9,
    completeness=Completeness(
        [Journal("7c9e6679-7425-40de-944b-e07fc1f90ae7", 10**9, 2, MADE, is_retired=False)],
        1,
        -1,
        is_kept=False,
    ),
    checkpoint_sha256="ab" * 32,
)
"""As much and as long as anything on it may be."""

EMPTY = Statement(
    tenant="acme",
    month="2026-02",
    timezone="UTC",
    made_at=MADE,
    open=None,
    items=[],
    sources=[],
    days=[],
    tokens=0,
    completeness=Completeness([], 0, 0, is_kept=True),
)

SIZES: dict[str, ViewportSize] = {
    "desk": {"width": 1100, "height": 900},
    "phone": {"width": 360, "height": 740},
    "paper": {"width": 680, "height": 960},  # what is printed on of A4, in CSS's pixels
}

CONTRASTS = """() => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (text) => {
        const [r, g, b] = rgb(text).map((v) => v / 255).map(
            (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const page = light(getComputedStyle(document.body).backgroundColor);
    const found = {};
    for (const each of document.querySelectorAll("body *")) {
        const style = getComputedStyle(each), isDrawn = each instanceof SVGElement;
        const hasText = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (each.tagName === "title" || !(hasText || each.tagName === "rect")) continue;
        const [low, high] = [page, light(isDrawn ? style.fill : style.color)].sort((a, b) => a - b);
        const kind = each.tagName === "rect" ? "drawn" : "text";
        found[kind] = Math.min(found[kind] ?? 99, (high + 0.05) / (low + 0.05));
    }
    return found;
}"""
"""The least contrast to the page, as WCAG 2 counts it, of what is written and of what is drawn."""

BARS = """() => {
    const svg = document.querySelector("svg").getBoundingClientRect();
    const bars = [...document.querySelectorAll("svg g")].map((day) => {
        const boxes = [...day.querySelectorAll("rect")].map((bar) => bar.getBoundingClientRect());
        return [Math.min(...boxes.map((box) => box.width)), boxes.reduce((sum, box) => sum + box.height, 0)];
    });
    const days = [...document.querySelectorAll("svg text")].map((day) => day.getBoundingClientRect())
        .filter((box) => box.width > 0);
    const overlap = days.some((box, at) => at > 0 && box.left < days[at - 1].right);
    return {width: svg.width, height: svg.height, bars, days: days.length, overlap,
            tall: Math.min(...days.map((box) => box.height))};
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with browsing() as opened:
        yield opened


async def opened(browser: Browser, made: Statement, folder: Path, size: str, scheme: str) -> Page:
    """Open a statement as a file; nothing may be asked for beside it."""
    path = folder / "statement.html"
    path.write_text(statement_page.page(made))
    page = await browser.new_page(
        color_scheme="dark" if scheme == "dark" else "light", viewport=SIZES[size], java_script_enabled=True
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    if size == "paper":
        await page.emulate_media(media="print")
    await page.goto(path.as_uri(), wait_until="networkidle")
    assert [path.as_uri()] == asked
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("made", [FULL, EMPTY], ids=["full", "empty"])
async def test_a_statement_can_be_read(
    browser: Browser, tmp_path: Path, made: Statement, size: str, scheme: str
) -> None:
    """Nothing runs over the edge, text has WCAG's contrast, each day that was used has a bar."""
    page = await opened(browser, made, tmp_path, size, scheme)
    await page.screenshot(path=tmp_path / f"{size}-{scheme}.png", full_page=True)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert 0 == await page.evaluate(overflow)
    contrasts = await page.evaluate(CONTRASTS)
    assert contrasts["text"] >= 4.5
    assert contrasts["drawn"] >= 3
    drawn = await page.evaluate(BARS)
    assert drawn["width"] > 300
    assert drawn["height"] > 100
    assert not drawn["overlap"]
    assert drawn["tall"] > 9
    used = {int(day.day[-2:]) for day in made.days}
    assert used == {day for day, (wide, high) in enumerate(drawn["bars"], 1) if wide > 2 and high >= 1}
    if size == "paper":
        colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        assert ["rgb(0, 0, 0)", "rgb(255, 255, 255)"] == await page.evaluate(colours)
    await page.close()


@pytest.mark.parametrize("size", ["desk", "paper"])
async def test_a_table_is_whole(browser: Browser, tmp_path: Path, size: str) -> None:
    """On a desk and on paper no table is cut, however long names and sums are; on a phone it is moved."""
    page = await opened(browser, FULL, tmp_path, size, "light")
    wide = "[...document.querySelectorAll('table')].map((each) => each.getBoundingClientRect().right)"
    assert max(await page.evaluate(wide)) <= SIZES[size]["width"]
    await page.close()


async def test_a_printed_row_is_whole(browser: Browser, tmp_path: Path) -> None:
    """On paper no row is cut in two, and the sum stands once, at the end."""
    page = await opened(browser, FULL, tmp_path, "paper", "dark")
    await page.pdf(path=tmp_path / "statement.pdf", format="A4", print_background=True)
    rules = """[...document.querySelectorAll('tr, svg')].map((each) => getComputedStyle(each).breakInside)"""
    assert {"avoid"} == set(await page.evaluate(rules))
    foot = "getComputedStyle(document.querySelector('tfoot')).display"
    assert "table-row-group" == await page.evaluate(foot)
    await page.close()
