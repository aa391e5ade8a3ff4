"""Bad input costs nothing: one clear sentence in the right dialect, no byte to a backend, one record.

G1: no byte reaches a backend without a Grant of the same id. The cases are data: see `attacks`.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import frozen

from authz.decision.refusals import WORDINGS, Reason
from authz.decision.routes import ROUTES, Class
from authz.types import Dialect
from tests.gateway import Gateway
from tests.security import wire
from tests.security.attacks import ATTACKS, CHAT, MAX_BODY_BYTES, STATUSES
from tests.security.observed import Hit, Row, Witness
from tests.security.refusing import SENTENCE, sentence
from tests.security.wire import Reply


@frozen
class Trial:
    """An attack that has been made: the answer, and what arrived at the backend meanwhile."""

    reply: Reply
    hits: list[Hit]


@pytest.fixture(scope="module")
def trials(gateway: Gateway, witness: Witness, secrets: dict[str, str]) -> dict[str, Trial]:
    """Every attack, each on a connection of its own."""
    made = {}
    witness.forget()
    for name, (attack, dialect) in ATTACKS.items():
        reply = wire.ask(gateway.url, attack.data(dialect, secrets))
        made[name] = Trial(reply, witness.hits())
    return made


@pytest.fixture(scope="module")
def rows(trials: dict[str, Trial], witness: Witness) -> dict[str, Row]:
    """The bills of the attacks, by their names."""
    settled = witness.settled(trial.reply.request_id for trial in trials.values())
    return {name: settled[trial.reply.request_id] for name, trial in trials.items()}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_gets_one_clear_sentence(trials: dict[str, Trial], name: str) -> None:
    """A refusal has the status and the sentence of its reason, in the dialect of its path."""
    (attack, dialect), reply = ATTACKS[name], trials[name].reply
    is_ollama = dialect is Dialect.OLLAMA and attack.reason == "model_not_allowed"
    assert (403 if is_ollama else STATUSES[attack.reason]) == reply.status
    assert UUID(reply.request_id).version == 7
    assert "application/json" == reply.headers["content-type"]
    if not attack.line.startswith("HEAD "):
        shown = sentence(reply, dialect)
        assert SENTENCE.fullmatch(shown) or attack.reason == "model_unknown"
        assert shown.startswith(WORDINGS[Reason(attack.reason)].sentence.partition("{")[0])
    assert ("Bearer" if reply.status == 401 else None) == reply.headers.get("www-authenticate")
    assert (reply.status == 405) == ("allow" in reply.headers)
    assert [] == [header for header in reply.headers if header.startswith("x-nz-")]


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_reaches_no_backend(trials: dict[str, Trial], name: str) -> None:
    """G1: not one byte of a refused request arrives at the backend."""
    assert [] == trials[name].hits


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_recorded_once_and_free(
    trials: dict[str, Trial], rows: dict[str, Row], witness: Witness, name: str
) -> None:
    """A refused request leaves exactly one line in the journal and costs nothing."""
    reason = ATTACKS[name][0].reason
    assert ["handled request"] == witness.lines(trials[name].reply.request_id)
    row = rows[name]
    assert ("denied", reason, "none", 0) == (row.outcome, row.reason, row.usage_source, row.tokens)


def test_no_refusal_came_late(trials: dict[str, Trial], witness: Witness) -> None:
    """G1: when all records are written nothing has arrived at the backend after all."""
    assert len(trials) == len({trial.reply.request_id for trial in trials.values()})
    assert [] == witness.hits()


def test_all_wrong_keys_read_the_same(trials: dict[str, Trial]) -> None:
    """Whoever lacks a valid key learns nothing about why: one body, one set of headers."""
    refusals = {
        (trial.reply.body, *sorted(trial.reply.headers.keys() - {"connection"}))
        for name, trial in trials.items()
        if ATTACKS[name][1] is Dialect.OLLAMA and trial.reply.status == 401
    }
    assert 1 == len(refusals)


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, each.path) for each in ROUTES if each.class_ is not Class.PUBLIC for method in each.methods],
)
@pytest.mark.usefixtures("untouched")
def test_every_route_wants_a_key(gateway: Gateway, method: str, path: str) -> None:
    """G1: without a key each route that is not public is 401."""
    target = path.replace("{id}", "demo")
    reply = wire.ask(gateway.url, f"{method} {target} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())
    assert 401 == reply.status


@pytest.mark.usefixtures("untouched")
def test_chunks_past_the_limit(gateway: Gateway) -> None:
    """A body without a length is refused at its first byte too many, not at its end."""
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.key}\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{MAX_BODY_BYTES + 1:x}\r\n"
    )
    reply = wire.ask(gateway.url, head.encode() + CHAT.ljust(MAX_BODY_BYTES + 1))
    assert 413 == reply.status
    assert SENTENCE.fullmatch(sentence(reply, Dialect.OLLAMA))


def test_deepest_body_passes(gateway: Gateway, witness: Witness) -> None:
    """128 levels are not too many."""
    witness.forget()
    body = CHAT[:-1] + b',"x":' + b"[" * 127 + b"]" * 127 + b"}"
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    assert 200 == wire.ask(gateway.url, head.encode() + body).status
    assert [body.decode()] == [hit.body for hit in witness.hits()]
