"""Attacks as data: each case of `cases/*.toml` over HTTP/1.1 and HTTP/2, with TLS and without."""

from __future__ import annotations

import pytest
from attrs import Factory, evolve, frozen
from msgspec import structs

from authz.types import Dialect
from tests.gateway import Gateway
from tests.security.attack import leaks
from tests.security.cases import H1, H2, PROTOCOLS, cases
from tests.security.observed import Row
from tests.security.trials import (
    Proxy,
    Trial,
    Way,
    attempt,
    record_faults,
    sampled,
    seen_faults,
    verdict_faults,
)

CASES = cases()
WAYS = list(sampled(CASES))
SERVED = "credentials: X-Api-Key"


@frozen
class Attacked:
    """The trials that were made, and the ids that the journal had before."""

    before: frozenset[str]
    trials: list[Trial] = Factory(list)


@frozen
class Books:
    """What the gateway has written of the trials: bills, and the kinds of lines in the journal."""

    rows: dict[str, Row]
    lines: dict[str, list[str]]


@pytest.fixture(scope="module")
def attacked(proxy: Proxy) -> Attacked:
    """Begin with a backend that nothing has reached."""
    proxy.witness.forget()
    return Attacked(frozenset(proxy.witness.lines()))


@pytest.fixture(scope="module")
def books(attacked: Attacked, proxy: Proxy) -> Books:
    """Wait until metering has read of all that was made."""
    replies = [reply for trial in attacked.trials for reply in trial.replies]
    rows = proxy.witness.settled(reply.request_id for reply in replies if reply.request_id)
    return Books(rows, proxy.witness.lines())


@pytest.mark.parametrize("way", WAYS, ids=[f"{case.name} ({over})" for case, over, _ in WAYS])
def test_case(attacked: Attacked, proxy: Proxy, way: Way) -> None:
    """G1: the verdict is the expected one, in words, with its hits alone, on a connection in order."""
    trial = attempt(way, proxy)
    attacked.trials.append(trial)
    assert [] == list(verdict_faults(trial))


def test_each_has_one_record(attacked: Attacked, books: Books) -> None:
    """Each request leaves one record, which says why; a refusal is free, what is served is billed."""
    found = [
        f"{trial}: {fault}"
        for trial in attacked.trials
        for fault in record_faults(trial, books.rows, books.lines)
    ]
    assert [] == found


def test_nothing_ran_unseen(attacked: Attacked, proxy: Proxy, books: Books) -> None:
    """G1: nothing was admitted but what was answered with a 200, and nothing arrived late."""
    served = {reply.request_id for trial in attacked.trials for reply in trial.replies if reply.status == 200}
    admitted = {name for name, kinds in books.lines.items() if "open" in kinds}
    assert set() == admitted - served - attacked.before
    assert [] == proxy.witness.taken()


def test_all_wrong_keys_read_the_same(attacked: Attacked) -> None:
    """A client without a valid key learns nothing about why: one body, one set of headers."""
    refusals = {
        (trial.over, reply.body, *sorted(reply.headers.keys() - {"connection"}))
        for trial in attacked.trials
        for reply in trial.replies
        if trial.case.name.startswith("credentials:") and reply.status == 401
        if trial.dialect is Dialect.OLLAMA
    }
    assert len({over for over, *_ in refusals}) == len(refusals)
    assert len({body for _, body, *_ in refusals}) <= 1


@pytest.mark.usefixtures("attacked")
def test_attacks_leave_no_key_behind(gateway: Gateway, proxy: Proxy) -> None:
    """C3: no file, table, counter, metric or process of the gateway holds a key of the attacks."""
    assert [] == list(leaks(gateway, proxy))


def test_names_are_unique() -> None:
    """A failure names one case."""
    assert len(CASES) == len({case.name for case in CASES})


def test_all_classes_are_there() -> None:
    """Every class of attacks that can be data has its cases, over every protocol."""
    rows = {ref[0] for case in CASES for ref in case.refs if ref[1:].isdigit()}
    assert set("ABCDEFGHJK") == rows
    assert set(PROTOCOLS) == {over for _, over, _ in WAYS}


def test_success_of_an_attack_is_seen(proxy: Proxy) -> None:
    """A request that is served although its case says it must be refused is a fault of all its sides."""
    served = next(case for case in CASES if case.name == SERVED)
    refused = structs.replace(served, answers=(401,), reason="key_missing", hits=0)
    trial = attempt((refused, H2, Dialect.OLLAMA), proxy)
    found = list(verdict_faults(trial))
    assert found[0].startswith("answered 200 instead of (401,)")
    assert "1 requests reached the backend instead of 0" in found
    rows = proxy.witness.settled([trial.replies[0].request_id])
    recorded = list(record_faults(trial, rows, proxy.witness.lines()))
    assert ["the record says ('completed', None, 'reported') instead of key_missing"] == recorded


def test_other_faults_are_seen(proxy: Proxy) -> None:
    """An answer too many is a fault of the framing; so are a key in an answer, and a record too few."""
    hidden = next(case for case in CASES if case.name == "hidden: good, then a pull in one write")
    trial = attempt((structs.replace(hidden, answers=(200,)), H1, Dialect.OLLAMA), proxy)
    assert "the next request on the connection was not answered as itself" in list(seen_faults(trial))
    (reply,) = trial.replies
    echoed = evolve(trial, replies=[evolve(reply, body=proxy.secrets["key"].encode())])
    assert "the answer 200 holds the key" in list(seen_faults(echoed))
    assert "200 has 0 records instead of one" in list(record_faults(trial, {}, {reply.request_id: ["open"]}))
