"""An export that is continued: what was added since the last one, once."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from authz.__main__ import run
from authz.accounts.credits import credit_request
from authz.accounts.session import Session
from authz.admin.export import Export, Wanted
from authz.admin.sheets import Format, Output
from authz.admin.watermark import ROWS_AT_ONCE, Watermark
from authz.types import Identity
from tests.authz.billing import START, Book, served


async def written(session: Session, wanted: Wanted) -> tuple[list[dict[str, Any]], Watermark | None]:
    """What an export writes, and its watermark."""
    out = io.BytesIO()
    export = Export(session, Format.JSONL, Output(out), wanted)
    async for _ in export.run():
        pass
    return [json.loads(line) for line in out.getvalue().splitlines()], export.watermark


async def continued(session: Session, before: Watermark | None) -> tuple[list[dict[str, Any]], Watermark]:
    """What was added since a watermark, and the next one."""
    rows, after = await written(session, Wanted(is_continued=True, before=before))
    assert after
    return rows, after


def names(folder: Path) -> set[str]:
    """The files of a folder."""
    return {path.name for path in folder.iterdir()}


async def test_an_export_is_continued(session: Session, book: Book, owner: Identity) -> None:
    """Each run gets what was added since the last one, once: also what is older, and corrections."""
    young, old = served(owner, START), served(owner, START - timedelta(days=2))
    await book.settle(young._replace(day=START.date(), month=date(2026, 11, 1)))
    first, mark = await continued(session, None)
    assert [(str(young.request_id), 0)] == [(row["request_id"], row["entry"]) for row in first]
    assert [] == (await continued(session, mark))[0]
    await book.add(old)
    await credit_request(session, young.request_id, tokens=5, reason="too many", at=START)
    second, after = await continued(session, mark)
    assert {(str(old.request_id), 0), (str(young.request_id), 2)} == {
        (row["request_id"], row["entry"]) for row in second
    }
    assert [] == (await continued(session, after))[0]
    everything = await written(session, Wanted())
    assert sorted(map(str, [*first, *second])) == sorted(map(str, everything[0]))


async def test_a_continued_export_reads_many_rows(session: Session, book: Book, owner: Identity) -> None:
    """However many rows a link has, and links a chain, each comes once."""
    for _ in range(3):
        await book.add(*(served(owner, START) for _ in range(ROWS_AT_ONCE // 2 + 7)))
    rows, _ = await continued(session, None)
    assert len(rows) == len({row["request_id"] for row in rows}) == len(book.rows)


@pytest.mark.usefixtures("outside", "filled")
@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ("{}", "is no file of an export"),
        ('{"database": "00000000-0000-0000-0000-000000000000", "chains": {}}', "is of another database"),
        ('{"database": "DATABASE", "chains": {"NODE": 99}}', "was restored from a backup since"),
        ('{"database": "DATABASE", "chains": {}}', "is too old: links 1 to 1 of the chain"),
    ],
)
async def test_a_wrong_watermark_is_one_sentence(
    tmp_path: Path, session: Session, book: Book, mark: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be continued is refused, and the file stays as it was."""
    _, present = await continued(session, None)
    (node,) = present.chains
    if "too old" in sentence:
        await book.owner.execute("SELECT close_chain_days(); DELETE FROM chain_batches")
        await book.owner.execute(
            "INSERT INTO chain_days SELECT id, '2026-01-01', 1, 1, sha256(''), sha256('') FROM chains"
        )
    folder = tmp_path / "exports"
    folder.mkdir()
    file = folder / "mark"
    file.write_text(mark.replace("DATABASE", str(present.database)).replace("NODE", node))
    before = file.read_text()
    arguments = ["usage", "export", "--to", str(folder / "out"), "--watermark", str(file)]
    assert 1 == await asyncio.to_thread(run, arguments)
    error = capsys.readouterr().err
    assert sentence in error
    assert 1 == error.count("\n")
    assert {"mark"} == names(folder)
    assert before == file.read_text()
