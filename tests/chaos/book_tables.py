"""The figures of a run, each beside what it must be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from attrs import define, field, frozen

from authz.types import TOTAL_START, Total
from tests.chaos.book_compare import Judge, Verdict
from tests.chaos.evidence import Lines, Row
from tests.chaos.load import Key

PUBLIC = ("/", "/healthz", "/readyz")

Spent = dict[tuple[UUID, str, Any], int]


@frozen
class Figure:
    """A number of the run; one without a rule only informs."""

    name: str
    value: object
    rule: str = ""
    is_right: bool = True

    def __str__(self) -> str:
        """One line of the table."""
        mark = "ok" if self.is_right else "WRONG"
        return f"{self.name:<58} {self.value!s:>12}   {self.rule:<44} {mark if self.rule else ''}".rstrip()


@define
class Table:
    """Figures in order."""

    figures: list[Figure] = field(factory=list)

    @property
    def is_right(self) -> bool:
        """Return whether every rule holds."""
        return all(figure.is_right for figure in self.figures)

    def note(self, name: str, value: object) -> None:
        """A number without a rule."""
        self.figures.append(Figure(name, value))

    def equal(self, name: str, value: object, expected: object, rule: str = "") -> None:
        """A number that must be this one."""
        self.figures.append(Figure(name, value, f"{rule} = {expected}".strip(), value == expected))

    def at_most(self, name: str, value: float, limit: int, rule: str = "") -> None:
        """A number that has a ceiling."""
        self.figures.append(Figure(name, value, f"{rule} <= {limit}".strip(), value <= limit))


def of_requests(table: Table, judge: Judge) -> None:
    """B1, B2: every request that ended costs what the backend counted, once."""
    for verdict in Verdict:
        count = judge.counts[verdict]
        if verdict.value.startswith("wrong"):
            table.equal(verdict.value, count, 0, "B1, B2:")
        else:
            table.note(verdict.value, count)
    table.equal("overrun tokens", sum(row.overrun_tokens for row in judge.rows.values()), 0, "L3:")


def spent(rows: Iterable[Row]) -> Spent:
    """The sums of the ledger per tenant and key (scope), by day, month and in total."""
    sums: defaultdict[tuple[UUID, str, Any], int] = defaultdict(int)
    for row in rows:
        if row.tokens and row.tenant and row.key:
            for scope in (row.tenant, row.key):
                sums[scope, "day", row.day] += row.tokens
                sums[scope, "month", row.month] += row.tokens
                sums[scope, "total", TOTAL_START] += row.tokens
    return dict(sums)


def of_books(
    table: Table, ledger: Spent, windows: Mapping[UUID, list[Total]], counters: Mapping[UUID, list[Total]]
) -> None:
    """B3: ledger, windows and Redis say the same of every tenant and key."""
    totals = [total for found in windows.values() for total in found]
    kept = {(total.scope, str(total.period), total.start): total.used for total in totals if total.used}
    wrong = {*ledger.items()} ^ {*kept.items()}
    table.note(
        "tokens in the ledger", sum(v for (_, period, _), v in ledger.items() if period == "total") // 2
    )
    table.note("windows of tenants and keys", len(totals))
    table.equal("windows that differ from the ledger", len(wrong), 0, "B3:")
    believed = {(total.scope, total.period, total.start): total for c in counters.values() for total in c}
    differing = sum(believed.get((each.scope, each.period, each.start)) != each for each in totals)
    table.equal("counters of Redis that differ from the windows", differing, 0, "B3:")


def of_budgets(table: Table, ledger: Spent, keys: Iterable[Key]) -> None:
    """L3: no key or tenant has spent more than a budget."""
    for key in keys:
        for period, limit in (("total", key.limits.tokens_total), ("day", key.limits.tokens_per_day)):
            used = [v for (scope, of, _), v in ledger.items() if scope == key.id and of == period]
            if limit is not None:
                table.at_most(f"tokens of {key.name} ({period})", max(used, default=0), limit, "L3:")


def of_lines(table: Table, lines: Lines, sequences: Mapping[UUID, tuple[int, int, int]]) -> None:
    """B4: every line that was written has been read, and every number that is missing is known."""
    ends = {boot: max([*numbers, lines.lasts.get(boot, 0)]) + 1 for boot, numbers in lines.numbers.items()}
    missing = {boot: ends[boot] - len(set(numbers)) for boot, numbers in lines.numbers.items()}
    last = lines.boots[-1]
    table.note("journal files", lines.files)
    table.note("journal lines", sum(map(len, lines.numbers.values())))
    twice = sum(len(numbers) - len(set(numbers)) for numbers in lines.numbers.values())
    table.equal("numbers written twice", twice, 0, "B4:")
    table.note("numbers never written: Caddy died in between", sum(missing.values()))
    table.equal("numbers missing of the Caddy that lives", missing[last], 0, "B4:")
    read = {boot: (ends[boot], missing[boot], 0) for boot in lines.numbers}
    unaccounted = [boot for boot in read.keys() | sequences.keys() if read.get(boot) != sequences.get(boot)]
    table.equal("boots whose lines metering saw otherwise", len(unaccounted), 0, "B4:")


def of_records(table: Table, lines: Lines, rows: Mapping[UUID, Row], counted: int) -> None:
    """B2, B4: every record is a row of the ledger or counted as a refusal, none is both or neither."""
    ids = Counter(UUID(record["id"]) for record in lines.records)
    rowless = [record for record in lines.records if UUID(record["id"]) not in rows]
    unasked = sum(record["path"] in PUBLIC and record["outcome"] == "completed" for record in rowless)
    table.equal("records written twice", sum(ids.values()) - len(ids), 0, "B2:")
    table.equal(
        "refusals counted by the minute", counted, len(rowless) - unasked, "B4: records without a row"
    )
    never = [
        row for row in rows.values() if row.id not in ids and row.usage_source != "progress" and row.tokens
    ]
    table.equal("rows that cost and have no record", len(never), 0, "B2:")
