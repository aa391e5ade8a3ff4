"""Compare the ledger and the audit with their chains, row by row, and the chains with a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from authz.chains.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from authz.chains.books import Books, RowFault
    from authz.chains.checkpoint import Checkpoint
    from authz.chains.links import Day

SHOWN: Final = 20
"""How many faults of one kind are named; the first is what counts."""


@frozen
class Report:
    """What was compared, and each thing that is wrong in a sentence, the first one first."""

    database: str
    chains: int
    links: int
    rows: int
    oldest_day: date
    faults: list[str]


@define
class Verification:
    """One verification; `checkpoint` is what is known from outside of the database."""

    _books: Books
    _checkpoint: Checkpoint | None = None
    _faults: list[str] = field(factory=list)

    async def run(self) -> Report:
        """Compare everything."""
        database = await self._books.identity()
        heads = {} if self._checkpoint is None else self._checkpoint.heads
        if self._checkpoint is not None and self._checkpoint.database != database:
            self._faults.append(
                f"The checkpoint is of the database {self._checkpoint.database}, and this is {database}: "
                "name the checkpoint of this one."
            )
            heads = {}
        walks = await self._walk({chain: number for chain, (number, _) in heads.items()})
        if heads and self._checkpoint is not None:
            await self._compare(walks, self._checkpoint)
        await self._rows()
        return Report(
            database=str(database),
            chains=len(walks),
            links=sum(walk.links for walk in walks.values()),
            rows=sum(walk.rows for walk in walks.values()),
            oldest_day=await self._books.oldest_day(),
            faults=self._faults,
        )

    async def _walk(self, wanted: dict[str, int]) -> dict[str, Walk]:
        database = await self._books.identity()
        closed: dict[str, list[Day]] = {}
        for day in await self._books.days():
            closed.setdefault(day.chain, []).append(day)
        walks = {}
        for chain, number in (await self._books.chains()).items():
            walk = Walk(chain, database, closed.get(chain, []), until=wanted.get(chain))
            await walk.follow(self._books.links(chain, number))
            walks[chain] = walk
            if walk.fault:
                self._faults.append(walk.fault)
        return walks

    async def _compare(self, walks: dict[str, Walk], checkpoint: Checkpoint) -> None:
        """Compare the chains with what a checkpoint says of them."""
        before = len(self._faults)
        restored_at = await self._books.restored_at()
        for chain, (number, known) in checkpoint.heads.items():
            walk = walks.get(chain)
            if walk is not None and walk.fault:
                continue  # it is broken, wherever the checkpoint is
            if walk is None or walk.number < number:
                last = walk.number if walk else 0
                self._faults.append(
                    f"The chain {chain} ends at link {last}, and the checkpoint of {checkpoint.made} knows "
                    f"link {number}: rows were removed, or the database was restored from an older backup."
                )
            elif walk.at_until is not None and walk.at_until != known:
                self._faults.append(
                    f"Link {number} of the chain {chain} is not the one of the checkpoint of "
                    f"{checkpoint.made}: it, or a link before it, was written anew."
                )
        if len(self._faults) > before and restored_at and restored_at > checkpoint.at:
            self._faults.append(
                f"The database was restored from a backup at {restored_at:%Y-%m-%dT%H:%M:%SZ}, after the "
                "checkpoint: what was settled again has links of its own; make a new checkpoint."
            )
        days = [day for walk in walks.values() if walk.chain in checkpoint.heads for day in walk.days]
        if len(self._faults) == before and not any(walk.fault for walk in walks.values()):
            self._faults.extend(checkpoint.faults_of(days))

    async def _rows(self) -> None:
        """Compare each row with what was chained of it; of faults no more are kept than are shown."""
        unknown: list[RowFault] = []
        late: set[bytes] = set()
        late_faults: list[RowFault] = []
        oldest = await self._books.oldest_day()
        async for row, is_same in self._books.late_rows():
            late.add(row.id)
            is_dropped = row.leaf is None and row.day < oldest
            if not is_same and not is_dropped and len(late_faults) < SHOWN:
                late_faults.append(row)
        for day, has_rows in await self._books.row_days():
            if day < oldest and not has_rows:
                continue  # what is there is compared, whatever the policy is said to be
            async for fault in self._books.ledger_faults(day):
                if fault.chain is not None:
                    self._add([fault])
                elif fault.id not in late and len(unknown) < SHOWN:
                    unknown.append(fault)
        self._add(late_faults)
        self._add(unknown)
        self._add(await self._books.audit_faults())
        for kind, id_ in await self._books.people_faults():
            self._say(f"The {kind} {id_} was altered: the ledger has this id of another one.")

    def _add(self, faults: Iterable[RowFault]) -> None:
        for fault in faults:
            self._say(_sentence(fault))

    def _say(self, sentence: str) -> None:
        if len(self._faults) < SHOWN:
            self._faults.append(sentence)


def _sentence(fault: RowFault) -> str:
    name = fault.name[0].upper() + fault.name[1:]
    if fault.chain is None:
        return f"{name} is in no chain: it was added past the rules of the database."
    where = f"link {fault.number} of the chain {fault.chain}"
    if fault.leaf is None:
        return f"{name} is missing: it is in {where}."
    return f"{name} was altered: it is not as {where} has it."
