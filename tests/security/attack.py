"""`just attack`: every case of `cases/*.toml` and every spelling of a mutation path, over every protocol.

python -m tests.security.attack
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.backend.app import backend
from tests.backend.serving import served
from tests.gateway import MODELS, Gateway, running
from tests.security import canary, keys, spellings
from tests.security.cases import cases
from tests.security.node import node
from tests.security.observed import Witness
from tests.security.trials import Proxy, attempt, every, proxy_of, record_faults, verdict_faults


def attacked(proxy: Proxy) -> tuple[int, list[str]]:
    """Make every case over each protocol in each dialect; returns how many requests, and the faults."""
    proxy.witness.forget()
    trials = [attempt(way, proxy) for way in every(cases())]
    ids = [reply.request_id for trial in trials for reply in trial.replies if reply.request_id]
    rows, lines = proxy.witness.settled(ids), proxy.witness.lines()
    found = [f"{each}: {fault}" for each in trials for fault in verdict_faults(each)]
    found += [f"{each}: {fault}" for each in trials for fault in record_faults(each, rows, lines)]
    return sum(len(trial.replies) for trial in trials), found


def spelled(proxy: Proxy) -> tuple[int, list[str]]:
    """Ask for every mutation path in every spelling; returns how many requests, and the faults."""
    proxy.witness.forget()
    made = list(spellings.asked(spellings.every(), proxy))
    rows = proxy.witness.settled(reply.request_id for _, reply in made if reply.request_id)
    found = [fault for combination, reply in made for fault in spellings.faults(combination, reply, rows)]
    found += [f"{hit.method} {hit.target} reached the backend" for hit in proxy.witness.hits()]
    return len(made), found


def leaks(gateway: Gateway, proxy: Proxy) -> Iterator[str]:
    """Name every place of the gateway that holds a key which is valid, or was, or a part of one."""
    sinks = list(canary.sinks(gateway))
    forms = canary.parts(*(proxy.secrets[name] for name in keys.MADE))
    yield from (
        f"{each.name} holds a part of a key" for each in sinks if canary.holds_part(each.content, forms)
    )
    for name in keys.MADE:
        for place in canary.found(iter(sinks), canary.needles(proxy.secrets[name])):
            yield f"{place} holds the key {name}"


def main() -> int:
    """Attack a gateway of its own, and print cases, requests and failures."""
    with (
        served(backend(*MODELS)) as url,
        running(url, OLLAMA_URL=url) as gateway,
        node(gateway) as started,
        Witness.of(gateway, started.journal) as witness,
    ):
        proxy = proxy_of(started, keys.made(gateway), witness)
        requests, found = attacked(proxy)
        generated, strange = spelled(proxy)
        found += [*strange, *leaks(gateway, proxy)]
    for fault in found:
        sys.stdout.write(f"{fault}\n")
    sys.stdout.write(
        f"{len(cases())} cases, {requests + generated:,} requests ({generated:,} of them generated), "
        f"{len(found)} failures\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
