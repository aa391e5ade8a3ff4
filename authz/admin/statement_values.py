"""What a statement says: the values that the command gathers and the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from datetime import datetime


@frozen
class Item:
    """What one key used of one model; a credit to the tenant alone has no key.

    gpu_seconds is what the backend reported for prompt and output, of the days that the ledger still has.
    """

    key: str
    prefix: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    tokens: int
    gpu_seconds: float = 0.0


@frozen
class Source:
    """How many requests and tokens are known in one way: reported, counted, progress, corrected."""

    source: str
    requests: int
    tokens: int


@frozen
class Tokens:
    """The tokens of a day."""

    day: str
    input_tokens: int
    output_tokens: int


@frozen
class Journal:
    """What was read of a node's journal, and until when."""

    node: str
    lines: int
    lost_lines: int
    read_until: datetime | None
    is_retired: bool


@frozen
class Completeness:
    """What would say that something is missing: lines, dead letters, a sum that is another's.

    drift_tokens is what the budget of the month has not counted; below 0, what it counted too much. is_kept
    says whether the ledger still has all days of the month.
    """

    journals: list[Journal]
    dead_letters: int
    drift_tokens: int
    is_kept: bool


@frozen(kw_only=True)
class Statement:
    """A month of a tenant, in its time zone: the items, their sum, and what proves it.

    open is why it is not final; checkpoint_sha256 is the digest of a signed checkpoint of the books.
    """

    tenant: str
    month: str
    timezone: str
    made_at: datetime
    open: str | None
    items: list[Item]
    sources: list[Source]
    days: list[Tokens]
    tokens: int
    completeness: Completeness
    checkpoint_sha256: str | None = None
    is_final: bool = field(init=False)

    @is_final.default
    def _is_final(self) -> bool:
        return self.open is None

    @property
    def notes(self) -> list[str]:
        """Return a sentence for each thing that a reader ought to know."""
        proof = self.completeness
        lost = sum(journal.lost_lines for journal in proof.journals)
        notes = [
            (lost, f"{lost:,} lines of journals are lost, of all tenants."),
            (proof.dead_letters, f"{proof.dead_letters:,} lines were not understood, of all tenants."),
            (
                proof.drift_tokens,
                f"The budget of the month counted {-proof.drift_tokens:+,} tokens: see gateway_drift_tokens.",
            ),
            (not proof.is_kept, "Sources and GPU seconds are of the days that the ledger still has."),
        ]
        return [sentence for is_so, sentence in notes if is_so]
