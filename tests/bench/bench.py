"""`just bench` and `just bench-peers`: what a gateway adds to an answer, and what it costs.

The same load goes in turn to a mock backend itself, through a stock Caddy whose forward_auth always gets
a 204, through the same with two bare uvicorn applications, and through this gateway with every limit on.
What counts is CPU time by the kernel, as a multiple of that of the stock Caddy in the same run: it hardly
depends on what else the machine does. Rates and times do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz.errors import CommandError, complaint
from tests.bench import kernel, table
from tests.bench.contenders import DIRECT, Contender, contenders, stock
from tests.bench.load import Load, Target, check_files, check_mock
from tests.bench.plan import SETTLE_S, Measurements, Plan, measure

RESULTS: Final = Path(__file__).with_name("RESULTS.md")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, and print and write what was found."""
    given = _parser().parse_args(argv)
    plan = Plan(given.blocks, given.seconds, given.tokens, given.crowd, tuple(given.only or ()))
    try:
        check_files(plan.crowd)
        with tempfile.TemporaryDirectory(prefix="nz") as folder:
            report = _report(given, plan, Path(folder))
    except CommandError as error:
        sys.stderr.write(complaint(error))
        return error.exit_code
    sys.stdout.write(report)
    if given.peer is None and given.only is None:
        given.results.write_text(f"# What the gateway costs\n\n{report}", encoding="utf-8")
    return 0


def _report(given: argparse.Namespace, plan: Plan, folder: Path) -> str:
    with ExitStack() as stack:
        load = Load.build(folder)
        backend_url = stack.enter_context(load.backend(given.backend_port))
        if given.peer is None:
            compared = stack.enter_context(contenders(backend_url, folder, before=given.before))
        else:
            peer = Target(given.peer, given.key, given.path, given.model)
            pids = {f"pid {pid}": pid for pid in given.pid}
            check_mock(load, "The gateway", peer)
            compared = [
                Contender(DIRECT, Target(backend_url, path=given.path), {}),
                stack.enter_context(stock(backend_url, folder, path=given.path)),
                Contender("peer", peer, pids),
            ]
        return _text(measure(load, compared, plan), plan, compared)


def _text(found: Measurements, plan: Plan, compared: Sequence[Contender]) -> str:
    how = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with {kernel.machine()}, in {plan.blocks} blocks that "
        f"took turns, of {plan.seconds:g} s or {plan.tokens} tokens a stream; then {plan.crowd:,} streams. "
        "Figures are medians of blocks, and the last column of the pairs within each. CPU time is the "
        f"kernel's, of all processes, with {SETTLE_S:g} s after the last answer for what is settled then."
    )
    parts = [how, table.table(found)]
    if "16" in found.samples:
        for each in compared[1:]:
            parts += [f"The CPU of a request at c=16, {each.name}:", table.cpu_table(found, each.name, "16")]
    return "\n\n".join(parts) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="just bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Plan()
    parser.add_argument("--blocks", type=int, default=usual.blocks)
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of each block")
    parser.add_argument("--tokens", type=int, default=usual.tokens, help="of a stream")
    parser.add_argument("--crowd", type=int, default=usual.crowd, help="streams at once")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to write")
    parser.add_argument("--backend-port", type=int, default=0, help="of the mock; 0 is any that is free")
    parser.add_argument("--before", type=Path, help="compare with the gateway of another checkout, too")
    parser.add_argument("--only", nargs="+", choices=tuple(usual.workloads), help="some of the measurements")
    peers = parser.add_argument_group("just bench-peers: measure another gateway instead")
    peers.add_argument("--peer", help="its base URL; the mock must be its backend, see --backend-port")
    peers.add_argument("--key", default="none", help="a key of it")
    peers.add_argument("--path", default="/api/chat", choices=("/api/chat", "/v1/chat/completions"))
    peers.add_argument("--model", default="bench", help="what it calls the model `bench` of the mock")
    peers.add_argument("--pid", type=int, action="append", default=[], help="a process of it; may come again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
