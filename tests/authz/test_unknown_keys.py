"""Keys that an authz process does not know yet: valid ones are served, wrong ones are limited."""

from __future__ import annotations

import asyncio
from collections import Counter

from authz.accounts.keys import create_key
from authz.accounts.session import Session
from authz.identity.secrets import PREFIX, Pepper, mint
from authz.identity.sources import BURST, EVERYBODY
from tests.authz.asking import Guard, reason

AT_ONCE = BURST * 2 + 4


async def test_a_valid_key_asked_at_once_is_never_a_wrong_one(guard: Guard) -> None:
    """Many requests at once with one valid key, which the process does not know yet, are all granted."""
    answers = await asyncio.gather(*(guard.ask() for _ in range(AT_ONCE)))
    assert {204: AT_ONCE} == Counter(answer.status_code for answer in answers)


async def test_valid_keys_of_one_address_are_never_wrong_ones(guard: Guard, session: Session) -> None:
    """More valid keys than a source may try wrong ones, all at once from one address, are all granted."""
    keys = [await create_key(session, tenant="acme", name=f"k{number}") for number in range(BURST + 10)]
    answers = await asyncio.gather(*(guard.ask(key=key.key) for key in keys))
    assert {204: len(keys)} == Counter(answer.status_code for answer in answers)


async def test_wrong_keys_at_once_are_counted(guard: Guard) -> None:
    """B5: however many wrong keys come at once, no more than a source may try reach Postgres."""
    wrong = [mint(Pepper(b"p" * 32)).secret for _ in range(AT_ONCE)]
    answers = await asyncio.gather(*(guard.ask(key=secret) for secret in wrong))
    reasons = Counter(reason(answer) for answer in answers)
    assert {"key_unknown": BURST, "source_limited": AT_ONCE - BURST} == reasons


async def test_wrong_keys_never_harm_a_valid_one(guard: Guard) -> None:
    """A source that tries many keys is slowed down; a known key behind the same address works on."""
    assert 204 == (await guard.ask()).status_code
    wrong = mint(Pepper(b"p" * 32)).secret
    tries = 1
    while reason(await guard.ask(key=wrong)) == "key_unknown":
        tries += 1
    assert tries > BURST
    assert "source_limited" == reason(await guard.ask(key=wrong))
    assert 204 == (await guard.ask()).status_code
    assert "key_unknown" == reason(await guard.ask(key=wrong, ip="198.51.100.1"))


async def test_a_valid_key_is_served_behind_a_limited_source(guard: Guard, session: Session) -> None:
    """A key that this process has never seen is served at an address that has tried all it may."""
    created = await create_key(session, tenant="acme", name="unused")
    while reason(await guard.ask(key=mint(Pepper(b"p" * 32)).secret)) == "key_unknown":
        pass
    async with asyncio.timeout(30):
        while (await guard.ask(key=created.key)).status_code != 204:
            await asyncio.sleep(0.02)
    assert "source_limited" == reason(await guard.ask(key=mint(Pepper(b"p" * 32)).secret))
    letters = iter(created.prefix.removeprefix(PREFIX) + "0" * 32)
    guess = mint(Pepper(b"p" * 32), choose=lambda _: next(letters)).secret
    assert "key_unknown" == reason(await guard.ask(key=guess))


async def test_wrong_keys_of_many_sites_are_limited_together(guard: Guard) -> None:
    """However many addresses invented keys come from, few in all reach Postgres; a known key works on."""
    assert 204 == (await guard.ask()).status_code
    allowed = BURST * EVERYBODY[1]
    reasons = Counter[str]()
    for number in range(allowed + 20):
        answer = await guard.ask(key=mint(Pepper(b"p" * 32)).secret, ip=f"2001:db8:{number:x}::1")
        reasons[reason(answer)] += 1
    assert {"key_unknown": allowed, "source_limited": 20} == reasons
    assert 204 == (await guard.ask()).status_code
