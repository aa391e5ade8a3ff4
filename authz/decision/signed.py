"""Judge a request that is signed instead of sent with a key: by whom, when, and from where.

A client signs its method, its path and the second; what the guard read is what is verified. Two equal
requests of one second have one signature, so it can't be used up: it is good for the first source that uses
it, until it is too old.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from authz.decision.refusals import Reason, Refusal
from authz.identity import signatures, sources
from authz.identity.secrets import SSH_ALGORITHM

if TYPE_CHECKING:
    from authz.limiter.limiter import Limiter
    from authz.messages import Ask, Signed
    from authz.types import Identity

AGE_S: Final = 30
"""How far a signature's time may be from our clock, either way."""


def key_of(signed: Signed) -> str:
    """Return the public key of a signature as it is stored."""
    return f"{SSH_ALGORITHM} {signed.key}"


async def wrong(
    ask: Ask, signed: Signed, identity: Identity, *, limiter: Limiter, now: datetime
) -> Refusal | None:
    """Refuse a signature that is not of this very request, is too old or early, or is another source's."""
    text = f"{ask.method},{ask.path}?ts={signed.ts}"
    if signed.ts is None or not signatures.is_valid(signed.key, signed.signature, text):
        return Refusal(Reason.KEY_UNKNOWN)
    if abs(now.timestamp() - signed.ts) > AGE_S:
        words = {"signed": _clock(datetime.fromtimestamp(signed.ts, UTC)), "now": _clock(now)}
        return Refusal(Reason.SIGNATURE_TIME, identity, words=words)
    name = f"{identity.lookup}:{sha256(text.encode()).hexdigest()[:32]}"
    if not await limiter.claim(identity.tenant, name, sources.source(ask.ip)):
        return Refusal(Reason.SIGNATURE_USED, identity)
    return None


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
