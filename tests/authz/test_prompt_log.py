"""Who has prompts and answers kept: a key for which an admin has said how long, and no other."""

from __future__ import annotations

from authz.accounts.keys import CreatedKey
from authz.accounts.limits import set_key_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from tests.authz.asking import Guard, grant


async def test_the_prompt_log_is_opted_into(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A Grant keeps no prompt unless the key says how long; a change holds for the next request."""
    assert 0 == grant(await guard.ask())["log_prompt_s"]
    await set_key_limits(session, key.prefix, scope=lambda _: Scope(log_prompts_s=3600))
    assert 3600 == grant(await guard.ask())["log_prompt_s"]
    await set_key_limits(session, key.prefix, scope=lambda _: Scope())
    assert 0 == grant(await guard.ask())["log_prompt_s"]
