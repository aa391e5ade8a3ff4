"""A cluster over TLS on three machines: on each a master, and the replica of another one."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import subprocess
from typing import Any, Final
from uuid import UUID

from attrs import define, field
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.redis_cluster import SLOTS
from tests.scale.certificates import Authority, Certificate
from tests.scale.network import Machine, Unfit
from tests.up.stacks import until

PORT: Final = 6379
_SERVERS: Final = ("valkey-server", "redis-server")
_NO_TLS: Final = b"Failed finding TLS support"


def program() -> str:
    """Return a server that speaks TLS, which those of wheels do not. Raises Unfit."""
    for name in _SERVERS:
        argv = (name, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/dev/null")
        with contextlib.suppress(FileNotFoundError):
            if _NO_TLS not in subprocess.run(argv, check=False, capture_output=True).stdout:
                return name
    raise Unfit("There is no valkey-server and no redis-server with TLS: install Debian's redis-server.")


@define(eq=False)
class Node:
    """A process of the cluster."""

    machine: Machine
    port: int
    certificate: Certificate
    cluster: Cluster
    process: subprocess.Popen[bytes] | None = None
    id: str = ""

    def start(self) -> None:
        """Run it; only what it knows of the others is on a disk."""
        options: dict[str, object] = {
            "port": 0,
            "tls-port": self.port,
            "bind": self.machine.address,
            "tls-cert-file": self.certificate.shown,
            "tls-key-file": self.certificate.key,
            "tls-ca-cert-file": self.cluster.authority.shown,
            "tls-auth-clients": "no",
            "tls-replication": "yes",
            "tls-cluster": "yes",
            "requirepass": self.cluster.password,
            "masterauth": self.cluster.password,
            "dir": self.machine.folder,
            "save": "",
            "maxmemory-policy": "noeviction",
            "cluster-enabled": "yes",
            "cluster-config-file": f"nodes-{self.port}.conf",
            "cluster-node-timeout": 2500,
            "cluster-replica-validity-factor": 0,
            "repl-diskless-sync-delay": 0,
        }
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with (self.machine.folder / f"log-{self.port}").open("ab") as log:
            argv = self.machine.server(self.cluster.program, *given)
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, *command: Any) -> Any:
        """Ask this node, whatever the others say."""
        client = Redis(
            host=self.machine.address,
            port=self.port,
            password=self.cluster.password,
            ssl=True,
            ssl_ca_certs=str(self.cluster.authority.shown),
            ssl_check_hostname=True,
            ssl_cert_reqs=ssl.CERT_REQUIRED,
        )
        with client:
            ask: Any = client.execute_command
            return ask(*command)

    @property
    def slots(self) -> list[tuple[int, int, str, int]]:
        """Which slots, first and last, which masters serve, as this node sees it."""
        found = self.ask("CLUSTER", "SLOTS")
        return sorted((first, last, host.decode(), port) for first, last, (host, port, *_), *_ in found)

    def is_well(self, others: int) -> bool:
        """Return whether it knows of a master for every slot, and of so many others."""
        try:
            lines = self.ask("CLUSTER", "INFO").decode().split()
            nodes = self.ask("CLUSTER", "NODES").decode()
        except (RedisError, OSError):
            return False
        states = {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}", f"cluster_known_nodes:{others + 1}"}
        return states <= set(lines) and "fail" not in nodes and len(nodes.splitlines()) == others + 1


@define(eq=False)
class Cluster:
    """Six nodes on three machines."""

    machines: tuple[Machine, ...]
    authority: Authority
    program: str
    password: str = field(factory=lambda: secrets.token_hex(16), repr=False)
    nodes: list[Node] = field(factory=list)

    @property
    def url(self) -> str:
        """What REDIS_URL says: a node on each machine knows the others."""
        hosts = ",".join(f"{machine.address}:{PORT}" for machine in self.machines)
        options = f"ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs={self.authority.shown}"
        return f"rediss+cluster://:{self.password}@{hosts}?{options}"

    def start(self) -> None:
        """Start all nodes and make them one cluster."""
        for machine in self.machines:
            certificate = self.authority.certificate(machine.address, machine.folder)
            self.nodes += [Node(machine, port, certificate, self) for port in (PORT, PORT + 1)]
        for node in self.nodes:
            node.start()
        masters = self.nodes[::2]
        replicas = [*self.nodes[3::2], self.nodes[1]]
        for node in self.nodes:
            until(lambda node=node: _does(node, "PING"))  # type: ignore[misc]
            node.id = node.ask("CLUSTER", "MYID").decode()
            masters[0].ask("CLUSTER", "MEET", node.machine.address, node.port)
        for number, node in enumerate(masters):
            first, end = (SLOTS * at // len(masters) for at in (number, number + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for master, replica in zip(masters, replicas, strict=True):
            until(lambda m=master, r=replica: _does(r, "CLUSTER", "REPLICATE", m.id))  # type: ignore[misc]
        self.settle()
        for replica in replicas:
            until(lambda r=replica: _role(r).get("master_link_status") == "up")  # type: ignore[misc]

    def settle(self) -> None:
        """Wait until all that run agree that all is well."""
        alive = [node for node in self.nodes if node.process is not None]
        until(lambda: all(node.is_well(len(self.nodes) - 1) for node in alive))

    def take_back(self, node: Node) -> None:
        """Let a replica take the place of its master, in order."""
        self.settle()
        until(lambda: _role(node).get("master_link_status") == "up")
        node.ask("CLUSTER", "FAILOVER")
        until(lambda: _role(node).get("role") == "master")
        self.settle()

    def master(self, tenant: UUID) -> Node:
        """Return the master of a tenant."""
        slot = key_slot(str(tenant).encode())
        alive = next(node for node in self.nodes if node.process is not None)
        for first, last, host, port in alive.slots:
            if first <= slot <= last:
                return next(n for n in self.nodes if (n.machine.address, n.port) == (host, port))
        raise AssertionError("no node has the slot")

    def kill(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()


def _does(node: Node, *command: Any) -> bool:
    with contextlib.suppress(RedisError, OSError):
        node.ask(*command)
        return True
    return False


def _role(node: Node) -> dict[str, Any]:
    """Return what a node says of its replication, nothing while it does not answer."""
    with contextlib.suppress(RedisError, OSError):
        found: dict[str, Any] = node.ask("INFO", "replication")
        return found
    return {}
