"""Find the backends of a stack: those of the settings, else a local Ollama, else the demo."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from typing import TYPE_CHECKING, Final

from authz.backends import probe
from authz.backends.backend import DEFAULT_NAME, Backend
from authz.errors import CommandError, LimiterUnavailable, SettingsError
from authz.limiter.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCAL_OLLAMA: Final = Backend(DEFAULT_NAME, "http://127.0.0.1:11434")
DEMO_NAME: Final = "demo"


async def discover(configured: Sequence[Backend], *, is_demo_wanted: bool) -> tuple[Backend, ...]:
    """Find the backends to use; none means the demo. Raises CommandError if a configured one is silent."""
    if is_demo_wanted:
        return ()
    if not configured:
        return (LOCAL_OLLAMA,) if await failure(LOCAL_OLLAMA) is None else ()
    failures = await asyncio.gather(*(failure(backend) for backend in configured))
    for backend, why in zip(configured, failures, strict=True):
        if why is not None:
            message = (
                f"The backend {backend.name} at {backend.url} {why}: "
                "start it, or correct OLLAMA_BACKENDS or OLLAMA_URL."
            )
            raise CommandError(message)
    return tuple(configured)


async def failure(backend: Backend) -> str | None:
    """Return why a backend can't serve as an Ollama, or None when it can."""
    return (await probe.probe(backend)).problem


async def some_model(found: Sequence[Backend]) -> str | None:
    """Return the name of a model that a first request may ask for, if there is any."""
    for backend in found:
        for model in (await probe.probe(backend)).models:
            return model
    return None


def demo_backend() -> Backend:
    """Return a demo backend on a port that is free now."""
    return Backend(DEMO_NAME, f"http://127.0.0.1:{free_port()}")


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens.

    It lies below those that kernels lend to outgoing connections (Linux from 32,768, macOS from
    49,152), since any connection could take one of them before the server that it is meant for.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


async def refuse_unfit_redis(url: str) -> None:
    """Refuse a Redis of the caller's own that does not answer or can't be trusted with budgets."""
    try:
        limiter = await Limiter.connect(url)
    except (LimiterUnavailable, SettingsError) as error:
        raise CommandError(str(error)) from error
    await limiter.close()


def refuse_taken(port: int) -> None:
    """Nothing else may listen on our port, or clients would talk to that."""
    with socket.socket() as probe:
        # As Caddy does: a connection that is still closing does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = (
                f"Port {port} can't be used ({error.strerror}): "
                "stop what listens there, or choose another with --port."
            )
            raise CommandError(message) from error
