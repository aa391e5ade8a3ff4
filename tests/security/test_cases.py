"""Attacks as data: each case of `cases/*.toml` against the whole gateway."""

from __future__ import annotations

import msgspec
import pytest

from tests.gateway import Gateway
from tests.security.cases import Case, cases, faults, leaks
from tests.security.observed import Witness

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(gateway: Gateway, witness: Witness, case: Case) -> None:
    """G1: the verdict is the expected one, with its hits and records alone, on a connection in order."""
    assert [] == faults(case, gateway, witness)


def test_names_are_unique() -> None:
    """A failure names one case."""
    assert len(CASES) == len({case.name for case in CASES})


def test_success_of_an_attack_is_seen(gateway: Gateway, witness: Witness) -> None:
    """A request that is served although its case says it must be refused is a fault twice: status and hit."""
    served = next(case for case in CASES if case.hits and case.answers[0] == [200])
    refused = msgspec.structs.replace(served, answers=[[401] for _ in served.answers], hits=0)
    found = faults(refused, gateway, witness)
    assert "answered 200 instead of [401]" in found
    assert "1 requests reached the backend instead of 0" in found


def test_attacks_leave_no_key_behind(gateway: Gateway, witness: Witness) -> None:
    """C3: the key of the attacks is in no journal and no log."""
    assert [] == [fault for case in CASES for fault in faults(case, gateway, witness)]
    assert [] == leaks(gateway)
