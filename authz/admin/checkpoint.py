"""The commands `audit keygen` and `audit checkpoint`: sign what the books are, to be kept elsewhere."""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import httpx
from cyclopts import Parameter

from authz import settings as settings_
from authz.admin import output
from authz.admin.options import Json, State
from authz.chains import books, checkpoint
from authz.chains.books import Books
from authz.chains.checkpoint import Checkpoint, PrivateKey
from authz.chains.days import days_until
from authz.errors import CommandError, UsageError

POST_S: Final = 10.0
_HEADERS: Final = {"Content-Type": "text/plain; charset=utf-8"}
_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,64}", re.ASCII)


def keygen_command(
    *,
    to: Annotated[
        Path, Parameter(help="A new file for the private key; the public one gets .pub behind it.")
    ],
    name: Annotated[str, Parameter(help="What the key is called in signatures.")] = "neuronetz-gateway",
    json: Json = False,
) -> int:
    """Make the two keys of checkpoints: the private one signs them, the public one checks them.

    Keep the private key where whoever owns the database can't read it.

    Example: neuronetz-gateway audit keygen --to /root/checkpoints.key
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name} is no name: give letters, digits, dots, dashes and slashes.")
    state = settings_.load(os.environ, needs_stores=False).state
    if to.resolve().is_relative_to(state.resolve()):
        raise UsageError(
            f"{to} is where the gateway runs, and whoever breaks into a server that has the key could sign "
            "altered books: name a place outside, best on a machine that no client reaches."
        )
    key = PrivateKey.make(name)
    public = to.with_name(to.name + ".pub")
    for path, text, mode in ((to, key, 0o400), (public, key.public, 0o444)):
        try:
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(f"{text}\n")
            path.chmod(mode)
        except FileExistsError as error:
            raise CommandError(f"{path} is there already: name a new file with --to.") from error
        except OSError as error:
            raise CommandError(f"{path} can't be written ({error.strerror}): name another file.") from error
    if json:
        facts = {"private_key": str(to), "public_key": str(public), "verifier": str(key.public)}
        output.show_json(facts)
    else:
        output.say(
            f"The private key is in {to}, only for who signs. Give out this one, in {public}:\n{key.public}"
        )
    return 0


async def checkpoint_command(
    *,
    key: Annotated[Path, Parameter(help="The file of the private key.")],
    to: Annotated[Path | None, Parameter(help="Append it to this file, outside of the database.")] = None,
    post: Annotated[str | None, Parameter(help="Send it to this URL.")] = None,
    state: State | None = None,
    json: Json = False,
) -> int:
    """Sign what the ledger and the audit are now; printed, unless it is told where to go.

    A later `audit verify` finds by it whatever is altered from now on. Is refused if the last one in the
    file does not fit the database any more.

    Example: neuronetz-gateway audit checkpoint --key /root/checkpoints.key --to /mnt/away/checkpoints
    """
    private = _private(key)
    async with books.opened(settings_.load(os.environ, state=state).database_url) as opened:
        if to is not None and to.exists():
            await _refuse_unlike(opened, checkpoint.parse(checkpoint.last_note(_read(to)), private.public))
        now = datetime.now(UTC)
        made = checkpoint.make(await opened.identity(), now, await days_until(opened))
    note = private.sign(made.text)
    if to is not None:
        _append(to, note)
    if post is not None:
        await _post(post, note)
    if json:
        written = [] if to is None else [str(to)]
        facts = {"checkpoint": note, "made_at": made.at, "written": written, "is_posted": post is not None}
        output.show_json(facts)
    elif to is None and post is None:
        output.say(note.rstrip("\n"))
    return 0


async def _refuse_unlike(opened: Books, last: Checkpoint) -> None:
    """Raise CommandError if what was signed last is not what the database has."""
    chains = await opened.chains()
    is_same = last.database == await opened.identity() and last.heads.keys() <= chains.keys()
    if is_same:
        heads = {chain: number for chain, (number, _) in last.heads.items()}
        days = await days_until(opened, heads)
        found = {day.chain: (day.last, day.hash) for day in checkpoint.ordered(days)}
        is_same = found == last.heads
    if not is_same:
        raise CommandError(
            f"The checkpoint of {last.made} does not fit this database, so no other is added to its file: "
            "see `neuronetz-gateway audit verify`, and begin a new file with --to once you know why."
        )


def _private(path: Path) -> PrivateKey:
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            raise CommandError(f"Others can read the private key {path}: run `chmod 0400 {path}`.")
    return PrivateKey.parse(_read(path))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} can't be read ({error}).") from error


def _append(path: Path, note: str) -> None:
    try:
        with path.open("a") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror}): name another with --to.") from error


async def _post(url: str, note: str) -> None:
    try:
        async with httpx.AsyncClient(timeout=POST_S) as client:
            answer = await client.post(
                url, content=note, headers={"Content-Type": "text/plain; charset=utf-8"}
            )
            answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError(f"The checkpoint can't be sent to {url}: {error}.") from error
