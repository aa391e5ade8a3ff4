"""`just bench-prompts`: what keeping prompts costs a whole gateway; exits 1 above a tenth of its throughput.

python -m tests.bench.bench_prompts [--blocks 8] [--seconds 2] [--tokens 100]

What a busy machine serves is bounded by the CPU time of a request: that of Caddy, authz, metering, Postgres
and Redis together, client and backend aside. It hardly depends on what else the machine does; the rate, which
is printed beside it, does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.contenders import Contender
from tests.bench.load import Load, Target, Workload
from tests.bench.plan import Sample, sample
from tests.gateway import Gateway, running

CLIENTS: Final = 16
MOST: Final = 1.10

STORED_S: Final = 3.0
"""Until metering has stored what was sealed."""

WITHOUT: Final = "without"
WITH: Final = "with"

Block = dict[str, Sample]
"""What was measured of one workload in a row, by the name of the key."""


@contextmanager
def both(backend_url: str) -> Iterator[tuple[Gateway, list[Contender]]]:
    """Run a gateway with two keys, of which one has its prompts kept."""
    with (
        tempfile.TemporaryDirectory() as away,
        running(backend_url, OLLAMA_URL=backend_url) as gateway,
    ):
        gateway.run("vault", "init", "--private-key", str(Path(away) / "vault.key"))
        pids = {child["name"]: child["pid"] for child in gateway.stack.facts()["processes"]}
        keys = {
            WITHOUT: gateway.create_key("plain"),
            WITH: gateway.create_key("kept", "--log-prompts", "1d"),
        }
        yield gateway, [Contender(name, Target(gateway.url, key), pids) for name, key in keys.items()]


def measured(
    load: Load, contenders: Sequence[Contender], workloads: dict[str, Workload], blocks: int
) -> dict[str, list[Block]]:
    """Measure in turn without and with prompts kept; the first block warms up, and counts for nothing."""
    found: dict[str, list[Block]] = {name: [] for name in workloads}
    for number in range(blocks + 1):
        turn = contenders if number % 2 == 0 else contenders[::-1]
        for name, workload in workloads.items():
            block = {each.name: sample(load, each, workload, settle_s=STORED_S) for each in turn}
            if number:
                found[name].append(block)
    return found


def rate(found: Sample) -> float:
    """Requests a second."""
    return found.result.whole / found.result.seconds


def of_caddy(found: Sample) -> float:
    """The CPU time of Caddy for a request, in ms."""
    return 1000 * found.cpu["caddy"].all_s / found.result.whole


def of_all(found: Sample) -> float:
    """The CPU time of the whole gateway for a request, in ms."""
    return 1000 * found.cpu_s / found.result.whole


ALL: Final = "ms of CPU of all for a request"
FIGURES: Final[dict[str, Callable[[Sample], float]]] = {
    "requests a second": rate,
    "ms of CPU of Caddy for a request": of_caddy,
    ALL: of_all,
}


def show(name: str, blocks: Sequence[Block]) -> float:
    """Print the medians of all blocks; returns by how much the CPU time of all is multiplied."""
    ratios = {}
    for title, figure in FIGURES.items():
        without = [figure(block[WITHOUT]) for block in blocks]
        kept = [figure(block[WITH]) for block in blocks]
        ratios[title] = statistics.median(b / a for a, b in zip(without, kept, strict=True))
        sys.stdout.write(
            f"{name}: {title} {statistics.median(without):,.3f} without, {statistics.median(kept):,.3f} with "
            f"({100 * (ratios[title] - 1):+.1f} %)\n"
        )
    return ratios[ALL]


def main() -> int:
    """Measure both, streamed and not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each block")
    parser.add_argument("--tokens", type=int, default=100, help="of an answer")
    given = parser.parse_args()
    workloads = {
        name: Workload(CLIENTS, given.tokens, length=f"{given.seconds}s", stream=name == "streamed")
        for name in ("whole", "streamed")
    }
    with tempfile.TemporaryDirectory() as folder:
        load = Load.build(Path(folder))
        with load.backend() as backend_url, both(backend_url) as (gateway, contenders):
            found = measured(load, contenders, workloads, given.blocks)
            listed = json.loads(gateway.run("prompts", "list", "--limit", "10000", "--json").stdout)
    worst = max(show(name, blocks) for name, blocks in found.items())
    kept = sum(row["state"] == "whole" for row in listed)
    sys.stdout.write(f"{kept:,} of the last {len(listed):,} are whole\n")
    return 0 if worst <= MOST and kept else 1


if __name__ == "__main__":
    sys.exit(main())
