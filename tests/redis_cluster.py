"""A real Redis Cluster for tests: three masters, a replica each; nodes die, and slots move."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from attrs import Factory, define
from redis import Redis, asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisError

from authz.limiter import address
from authz.stack.discovery import free_port
from authz.stack.embedded import redis_binary
from tests.clock import wall

MASTERS: Final = 3
SLOTS: Final = 16_384
WITHIN_S: Final = 120
_POLL_S: Final = 0.02


CLUSTER: Final = "cluster"

KINDS: Final = ["one"] if wall.environ() else ["one", CLUSTER]
"""A cluster takes a clock that leaps for the silence of all its nodes."""

on_both: Final = pytest.mark.parametrize("redis_url", KINDS, indirect=True)
"""What holds for one Redis must hold for a cluster."""


def client(url: str) -> Any:
    """Return redis-py's own client, to look inside."""
    if not address.is_cluster(url):
        return asyncio.Redis.from_url(url)
    named = (pool.connection_kwargs for pool in address.pools(url))
    return _Cluster(startup_nodes=[ClusterNode(each["host"], each["port"]) for each in named])


class _Cluster(RedisCluster):
    """As redis-py has it, but KEYS asks every master."""

    async def keys(self, pattern: str = "*") -> Any:  # type: ignore[override]
        return await super().keys(pattern, target_nodes=self.PRIMARIES)


@define(eq=False)
class Node:
    """A process of the cluster."""

    port: int
    bus: int
    folder: Path
    id: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; only what it knows of the others is on a disk."""
        options: dict[str, object] = {
            "port": self.port,
            "cluster-port": self.bus,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "cluster-enabled": "yes",
            "cluster-config-file": f"nodes-{self.port}.conf",
            "cluster-node-timeout": 2500,
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": 0,
            "repl-diskless-sync-delay": 0,
        }
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [redis_binary(), *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, *command: Any) -> Any:
        """Ask this node, whatever the others say."""
        with Redis(port=self.port) as client:
            return client.execute_command(*command)

    @property
    def map(self) -> list[tuple[int, int, int]]:
        """Which slots, first and last, the masters on which ports serve, as this node sees it."""
        found = self.ask("CLUSTER", "SLOTS")
        return sorted((first, last, port) for first, last, (_, port, *_), *_ in found)

    @property
    def state(self) -> dict[str, str]:
        """Its answers to INFO and CLUSTER INFO."""
        lines = self.ask("CLUSTER", "INFO").decode().splitlines()
        of_cluster = dict(line.split(":", 1) for line in lines if ":" in line)
        return of_cluster | {name: str(value) for name, value in self.ask("INFO").items()}


@define(eq=False)
class Nodes:
    """The six nodes of a cluster; the first three are its masters at the beginning."""

    folder: Path
    all: list[Node] = Factory(list)

    @property
    def url(self) -> str:
        """What REDIS_URL says: two of the nodes know the others."""
        return f"redis+cluster://127.0.0.1:{self.all[0].port},127.0.0.1:{self.all[-1].port}"

    @property
    def alive(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.all if node.process is not None]

    def start(self) -> None:
        """Start all nodes and make them one cluster."""
        self.all = [Node(free_port(), free_port(), self.folder) for _ in range(2 * MASTERS)]
        for node in self.all:
            node.start()
        for node in self.all:
            until(lambda node=node: node.ask("PING"))  # type: ignore[misc]
            node.id = node.ask("CLUSTER", "MYID").decode()
            self.all[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        masters, replicas = self.all[:MASTERS], self.all[MASTERS:]
        for number, node in enumerate(masters):
            first, end = (SLOTS * at // MASTERS for at in (number, number + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for master, replica in zip(masters, replicas, strict=True):
            until(lambda m=master, r=replica: r.ask("CLUSTER", "REPLICATE", m.id))  # type: ignore[misc]
        self.settle()

    def settle(self) -> None:
        """Wait until all that run agree, each master with as many replicas as there may be."""
        until(self._is_settled)

    def _is_settled(self) -> bool:
        states = [node.state for node in self.alive]
        masters = [state for state in states if state["role"] == "master"]
        return (
            {("ok", str(SLOTS))} == {(each["cluster_state"], each["cluster_slots_ok"]) for each in states}
            and len({str(node.map) for node in self.alive}) == 1
            and sum(int(state["connected_slaves"]) for state in masters) == len(states) - MASTERS
        )

    def owner(self, tenant: UUID) -> Node:
        """Return the master of a tenant, as those say that run."""
        return self._node(self._owner(key_slot(str(tenant).encode())))

    def tenant(self, on: Node) -> UUID:
        """Return an id of a tenant whose master this is."""
        return next(found for found in iter(uuid4, None) if self.owner(found) is on)

    def _owner(self, slot: int) -> int:
        return next(port for first, last, port in self.alive[0].map if first <= slot <= last)

    def _node(self, port: int) -> Node:
        return next(node for node in self.all if node.port == port)

    def move(self, tenant: UUID, to: Node, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Move the slot of a tenant, key by key, as CLUSTER's own tools do."""
        slot, source = key_slot(str(tenant).encode()), self.owner(tenant)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
            meanwhile()
            source.ask("MIGRATE", "127.0.0.1", to.port, keys[0], 0, 5000)
        meanwhile()
        for node in (to, source, *(self.masters)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def move_at_once(self, tenant: UUID, to: Node, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Move the slot of a tenant as a whole, as Valkey 9 can."""
        slot, source = key_slot(str(tenant).encode()), self.owner(tenant)
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
        meanwhile()
        until(lambda: self.owner(tenant) is to)

    @property
    def masters(self) -> list[Node]:
        """The masters, as those say that run."""
        return [self._node(port) for port in sorted({port for _, _, port in self.alive[0].map})]

    def replica(self, master: Node) -> Node:
        """Return the replica of a master."""
        port = str(master.port)
        return next(node for node in self.alive if node.state.get("master_port") == port)

    def lose(self, master: Node) -> None:
        """Kill a master and its replica: nothing takes its place."""
        self.replica(master).kill()
        master.kill()

    def mend(self) -> None:
        """Start what does not run, and wait until the cluster is well."""
        for node in self.all:
            if node.process is None:
                node.start()
        self.settle()

    def kill(self) -> None:
        """End all nodes."""
        for node in self.all:
            node.kill()


def until(is_met: Callable[[], object]) -> None:
    """Ask again, errors of Redis apart, until it is so."""
    give_up = time.monotonic() + WITHIN_S
    while True:
        with contextlib.suppress(RedisError, OSError):
            if is_met():
                return
        assert time.monotonic() < give_up, "the cluster has not come to rest"
        time.sleep(_POLL_S)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Nodes]:
    """Run a cluster meanwhile."""
    nodes = Nodes(folder)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.kill()
