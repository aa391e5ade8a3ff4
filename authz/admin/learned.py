"""The figures by which tokens are counted that no backend reported: show them, and have them learned anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import attrs
from attrs import frozen
from cyclopts import Parameter

import sql
from authz.accounts.session import opened
from authz.accounts.tenants import no_tenant
from authz.admin import output
from authz.admin.options import ChangeOptions, ListOptions
from authz.errors import CommandError
from authz.models import canonical

if TYPE_CHECKING:
    from typing import Any
    from uuid import UUID

    import asyncpg

    from authz.accounts.session import Session

_queries = sql.load("learned")

Model = Annotated[str | None, Parameter(help="Only of this model.")]


@frozen
class Learned:
    """What the answers of a model have shown, to a tenant or (key) one of its keys; None is nothing yet."""

    model: str
    tenant: str | None
    key: str | None
    answers: int
    input_bytes_per_token: float | None
    embedding_bytes_per_token: float | None
    output_bytes_per_token: float | None
    output_tokens_per_delta: float | None
    tool_bytes_per_token: float | None
    output_tokens_per_s: float | None
    prompt_tokens_per_s: float | None
    load_ms: float | None
    answer_tokens: float | None


@frozen
class Forgotten:
    """What is learned anew: the models, and from how many answers their figures were."""

    models: list[str]
    answers: int


async def learned(session: Session, *, model: str | None, tenant: str | None) -> list[Learned]:
    """List the figures of every tenant by model; of one that is named, those of its keys too."""
    async with session.store.connection() as connection:
        tenant_id = await _tenant(connection, tenant)
        name = None if model is None else canonical(model)
        return [_learned(row) async for row in _queries.learned(connection, model=name, tenant=tenant_id)]


def _learned(row: asyncpg.Record) -> Learned:
    fields: dict[str, Any] = {
        name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()
    }
    return Learned(**fields)


async def forget(session: Session, *, model: str | None, tenant: str | None) -> Forgotten:
    """Forget figures, so that metering learns them anew. Raises CommandError if there are none."""
    async with session.store.connection() as connection, connection.transaction():
        tenant_id = await _tenant(connection, tenant)
        name = None if model is None else canonical(model)
        await _queries.lock_figures(connection)
        row = await _queries.forget_figures(connection, model=name, tenant=tenant_id)
        if not row["models"]:
            raise CommandError("Nothing of this has been learned: see `neuronetz-gateway learned list`.")
        forgotten = Forgotten(row["models"], row["answers"])
        old = {"models": forgotten.models, "answers": forgotten.answers}
        await session.audit(connection, "learned_figures_reset", tenant=tenant_id, old=old)
    return forgotten


async def _tenant(connection: Any, name: str | None) -> UUID | None:
    if name is None:
        return None
    found: UUID | None = await _queries.tenant_named(connection, name=name)
    if found is None:
        raise no_tenant(name)
    return found


async def learned_list_command(
    *,
    model: Model = None,
    tenant: Annotated[str | None, Parameter(help="Only of this tenant, and by key.")] = None,
    options: ListOptions = ListOptions(),
) -> int:
    """Show the figures by which tokens are counted that no backend reported.

    Example: neuronetz-gateway learned list --model llama3.2
    """
    async with opened(options.state) as session:
        rows = await learned(session, model=model, tenant=tenant)
    rest = output.behind(rows, _name, after=options.after)
    found = output.page(rest, _name, limit=options.limit)
    if options.json:
        output.show_list(found)
        return 0
    names = attrs.fields_dict(Learned)
    columns = [name for name in names if any(getattr(row, name) is not None for row in found)]
    output.show_table(found, columns=columns, empty="Nothing has been learned: the defaults count.")
    return 0


def _name(row: Learned) -> str:
    """Return what --after takes; no name of these has a comma."""
    return f"{row.model},{row.tenant or ''},{row.key or ''}"


async def learned_reset_command(
    *,
    model: Model = None,
    tenant: Annotated[str | None, Parameter(help="Only of this tenant and its keys.")] = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Have figures learned anew: until then the defaults count, and of a model what others have shown.

    What was billed stays. Without --model and --tenant, everything is forgotten.

    Example: neuronetz-gateway learned reset --model llama3.2
    """
    async with opened(options.state, actor=options.actor) as session:
        forgotten = await forget(session, model=model, tenant=tenant)
    if options.json:
        output.show_value(forgotten)
    else:
        listed = ", ".join(forgotten.models)
        output.say(f"What {forgotten.answers:,} answers had shown of {listed} is forgotten.")
    return 0
