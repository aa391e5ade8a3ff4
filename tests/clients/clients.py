"""`just clients`: programs that people point at Ollama, each of Ollama itself and through the gateway.

They are installed from their registries, and run unmodified. What a user sees must be the same both ways, and
what the gateway bills what the backend did. A wrong key, a spent budget, a rate limit and a dead backend must
be shown as what they are, at most five seconds later than an answer.

python -m tests.clients.clients [PROGRAM...]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from attrs import define, field, frozen
from rich.console import Console
from rich.table import Table

from authz.identity.secrets import handle
from authz.types import Limits
from tests.authz.signing import Signer
from tests.clients.comparing import Compared, compared
from tests.clients.installing import Installed, NotInstalled, installed
from tests.clients.programs import Program, programs
from tests.clients.refusing import Refusal, Refused, refused
from tests.clients.using import Credential, User
from tests.gateway import Gateway, NewKey, keymaker, running
from tests.ollama.server import Ollama, running_ollama

_LIMITS = {
    Refusal.SPENT_BUDGET: Limits(tokens_per_day=1),
    Refusal.RATE_LIMIT: Limits(requests_per_minute=1),
}
_CONTEXT_TOKENS = 32_768
"""Coding agents begin with 10,000 tokens and more of instructions."""


@define
class Row:
    """What came of one program."""

    program: Program
    compared: dict[str, Compared] = field(factory=dict)
    refused: dict[Refusal, Refused] = field(factory=dict)

    @property
    def complaints(self) -> list[str]:
        """Return what is wrong with it, if anything."""
        runs: list[tuple[str, Compared | Refused]] = [*self.compared.items(), *self.refused.items()]
        return [f"{name}: {it}" for name, run in runs for it in run.complaints]

    @property
    def notes(self) -> list[str]:
        """Return why the program is known to show a refusal late."""
        return [f"{refusal}: {run.reason}" for refusal, run in self.refused.items() if run.reason]

    def cells(self) -> list[str]:
        """Return its row of the table."""
        same = [name for name, pair in self.compared.items() if not pair.complaints]
        other = [name for name, pair in self.compared.items() if pair.complaints]
        requests = [tokens for pair in self.compared.values() for tokens in pair.billed]
        sums = [sum(tokens[side] for tokens in requests) for side in (0, 1)]
        shown = [f"{run.late_s:.1f} s {run.verdict}" for run in self.refused.values()]
        return [
            self.program.title,
            " ".join(same),
            " ".join(other),
            f"{len(requests)}: {sums[0]:,}/{sums[1]:,}",
            *shown,
        ]


@frozen
class Site:
    """A gateway, and what creates keys of it."""

    gateway: Gateway
    new_key: NewKey

    async def user(self, program: Program, found: Installed, limits: Limits = Limits()) -> User:
        """Return a user with a key of its own, of a tenant of its own."""
        if program.is_signing:
            signer = Signer()
            await self.new_key(key=limits, ssh_key=signer.line)
            credential = Credential(signer.private, signer.handle)
        else:
            key = await self.new_key(key=limits)
            credential = Credential(key, handle(key))
        return User(program, found, self.gateway.url, credential)


@frozen
class Bench:
    """What all programs are run against."""

    ollama: Ollama
    ledger: asyncpg.Connection
    live: Site
    dead: Site
    """Its only Ollama has died."""

    async def run(self, program: Program, found: Installed) -> Row:
        """Run the commands of a program, and its refusals."""
        row = Row(program)
        stranger = Credential(Signer().private if program.is_signing else "nz_none")
        for command in program.commands:
            direct = User(program, found, self.ollama.url, stranger)
            gated = await self.live.user(program, found)
            row.compared[command] = await compared(direct, gated, command, self.ollama, self.ledger)
        answered = [shown for pair in row.compared.values() for shown in (pair.direct, pair.gated)]
        usual_s = max(shown.seconds for shown in answered)
        for refusal in Refusal:
            site = self.dead if refusal is Refusal.DEAD_BACKEND else self.live
            user = await site.user(program, found, _LIMITS.get(refusal, Limits()))
            if refusal is Refusal.WRONG_KEY:
                user = User(program, found, user.url, stranger)
            row.refused[refusal] = await refused(user, refusal, usual_s=usual_s)
        return row


@contextmanager
def _without_backend() -> Iterator[Gateway]:
    with running_ollama(parallel=1) as died, running(died.url, OLLAMA_URL=died.url) as started:
        died.kill()
        yield started


@asynccontextmanager
async def benches() -> AsyncIterator[Bench]:
    """Run the real Ollama with a gateway in front of it, and another gateway in front of none."""
    with (
        _without_backend() as dead,
        running_ollama(parallel=4, context_tokens=_CONTEXT_TOKENS) as ollama,
        running(ollama.url, OLLAMA_URL=ollama.url) as live,
    ):
        ledger = await asyncpg.connect(live.database_url)
        async with keymaker(live) as of_live, keymaker(dead) as of_dead:
            yield Bench(ollama, ledger, Site(live, of_live), Site(dead, of_dead))
        await ledger.close()


async def run(chosen: dict[str, Program], console: Console) -> bool:
    """Install these programs, run them, print a table; return whether all is as it should be."""
    table = Table("program", "as Ollama", "otherwise", "requests: tokens, as billed", *Refusal)
    found: dict[str, Installed] = {}
    for name, program in chosen.items():
        try:
            found[name] = installed(name, program, os.environ)
        except NotInstalled as error:
            console.print(f"{name} could not be installed: {error}", markup=False, highlight=False)
    is_good = found.keys() == chosen.keys()
    async with benches() as bench:
        for name, place in found.items():
            began = time.monotonic()
            row = await bench.run(chosen[name], place)
            table.add_row(*row.cells())
            console.print(f"{name}: {len(row.compared)} commands in {time.monotonic() - began:.0f} s")
            for line in [*row.complaints, *row.notes]:
                console.print(f"  {line}", markup=False, highlight=False)
            is_good = is_good and not row.complaints
    console.print(table)
    missing = [name for name in chosen if name not in found]
    console.print(f"not installed: {' '.join(missing)}" if missing else "", highlight=False)
    return is_good


def main() -> int:
    """Read the arguments, run, print; 1 if anything differs or could not be run."""
    parser = argparse.ArgumentParser(prog="just clients", description=__doc__)
    known = programs()
    parser.add_argument("program", nargs="*", choices=[*known, []], help="all, unless some are named")
    names = parser.parse_args().program or list(known)
    return 0 if asyncio.run(run({name: known[name] for name in names}, Console(width=140))) else 1


if __name__ == "__main__":
    sys.exit(main())
