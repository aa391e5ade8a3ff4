"""The figures of a run, as a table: medians over the blocks, and of the pairs within each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final

from attrs import frozen

from tests.bench.contenders import BEFORE, DIRECT, STOCK
from tests.bench.plan import Measurements, Sample

Measure = Callable[[Sample], float | None]


@frozen
class Figure:
    """A row: what is taken from a workload's samples."""

    title: str
    workload: str
    of: Measure
    is_added: bool = False
    """What is added to the answer without anything in between, block by block."""
    digits: int = 0


def _rate(sample: Sample) -> float:
    return sample.result.whole / sample.result.seconds


def _cpu_us(sample: Sample) -> float | None:
    return 1e6 * sample.cpu_s / sample.result.whole if sample.cpu else None


def _token_us(sample: Sample) -> float | None:
    return 1e6 * sample.cpu_s / sample.result.tokens if sample.cpu else None


def _delay(sample: Sample) -> float | None:
    return sample.result.delay_ms


FIGURES: Final = (
    Figure("CPU of a request at c=16, µs", "16", _cpu_us),
    Figure("CPU of a request at c=64, µs", "64", _cpu_us),
    Figure("requests a second at c=16", "16", _rate),
    Figure("requests a second at c=64", "64", _rate),
    Figure("added p50 at c=1, ms", "alone", lambda sample: sample.result.p50_ms, is_added=True, digits=2),
    Figure(
        "added to the first token, back to back, ms",
        "first",
        lambda sample: sample.result.ttft_ms,
        is_added=True,
        digits=2,
    ),
    Figure(
        "added to the first token, after gaps, ms",
        "first_gaps",
        lambda sample: sample.result.ttft_ms,
        is_added=True,
        digits=2,
    ),
    *(
        Figure(f"CPU of a token, {count} streams, µs", f"stream_{count}", _token_us, digits=1)
        for count in (1, 64, 512)
    ),
    *(
        Figure(
            f"added delay of a chunk, p99, {count} streams, ms",
            f"stream_{count}",
            _delay,
            is_added=True,
            digits=2,
        )
        for count in (1, 64, 512)
    ),
)
"""CPU time comes first: it hardly depends on what else the machine does."""


def table(found: Measurements) -> str:
    """Render what was measured in Markdown; the last columns compare the last contender with yardsticks."""
    names = list(next(iter(found.samples.values())))
    yardsticks = [name for name in (STOCK, BEFORE) if name in names]
    rows = [_row(figure, found, names, yardsticks) for figure in FIGURES if figure.workload in found.samples]
    if found.crowds:
        rows += _crowd_rows(found, names, [""] * len(yardsticks))
    head = ["", *names, *(f"{names[-1]} to {each}" for each in yardsticks)]
    return "\n".join([_line(head), _line(["---"] * len(head)), *rows])


def cpu_table(found: Measurements, contender: str, workload: str) -> str:
    """Render the CPU of a request by program, user and system."""
    samples = found.samples[workload][contender]
    rows = [_line(["program", "user, µs", "system, µs"]), _line(["---"] * 3)]
    for program in samples[0].cpu:
        user = median(1e6 * sample.cpu[program].user_s / sample.result.whole for sample in samples)
        system = median(1e6 * sample.cpu[program].system_s / sample.result.whole for sample in samples)
        rows.append(_line([program, f"{user:,.0f}", f"{system:,.0f}"]))
    return "\n".join(rows)


def _row(figure: Figure, found: Measurements, names: Sequence[str], yardsticks: Sequence[str]) -> str:
    values = {name: [figure.of(sample) for sample in found.samples[figure.workload][name]] for name in names}
    if figure.is_added:
        values = {name: _minus(of, values[DIRECT]) for name, of in values.items()}
    cells = [_median(_known(values[name]), figure.digits) for name in names]
    for each in yardsticks:
        pairs = zip(values[names[-1]], values[each], strict=True)
        known = [(of, to) for of, to in pairs if of is not None and to is not None]
        if figure.is_added:
            cells.append(_median([of - to for of, to in known], figure.digits, sign="+"))
        else:
            cells.append(f"x {_median([of / to for of, to in known if to], 2)}")
    return _line([figure.title, *cells])


def _crowd_rows(found: Measurements, names: Sequence[str], empty: Sequence[str]) -> Iterator[str]:
    crowds = [found.crowds[name] for name in names]
    whole = [f"{crowd.result.whole:,} of {crowd.result.whole + crowd.result.failed:,}" for crowd in crowds]
    yield _line(["streams at once that ended whole", *whole, *empty])
    each = [(crowd.busy_bytes - crowd.idle_bytes) / 1000 / max(crowd.result.whole, 1) for crowd in crowds]
    yield _line(["memory of such a stream, kB", *(f"{kb:,.0f}" if kb else "" for kb in each), *empty])
    idle = [crowd.idle_bytes / 2**20 for crowd in crowds]
    yield _line(["memory before, MiB", *(f"{mib:,.0f}" if mib else "" for mib in idle), *empty])


def _minus(values: Sequence[float | None], others: Sequence[float | None]) -> list[float | None]:
    pairs = zip(values, others, strict=True)
    return [None if value is None or other is None else value - other for value, other in pairs]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float], digits: int, *, sign: str = "") -> str:
    return f"{median(values):{sign},.{digits}f}" if values else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
