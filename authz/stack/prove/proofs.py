"""All proofs in order: the ones that cost nothing first, then those that a model answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authz.errors import CommandError
from authz.stack.doctor import edge
from authz.stack.prove import bill, keys, limits, paths
from authz.stack.prove import gate as gate_
from authz.stack.prove.gate import Request
from authz.stack.prove.throwaway import throwaway

if TYPE_CHECKING:
    from authz.accounts.session import Session
    from authz.stack.doctor.finding import Finding
    from authz.stack.prove.gate import Gate


async def prove(session: Session, *, url: str | None = None, model: str | None = None) -> list[Finding]:
    """Prove every rule at a running gateway, and leave nothing of it behind that works."""
    control = session.settings.control
    async with gate_.opened(url or gate_.url_of(edge.gather(control))) as gate:
        found: list[Finding] = []
        async with throwaway(session) as tenant:
            key = (await tenant.key("plain")).key
            chosen = model or await _smallest(gate, key)
            found += await keys.credentials(gate, tenant, key, chosen)
            found += await keys.scopes(gate, tenant, key, chosen)
            found += await keys.bodies_refused(gate, key, chosen)
            found += await paths.mutations(gate, key)
            found += await paths.unknown(gate, key)
            found += await paths.spellings(gate, key)
            found += await paths.forged(gate, chosen)
            found += await paths.reads(gate, key, chosen)
            found += await limits.budgets(gate, tenant, chosen)
            found += await limits.rates(gate, tenant, chosen)
            found += await bill.exact(gate, tenant, chosen)
            found += await bill.free(gate, session)  # the journal is settled in order: they are by now
            found += await limits.concurrency(gate, tenant, control, chosen)
            found += await limits.kill(gate, tenant, control, chosen)
        return [*found, *await limits.disabled_tenant(gate, key, chosen)]


async def _smallest(gate: Gate, key: str) -> str:
    """Choose the smallest model that generates, one that is loaded before all others.

    Raises CommandError if the gateway lists none: most proofs need one, and none is made then.
    """
    loaded = [each["name"] for each in await _models(gate, key, "/api/ps")]
    known = await _models(gate, key, "/api/tags")
    for each in sorted(known, key=lambda each: (each["name"] not in loaded, each.get("size", 0))):
        body = b'{"model":"%s"}' % each["name"].encode()
        shown = (await gate.ask(Request("POST", "/api/show", key, body))).json()
        if "completion" in shown.get("capabilities", ["completion"]):
            name: str = each["name"]
            return name
    raise CommandError(
        f"No model that generates is listed at {gate.url}: pull one, name one with --model, or ask /readyz "
        "what is missing."
    )


async def _models(gate: Gate, key: str, path: str) -> list[Any]:
    answer = await gate.ask(Request("GET", path, key))
    models: list[Any] = answer.json().get("models", []) if answer.status == 200 else []  # noqa: PLR2004
    return models
