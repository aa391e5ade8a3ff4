"""Checkpoints and proofs by the command line: made by one key, and checked by the other, elsewhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import asyncpg
import pytest
from attrs import frozen

from authz.__main__ import run
from authz.accounts.credits import credit_request
from authz.accounts.session import Session
from authz.chains import check_proof
from authz.chains.checkpoint import PrivateKey, PublicKey
from authz.types import Identity
from metering.rows import LedgerRow
from tests.authz.billing import Book, served

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("outside")


@frozen
class Desk:
    """Where keys and checkpoints lie, and what a command has printed."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    billed: LedgerRow

    @property
    def notes(self) -> Path:
        """The file of checkpoints."""
        return self.folder / "notes"

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command of `audit`, which has an event loop of its own."""
        self.capsys.readouterr()
        code = await asyncio.to_thread(run, ["audit", *arguments])
        return code, *self.capsys.readouterr()

    async def checkpoint(self, *arguments: str) -> tuple[int, str, str]:
        """Sign a checkpoint."""
        where = arguments or ("--to", str(self.notes))
        return await self.run("checkpoint", "--key", str(self.folder / "key"), *where)

    async def verify(self, key: str = "key.pub") -> tuple[int, str, str]:
        """Compare with the last checkpoint."""
        names = ("--checkpoint", str(self.notes), "--key", str(self.folder / key))
        return await self.run("verify", *names)

    async def prove(self, request: str) -> tuple[int, str, str]:
        """Prove a request by the last checkpoint."""
        names = ("--checkpoint", str(self.notes), "--key", str(self.folder / "key.pub"))
        return await self.run("prove", request, *names)


@pytest.fixture
async def desk(
    book: Book,
    owner: Identity,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    """A billed request among others, and the keys of who signs, which are not where the gateway is."""
    rows = [
        served(owner, NOW.replace(second=n), day=date(2026, 11, 25), month=date(2026, 11, 1))
        for n in range(7)
    ]
    await book.settle(*rows[:5])
    await book.settle(*rows[5:])
    made = Desk(tmp_path_factory.mktemp("keys"), capsys, rows[3])
    code, printed, _ = await made.run("keygen", "--to", str(made.folder / "key"))
    assert 0 == code
    assert (made.folder / "key.pub").read_text() in printed
    return made


async def test_books_are_signed_and_compared(desk: Desk, owner_of_tables: asyncpg.Connection) -> None:
    """Each checkpoint is added to the file, the last one counts; what was altered since ends the file."""
    assert (0, "", "") == await desk.checkpoint()
    assert (0, "", "") == await desk.checkpoint()
    assert 2 == desk.notes.read_text().count("neuronetz-gateway checkpoint 1\n")
    code, printed, complained = await desk.verify()
    assert (0, "") == (code, complained)
    assert "Compared 9 rows with 4 links of 2 chains, and the checkpoint of " in printed
    await owner_of_tables.execute("DELETE FROM ledger")
    code, _, complained = await desk.verify()
    assert (1, 7) == (code, complained.count("is missing: it is in link "))
    await owner_of_tables.execute("UPDATE chain_batches SET hash = sha256(hash)")
    code, _, complained = await desk.checkpoint()
    assert 1 == code
    assert "does not fit this database, so no other is added to its file" in complained


async def test_programs_read_what_was_signed(desk: Desk) -> None:
    """--json names the files of the keys, and has the signed text wherever it went."""
    code, printed, _ = await desk.run("keygen", "--to", str(desk.folder / "second"), "--json")
    public = desk.folder / "second.pub"
    facts = {"private_key": str(desk.folder / "second"), "public_key": str(public)}
    assert (0, facts | {"verifier": public.read_text().strip()}) == (code, json.loads(printed))
    signed: list[str] = []
    for where, written in (((), []), (("--to", str(desk.notes)), [str(desk.notes)])):
        code, printed, _ = await desk.checkpoint("--json", *where)
        made = json.loads(printed)
        assert (0, written, False) == (code, made["written"], made["is_posted"])
        assert made["checkpoint"].startswith("neuronetz-gateway checkpoint 1\n")
        signed.append(made["checkpoint"])
    assert signed[1] == desk.notes.read_text()


async def test_a_request_is_proven_to_who_pays(desk: Desk, session: Session, tmp_path: Path) -> None:
    """Its rows, of two chains, lead to the signed root, by the script alone; a changed one does not."""
    await credit_request(session, desk.billed.request_id, tokens=7, reason="why", at=NOW)
    await desk.checkpoint()
    code, printed, _ = await desk.prove(str(desk.billed.request_id))
    assert 0 == code
    proof = tmp_path / "proof.json"
    proof.write_text(printed)
    command = [sys.executable, "-I", check_proof.__file__, str(proof), str(desk.folder / "key.pub")]
    done = await asyncio.to_thread(_checked, command)
    assert 0 == done.returncode, done.stderr
    found = [(row["entry"], row["input_tokens"] + row["output_tokens"]) for row in json.loads(done.stdout)]
    assert [(0, 30), (2, -7)] == found
    days = int(printed.partition("\\ndays ")[2].partition(" ")[0])  # one more where midnight came meanwhile
    more = f"\\ndays {days} ", f"\\ndays {days + 1} "
    for old, new in (('\\"output_tokens\\":20', '\\"output_tokens\\":21'), more):
        assert old in printed
        proof.write_text(printed.replace(old, new))
        assert 1 == (await asyncio.to_thread(_checked, command)).returncode


async def test_a_proof_leads_to_the_signed_root(desk: Desk) -> None:
    """A row with a batch and a day of its own, whose hashes fit, is under no root that was signed."""
    await desk.checkpoint()
    _, printed, _ = await desk.prove(str(desk.billed.request_id))
    proof, key = json.loads(printed), (desk.folder / "key.pub").read_text()
    assert 1 == len(check_proof.check(proof, key))
    (row,) = proof["rows"]
    row["row"] = row["row"].replace('"output_tokens":20', '"output_tokens":21')
    for way, above, place, below in (
        ("to_batch", "batch", 6, b"\0" + row["row"].encode()),
        ("to_day", "day", 5, b""),
    ):
        words = row[above].split()
        words[place] = sha256(below or row["batch"].encode()).hexdigest()
        row[above], row[way] = " ".join(words), []
    with pytest.raises(ValueError, match="to_days leads elsewhere"):
        check_proof.check(proof, key)


async def test_altered_books_prove_nothing(desk: Desk, owner_of_tables: asyncpg.Connection) -> None:
    """Neither a row that was altered, nor chains that are not those of the checkpoint."""
    request = str(desk.billed.request_id)
    await desk.checkpoint()
    await owner_of_tables.execute("UPDATE ledger SET output_tokens = 1")
    code, printed, complained = await desk.prove(request)
    assert (1, "") == (code, printed)
    assert complained.startswith("error: A row of the request was altered, ")
    await owner_of_tables.execute("UPDATE chain_batches SET hash = sha256(hash)")
    code, printed, complained = await desk.prove(request)
    assert (1, "") == (code, printed)
    assert complained.startswith("error: The checkpoint does not fit this database")


async def test_no_checkpoint_follows_one_of_another_database(
    desk: Desk, owner_of_tables: asyncpg.Connection
) -> None:
    """Even if its chains are the same, as those of a copy are."""
    await desk.checkpoint()
    before = desk.notes.read_text()
    await owner_of_tables.execute("UPDATE database_identity SET id = gen_random_uuid()")
    code, _, complained = await desk.checkpoint()
    assert (1, True) == (code, "does not fit this database" in complained)
    assert before == desk.notes.read_text()


def _checked(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)


async def test_what_cannot_be_proven_is_a_sentence(desk: Desk, session: Session) -> None:
    """A request that the ledger lacks, one that is later than the checkpoint, one that was altered."""
    request = str(desk.billed.request_id)
    assert (1, "error: There is no checkpoint in the file") == _beginning(await _prove_by(desk, "", request))
    await desk.checkpoint()
    code, _, complained = await desk.prove("019ab0f4-0000-7000-8000-000000000000")
    assert (1, True) == (code, complained.startswith("error: The ledger has no request 019ab0f4"))
    assert 2 == (await desk.prove("7"))[0]
    await credit_request(session, desk.billed.request_id, tokens=7, reason="why", at=NOW)
    _, printed, _ = await desk.prove(request)
    assert 1 == len(json.loads(printed)["rows"]), "the correction is later than the checkpoint"


async def _prove_by(desk: Desk, content: str, request: str) -> tuple[int, str, str]:
    desk.notes.write_text(content)
    answer = await desk.prove(request)
    desk.notes.unlink()
    return answer


def _beginning(answer: tuple[int, str, str]) -> tuple[int, str]:
    return answer[0], answer[2].partition(" in the file")[0] + " in the file"


@pytest.fixture
def received() -> Iterator[list[tuple[str, str]]]:
    """What a server at port 0 of this machine was sent; its address is the first."""
    found: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.append((self.path, body))
            self.send_response(204 if self.path == "/good" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found.append((f"http://127.0.0.1:{server.server_port}", ""))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_checkpoint_is_printed_or_sent(desk: Desk, received: list[tuple[str, str]]) -> None:
    """Without a file it goes to stdout; a webhook that refuses it is an error."""
    code, printed, _ = await desk.checkpoint("--state", str(desk.folder))
    assert 0 == code
    assert printed.startswith("neuronetz-gateway checkpoint 1\ndatabase ")
    url, _ = received.pop()
    assert (0, "", "") == await desk.checkpoint("--post", f"{url}/good")
    assert 1 == (await desk.checkpoint("--post", f"{url}/bad"))[0]
    assert ["/good", "/bad"] == [path for path, _ in received]
    assert received[0][1].startswith("neuronetz-gateway checkpoint 1\n")


async def test_keys_that_are_none_are_refused(desk: Desk) -> None:
    """The private key is not public, the public one signs nothing, another's fits no checkpoint."""
    await desk.checkpoint()
    (desk.folder / "other").write_text(f"{PrivateKey.make('other').public}\n")
    (desk.folder / "cut").write_text((desk.folder / "key.pub").read_text()[:-9])
    for key, sentence in (
        ("key", "error: That is the private key: name the file with the public one, *.pub.\n"),
        ("other", "error: The checkpoint is not signed with the key other+"),
        ("cut", "error: That is no key of `neuronetz-gateway audit keygen`"),
        ("none", "error: The checkpoint or its key can't be read"),
    ):
        code, _, complained = await desk.verify(key)
        assert (1, True) == (code, complained.startswith(sentence)), complained
    code, _, complained = await desk.run("checkpoint", "--key", str(desk.folder / "key.pub"))
    assert (1, "Others can read the private key") == (code, complained[7:38])
    code, _, complained = await desk.run("keygen", "--to", str(desk.folder / "key"))
    assert (1, "is there already" in complained) == (code, True)
    desk.notes.write_text(desk.notes.read_text().replace("\nmade 2", "\nmade 3"))
    assert "or it was altered" in (await desk.verify())[2]
    code, _, complained = await desk.run("verify", "--checkpoint", str(desk.notes))
    assert (2, "error: --checkpoint needs --key: the public key that checks its signature.\n") == (
        code,
        complained,
    )


async def test_a_private_key_on_the_server_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where the services are; the sentence says why."""
    monkeypatch.setenv("GATEWAY_STATE", str(desk.folder / "state"))
    code, _, complained = await desk.run("keygen", "--to", str(desk.folder / "state" / "signer"))
    assert (2, True) == (code, "a server that has the key could sign altered books" in complained)
    assert not (desk.folder / "state").exists()


def test_keys_are_written_as_other_programs_read_them() -> None:
    """As the signed notes of C2SP have them: name, a digest of name and key, the algorithm and the key."""
    known = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert known == str(PublicKey.parse(known))
    private = PrivateKey.make("neuronetz-gateway")
    assert private == PrivateKey.parse(str(private))
    assert str(private)[12:] not in repr(private)
