"""C3: a key and the pepper appear in no log, table, counter, metric, answer or header to a backend."""

from __future__ import annotations

import base64
import json
from typing import Final

import pytest

from tests.gateway import Gateway
from tests.security import canary, wire
from tests.security.cases import PATHS
from tests.security.observed import Witness
from tests.security.wire import Reply

CARRIERS: Final = {
    "bearer": ("", "Authorization: Bearer <key>"),
    "x-api-key": ("", "X-Api-Key: <key>"),
    "api-key": ("", "Api-Key: <key>"),
    "basic": ("", "Authorization: Basic <basic>"),
    "path": ("/k/<key>", "Referer: http://gateway/k/<key>/"),
}
"""What stands before the path, and a header."""
PROMPTS: Final = ("tokens=2", "mode=status code=500", "mode=crash at=1", "mode=garbage at=1")


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    """A key that only these tests use."""
    return gateway.create_key("canary", "--in-path", "allowed")


@pytest.fixture(scope="module")
def replies(gateway: Gateway, witness: Witness, key: str) -> list[Reply]:
    """The answers to all the ways in which a key can come in rightly; the wrong ones are cases."""
    witness.forget()
    made = [wire.ask(gateway.url, _filled(head, key, body)) for head, body in _carried()]
    witness.settled(reply.request_id for reply in made)
    return made


def _carried() -> list[tuple[str, str]]:
    """Each carrier in each dialect, with answers, errors and broken streams."""
    return [
        (f"POST {before}{path} HTTP/1.1\r\nHost: gateway\r\n{line}\r\n", _chat(prompt, is_stream=is_stream))
        for before, line in CARRIERS.values()
        for path in PATHS.values()
        for prompt in PROMPTS
        for is_stream in (True, False)
    ]


def _chat(prompt: str, *, is_stream: bool) -> str:
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"model": "demo", "stream": is_stream, "max_tokens": 9, "messages": messages})


def _filled(head: str, key: str, body: str) -> bytes:
    head += f"Content-Length: {len(body.replace('<key>', key))}\r\n\r\n"
    basic = base64.b64encode(f"x:{key}".encode()).decode()
    return (head + body).replace("<key>", key).replace("<basic>", basic).encode()


def test_requests_ran_and_failed(replies: list[Reply]) -> None:
    """The search below is worth something: there were answers and errors."""
    assert {200, 500} <= {reply.status for reply in replies}


def test_key_is_in_no_answer(replies: list[Reply], key: str) -> None:
    """C3: no answer repeats a key, not even to the client that has sent it."""
    answers = [canary.Sink(f"{reply.status}", repr(reply).encode() + reply.body) for reply in replies]
    assert [] == canary.found(iter(answers), canary.needles(key))
    assert [] == [each for each in answers if canary.holds_part(each.content, canary.parts(key))]


@pytest.mark.usefixtures("replies")
def test_key_reaches_no_backend(witness: Witness, key: str) -> None:
    """C3: neither headers nor target nor body of what the backend got hold a key."""
    hits = witness.hits()
    assert len(hits) >= len(CARRIERS) * len(PATHS) * len(PROMPTS)
    arrived = [canary.Sink(hit.target, repr(hit).encode()) for hit in hits]
    assert [] == canary.found(iter(arrived), canary.needles(key))
    assert [] == [each.name for each in arrived if canary.holds_part(each.content, canary.parts(key))]


@pytest.mark.usefixtures("replies")
def test_key_is_nowhere(gateway: Gateway, key: str) -> None:
    """C3: no file, table, counter, metric or process of the gateway holds a part of a key that was used."""
    sinks, parts = list(canary.sinks(gateway)), canary.parts(key)
    assert [] == canary.found(iter(sinks), canary.needles(key))
    assert [] == [each.name for each in sinks if canary.holds_part(each.content, parts)]


@pytest.mark.usefixtures("replies")
def test_pepper_is_in_its_file_only(gateway: Gateway) -> None:
    """C3: the pepper is nowhere but in its own file."""
    pepper = (gateway.stack.state / "pepper").read_text().strip()
    forms = (pepper.encode(), bytes.fromhex(pepper))
    assert [] == canary.found(canary.sinks(gateway), forms)


def test_search_finds_what_is_there(gateway: Gateway, key: str) -> None:
    """The search itself works: it finds the public handle where that is kept."""
    places = canary.found(canary.sinks(gateway), (key[:11].encode(),))
    assert {"journal/journal.log", "table secrets"} <= set(places)
    assert any(place.startswith("table ledger") for place in places)


@pytest.mark.parametrize(
    "text",
    ["{}", "a{}b", "/api/{}?x", '{{"path":"/{}"}}', "\\x00{}\\n", "%2F{}%2F"],
)
def test_search_finds_parts(key: str, text: str) -> None:
    """The search for parts finds eight characters of the secret, wherever they stand and however spelled."""
    parts, secret = canary.parts(key), key[11:]
    for start in range(len(secret) - 7):
        part = secret[start : start + 8]
        for before in ("", "x", "xy"):
            encoded = base64.b64encode((before + part).encode()).decode().rstrip("=")
            escaped = "".join(f"%{ord(each):02x}" for each in part)
            for spelled in (part, part.lower(), encoded, escaped, escaped.replace("%", "%2525")):
                assert canary.holds_part(text.format(spelled).encode(), parts), spelled
        assert not canary.holds_part(text.format(f"{key[:11]}~{part[:7]}~").encode(), parts)


@pytest.mark.parametrize(
    "command",
    [
        ("list-keys", "--tenant", "demo"),
        ("list-keys", "--tenant", "demo", "--json"),
        ("usage", "--json"),
        ("status", "--json"),
        ("revoke-key", "--prefix", "<key>"),
        ("usage", "--prefix", "<key>"),
        ("create-key", "--tenant", "<key>", "--name", "x"),
    ],
    ids=" ".join,
)
def test_commands_print_no_key(gateway: Gateway, key: str, command: tuple[str, ...]) -> None:
    """C3: no command prints a key again, not even one that was handed to it by mistake."""
    done = gateway.run(*(word.replace("<key>", key) for word in command))
    printed = canary.Sink("output", (done.stdout + done.stderr).encode())
    assert [] == canary.found(iter([printed]), canary.needles(key))
