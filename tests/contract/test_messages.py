"""The golden samples that Caddy's modules and authz both read."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from authz import messages
from authz.decision import checks, routes, signed
from authz.decision.concealed import concealed
from authz.decision.refusals import WORDINGS, Reason
from authz.identity import secrets, signatures
from authz.limiter.limiter import MARK_AGE_S
from authz.types import GREATEST_COUNT

CONTRACT = Path(__file__).parents[2] / "caddy" / "testdata" / "contract"


def _sample(name: str) -> bytes:
    return (CONTRACT / name).read_bytes().strip()


@pytest.mark.parametrize(
    "name", ["ask.json", "ask-refused.json", "ask-unread.json", "ask-signed.json", "ask-in-path.json"]
)
def test_ask_is_read_whole(name: str) -> None:
    """Every field of an Ask is known to authz, and means what the guard wrote."""
    ask = messages.read_ask(_sample(name))
    assert json.loads(_sample(name)) == json.loads(msgspec.json.encode(ask))


def test_unknown_field_is_ignored() -> None:
    """A newer guard may say more."""
    ask = messages.read_ask(_sample("ask.json").replace(b'{"v":1', b'{"v":1,"colour":"blue"'))
    assert "llama3.2" == ask.model


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b'{"v":2}', b'{"v":1,"id":"x"}'])
def test_other_ask_is_rejected(text: bytes) -> None:
    """An Ask of another version is never half understood."""
    with pytest.raises(msgspec.DecodeError):
        messages.read_ask(text)


def test_other_version_is_rejected() -> None:
    """An Ask of another version is refused even if it would fit."""
    with pytest.raises(msgspec.DecodeError):
        messages.read_ask(_sample("ask.json").replace(b'{"v":1', b'{"v":2'))


@pytest.mark.parametrize(
    ("name", "type_"),
    [("grant.json", messages.Grant), ("denial.json", messages.Denial), ("known.json", messages.Known)],
)
def test_answers_are_written_as_the_sample(
    name: str, type_: type[messages.Grant | messages.Denial | messages.Known]
) -> None:
    """authz writes a Grant, a Denial and a Known to the letter as the sample has them."""
    assert _sample(name) == messages.write(msgspec.json.decode(_sample(name), type=type_))


def test_unread_is_the_guards_problem() -> None:
    """The guard and authz have one word for an Ask about a key alone."""
    assert messages.BODY_UNREAD == messages.read_ask(_sample("ask-unread.json")).problem


def test_signed_is_the_guards() -> None:
    """authz verifies what the guard passes on of a signature, and gives its key the guard's handle."""
    ask = messages.read_ask(_sample("ask-signed.json"))
    assert ask.signed is not None
    assert ask.lookup == secrets.handle(signed.key_of(ask.signed))
    text = f"{ask.method},{ask.path}?ts={ask.signed.ts}"
    assert signatures.is_valid(ask.signed.key, ask.signed.signature, text)
    assert not signatures.is_valid(ask.signed.key, ask.signed.signature, f"{text}0")


def test_headers_are_ascii() -> None:
    """A header holds ASCII only, and stays JSON."""
    denial = messages.Denial(id=UUID(int=1), reason="ü\u2028")
    text = messages.write(denial)
    assert text.isascii()
    assert "ü\u2028" == json.loads(text)["reason"]


def test_routes_are_the_guards() -> None:
    """authz and the guard have one table of routes."""
    contract = json.loads(_sample("routes.json"))
    ours = {
        (method, route.path, route.class_.value, route.dialect.value)
        for route in routes.ROUTES
        for method in route.methods
    }
    theirs = {
        (route["method"], route["path"], route["class"], route["dialect"]) for route in contract["routes"]
    }
    assert theirs == ours
    assert tuple(contract["mutations"]) == routes.MUTATIONS
    assert contract["model_id"] == routes.MODEL_ID


def test_bounds_are_the_guards() -> None:
    """authz, metering and the guard have one greatest count, and authz decides while the tap still waits."""
    bounds = json.loads(_sample("bounds.json"))
    ask_age_ms = round(1000 * checks.ASK_AGE_S)
    grant_age_ms = 1000 * MARK_AGE_S
    assert bounds == {
        "greatest_count": GREATEST_COUNT,
        "ask_age_ms": ask_age_ms,
        "grant_age_ms": grant_age_ms,
    }
    assert ask_age_ms < grant_age_ms


def test_reasons_are_the_guards() -> None:
    """authz and the guard have one list of reasons, and one meaning of each problem."""
    contract = json.loads(_sample("reasons.json"))
    assert contract["denials"] == sorted(Reason)
    final = {reason for reason in contract["final"] if reason in set(Reason)}
    assert final == {reason for reason in Reason if not WORDINGS[reason].is_passing}
    assert set(contract["final"]) <= {*contract["denials"], *contract["guard"]}
    bodies = {problem: reason for problem, reason in contract["problems"].items() if problem != "target"}
    assert bodies == checks.PROBLEMS


def test_keys_are_concealed_as_in_the_journal() -> None:
    """What a client sent is repeated with no more of a key than the journal has."""
    samples = json.loads(_sample("concealed.json"))
    assert samples == {text: concealed(text) for text in samples}
