"""`just bench-growth`: what a request costs a gateway that has grown; exits 1 where that is a tenth more.

A small gateway and one with many keys, many models or a great ledger answer the same load in turn; so does
one gateway that is asked with short prompts and with long ones: there is more of these to read.

python -m tests.bench.bench_growth [--only keys models ledger prompts] [--blocks 8] [--rows 10000000]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final
from uuid import UUID

import asyncpg
from attrs import frozen

from authz import settings
from authz.limiter.limiter import Limiter
from tests.bench import kernel
from tests.bench.contenders import UNREACHED, Contender, ours
from tests.bench.great_ledger import GreatLedger
from tests.bench.load import Load, Target, Workload
from tests.bench.plan import Sample, sample
from tests.gateway import Gateway, keymaker, running

RESULTS: Final = Path(__file__).with_name("GROWTH.md")
KEYS, CROWDED = 100_000, 10_000
"""Of all tenants, and of the tenant of the key that asks."""
TENANTS, MODELS, LINK_ROWS, AT_ONCE = 90, 300, 20, 1000
SHORT, LONG = 1 << 10, 1 << 20
"""Bytes of a prompt."""
MOST: Final = 1.10

OTHERS: Final = """
    WITH t AS (
        INSERT INTO tenants (id, name, published_version)
        SELECT gen_random_uuid(), 'other-' || i, 1 FROM generate_series(1, $1::int) AS i
        RETURNING id
    )
    INSERT INTO keys (id, tenant_id, name, published_version)
    SELECT gen_random_uuid(), t.id, 'key-' || i, 1 FROM t, generate_series(1, $2::int) AS i
"""
BESIDE: Final = """
    INSERT INTO keys (id, tenant_id, name, published_version)
    SELECT gen_random_uuid(), tenant_id, 'key-' || i, 1
    FROM keys, generate_series(1, $1::int) AS i
    WHERE name = 'only'
    RETURNING id, tenant_id
"""
SECRETS: Final = """
    INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash, created_at)
    SELECT
        'nz_' || lpad(to_hex(row_number() OVER ()), 8, '0'), k.id, decode(repeat('00', 32), 'hex'), 'p', 'h',
        now() - interval '1 hour'  -- authz reads those of the last minute again and again
    FROM keys AS k
    WHERE NOT EXISTS (SELECT FROM secrets AS s WHERE s.key_id = k.id)
"""

Grow = Callable[[Gateway], None]


@frozen
class Side:
    """One of the two that are compared: a gateway, and what it is asked."""

    contender: Contender
    prompt: int = 0

    def measured(self, load: Load, workload: Workload) -> Sample:
        """Measure a workload with its prompts."""
        asked = Workload(workload.clients, length=workload.length, prompt=self.prompt)
        return sample(load, self.contender, asked)


@frozen
class Pair:
    """What was measured of both sides in one block: with sixteen clients, and with one."""

    small: tuple[Sample, Sample]
    grown: tuple[Sample, Sample]


def keys(gateway: Gateway) -> None:
    """Give a gateway many keys, a tenth of them to the tenant of the key that asks."""
    asyncio.run(_keys(gateway))


async def _keys(gateway: Gateway) -> None:
    owner = await asyncpg.connect(gateway.database_url)
    limiter = await Limiter.connect(settings.load({}, state=gateway.stack.state).redis_url)
    try:
        await owner.execute(OTHERS, TENANTS, (KEYS - CROWDED) // TENANTS)
        beside = await owner.fetch(BESIDE, CROWDED)
        await owner.execute(SECRETS)
        await owner.execute("VACUUM ANALYZE")
        for start in range(0, len(beside), AT_ONCE):
            versions: dict[UUID | None, int] = {each["id"]: 1 for each in beside[start : start + AT_ONCE]}
            await limiter.raise_versions(beside[0]["tenant_id"], versions)
    finally:
        await limiter.close()
        await owner.close()


def ledger(rows: int, gateway: Gateway) -> None:
    """Give a gateway the rows of the last days."""
    asyncio.run(_ledger(rows, gateway))


async def _ledger(rows: int, gateway: Gateway) -> None:
    owner = await asyncpg.connect(gateway.database_url)
    try:
        await GreatLedger.ending(datetime.now(UTC), owner, rows=rows, per_link=LINK_ROWS).fill()
    finally:
        await owner.close()


@contextmanager
def grown(backend_url: str, name: str, grow: Grow) -> Iterator[Contender]:
    """Run a gateway, and let it grow before it is asked."""

    async def key() -> str:
        async with keymaker(gateway) as make:
            return await make(tenant=UNREACHED, key=UNREACHED)

    with running(backend_url, OLLAMA_URL=backend_url) as gateway:
        target = Target(gateway.url, asyncio.run(key()))
        grow(gateway)
        pids = {child["name"]: child["pid"] for child in gateway.stack.facts()["processes"]}
        yield Contender(name, target, pids)


@contextmanager
def sides(name: str, load: Load, rows: int) -> Iterator[tuple[Side, Side]]:
    """Run the two that show what such a growth costs."""
    with ExitStack() as stack:
        backend_url = stack.enter_context(load.backend())
        small = stack.enter_context(ours(backend_url, "small"))
        if name == "prompts":
            yield Side(small, SHORT), Side(small, LONG)
            return
        growths: dict[str, Grow] = {"keys": keys, "models": lambda _: None, "ledger": partial(ledger, rows)}
        url = stack.enter_context(load.backend(models=MODELS)) if name == "models" else backend_url
        yield Side(small), Side(stack.enter_context(grown(url, name, growths[name])))


def pairs(load: Load, of: tuple[Side, Side], *, blocks: int, seconds: float) -> list[Pair]:
    """Measure both sides in turn; the first block warms up, and counts for nothing."""
    many, alone = Workload(16, length=f"{seconds}s"), Workload(1, length=f"{seconds}s")
    found = []
    for block in range(blocks + 1):
        measured = {}
        for side in of if block % 2 == 0 else of[::-1]:
            measured[id(side)] = side.measured(load, many), side.measured(load, alone)
        if block:
            found.append(Pair(*(measured[id(side)] for side in of)))
    return found


def cpu_us(of: Sample) -> float:
    """The CPU time of a request, of all programs."""
    return 1e6 * of.cpu_s / of.result.whole


def ratio(found: Sequence[Pair], figure: Callable[[tuple[Sample, Sample]], float]) -> float:
    """The median of what the grown side has as a multiple of the small one, block by block."""
    return median(figure(pair.grown) / figure(pair.small) for pair in found)


def row(title: str, found: Sequence[Pair]) -> str:
    """Render what a growth costs."""
    cells = [
        title,
        f"x {ratio(found, lambda both: cpu_us(both[0])):.2f}",
        f"x {ratio(found, lambda both: both[0].result.whole / both[0].result.seconds):.2f}",
        f"{median(pair.small[1].result.p50_ms or 0 for pair in found):.2f}",
        f"{median(pair.grown[1].result.p50_ms or 0 for pair in found):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def speed(found: Sequence[Pair]) -> str:
    """Say how fast the bytes that a long prompt has beyond a short one are read."""
    more_us = median(cpu_us(pair.grown[0]) - cpu_us(pair.small[0]) for pair in found)
    mib = (LONG - SHORT) / 2**20
    return f"A prompt is read, understood and bounded at {mib / (more_us / 1e6):,.0f} MiB/s of one core."


def main() -> int:
    """Measure every growth, and print and write the table."""
    titles = {
        "keys": f"{KEYS:,} keys, {CROWDED:,} of them of one tenant, instead of 2",
        "models": f"{MODELS} models instead of 1",
        "ledger": "{rows:,} rows in the ledger instead of none",
        "prompts": "prompts of 1 MiB instead of 1 KiB",
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=titles, default=list(titles))
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each block")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the ledger")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to write, if all is measured")
    given = parser.parse_args()
    lines, has_grown = [], False
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        load = Load.build(Path(folder))
        for name in given.only:
            with sides(name, load, given.rows) as both:
                found = pairs(load, both, blocks=given.blocks, seconds=given.seconds)
            lines.append(row(titles[name].format(rows=given.rows), found))
            if name == "prompts":
                lines += ["", speed(found)]
            else:
                has_grown |= ratio(found, lambda each: cpu_us(each[0])) > MOST
    how = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with {kernel.machine()}, in {given.blocks} blocks that "
        f"took turns, of {given.seconds:g} s: medians of the pairs within each. CPU time is the kernel's, of "
        "all processes, settlement included."
    )
    head = "| | CPU of a request at c=16 | rate at c=16 | p50 at c=1 before, ms | after, ms |"
    report = "\n".join([how, "", head, "|---|---|---|---|---|", *lines, ""])
    sys.stdout.write(report)
    if given.only == list(titles):
        given.results.write_text(f"# What growth costs\n\n{report}", encoding="utf-8")
    return 1 if has_grown else 0


if __name__ == "__main__":
    sys.exit(main())
