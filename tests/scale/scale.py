"""`just scale-test`: two gateways with shared stores on seven machines lose one part after the other.

Two nodes (Caddy, authz and metering each) share a Redis Cluster of three masters with replicas and a
PostgreSQL with a hot standby; each machine is a network namespace with a folder of its own, and all
between them is TCP with TLS. Clients ask both nodes with the keys of the same tenants while processes
are killed, masters fail over, a Caddy is drained and replaced, and the machines of a master and of
PostgreSQL's primary are cut off. Afterwards no limit was exceeded, the bill is the backend's, and of
the requests only those in flight on a killed Caddy were lost: all others were answered, or refused with
Retry-After for at most 15 s. Exits 1 otherwise. It needs root, and Debian's packages postgresql and
redis-server, as those of wheels speak no TLS.

python -m tests.scale.scale [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from attrs import Factory, frozen

from authz.stack.folder import write_atomically
from tests.backend.app import backend
from tests.backend.serving import served
from tests.chaos import evidence
from tests.chaos.chaos import show
from tests.chaos.load import ANSWERED_WITHIN_S
from tests.chaos.questions import Manner
from tests.chaos.world import Behind, populate, session, strange_keys
from tests.scale import certificates, network, nodes, postgres, valkey
from tests.scale.aftermath import Aftermath, Blow
from tests.scale.balancer import Balancer, TimedLoad
from tests.scale.certificates import Authority
from tests.scale.network import HERE, Machine, Unfit
from tests.scale.nodes import Node
from tests.scale.postgres import Pair, Server
from tests.scale.valkey import Cluster
from tests.up.stacks import answers, until

DEADLINE_S: Final = 20
CALM_S: Final = 6.0
"""Nobody is refused for so long before the next blow."""
RECOVERED_WITHIN_S: Final = 60.0
_MODELS: Final = ("demo", "demo-embed")
_MACHINES: Final = ("node-a", "node-b", "redis-a", "redis-b", "redis-c", "postgres-a", "postgres-b")


@frozen
class Site:
    """All that runs."""

    nodes: tuple[Node, ...]
    cluster: Cluster
    pair: Pair
    behind: Behind
    trust: ssl.SSLContext


@frozen
class Run:
    """The clients of a run, and what is done to the site meanwhile."""

    site: Site
    load: TimedLoad
    balancer: Balancer
    blows: list[Blow] = Factory(list)

    async def go(self) -> None:
        """Let everything happen, one thing after the other."""
        await self.load.learn()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(self.load.blow())
            await self._calm(Blow("begin", time.monotonic()))
            for name, act in self._acts():
                await self._strike(name, act)
            self.load.is_over = True
            await asking
        await self.load.touch()

    def _acts(self) -> tuple[tuple[str, Callable[[], Awaitable[object]]], ...]:
        first, second = self.site.nodes
        return (
            ("authz killed", partial(asyncio.to_thread, first.kill, "authz-0")),
            ("metering killed", partial(asyncio.to_thread, second.kill, "metering")),
            ("Redis master killed", self._lose_master),
            ("Redis master is back", self._mend_cluster),
            ("machine of a Redis master cut off", self._cut_off_master),
            ("Caddy killed", partial(self._kill_caddy, second)),
            ("Caddy drained and replaced", partial(self._replace_caddy, first)),
            ("PostgreSQL cut off, standby promoted", partial(asyncio.to_thread, self.site.pair.lose_primary)),
            ("authz replaced", partial(second.replace, "authz-0")),
            ("metering replaced", partial(first.replace, "metering")),
        )

    async def _strike(self, name: str, act: Callable[[], Awaitable[object]]) -> None:
        blow = Blow(name, time.monotonic())
        self.blows.append(blow)
        await act()
        blow.done_s = time.monotonic()
        await self._calm(blow)
        sys.stdout.write(f"{name}: {blow.outage_s:.1f} s\n")

    async def _calm(self, blow: Blow) -> None:
        """Wait until each node answers again and nobody has been refused for a while, so that a refusal
        belongs to one blow; else the blow has no end.
        """
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < RECOVERED_WITHIN_S:
            served_s = min(self.balancer.served_s.values())
            ended_s = max(begun_s, self.balancer.refused_s)
            if served_s > begun_s and time.monotonic() - ended_s > CALM_S:
                blow.recovered_s = ended_s
                return
            await asyncio.sleep(0.05)

    async def _busy_master(self) -> valkey.Node:
        """Return the master of the tenant with the most clients."""
        busiest = max(self.load.keys, key=lambda key: key.clients)
        return await asyncio.to_thread(self.site.cluster.master, busiest.tenant)

    async def _lose_master(self) -> None:
        await asyncio.to_thread((await self._busy_master()).kill)

    async def _cut_off_master(self) -> None:
        (await self._busy_master()).machine.cut_off()

    async def _mend_cluster(self) -> None:
        """Start what was killed, and let it be the master again: no machine may have most of them."""
        cluster = self.site.cluster
        lost = next(node for node in cluster.nodes if node.process is None)
        lost.start()
        await asyncio.to_thread(cluster.take_back, lost)

    async def _replace_caddy(self, node: Node) -> None:
        """End it in order while it is left out: what comes to a Caddy just as it closes is lost."""
        self.balancer.left_out.add(node.url)
        await node.replace("caddy")
        await asyncio.to_thread(until, partial(answers, f"{node.url}/readyz"))
        self.balancer.left_out.clear()

    async def _kill_caddy(self, node: Node) -> None:
        self.blows[-1].killed_boot = node.boot()
        await asyncio.to_thread(node.kill, "caddy")


async def scale(site: Site, *, seed: int) -> Aftermath:
    """Use a site and break it, and say what is left."""
    balancer = Balancer([node.url for node in site.nodes], site.trust)
    client = httpx.AsyncClient(transport=balancer, base_url=site.nodes[0].url, timeout=ANSWERED_WITHIN_S)
    settings = site.nodes[0].settings
    async with session(settings) as operator:
        keys = await populate(operator, site.behind.models)
    run = Run(site, TimedLoad(seed, keys, strange_keys(settings), client), balancer)
    async with client:
        await run.go()
    # Only now: the stores have been replaced under every connection of before.
    async with session(settings) as operator:
        aftermath = Aftermath(settings, site.behind, operator.limiter, run.load, tuple(run.blows))
        await aftermath.judge(quiet_within_s=DEADLINE_S + 62 + 60)
        return aftermath


@asynccontextmanager
async def running(folder: Path, machines: dict[str, Machine], authority: Authority) -> AsyncIterator[Site]:
    """Bring everything up, from the stores to the nodes."""
    with _behind(folder, authority) as behind, _stores(machines, authority) as (pair, cluster):
        pepper = folder / "pepper"
        write_atomically(pepper, secrets.token_hex(32).encode(), mode=0o400)
        environ = {
            "DATABASE_URL": pair.url,
            "REDIS_URL": cluster.url,
            "OLLAMA_URL": behind.url,
            "GATEWAY_PEPPER_FILE": str(pepper),
            "GATEWAY_AUTHZ_PROCESSES": "1",
            "GATEWAY_DEADLINE_S": str(DEADLINE_S),
            "SSL_CERT_FILE": str(authority.shown),
        }
        on = (machines["node-a"], machines["node-b"])
        async with nodes.running(on, authority, environ) as gateways:
            trust = ssl.create_default_context(cafile=str(authority.shown))
            yield Site(gateways, cluster, pair, behind, trust)


@contextmanager
def _behind(folder: Path, authority: Authority) -> Iterator[Behind]:
    """Serve the backend over TLS, where the clients are."""
    here = folder / "here"
    here.mkdir()
    certificate = authority.certificate(HERE, here)
    chat, embed = _MODELS
    named = dict.fromkeys(Manner, chat) | {Manner.EMBED: embed, Manner.UNKNOWN_MODEL: "none-has-it"}
    with served(backend(*_MODELS), host=HERE, certificate=certificate.shown, key=certificate.key) as url:
        yield Behind(url, lambda _: named, partial(evidence.truths, url))


@contextmanager
def _stores(machines: dict[str, Machine], authority: Authority) -> Iterator[tuple[Pair, Cluster]]:
    """Run PostgreSQL and Redis."""
    programs = postgres.programs()
    primary, standby = (
        Server(machine, authority.certificate(machine.address, machine.folder), programs)
        for machine in (machines["postgres-a"], machines["postgres-b"])
    )
    pair = Pair(primary, standby, authority)
    on = tuple(machines[name] for name in _MACHINES if name.startswith("redis"))
    cluster = Cluster(on, authority, valkey.program())
    try:
        pair.start()
        cluster.start()
        yield pair, cluster
    finally:
        cluster.kill()
        pair.kill()


async def _run(folder: Path, machines: dict[str, Machine], authority: Authority, seed: int) -> Aftermath:
    async with running(folder, machines, authority) as site:
        return await scale(site, seed=seed)


def main() -> int:
    """Read the arguments, run, and say whether every rule held."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.scale", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same questions")
    arguments = parser.parse_args()
    try:
        network.enter()
        postgres.programs()
        valkey.program()
    except Unfit as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        authority = certificates.authority(folder)
        os.environ["SSL_CERT_FILE"] = str(authority.shown)  # the clients of this process trust it, too
        with network.machines(folder, _MACHINES) as machines:
            aftermath = asyncio.run(_run(folder, machines, authority, arguments.seed))
    show(aftermath.table, aftermath.wrongs)
    for loss in aftermath.losses():
        sys.stdout.write(f"{loss}\n")
    is_right = aftermath.table.is_right
    sys.stdout.write(f"seed {arguments.seed}: {'all right' if is_right else 'WRONG'}\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
