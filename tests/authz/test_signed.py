"""Clients that sign their requests (OLLAMA_AUTH=1): what is verified, and what a signature is good for."""

from __future__ import annotations

import json
import time
from collections import Counter

import asyncpg
import pytest

from authz.accounts.keys import CreatedKey, create_key, list_keys, rotate_key, set_key_state
from authz.accounts.limits import set_key_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.admin.limit_options import LimitOptions
from authz.decision.signed import AGE_S
from authz.errors import CommandError, UsageError
from authz.identity import signatures
from authz.identity.sources import BURST
from authz.messages import BODY_UNREAD
from tests.authz.asking import Guard, grant, reason
from tests.authz.signing import Signer

LATER_S = AGE_S + 5
ELSEWHERE = "198.51.100.7"


@pytest.fixture
async def signer(session: Session, key: CreatedKey) -> Signer:
    """A client whose public key is a second key of acme."""
    assert key.tenant == "acme"
    made = Signer()
    await create_key(session, tenant="acme", name="cli", ssh_key=made.line)
    return made


async def test_a_signed_request_is_a_keys(signer: Signer, guard: Guard, session: Session) -> None:
    """A signed request is granted to the key that its public key was registered for, again and again."""
    keys = {key.key: key for key in await list_keys(session, "acme")}
    assert signer.handle == keys["cli"].prefix
    found = [await signer.ask(guard) for _ in range(3)]
    assert [204] * 3 == [answer.status_code for answer in found]
    assert grant(found[0])["key"] != grant(await guard.ask())["key"]


@pytest.mark.parametrize(
    "fields",
    [
        {"signed": ("POST", "/api/generate")},
        {"signed": ("GET", "/api/chat")},
        {"signed": ("POST", "/api/chat?")},
        {"sent_ts": 1},
        {"sent_ts": round(time.time()) - 2},
    ],
    ids=["path", "method", "query", "ts", "a second"],
)
async def test_what_was_not_signed_is_refused(
    signer: Signer, guard: Guard, fields: dict[str, object]
) -> None:
    """A signature of another path, method or second is none of this request."""
    ts = None if "sent_ts" not in fields else round(time.time())
    assert "key_unknown" == reason(await signer.ask(guard, ts=ts, **fields))  # type: ignore[arg-type]


async def test_a_signature_of_another_key_is_refused(signer: Signer, guard: Guard) -> None:
    """Who has registered a key of his own can't sign for another; an unknown key is refused alike."""
    other = Signer()
    ts = round(time.time())
    forged = {"key": signer.key, "signature": other.sign("POST", "/api/chat", ts), "ts": ts}
    answers = [
        await guard.ask(key="", lookup=signer.handle, signed=forged),
        await guard.ask(key="", lookup=other.handle, signed=forged),
        await guard.ask(key="", lookup=signer.handle, signed=forged | {"key": other.key}),
        await other.ask(guard),
    ]
    assert ["key_unknown", "key_missing", "key_missing", "key_unknown"] == [reason(each) for each in answers]
    assert 1 == len({answer.content for answer in answers})


@pytest.mark.parametrize("signature", ["", "?", "A" * 88, "A" * 86 + "=="])
async def test_what_is_no_signature_is_refused(signer: Signer, guard: Guard, signature: str) -> None:
    """What is no signature at all is refused as a wrong key is, though the guard lets no such thing pass."""
    sent = {"key": signer.key, "signature": signature, "ts": round(time.time())}
    assert "key_unknown" == reason(await guard.ask(key="", lookup=signer.handle, signed=sent))
    sent = {"key": "AAAA", "signature": signature, "ts": None}
    assert "key_missing" == reason(await guard.ask(key="", lookup=signer.handle, signed=sent))


async def test_who_signs_is_shown_why_the_key_is_refused(signer: Signer, guard: Guard) -> None:
    """A key that is not registered is 403, with what to do: of a 401 the program would show nothing."""
    answer = await Signer().ask(guard)
    assert ("key_unknown", 403) == (reason(answer), answer.status_code)
    assert {"error"} == set(answer.json())
    assert answer.json()["error"].endswith("if OLLAMA_AUTH=1 is set and its public key is registered.")


async def test_without_a_time_nothing_is_valid(signer: Signer, guard: Guard) -> None:
    """A request that does not say when it was signed is refused."""
    sent = {"key": signer.key, "signature": signer.sign("POST", "/api/chat", 0), "ts": None}
    assert "key_unknown" == reason(await guard.ask(key="", lookup=signer.handle, signed=sent))


@pytest.mark.parametrize("off_s", [-LATER_S, LATER_S])
async def test_another_clock_is_named(signer: Signer, guard: Guard, off_s: int) -> None:
    """A signature is valid for 30 s either way; beyond, the client is shown both clocks."""
    near = off_s // abs(off_s) * (AGE_S - 5)
    assert 204 == (await signer.ask(guard, ts=round(time.time()) + near)).status_code
    answer = await signer.ask(guard, ts=round(time.time()) + off_s)
    assert "signature_time" == reason(answer)
    assert 403 == answer.status_code
    assert 2 == answer.json()["error"].count(" UTC")
    assert answer.json()["error"].endswith("set the clock of your machine.")


async def test_a_replay_from_elsewhere_is_refused(signer: Signer, guard: Guard) -> None:
    """A signature is good for the first source that used it: another one needs a signature of its own."""
    ts = round(time.time())
    assert 204 == (await signer.ask(guard, ts=ts)).status_code
    assert "signature_used" == reason(await signer.ask(guard, ts=ts, ip=ELSEWHERE))
    assert 204 == (await signer.ask(guard, ts=ts)).status_code
    assert 204 == (await signer.ask(guard, "/api/generate", ts=ts, ip=ELSEWHERE)).status_code
    assert 204 == (await signer.ask(guard, ts=ts + 1, ip=ELSEWHERE)).status_code
    assert "signature_used" == reason(await signer.ask(guard, ts=ts + 1))


async def test_the_ask_before_the_body_takes_the_signature(signer: Signer, guard: Guard) -> None:
    """The Ask before a body is read holds the signature for its source, and the request has it still."""
    ts = round(time.time())
    assert 204 == (await signer.ask(guard, ts=ts, problem=BODY_UNREAD)).status_code
    assert 204 == (await signer.ask(guard, ts=ts)).status_code
    assert "signature_used" == reason(await signer.ask(guard, ts=ts, ip=ELSEWHERE, problem=BODY_UNREAD))


async def test_a_key_that_signs_is_bound_as_any(signer: Signer, guard: Guard, session: Session) -> None:
    """Limits, models, networks, expiry and states hold for a key that signs."""

    async def refused(**fields: object) -> str:
        return reason(await signer.ask(guard, **fields))  # type: ignore[arg-type]

    def narrow(_: Scope) -> Scope:
        return Scope(models=("other",))

    def near(_: Scope) -> Scope:
        return Scope(cidrs=("192.0.2.0/24",))

    prefix = signer.handle
    await set_key_limits(session, prefix, limits=LimitOptions(rpm="1").applied)
    assert 204 == (await signer.ask(guard)).status_code
    assert "rate_requests" == await refused()
    await set_key_limits(session, prefix, scope=narrow)
    assert "model_not_allowed" == await refused()
    await set_key_limits(session, prefix, scope=near)
    assert "cidr" == await refused()
    await set_key_state(session, prefix, "disabled")
    assert "key_disabled" == await refused()
    await set_key_state(session, prefix, "revoked")
    assert "key_revoked" == await refused()


async def test_conflicts_are_refused(signer: Signer, guard: Guard) -> None:
    """A signature beside another credential is a conflict, whatever either is worth."""
    assert "credential_conflict" == reason(await signer.ask(guard, problem="credential"))


async def test_unknown_keys_are_limited(guard: Guard) -> None:
    """B5: public keys that are not registered are looked up no oftener than wrong secrets are."""
    reasons = Counter([reason(await Signer().ask(guard)) for _ in range(BURST + 5)])
    assert {"key_unknown": BURST, "source_limited": 5} == reasons


async def test_a_row_from_outside_is_no_key(
    signer: Signer, guard: Guard, owner_of_tables: asyncpg.Connection
) -> None:
    """Who can write to the table, but has no pepper, can't register a key of his own."""
    mine = Signer()
    await owner_of_tables.execute(
        "INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash, public_key) "
        "SELECT $1, key_id, tag, pepper_id, hash, $2 FROM secrets WHERE lookup = $3",
        mine.handle,
        mine.line,
        signer.handle,
    )
    assert "key_unknown" == reason(await mine.ask(guard))


async def test_a_public_key_is_registered_once(signer: Signer, session: Session) -> None:
    """A public key names one key, for good: neither another key nor its own may take it again."""
    with pytest.raises(CommandError, match="registered already"):
        await create_key(session, tenant="acme", name="again", ssh_key=signer.line)
    assert "again" not in [key.key for key in await list_keys(session, "acme")]


async def test_keys_rotate_to_another_public_key(signer: Signer, guard: Guard, session: Session) -> None:
    """A key may take another public key in place of its own, and keeps its limits."""
    keys = {key.key: key for key in await list_keys(session, "acme")}
    newer, ends = Signer(), keys["cli"].created
    await rotate_key(session, signer.handle, grace_ends=ends, ssh_key=newer.line)
    assert 204 == (await newer.ask(guard)).status_code
    assert "key_expired" == reason(await signer.ask(guard))


def test_public_keys_are_read() -> None:
    """An OpenSSH line is read with or without its comment; its fingerprint is that of ssh-keygen."""
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
    assert line == signatures.public_key(f"{line} somebody@example.com\n") == signatures.public_key(line)
    assert "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg" == signatures.fingerprint(line)


@pytest.mark.parametrize(
    "text",
    ["", "ssh-ed25519", "ssh-rsa AAAAB3NzaC1yc2E=", "ssh-ed25519 AAAA", "ssh-ed25519 ????", "x" * 100],
)
def test_other_files_are_refused(text: str) -> None:
    """What is no Ed25519 public key is refused with what to give."""
    with pytest.raises(UsageError, match="ssh-ed25519"):
        signatures.public_key(text)


def test_private_keys_are_refused() -> None:
    """A private key is refused before any of it is stored, and the sentence holds none of it."""
    with pytest.raises(UsageError, match="never leaves") as raised:
        signatures.public_key("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n")
    assert "c2VjcmV0" not in str(raised.value)


async def test_the_audit_has_the_public_key(signer: Signer, owner_of_tables: asyncpg.Connection) -> None:
    """The audit says which public key was registered."""
    new = await owner_of_tables.fetchval("SELECT new FROM admin_audit ORDER BY id DESC LIMIT 1")
    assert signer.line == json.loads(new)["ssh_key"]
