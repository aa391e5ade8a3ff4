"""`just attack`: every case of `cases/*.toml`, and mutation paths by spelling, method and protocol.

python -m tests.security.attack
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Final
from urllib.parse import urlsplit

from tests.backend.app import backend
from tests.backend.serving import served
from tests.gateway import MODELS, Gateway, running
from tests.security import frames, wire
from tests.security.cases import cases, faults, leaks
from tests.security.observed import Witness
from tests.security.spellings import METHODS, MUTATIONS, SPELLINGS

REFUSED: Final = {307, 400, 403, 404, 405, 431}


def spelled(gateway: Gateway, spelling: str) -> Iterator[str]:
    """Ask for each mutation path in a spelling, by each method, over HTTP/1.1 and HTTP/2; yields faults."""
    parts = urlsplit(gateway.url)
    address = (str(parts.hostname), int(parts.port or 0))
    with wire.line(gateway.url) as opened:
        for path, method in product(MUTATIONS, METHODS):
            target = SPELLINGS[spelling](path)
            head = (
                f"{method} {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
            )
            status = opened.ask(head.encode("latin-1")).status
            if status not in REFUSED:
                yield f"{method} {path}, {spelling}: {status} over HTTP/1.1"
            fields = (
                (":method", method),
                (":scheme", "http"),
                (":authority", "gateway"),
                (":path", target),
                ("authorization", f"Bearer {gateway.key}"),
            )
            status = frames.verdict(address, fields)
            if status not in REFUSED | {frames.RESET}:
                yield f"{method} {path}, {spelling}: {status} over HTTP/2"


def attacked(gateway: Gateway) -> list[str]:
    """Make every attack; returns what it found that must not be."""
    with Witness.of(gateway) as witness:
        found = [f"{case.name}: {fault}" for case in cases() for fault in faults(case, gateway, witness)]
        witness.forget()
        for spelling in SPELLINGS:
            found += spelled(gateway, spelling)
        found += [f"{hit.method} {hit.target} reached the backend" for hit in witness.hits()]
    return found + [f"{name} holds the key" for name in leaks(gateway)]


def main() -> int:
    """Attack a gateway of its own, and print cases, requests and failures."""
    with served(backend(*MODELS)) as url, running(url, OLLAMA_URL=url) as gateway:
        found = attacked(gateway)
    for fault in found:
        sys.stdout.write(f"{fault}\n")
    requests = sum(len(case.answers) for case in cases())
    generated = len(SPELLINGS) * len(MUTATIONS) * len(METHODS) * 2
    sys.stdout.write(
        f"{len(cases())} cases, {requests + generated} requests ({generated} of them generated), "
        f"{len(found)} failures\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
