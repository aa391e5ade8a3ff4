"""What is compared: a backend alone, a stock forward_auth in two forms, the gateway with every limit on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from authz.stack.build import caddy_binary
from authz.stack.discovery import free_port
from authz.types import Limits
from tests.bench.load import Target
from tests.gateway import keymaker, running
from tests.up.stacks import answers, until

DIRECT: Final = "direct"
STOCK: Final = "forward_auth, 204"
BARE: Final = "forward_auth, uvicorn"
BEFORE: Final = "before"
OURS: Final = "gateway"

UNREACHED: Final = Limits(
    requests_per_minute=10**8,
    tokens_per_minute=10**9,
    concurrency=10**6,
    tokens_per_day=10**12,
    tokens_per_month=10**12,
    tokens_total=10**12,
)
"""Every limit that there is, none of which is reached."""

_SITE: Final = """{{
	admin off
	persist_config off
}}
http://:{port} {{
	bind 127.0.0.1
	handle /healthz {{
		respond 200
	}}
	handle {{
		forward_auth {authz} {{
			uri /verify
			copy_headers X-Nz-Grant
		}}
		reverse_proxy {backend}
	}}
}}
http:// {{
	bind unix/{folder}/always.sock
	respond 204
}}
"""


@frozen
class Contender:
    """One of those that are compared."""

    name: str
    target: Target
    processes: Mapping[str, int]
    """Of each program that it is made of, the process that began it."""


@contextmanager
def contenders(backend_url: str, folder: Path, *, before: Path | None) -> Iterator[list[Contender]]:
    """Run all four in front of the same backend, and the gateway of another checkout if one is named."""
    with ExitStack() as stack:
        yield [
            Contender(DIRECT, Target(backend_url), {}),
            stack.enter_context(stock(backend_url, folder)),
            stack.enter_context(bare(backend_url, folder)),
            *(stack.enter_context(ours(backend_url, BEFORE, checkout=each)) for each in [before] if each),
            stack.enter_context(ours(backend_url)),
        ]


@contextmanager
def stock(backend_url: str, folder: Path, *, path: str = "/api/chat") -> Iterator[Contender]:
    """Run a stock Caddy whose forward_auth always gets a 204, from a second site of the same Caddy."""
    with _caddy(backend_url, folder / "stock", "unix/{folder}/always.sock") as (url, pid):
        yield Contender(STOCK, Target(url, path=path), {"caddy": pid})


@contextmanager
def bare(backend_url: str, folder: Path) -> Iterator[Contender]:
    """Run the same with two applications that do nothing but answer 204, as the gateway has two of authz."""
    sockets = [str(folder / f"bare-{number}.sock") for number in range(2)]
    options = ("--loop", "uvloop", "--http", "httptools", "--ws", "none", "--lifespan", "off")
    quiet = ("--no-access-log", "--log-level", "warning")
    argv = [sys.executable, "-m", "uvicorn", "tests.bench.bare:app", *options, *quiet]
    with ExitStack() as stack:
        apps = [stack.enter_context(_process([*argv, "--uds", each])) for each in sockets]
        until(lambda: all(Path(each).exists() for each in sockets))
        authz = " ".join(f"unix/{each}" for each in sockets)
        url, caddy = stack.enter_context(_caddy(backend_url, folder / "bare", authz))
        yield Contender(BARE, Target(url), {"caddy": caddy, "uvicorn 0": apps[0], "uvicorn 1": apps[1]})


@contextmanager
def ours(backend_url: str, name: str = OURS, *, checkout: Path | None = None) -> Iterator[Contender]:
    """Run the gateway as `up` does, with a key under every limit of its own and of its tenant."""

    async def key() -> str:
        async with keymaker(gateway) as make:
            return await make(tenant=UNREACHED, key=UNREACHED)

    with running(backend_url, checkout, OLLAMA_URL=backend_url) as gateway:
        pids = {child["name"]: child["pid"] for child in gateway.stack.facts()["processes"]}
        yield Contender(name, Target(gateway.url, asyncio.run(key())), pids)


@contextmanager
def _caddy(backend_url: str, folder: Path, authz: str) -> Iterator[tuple[str, int]]:
    folder.mkdir()
    port, config = free_port(), folder / "Caddyfile"
    asked = authz.format(folder=folder)
    config.write_text(_SITE.format(port=port, authz=asked, backend=backend_url, folder=folder))
    argv = [str(caddy_binary(os.environ, lambda _: None)), "run", "--config", str(config)]
    environ = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with _process(argv, environ) as pid:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/healthz"))
        yield url, pid


@contextmanager
def _process(argv: list[str], environ: Mapping[str, str] | None = None) -> Iterator[int]:
    with subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()
