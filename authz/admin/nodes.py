"""Nodes: a Caddy process and its journal. One that never returns must be retired, or rebuilds wait for it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (attrs reads it)
from typing import Annotated
from uuid import UUID

from attrs import frozen
from cyclopts import Parameter

import sql
from authz.accounts.session import opened
from authz.admin import output
from authz.admin.options import ChangeOptions, ListOptions
from authz.errors import CommandError, UsageError

_queries = sql.load("admin")


@frozen
class Node:
    """A node as Postgres knows it."""

    node: UUID
    read_until: datetime | None
    retired: datetime | None
    created: datetime


async def node_list_command(*, options: ListOptions = ListOptions()) -> int:
    """List the nodes and how far their journals have been read.

    Example: neuronetz-gateway node list
    """
    async with opened(options.state) as session, session.store.connection() as connection:
        rows = [
            Node(row["node"], row["eof_at"], row["retired_at"], row["created_at"])
            async for row in _queries.list_nodes(connection)
        ]
    rest = output.behind(rows, lambda row: row.node, after=options.after)
    nodes = output.page(rest, lambda row: row.node, limit=options.limit)
    if options.json:
        output.show_list(nodes)
    else:
        empty = "No node yet: start Caddy and metering."
        output.show_table(nodes, columns=("node", "read_until", "retired", "created"), empty=empty)
    return 0


async def node_retire_command(
    node: Annotated[str, Parameter(name="NODE", help="As `node list` shows it.")],
    /,
    *,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Retire a node whose journal never comes back; what it left open is settled at its reservation.

    Example: neuronetz-gateway node retire 7b388c13-49fb-4295-8381-b270c42b5f7c
    """
    try:
        node_id = UUID(node)
    except ValueError as error:
        raise UsageError(f"{node!r} is no node id: see `neuronetz-gateway node list`.") from error
    async with (
        opened(options.state, actor=options.actor) as session,
        session.store.connection() as connection,
        connection.transaction(),
    ):
        if await session.limiter.lag_ms(node_id) is not None:
            raise CommandError(f"Node {node} is alive: stop its Caddy and metering, and wait a minute.")
        if await _queries.retire_node(connection, node=node_id) is None:
            raise CommandError(f"No node {node} is in use: see `neuronetz-gateway node list`.")
        await session.audit(connection, "node_retired", new={"node": node})
    if options.json:
        output.show_json({"node": node})
    else:
        output.say(f"Node {node} is retired.")
    return 0
