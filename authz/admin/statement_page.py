"""A statement as a page of its own, to read, print or send: no script, nothing from elsewhere."""

from __future__ import annotations

import calendar
from datetime import UTC
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from authz.admin.statement_values import Item, Statement

_STYLE: Final = """
:root { color-scheme: light dark; --text: #1b1b1f; --soft: #62626b; --line: #dcdce2; --bar: #1f4fae;
  --more: #6d92dd; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf1; --soft: #a3a3ad; --line: #3a3a42;
  --bar: #8fb3ff; --more: #4f73bd; --page: #17171a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h1, p { overflow-wrap: anywhere; } p { margin: .25rem 0; } .soft { color: var(--soft); }
.sum { font-size: 2rem; font-weight: 600; margin: 1rem 0; }
.wide { overflow-x: auto; } svg { width: 100%; height: 11rem; display: block;
  overflow: visible; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 500; } .number { text-align: right; white-space: nowrap; }
tfoot td { font-weight: 600; border-bottom: 0; } code { font-size: .85em; }
.bar { fill: var(--bar); } .more { fill: var(--more); } .axis { fill: var(--soft); font-size: 11px;
  text-anchor: middle; }
@media (max-width: 40rem) { .minor { display: none; } .sum { font-size: 1.6rem; } }
@media print { :root { color-scheme: light; --text: #000; --soft: #444; --line: #bbb; --bar: #333;
  --more: #888; --page: #fff; } body { padding: 0; max-width: none; font-size: 9pt; }
  table { font-size: 7.5pt; } th, td { padding-right: .5rem; }
  td { overflow-wrap: anywhere; min-width: 5.5em; } td.number { min-width: 0; }
  tfoot { display: table-row-group; } .wide { overflow: visible; }
  tr, svg { break-inside: avoid; } h2 { break-after: avoid; } * { print-color-adjust: exact; } }
"""

_TOP: Final = 90.0
"""How much of the drawing, in percent, is bars; below them are the days."""

_LEAST: Final = 0.6
"""The lowest bar, in percent: a day that was used shows beside any other."""


def page(found: Statement) -> str:
    """Return the page."""
    title = f"{found.tenant}, {found.month}"
    state = "Final." if found.is_final else f"Not final. {found.open}"
    made = f"Made {found.made_at.astimezone(UTC):%Y-%m-%d %H:%M}Z."
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Tokens billed, by the days of {escape(found.timezone)}. {escape(state)} {made}</p>',
        f'<p class="sum">{found.tokens:,} tokens</p>',
        *(f"<p>{escape(note)}</p>" for note in found.notes),
        "<h2>By day</h2>",
        _days(found),
        "<h2>By key and model</h2>",
        _items(found.items),
        "<h2>How they are known</h2>",
        _table(
            ("source", "requests", "tokens"),
            [(source.source, source.requests, source.tokens) for source in found.sources],
        ),
        "<h2>What proves that nothing is missing</h2>",
        _proof(found),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _days(found: Statement) -> str:
    """Draw a bar for each day, input below output; what was credited beyond a day's use has none."""
    year, month = (int(part) for part in found.month.split("-"))
    count = calendar.monthrange(year, month)[1]
    tokens = {int(day.day[-2:]): (max(0, day.input_tokens), max(0, day.output_tokens)) for day in found.days}
    most = max([1, *(sum(pair) for pair in tokens.values())])
    step = 100 / count
    drawn = []
    for day in range(1, count + 1):
        inputs, outputs = tokens.get(day, (0, 0))
        low = _TOP * inputs / most
        high = max(_TOP * (inputs + outputs) / most, _LEAST if inputs + outputs else 0.0)
        left = (day - 1) * step
        rank = "axis" if day == 1 or day % 5 == 0 else "axis minor"
        drawn += [
            f"<g><title>{found.month}-{day:02}: {inputs:,} input, {outputs:,} output</title>",
            _bar("more", left, step, 0.0, low),
            _bar("bar", left, step, low, high),
            f'</g><text class="{rank}" x="{left + step / 2:.2f}%" y="98.5%">{day}</text>',
        ]
    return (
        '<svg role="img" aria-label="Tokens by day">'
        + "".join(drawn)
        + f'</svg>\n<p class="soft">Input is below, output above it; the highest bar is {most:,} tokens.</p>'
    )


def _bar(name: str, left: float, step: float, low: float, high: float) -> str:
    place = f'x="{left + step / 10:.2f}%" y="{_TOP - high:.2f}%" width="{step * 0.8:.2f}%"'
    return f'<rect class="{name}" {place} height="{high - low:.2f}%"/>'


def _items(items: Sequence[Item]) -> str:
    columns = ("key", "prefix", "model", "requests", "input", "output", "tokens", "GPU seconds")
    rows = [
        (
            *(item.key, item.prefix, item.model, item.requests),
            *(item.input_tokens, item.output_tokens, item.tokens, item.gpu_seconds),
        )
        for item in items
    ]
    sums = [sum(column) for column in list(zip(*rows, strict=True))[3:]] if rows else []
    return _table(columns, rows, ("In all", "", "", *sums) if rows else ())


def _proof(found: Statement) -> str:
    proof = found.completeness
    rows = [
        (
            journal.node,
            journal.lines,
            journal.lost_lines,
            f"{journal.read_until.astimezone(UTC):%Y-%m-%d %H:%M}Z" if journal.read_until else "never",
        )
        for journal in proof.journals
    ]
    signed = f"<code>{found.checkpoint_sha256}</code>" if found.checkpoint_sha256 else "none was named"
    return (
        _table(("journal of node", "lines read", "lines lost", "read until"), rows)
        + f"<p>Lines not understood: {proof.dead_letters:,}. Tokens that its budget counts otherwise: "
        f"{proof.drift_tokens:,}. Signed checkpoint of the books, SHA-256: {signed}.</p>"
    )


def _table(columns: Iterable[str], rows: Sequence[Sequence[object]], foot: Sequence[object] = ()) -> str:
    if not rows:
        return '<p class="soft">Nothing.</p>'
    is_number = [isinstance(value, (int, float)) for value in rows[0]]
    head = "".join(
        f"<th{' class=number' if number else ''}>{escape(name)}</th>"
        for name, number in zip(columns, is_number, strict=True)
    )
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    end = f"<tfoot><tr>{_cells(foot)}</tr></tfoot>" if foot else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{end}</table></div>'


def _cells(row: Iterable[object]) -> str:
    return "".join(_cell(value) for value in row)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"<td class=number>{value:,.1f}</td>"
    if isinstance(value, int):
        return f"<td class=number>{value:,}</td>"
    return f"<td>{escape(str(value)) or '-'}</td>"
