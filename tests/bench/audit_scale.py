"""`just audit-scale`: what is altered in a great ledger is found and named, in time; exits 1 if it is not.

python -m tests.bench.audit_scale [--rows 10000000] [--per-link 200]

The rows are chained by the database's own triggers, as metering's are. Then their owner alters, removes,
invents and swaps some by hand, deep inside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import attrs
from attrs import frozen

from authz.chains import books, check_proof, checkpoint
from authz.chains.checkpoint import PublicKey
from authz.chains.proof import prove
from authz.schema import migrate
from authz.stack import embedded
from tests.bench.great_ledger import GreatLedger

PROOFS: Final = 50
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

MOST_US_A_ROW: Final = 40.0
"""Of CPU time, that other work on the machine does not change: ten million rows in seven minutes."""

MOST_PROOF_US_A_LINK: Final = 15.0
"""Of CPU time: a proof needs the hashes of the links that are under no root of a day yet, here of all."""

MOST_MIB: Final = 512.0
"""Of the command and of its Postgres process, shared buffers aside: five times 64 MiB, however many rows."""

_LOOK_S: Final = 0.2

BACKENDS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class NotAsAskedError(Exception):
    """What was altered is not found, or not in time."""


@frozen
class Taken:
    """What a process has taken until it was looked at last."""

    cpu_s: float = 0.0
    mib: float = 0.0

    @classmethod
    def by(cls, pid: int, *, memory: str) -> Taken:
        """Look at a process; one that has ended took nothing."""
        folder = Path(f"/proc/{pid}")
        try:
            ticks = (folder / "stat").read_text().rpartition(") ")[2].split()[11:13]
            found = re.search(rf"^{memory}:\s+(\d+) kB", (folder / "status").read_text(), re.MULTILINE)
        except OSError:
            return cls()
        return cls(sum(map(int, ticks)) / TICKS_PER_S, int(found[1]) / 1024 if found else 0.0)

    def or_more(self, other: Taken) -> Taken:
        """The greater of each figure."""
        return Taken(max(self.cpu_s, other.cpu_s), max(self.mib, other.mib))


@frozen
class Ran:
    """What a command said, and what it and its Postgres process took: time, CPU time, the most memory."""

    code: int
    printed: str
    took_s: float
    cpu_s: float
    own_mib: float
    postgres_mib: float


@frozen
class Auditor:
    """Whose commands read the database at a URL; keys and checkpoints are in a folder."""

    folder: Path
    url: str
    owner: asyncpg.Connection

    @property
    def checked_by(self) -> list[str]:
        """The arguments that name the checkpoint and its key."""
        return ["--checkpoint", str(self.folder / "notes"), "--key", str(self.folder / "key.pub")]

    async def run(self, *arguments: str) -> Ran:
        """Run a command, and look at it and at its Postgres process meanwhile."""
        environ = os.environ | {"DATABASE_URL": self.url, "REDIS_URL": "redis://127.0.0.1:1"}
        out = self.folder / "printed"
        began, own, postgres = time.perf_counter(), Taken(), Taken()
        with out.open("wb") as printed:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "authz", *arguments, env=environ, stdout=printed
            )
            ended = asyncio.create_task(process.wait())
            while not (await asyncio.wait([ended], timeout=_LOOK_S))[0]:
                own = own.or_more(Taken.by(process.pid, memory="VmHWM"))
                for row in await self.owner.fetch(BACKENDS):
                    postgres = postgres.or_more(Taken.by(row["pid"], memory="RssAnon"))
        took_s = time.perf_counter() - began
        return Ran(ended.result(), out.read_text(), took_s, own.cpu_s + postgres.cpu_s, own.mib, postgres.mib)

    async def verify(self) -> tuple[Ran, list[str]]:
        """Compare everything with the checkpoint, as an auditor does; what is wrong in sentences."""
        ran = await self.run("audit", "verify", *self.checked_by, "--json")
        faults: list[str] = json.loads(ran.printed)["problems"]
        return ran, faults


async def prove_some(auditor: Auditor, great: GreatLedger) -> dict[str, float]:
    """Prove some requests, wherever they are, and check that; what each takes, in ms."""
    note, key = (auditor.folder / "notes").read_text(), (auditor.folder / "key.pub").read_text().strip()
    known = checkpoint.parse(checkpoint.last_note(note), PublicKey.parse(key))
    proving: list[float] = []
    checking: list[float] = []
    async with books.opened(auditor.url) as opened:
        (backend,) = await auditor.owner.fetch(BACKENDS)
        before = time.process_time() + Taken.by(backend["pid"], memory="RssAnon").cpu_s
        for turn in range(PROOFS):
            request = great.request(turn * great.rows // PROOFS)
            began = time.perf_counter()
            proof = await prove(opened, request, known, checkpoint.last_note(note))
            proving.append((time.perf_counter() - began) * 1000)
            text = json.dumps(attrs.asdict(proof))
            began = time.perf_counter()
            (row,) = check_proof.check(json.loads(text), key)
            checking.append((time.perf_counter() - began) * 1000)
            expect(is_so=row["request_id"] == str(request), sentence=f"{request} is not in {row}.")
        after = time.process_time() + Taken.by(backend["pid"], memory="RssAnon").cpu_s
    return {
        "ms": statistics.median(proving),
        "cpu_ms": (after - before) * 1000 / PROOFS,
        "check_ms": statistics.median(checking),
    }


def say(part: str, **figures: float) -> None:
    """One line of figures."""
    sys.stdout.write(
        f"{part}: " + "  ".join(f"{name} {value:,.5g}" for name, value in figures.items()) + "\n"
    )
    sys.stdout.flush()


def expect(*, is_so: bool, sentence: str) -> None:
    """End the run where something is not as it must be."""
    if not is_so:
        raise NotAsAskedError(sentence)


async def measure(rows: int, per_link: int) -> list[str]:
    """Fill a ledger, verify, alter and verify it; returns what was too slow. Raises NotAsAskedError."""
    with tempfile.TemporaryDirectory(prefix="nz") as name, embedded.postgres_server(Path(name)):
        url = embedded.postgres_url(Path(name), "great")
        migrate(url)
        owner = await asyncpg.connect(url)
        try:
            great = GreatLedger.ending(datetime.now(UTC), owner, rows=rows, per_link=per_link)
            return await look_at(great, Auditor(Path(name), url, owner))
        finally:
            await owner.close()


async def look_at(great: GreatLedger, auditor: Auditor) -> list[str]:
    """Measure it on a database with nothing in it."""
    began = time.perf_counter()
    await great.fill()
    size = await great.owner.fetchval("SELECT pg_database_size(current_database())")
    took_s = time.perf_counter() - began
    say("filled", s=took_s, us_a_row=took_s / great.rows * 1e6, gib=size / 2**30, rows=great.rows)
    key, notes = str(auditor.folder / "key"), str(auditor.folder / "notes")
    await auditor.run("audit", "keygen", "--to", key)
    say("checkpoint", s=(await auditor.run("audit", "checkpoint", "--key", key, "--to", notes)).took_s)
    whole, faults = await auditor.verify()
    say("verify", **figures(whole, great.rows))
    expect(is_so=whole.code == 0 and not faults, sentence=f"Nothing was altered, but: {faults}")
    proofs = await prove_some(auditor, great)
    say("prove", **proofs)
    await check_by_hand(auditor, great.request(great.rows // 2))
    sentences = await great.tamper()
    altered, faults = await auditor.verify()
    say("verify, altered", **figures(altered, great.rows))
    expect(is_so=altered.code == 1 and set(faults) == sentences, sentence=f"{faults}, not {sentences}")
    say("found and named", faults=len(sentences))
    us_a_row = max(whole.cpu_s, altered.cpu_s) / great.rows * 1e6
    mib = max(ran.own_mib + ran.postgres_mib for ran in (whole, altered))
    us_a_link = proofs["cpu_ms"] * 1000 / (great.rows / great.per_link)
    measured = (
        (us_a_row, MOST_US_A_ROW, f"A row takes {us_a_row:.0f} us of CPU time to verify."),
        (us_a_link, MOST_PROOF_US_A_LINK, f"A proof takes {us_a_link:.0f} us of CPU time for each link."),
        (mib, MOST_MIB, f"Verification takes {mib:.0f} MiB."),
    )
    return [sentence for value, most, sentence in measured if value > most]


async def check_by_hand(auditor: Auditor, request: UUID) -> None:
    """Prove a request and check the proof as people do, by the command and by the customer's script."""
    proven = await auditor.run("audit", "prove", str(request), *auditor.checked_by)
    path = auditor.folder / "proof.json"
    argv = [sys.executable, "-I", check_proof.__file__, str(path), str(auditor.folder / "key.pub")]
    took_s = []
    for more, code in (("1", 1), ("", 0)):
        path.write_text(proven.printed.replace('\\"output_tokens\\":', f'\\"output_tokens\\":{more}'))
        began = time.perf_counter()
        checked = await asyncio.to_thread(subprocess.run, argv, check=False, capture_output=True)
        took_s.append(time.perf_counter() - began)
        expect(is_so=checked.returncode == code, sentence=f"The script says: {checked.stderr.decode()}")
    say("by hand", prove_s=proven.took_s, check_s=took_s[-1], proof_bytes=len(proven.printed))


def figures(ran: Ran, rows: int) -> dict[str, float]:
    """What a verification took."""
    return {
        "s": ran.took_s,
        "cpu_us_a_row": ran.cpu_s / rows * 1e6,
        "own_mib": ran.own_mib,
        "postgres_mib": ran.postgres_mib,
    }


def main() -> int:
    """Measure; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--per-link", type=int, default=200, help="rows that a statement adds")
    given = parser.parse_args()
    try:
        complaints = asyncio.run(measure(given.rows, given.per_link))
    except NotAsAskedError as error:
        complaints = [str(error)]
    sys.stderr.write("".join(f"{complaint}\n" for complaint in complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
