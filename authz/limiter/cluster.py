"""A Redis Cluster: one link to each master, found by the slot of a tenant's keys.

Nothing is redirected. A command that meets another master than the map says is refused by the cluster,
and fails as one to a dead Redis does; the map is read again each half a second. A slot that has come to
another master, by a failover or by a migration, has a foreign run there, so its tenants count as lost
and are rebuilt from Postgres, while those of the other masters go on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError, ResponseError

from authz import supervise
from authz.errors import LimiterUnavailable
from authz.limiter import address
from authz.limiter.address import Server
from authz.limiter.connection import NO_CLUSTER, TURN_S, Pipeline, answer, disconnect

if TYPE_CHECKING:
    from uuid import UUID

    from authz.limiter.connection import Link, Look

ASK_WITHIN_S: Final = 1.0
"""How long a node that is only asked for the map may take."""

UNCOVERED: Final = "Redis Cluster has slots without a master: start it, or give them to another."


class Cluster:
    """Keeps the links to all masters up, whichever they are."""

    def __init__(self, url: str, *, on_connect: Look, on_turn: Look) -> None:
        self._url = url
        self._seeds = address.pools(url)
        self._nodes: tuple[Any, ...] = ()
        self._on_connect = on_connect
        self._on_turn = on_turn
        self._masters: dict[str, Pipeline] = {}
        self._owners: list[Pipeline | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._map: object = None
        self._reason = "Redis Cluster has not been reached yet: try again in a second."
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read the map, and to follow it without end, in the background."""
        self._keeper = asyncio.create_task(supervise.continually("cluster", self._keep))

    async def tried(self) -> None:
        """Wait for the end of the first attempt to reach every master, whatever came of it."""
        await self._tried.wait()
        await asyncio.gather(*(master.tried() for master in self._masters.values()))

    async def close(self) -> None:
        """Close all connections; whoever waits for an answer fails."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.gather(*(master.close() for master in self._masters.values()))

    def of(self, tenant: UUID) -> Link:
        """Return the link to the master of a tenant; raises LimiterUnavailable while there is none."""
        owner = self._owners[_slot(tenant)]
        if owner is None:
            raise LimiterUnavailable(self._reason)
        return owner.link

    def links(self) -> list[Link]:
        """Return every living link. Raises LimiterUnavailable, with the reason, without one."""
        found = []
        for master in self._masters.values():
            with suppress(LimiterUnavailable):
                found.append(master.link)
        if not found:
            raise LimiterUnavailable(self._reason)
        return found

    def ready(self) -> None:
        """Raise LimiterUnavailable, with the reason, if not every tenant's master can be asked."""
        if None in self._owners:
            raise LimiterUnavailable(self._reason)
        for master in self._masters.values():
            master.ready()

    async def _keep(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(TURN_S)

    async def refresh(self) -> None:
        """Read the map, and follow it if it has changed."""
        try:
            host, slots = await self._look()
            if slots != self._map:
                await self._follow(host, slots)
                self._map = slots
        except LimiterUnavailable as error:
            self._reason = str(error)
        finally:
            self._tried.set()

    async def _look(self) -> tuple[str, list[Any]]:
        """Return the map by a master that reaches most of the others, else by any node; and its host."""
        with suppress(LimiterUnavailable):
            for link in self.links():
                with suppress(LimiterUnavailable):
                    asked = link.send("CLUSTER", "INFO"), link.send("CLUSTER", "SLOTS")
                    state, slots = await asyncio.gather(*map(answer, asked))
                    if b"cluster_state:ok" in state:
                        return link.server.name.rpartition(":")[0], slots
        reason = ""
        for pool in (*self._nodes, *self._seeds):
            try:
                slots = await _ask(pool)
            except ResponseError as error:
                is_none = "cluster support disabled" in str(error)
                reason = NO_CLUSTER if is_none else f"Redis Cluster refused to name its masters: {error}"
            except (RedisError, OSError) as error:  # a TimeoutError is an OSError
                kind = type(error).__name__
                reason = f"Redis Cluster can't be reached ({kind}): check REDIS_URL and that its nodes run."
            else:
                if slots:
                    return pool.connection_kwargs["host"], slots
                reason = UNCOVERED
        raise LimiterUnavailable(reason)

    async def _follow(self, asked: str, slots: list[Any]) -> None:
        """Take over a map: link to new masters, leave those that are none any more."""
        owners: list[Pipeline | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        masters: dict[str, Pipeline] = {}
        nodes: dict[str, Any] = {}
        for first, last, *listed in slots:
            names = []
            for found, port, *_ in listed:  # a node that does not know its own address names none
                host = (found or b"").decode() or asked
                names.append(f"{host}:{port}")
                nodes[names[-1]] = address.node(self._url, host, port)
            name = names[0]
            masters[name] = masters.get(name) or self._masters.get(name) or self._begin(name, nodes[name])
            owners[first : last + 1] = [masters[name]] * (last + 1 - first)
        left = [master for name, master in self._masters.items() if name not in masters]
        for master in masters.values():
            master.server.tag = next(
                f":{{{n}}}" for n in count() if owners[key_slot(str(n).encode())] is master
            )
        self._masters, self._owners, self._nodes = masters, owners, tuple(nodes.values())
        self._reason = UNCOVERED
        await asyncio.gather(*(master.close() for master in left))

    def _begin(self, name: str, pool: Any) -> Pipeline:
        server = Server(name, is_clustered=True)
        master = Pipeline(pool, on_connect=self._on_connect, on_turn=self._on_turn, server=server)
        master.start()
        return master


@lru_cache(maxsize=65_536)
def _slot(tenant: UUID) -> int:
    """Return the slot of a tenant's keys, which carry its id as their tag."""
    return key_slot(str(tenant).encode())


async def _ask(pool: Any) -> list[Any]:
    """Ask a node, on a connection for this alone, for the map as it sees it."""
    connection = pool.make_connection()
    try:
        async with asyncio.timeout(ASK_WITHIN_S):
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            slots: list[Any] = await connection.read_response()
    finally:
        await disconnect(connection)
    return slots
