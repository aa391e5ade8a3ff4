"""Keys: none, a wrong one and an ended one are refused, and so is what a key may not do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from authz.accounts.keys import set_key_state
from authz.accounts.scope import Scope
from authz.decision.refusals import Reason
from authz.identity.secrets import Peppers, mint
from authz.stack.doctor.finding import Finding, warn
from authz.stack.prove import bodies
from authz.stack.prove.gate import Request
from authz.stack.prove.judged import Case, judge, problem

if TYPE_CHECKING:
    from authz.stack.prove.gate import Gate
    from authz.stack.prove.throwaway import Throwaway

ELSEWHERE: Final = "192.0.2.0/24"
"""TEST-NET-1 (RFC 5737): no client comes from there."""
HUGE_BYTES: Final = 2**40

_TODO: Final = "who may come in is not checked, look at authz's log and run `doctor`."


async def credentials(gate: Gate, throwaway: Throwaway, key: str, model: str) -> list[Finding]:
    """Present no key, and keys that are wrong, ended or two at a time."""
    revoked = await throwaway.key("revoked")
    await set_key_state(throwaway.session, revoked.prefix, "revoked")
    disabled = await throwaway.key("disabled")
    await set_key_state(throwaway.session, disabled.prefix, "disabled")
    ended = Scope(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    expired = await throwaway.key("expired", scope=ended)
    wrong = mint(Peppers.read(throwaway.session.settings.pepper_file).alive[0]).secret
    body = bodies.chat(model)
    cases = [
        Case("no key", _chat(None, body), (Reason.KEY_MISSING,)),
        Case("wrong key", _chat(wrong, body), (Reason.KEY_UNKNOWN,)),
        Case("revoked key", _chat(revoked.key, body), (Reason.KEY_REVOKED,)),
        Case("disabled key", _chat(disabled.key, body), (Reason.KEY_DISABLED,)),
        Case("expired key", _chat(expired.key, body), (Reason.KEY_EXPIRED,)),
        Case("key in the query", _chat(None, body, query=f"?api_key={key}"), (Reason.KEY_MISSING,)),
        Case("key in the path", Request("POST", f"/k/{key}/api/chat", None, body), (Reason.KEY_IN_PATH,)),
        Case("key in a cookie", _chat(None, body, ("Cookie", f"key={key}")), (Reason.KEY_MISSING,)),
        Case("two keys", _chat(key, body, ("X-Api-Key", wrong)), (Reason.CREDENTIAL_CONFLICT,)),
    ]
    return await _all(gate, cases)


async def scopes(gate: Gate, throwaway: Throwaway, key: str, model: str) -> list[Finding]:
    """Use a key from an address, and for models, that it is not for."""
    bound = (await throwaway.key("cidr", scope=Scope(cidrs=(ELSEWHERE,)))).key
    narrow = (await throwaway.key("models", scope=Scope(models=(bodies.NO_MODEL,)))).key
    body = bodies.chat(model)
    cases = [
        Case("address", _chat(bound, body), (Reason.CIDR,)),
        Case("model allowlist", _chat(narrow, body), (Reason.MODEL_NOT_ALLOWED,)),
        Case("model allowlist", _openai(narrow, model), (Reason.MODEL_NOT_ALLOWED,)),
        Case("unknown model", _chat(key, bodies.chat(bodies.NO_MODEL)), (Reason.MODEL_UNKNOWN,)),
        Case("no model", _chat(key, b'{"messages":[]}'), (Reason.MODEL_MISSING,)),
    ]
    lying = Case("forged address", _chat(bound, body, ("X-Forwarded-For", "192.0.2.1")), (Reason.CIDR,))
    found = await _all(gate, cases)
    if (difference := problem(lying, await gate.ask(lying.request))) is not None:
        sentence = (
            f"{difference}: GATEWAY_TRUSTED_PROXIES trusts this machine, which is right only if a proxy "
            "runs here."
        )
        return [*found, warn("forged address", sentence)]
    return [*found, *judge("forged address", [], "X-Forwarded-For of this machine is not believed.", "")]


async def bodies_refused(gate: Gate, key: str, model: str) -> list[Finding]:
    """Send bodies that the gateway must not read, or that Ollama would read otherwise."""
    body = bodies.chat(model)
    twice = body.replace(b"{", b'{"model":"%s",' % bodies.NO_MODEL.encode(), 1)
    many = bodies.chat(model, options={"num_predict": 1, "stop": [str(number) for number in range(65)]})
    cases = [
        Case("broken body", _chat(key, body[:-1]), (Reason.BODY_NOT_JSON,)),
        Case("field given twice", _chat(key, twice), (Reason.BODY_DUPLICATE_FIELD,)),
        Case("field in capitals", _chat(key, body.replace(b"model", b"MODEL", 1)), (Reason.BODY_FIELD,)),
        Case("encoded body", _chat(key, body, ("Content-Encoding", "gzip")), (Reason.BODY_ENCODING,)),
        Case("too many stops", _chat(key, many), (Reason.BODY_TOO_MUCH,)),
    ]
    large = Case("oversized body", Request("POST", "/api/chat", key), (Reason.BODY_TOO_LARGE,))
    answer = await gate.announce(large.request, HUGE_BYTES)
    return [
        *await _all(gate, cases),
        *judge(large.check, [(large, answer)], "It is refused while it is unread.", _TODO),
    ]


async def _all(gate: Gate, cases: list[Case]) -> list[Finding]:
    found = []
    for case in cases:
        answer = await gate.ask(case.request)
        found += judge(case.check, [(case, answer)], f"It is refused with {answer.status}.", _TODO)
    return found


def _chat(key: str | None, body: bytes, *headers: tuple[str, str], query: str = "") -> Request:
    return Request("POST", f"/api/chat{query}", key, body, headers)


def _openai(key: str, model: str) -> Request:
    return Request("POST", "/v1/chat/completions", key, bodies.chat(model).replace(b'"options":', b'"x":'))
