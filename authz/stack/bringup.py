"""The story of one stack: build, stores, schema, backends, services, first key, then watching.

Runs in the process that owns the children: the command itself, or a supervisor of its own.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import httpx
import msgspec
from attrs import evolve, frozen

from authz.configuration import variables
from authz.errors import CommandError, GatewayError
from authz.schema import migrate, newer
from authz.stack import discovery, embedded, facts, plan, snippets
from authz.stack.build import caddy_binary
from authz.stack.checklist import News, Stage, elapsed_ms, step
from authz.stack.facts import Facts
from authz.stack.first import first_key
from authz.stack.folder import Stores, hold, make_folder, save_stores
from authz.stack.reload import reload_services
from authz.stack.supervisor import Supervisor, myself

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from authz.backends.backend import Backend
    from authz.settings import Settings
    from authz.stack.checklist import Step
    from authz.stack.folder import StateFolder

_LEFTOVER_S: Final = 20.0
_READY_S: Final = 120.0
_POLL_S: Final = 0.05
_DEMO_NOTE: Final = "DEMO: invented answers; set OLLAMA_URL for a real Ollama"


@frozen(kw_only=True)
class Wish:
    """The options of `up`."""

    state: Path
    port: int
    is_demo_wanted: bool
    is_reload_wanted: bool = False
    environ: Mapping[str, str]

    @property
    def url(self) -> str:
        """Return where clients will reach the gateway."""
        return f"http://127.0.0.1:{self.port}"


def supervise(wish: Wish, report: Callable[[News], None]) -> None:
    """Run a stack until it is signalled to stop (SIGINT, SIGTERM) or a child keeps dying."""
    # Whatever comes before the event loop ends by either signal in the same way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    folder = make_folder(wish.state)
    with hold(folder), suppress(KeyboardInterrupt, asyncio.CancelledError):
        last = facts.load_facts(folder)
        # The children of a supervisor that was killed end by themselves; this waits for them.
        facts.end(last.processes if last else (), timeout_s=_LEFTOVER_S)
        first = Facts(url=wish.url, supervisor=myself())
        facts.save_facts(folder, first)
        discovery.refuse_taken(wish.port)
        chosen = _settings(wish, folder)
        with step("backend", report) as finding:
            found = asyncio.run(discovery.discover(chosen.backends, is_demo_wanted=wish.is_demo_wanted))
            finding.note(", ".join(f"{backend.name} {backend.url}" for backend in found) or _DEMO_NOTE)
        with step("Caddy", report) as building:
            binary = caddy_binary(wish.environ, building.note)
        asyncio.run(_Stack(wish, folder, first, chosen, found, binary, report, began).run())


def _settings(wish: Wish, folder: StateFolder) -> Settings:
    """Load the caller's settings, with the embedded stores where they name none."""
    stores = Stores(embedded.postgres_url(folder.path), embedded.redis_url(folder.path))
    save_stores(folder, stores)
    chosen = variables.load(wish.environ, state=folder.path)
    save_stores(folder, Stores(chosen.database_url, chosen.redis_url))
    return chosen


@frozen
class _Stack:
    wish: Wish
    folder: StateFolder
    first: Facts
    chosen: Settings
    found: tuple[Backend, ...]
    binary: Path
    report: Callable[[News], None]
    began: float

    async def run(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        supervisor, failure = None, None
        try:
            async with asyncio.TaskGroup() as tasks:
                supervisor = Supervisor(self.folder, self.first, self.report, tasks)
                key = await self._start(supervisor)
                supervisor.announce(evolve(supervisor.facts, is_ready=True))
                self.report(News(Stage.READY, text=key or "", elapsed_ms=elapsed_ms(self.began)))
                if self.wish.is_reload_wanted:
                    await reload_services(
                        supervisor,
                        self.wish.environ,
                        self.report,
                        authz_processes=self.chosen.authz_processes,
                    )
                else:
                    await asyncio.Event().wait()
        except* GatewayError as failures:
            # Not raised here: what leaves this clause leaves it in a group, which is no GatewayError.
            failure = failures.exceptions[0]
        finally:
            if supervisor is not None:
                supervisor.announce(evolve(supervisor.facts, is_ready=False))
                await supervisor.stop()
        if failure is not None:
            raise CommandError(str(failure)) from failure

    async def _start(self, supervisor: Supervisor) -> str | None:
        found = await self._start_backends(supervisor)
        await self._start_stores(supervisor)
        with step("schema", self.report) as migrating:
            await asyncio.to_thread(migrate, self.chosen.database_url)
            migrating.note(await newer(self.chosen.database_url) or "")
        await self._start_services(supervisor, found)
        with step("gateway ready", self.report) as waiting:
            await until(lambda: self._is_ready(waiting), what="the gateway")
        with step("first key", self.report) as making:
            first = await first_key(self.folder.path)
            making.note("made" if first.secret else "exists already")
        model = await discovery.some_model(found)
        supervisor.announce(evolve(supervisor.facts, tenant=first.tenant, model=model))
        return first.secret

    async def _start_stores(self, supervisor: Supervisor) -> None:
        path, chosen = self.folder.path, self.chosen
        if chosen.database_url == embedded.postgres_url(path):
            with step("PostgreSQL", self.report):
                await supervisor.start(embedded.postgres_program(path))
                await until(lambda: answers(embedded.postgres_answers, path), what="PostgreSQL")
        if chosen.redis_url == embedded.redis_url(path):
            with step("Redis", self.report):
                await supervisor.start(embedded.redis_program(path))
                await until(lambda: answers(embedded.redis_answers, path), what="Redis")
        else:
            await discovery.refuse_unfit_redis(chosen.redis_url)

    async def _start_backends(self, supervisor: Supervisor) -> tuple[Backend, ...]:
        found = self.found
        if not found:
            found = (discovery.demo_backend(),)
            await supervisor.start(plan.demo_program(self.folder, found[0], self.wish.environ))
        return found

    async def _start_services(self, supervisor: Supervisor, found: tuple[Backend, ...]) -> None:
        change = snippets.plan_change(self.folder.backends, found)
        caddy = plan.caddy_environ(self.folder, self.wish.port, self.chosen, self.wish.environ)
        with step("Caddyfile", self.report), snippets.staged(change) as staged:
            await plan.validate_caddy(self.binary, {**caddy, "GATEWAY_BACKENDS": str(staged)})
        change.write_snippets()
        change.tidy()
        change.write_list()
        environ = plan.service_environ(self.folder, self.wish.environ)
        for index in range(self.chosen.authz_processes):
            await supervisor.start(plan.authz_program(self.folder, index, environ))
        await supervisor.start(plan.metering_program(self.folder, environ))
        if not self.found:
            # Caddy's first health check must find it, the next is 10 s later.
            await until(lambda: is_live(found[0]), what="the demo backend")
        await supervisor.start(plan.caddy_program(self.folder, self.binary, caddy))

    async def _is_ready(self, waiting: Step) -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            try:
                answer = await client.get(f"{self.wish.url}/readyz")
            except httpx.TransportError:
                return False
        waiting.note("" if answer.is_success else _missing(answer.content))
        return answer.is_success


class _Readiness(msgspec.Struct):
    missing: list[str] = []


def _missing(body: bytes) -> str:
    try:
        return " ".join(msgspec.json.decode(body, type=_Readiness).missing)
    except msgspec.DecodeError:
        return "Caddy does not reach authz yet"


async def is_live(backend: Backend) -> bool:
    """Return whether a backend answers."""
    return await discovery.failure(backend) is None


async def answers(probe: Callable[[Path], bool], path: Path) -> bool:
    """Ask a store without holding up the event loop."""
    return await asyncio.to_thread(probe, path)


async def until(is_met: Callable[[], Awaitable[bool]], *, what: str) -> None:
    """Wait for something that must come soon."""
    try:
        async with asyncio.timeout(_READY_S):
            while True:
                if await is_met():
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        message = f"{what} was not ready within {_READY_S:.0f} s: `neuronetz-gateway logs` says why."
        raise CommandError(message) from None
