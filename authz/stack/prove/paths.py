"""What no key may do: mutations, unknown paths, other spellings, forged headers; and what anybody may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authz.decision import routes
from authz.decision.refusals import Reason
from authz.decision.routes import Class
from authz.stack.doctor.finding import Finding, fail, summed
from authz.stack.prove import bodies
from authz.stack.prove.gate import Request
from authz.stack.prove.judged import Case, judge

if TYPE_CHECKING:
    from authz.stack.prove.gate import Answer, Gate

METHODS: Final = ("POST", "GET", "HEAD", "PUT", "DELETE")
HIDDEN: Final = (
    *("/metrics", "/verify", "/backends", "/streams", "/journal", "/config/", "/debug/pprof/"),
    *("/api/web_search", "/api/unknown", "/v1/files", "/v1/images/generations", "/favicon.ico"),
)
"""Paths of our own processes, of Caddy, of a later Ollama, and of nothing at all."""
SPELLINGS: Final = (
    *("/api%2Fpull", "/api%2fpull", "/%61pi/pull", "/api/pul%6C", "/api/pull%00", "/api/pull%20"),
    *("/api/./pull", "/api/chat/../pull", "/api/tags/%2e%2e/pull", "/api/chat/..%2fpull", "/../api/pull"),
    *("/api/%252e%252e/pull", "/v1/models/..%2f..%2fapi%2fpull", "//api/pull", "/api//pull", "/api\\pull"),
    *("/api/pull;x=1", "/API/PULL", "/api/pull/", "/api%252Fpull", "/api/pull%3F", "/api/chat%2F..%2Fpull"),
)
"""Ways to write a mutation that some router, proxy or decoder takes for the plain one."""
FORGED: Final = (
    ("X-Nz-Grant", '{"v":1,"backends":["default"]}'),
    ("X-Nz-Ask", '{"v":1,"lookup":"nz_00000000"}'),
    ("X-Nz-Known", '{"v":1}'),
    ("X-Forwarded-Uri", "/healthz"),
    ("X-Forwarded-Method", "GET"),
    ("X-Http-Method-Override", "GET"),
    ("X-Original-Url", "/healthz"),
)

_OPEN: Final = "something before the guard answers it, look through the Caddyfile and run `doctor`."
_REFUSED: Final = (
    Reason.TARGET_INVALID,
    Reason.PATH_MUTATION,
    Reason.PATH_UNKNOWN,
    Reason.METHOD_NOT_ALLOWED,
)


async def mutations(gate: Gate, key: str) -> list[Finding]:
    """Ask for every path that changes models or accounts, by every method, with a valid key."""
    body = b'{"model":"%s"}' % bodies.NO_MODEL.encode()
    found = []
    for known in routes.MUTATIONS:
        path = f"{known}{bodies.NO_MODEL}" if known.endswith("/") else known
        cases = [Case(path, Request(method, path, key, body), (Reason.PATH_MUTATION,)) for method in METHODS]
        answers = [(case, await gate.ask(case.request)) for case in cases]
        found += judge("mutation", answers, f"{path} is 403 by {len(METHODS)} methods.", _OPEN)
    return found


async def unknown(gate: Gate, key: str) -> list[Finding]:
    """Ask for paths that the gateway does not have, and for known ones by another method."""
    cases = [Case("", Request("GET", path, key), (Reason.PATH_UNKNOWN,)) for path in HIDDEN]
    hidden = [(case, await gate.ask(case.request)) for case in cases]
    cases = [
        Case("", Request("GET", route.path, key), (Reason.METHOD_NOT_ALLOWED,))
        for route in routes.ROUTES
        if "GET" not in route.methods
    ]
    others = [(case, await gate.ask(case.request)) for case in cases]
    return [
        *judge("unknown path", hidden, f"{len(hidden)} are 404, /metrics among them.", _OPEN),
        *judge("method", others, f"GET is 405 on {len(others)} routes that take POST.", _OPEN),
    ]


async def spellings(gate: Gate, key: str) -> list[Finding]:
    """Ask for mutations in other spellings; all are refused, none is cleaned up and served."""
    body = b'{"model":"%s"}' % bodies.NO_MODEL.encode()
    cases = [Case("", Request("POST", path, key, body), _REFUSED) for path in SPELLINGS]
    answers = [(case, await gate.ask(case.request)) for case in cases]
    return judge("spelling", answers, f"{len(answers)} spellings of /api/pull are refused.", _OPEN)


async def forged(gate: Gate, model: str) -> list[Finding]:
    """Send headers by which the gateway's own parts talk; without a key they are worth nothing."""
    asked = [Request("POST", "/api/chat", None, bodies.chat(model), (header,)) for header in FORGED]
    answers = [(Case("", each, (Reason.KEY_MISSING,)), await gate.ask(each)) for each in asked]
    return judge("forged header", answers, f"{len(answers)} of them make no key.", _OPEN)


async def reads(gate: Gate, key: str, model: str) -> list[Finding]:
    """Ask for each read route, which needs a key, and for each public one, which needs none."""
    found, count, closed = [], 0, []
    for route in routes.ROUTES:
        if route.class_ is Class.METERED:
            continue
        path = route.path.replace("{id}", model)
        body = b'{"model":"%s"}' % model.encode() if "POST" in route.methods else None
        for method in route.methods:
            asked = Request(method, path, key if route.class_ is Class.READ else None, body)
            found += _served(asked, await gate.ask(asked))
            count += 1
            if route.class_ is Class.READ:
                without = Request(method, path, None, body)
                closed.append((Case("", without, (Reason.KEY_MISSING,)), await gate.ask(without)))
    return [
        *summed("read route", found, f"{count} read and public routes answer."),
        *judge("read route", closed, f"{len(closed)} of them are 401 without a key.", _OPEN),
    ]


def _served(request: Request, answer: Answer) -> list[Finding]:
    if answer.status == 200:  # noqa: PLR2004
        return []
    sentence = (
        f"{request.method} {request.target} is answered {answer.status}: "
        f"{answer.body[:120].decode(errors='replace').strip() or 'ask /readyz what is missing'}"
    )
    return [fail("read route", sentence)]
