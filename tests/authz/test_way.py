"""The files that one decision enters: a newcomer must read them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import authz
from authz import store
from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.types import Limits
from tests.authz.asking import NODE, Guard

HOME: Final = Path(authz.__file__).parent

POOLS: Final = {fn.__code__ for fn in (store.plan_each_time, store.prepare, store.act_as, store.keep)}
"""What a pool does with a connection, in a task of its own, when a poll has borrowed it; who borrows one
enters the store by another function."""

EVERY: Final = Limits(1000, 10**6, 8, 10**6, 10**7, 10**8)


async def test_a_decision_enters_few_files(guard: Guard, session: Session) -> None:
    """A warm decision under limits of every kind enters 14 files of authz, which its README names."""
    await session.limiter.vouch(NODE, lag_ms=0)
    await set_tenant_limits(session, "acme", limits=lambda _: EVERY)
    key = await create_key(
        session, tenant="acme", name="limited", limits=EVERY, scope=Scope(models=("de*",), max_output=100)
    )
    await guard.ask(key=key.key)
    entered: set[str] = set()
    polls = asyncio.all_tasks()

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        is_ours = event == "call" and path.is_relative_to(HOME) and frame.f_code not in POOLS
        if is_ours and asyncio.current_task() not in polls:
            entered.add(str(path.relative_to(HOME)))

    sys.setprofile(note)
    try:
        answer = await guard.ask(key=key.key)
    finally:
        sys.setprofile(None)
    assert 204 == answer.status_code
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    assert not [name for name in sorted(entered) if f"({name})" not in readme]
    assert 14 >= len(entered)
