"""The descriptions of client programs are whole, and what differs between two runs is found."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve

from tests.clients.comparing import Compared
from tests.clients.programs import CHAT, Program, programs
from tests.clients.refusing import Refused
from tests.clients.using import Shown

PROGRAMS = programs()
PINNED = re.compile(r"[\w@/.\[\],-]+?(==|@)v?\d+\.\d+(\.\d+)?")
ANSWERED = Shown(0, "Rayleigh scatter\n", "", 1.0)
SAME = Compared(CHAT, ANSWERED, ANSWERED, [(6, 6)], [(6, 6)])


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_is_of_one_version_and_chats(program: Program) -> None:
    """Each program has a chat, an address, a key, and one version of each package that it is made of."""
    assert CHAT in program.commands
    written = "".join([*program.settings.values(), *program.files.values()])
    assert all(word in written for word in ("<GW>", "<KEY>"))
    assert all(PINNED.fullmatch(package) for package in (*program.pypi, *program.npm, *program.go))


def test_the_same_is_no_complaint() -> None:
    """What is shown and billed as Ollama shows and counts it is as it should be, ids and times apart."""
    assert [] == SAME.complaints
    direct, gated = (Shown(0, f"msg_{name} sky in {name}s", "", 1.0) for name in ("12", "7"))
    assert [] == evolve(SAME, direct=direct, gated=gated).complaints


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"gated": Shown(0, "Rayleigh\n", "", 1.0)}, "+Rayleigh"),
        ({"gated": Shown(1, ANSWERED.output, "refused", 1.0)}, "gated ends with 1"),
        ({"direct": Shown(0, "", "", 1.0), "gated": Shown(0, "", "", 1.0)}, "direct ends with 0"),
        ({"billed": [(6, 5)]}, "the backend did [(6, 6)], of which the ledger has [(6, 5)]"),
        ({"billed": []}, "the ledger has []"),
    ],
    ids=["output", "failed", "silent", "other-bill", "no-bill"],
)
def test_a_difference_is_found(other: dict[str, Any], complaint: str) -> None:
    """Another output, a failure, no output at all, or another bill is a complaint."""
    assert complaint in "\n".join(evolve(SAME, **other).complaints)


@pytest.mark.parametrize(
    ("seconds", "errors", "reason", "complaint"),
    [
        (3.0, "Error: No backend\n  answers", "", ""),
        (7.1, "Error: no backend answers", "", "5.1 s later"),
        (3.0, "Error: 503", "", "'no backend answers' is not shown"),
        (70.0, "", "it waits", ""),
    ],
    ids=["shown", "late", "hidden", "known"],
)
def test_a_refusal_is_shown_in_time(seconds: float, errors: str, reason: str, complaint: str) -> None:
    """A refusal is shown in its words, in any case and wrapped, at most five seconds later than an answer."""
    run = Refused("no backend answers", reason, Shown(1, "", errors, seconds), usual_s=2.0)
    assert complaint in "\n".join(run.complaints)
    assert bool(complaint) == bool(run.complaints)
