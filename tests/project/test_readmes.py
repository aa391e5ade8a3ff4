"""The README of each folder names the files of that folder, and nothing that is not there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pytest

from authz.admin import GROUPS, app
from tests.authz.test_help import commands

ROOT: Final = Path(__file__).parents[2]
README: Final = "README.md"
NAME: Final = re.compile(r"`([^`\s]+)`|\]\(([^)\s#]+)\)")
FILE: Final = re.compile(r"[\w./*@-]+\.(?:py|go|lua|md|sql|c|ya?ml|json|toml|conf|service)")
ROOM: Final = re.compile(r"(?:\| |- )?`([\w./-]+/)`")
EVERYWHERE: Final = ("__init__.py", "py.typed", "conftest.py")
"""What stands in most folders, for the same reason in each."""


def _files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


FILES: Final = _files()
FOLDERS: Final = sorted(str(Path(name).parent) for name in FILES if Path(name).name == README)[1:]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield each paragraph, list item and row, with the room that it begins with: names in it lie there."""
    for paragraph in re.split(r"\n\n|\n(?=[|-])", text):
        room = ROOM.match(paragraph)
        yield (room[1] if room else ""), paragraph


def names(text: str) -> Iterator[str]:
    """Yield every name and pattern of a README, relative to its folder."""
    for room, paragraph in blocks(text):
        for quoted, link in NAME.findall(paragraph):
            yield link or (quoted if quoted == room else room + quoted)


def own(folder: str) -> list[str]:
    """The files that the README of a folder must name, relative to it: not those that another one names."""
    nested = [f"{each}/" for each in FOLDERS if each.startswith(f"{folder}/")]
    return [
        name.removeprefix(f"{folder}/")
        for name in FILES
        if name.startswith(f"{folder}/") and not name.startswith(tuple(nested))
    ]


def unnamed(folder: str, text: str) -> list[str]:
    """The files, and the folders of a folder, that a README does not name."""
    known = list(names(text))
    files = own(folder)
    missing = [
        name
        for name in files
        if Path(name).name not in (README, *EVERYWHERE) and not any(fnmatchcase(name, each) for each in known)
    ]
    inner = {name.removeprefix(f"{folder}/").split("/")[0] for name in FILES if name.startswith(f"{folder}/")}
    rooms = [f"{each}/" for each in sorted(inner) if (ROOT / folder / each).is_dir()]
    return missing + [room for room in rooms if not any(each.startswith(room) for each in known)]


def invented(folder: str, text: str) -> list[str]:
    """The names in a README that neither its folder nor the project has."""
    below = [name.removeprefix(f"{folder}/") for name in FILES if name.startswith(f"{folder}/")]
    found = []
    for room, paragraph in blocks(text):
        for quoted, link in NAME.findall(paragraph):
            if link and "//" not in link and not (ROOT / folder / link).exists():
                found.append(link)
            if FILE.fullmatch(quoted):
                places = [*below, *FILES]
                if not any(fnmatchcase(name, each) for name in places for each in (room + quoted, quoted)):
                    found.append(quoted)
    return found


def test_each_folder_has_one() -> None:
    """The folders that a newcomer opens have a README."""
    folders = {"authz", "authz/admin", "authz/limiter", "authz/stack", "caddy", "metering", "sql", "tests"}
    assert set() == folders - set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_named(folder: str) -> None:
    """Each file of a folder is named in its README, or covered by a pattern; so is each folder in it."""
    assert [] == unnamed(folder, (ROOT / folder / README).read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_nothing_is_named_that_is_not_there(folder: str) -> None:
    """Each file and link that a README names exists."""
    assert [] == invented(folder, (ROOT / folder / README).read_text(encoding="utf-8"))


def test_a_missing_name_is_found() -> None:
    """A README without a file, or with one that there is not, is found, so that the tests above can fail."""
    text = (ROOT / "metering" / README).read_text(encoding="utf-8")
    assert ["cost.py"] == unnamed("metering", text.replace("`cost.py`", ""))
    assert ["coast.py"] == invented("metering", text.replace("`cost.py`", "`coast.py`"))


def test_the_reference_has_every_command() -> None:
    """The table of commands in authz/admin/README.md has each command, and no other."""
    text = (ROOT / "authz" / "admin" / README).read_text(encoding="utf-8")
    table = text.partition("## The commands")[2].partition("\nAll are ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    quoted = [each for cell in cells for each in re.findall(r"`([^`]+)`", cell)]
    begun = [re.match(r"[a-z-]+(?: [a-z]+)?", each) for each in quoted]
    listed = {found[0].strip() for found in begun if found}
    known = {" ".join(path) for path in commands(app)} - {"", *GROUPS}
    assert known == {each for each in listed if not each.startswith("-")}


def test_the_readme_is_short() -> None:
    """The first page has at most 100 lines."""
    assert 100 >= len((ROOT / README).read_text(encoding="utf-8").splitlines())
