"""Every setting, once: read here from the environment, passed on as a value; nothing else reads it.

Where Postgres and Redis are is taken from DATABASE_URL and REDIS_URL, else from the stores.json that
`neuronetz-gateway up` leaves in its state folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import environ
import msgspec
from attrs import frozen

from authz.backends import backend
from authz.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authz.backends.backend import Backend

DEFAULT_STATE: Final = Path(".gateway")

MOST_PROCESSES: Final = 10
"""Of authz: the Caddyfile asks them for metrics by one digit."""

LONGEST_WAIT_MS: Final = 1000
"""In line for a slot; a decision has 1.5 s in all."""


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _processes(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_PROCESSES:
        raise ValueError(text)
    return number


def _days(text: str) -> int:
    return _count(text) if int(text) else 0


def _wait(text: str) -> int:
    number = int(text)
    if not 0 <= number <= LONGEST_WAIT_MS:
        raise ValueError(text)
    return number


@environ.config(prefix="GATEWAY", frozen=True)
class Environment:
    """The environment as it is; every variable says what it is for."""

    state: str = environ.var(str(DEFAULT_STATE), help="The stack's folder.")
    pepper_file: str = environ.var("", help="Key of the key tags, one hex line each; default STATE/pepper.")
    journal: str = environ.var("", help="Caddy's journal; default STATE/journal/journal.log.")
    control: str = environ.var("", help="Caddy's control socket; default STATE/run/control.sock.")
    metrics_socket: str = environ.var("", help="Metering's metrics; default STATE/run/metering.sock.")
    max_output: int = environ.var(
        32768, converter=_count, help="Most output tokens of an answer that a budget pays for."
    )
    expected_output: int = environ.var(
        256, converter=_count, help="Output tokens assumed where a client names no cap."
    )
    context_length: int = environ.var(
        262144, converter=_count, help="Most input tokens of a model that names none."
    )
    template_tokens: int = environ.var(
        16, converter=_count, help="Tokens a model's template adds to a prompt."
    )
    deadline_s: int = environ.var(1800, converter=_count, help="Longest life of an answer.")
    queue_ms: int = environ.var(250, converter=_wait, help="How long a request waits for a slot.")
    authz_processes: int = environ.var(2, converter=_processes, help="Of authz, which `up` starts.")
    poll_s: int = environ.var(5, converter=_count, help="How often backends are asked for their models.")
    ledger_days: int = environ.var(0, converter=_days, help="Days of the ledger that are kept; 0 keeps all.")
    database_url: str = environ.var("", name="DATABASE_URL", help="PostgreSQL >= 15.")
    redis_url: str = environ.var("", name="REDIS_URL", help="Redis >= 6.2 or Valkey, noeviction.")
    ollama_url: str = environ.var("", name="OLLAMA_URL", help="The one backend, if OLLAMA_BACKENDS is unset.")
    ollama_backends: str = environ.var("", name="OLLAMA_BACKENDS", help="JSON list of backends.")


@frozen
class Settings:
    """The settings of one process, with everything derived from the environment."""

    state: Path
    database_url: str
    redis_url: str
    pepper_file: Path
    journal: Path
    control: Path
    metrics: Path
    backends: tuple[Backend, ...]
    max_output: int
    expected_output: int
    context_length: int
    template_tokens: int
    deadline_s: int
    queue_ms: int
    authz_processes: int
    poll_s: int
    ledger_days: int


class _Stores(msgspec.Struct, frozen=True):
    database_url: str
    redis_url: str


def load(environ_: Mapping[str, str], *, state: Path | None = None) -> Settings:
    """Read the settings; `state` (a command's --state) wins over GATEWAY_STATE. Raises SettingsError."""
    raw = _environment(environ_)
    folder = (state or Path(raw.state)).absolute()
    database_url, redis_url = raw.database_url, raw.redis_url
    if not (database_url and redis_url):
        stores = _stores(folder)
        database_url, redis_url = database_url or stores.database_url, redis_url or stores.redis_url
    return Settings(
        state=folder,
        database_url=database_url,
        redis_url=redis_url,
        pepper_file=Path(raw.pepper_file) if raw.pepper_file else folder / "pepper",
        journal=Path(raw.journal) if raw.journal else folder / "journal" / "journal.log",
        control=Path(raw.control) if raw.control else folder / "run" / "control.sock",
        metrics=Path(raw.metrics_socket) if raw.metrics_socket else folder / "run" / "metering.sock",
        backends=backend.parse(raw.ollama_backends, raw.ollama_url),
        max_output=raw.max_output,
        expected_output=raw.expected_output,
        context_length=raw.context_length,
        template_tokens=raw.template_tokens,
        deadline_s=raw.deadline_s,
        queue_ms=raw.queue_ms,
        authz_processes=raw.authz_processes,
        poll_s=raw.poll_s,
        ledger_days=raw.ledger_days,
    )


def _environment(environ_: Mapping[str, str]) -> Any:
    try:
        return environ.to_config(Environment, environ=dict(environ_))
    except ValueError as error:
        sentence = f"A GATEWAY_ setting is no number in its bounds: write a whole one above 0 ({error})."
        raise SettingsError(sentence) from error


def _stores(folder: Path) -> _Stores:
    path = folder / "stores.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Stores)
    except FileNotFoundError as error:
        sentence = (
            f"No stack has run in {folder}: start one with `neuronetz-gateway up`, "
            "name its folder with --state, or set DATABASE_URL and REDIS_URL."
        )
        raise SettingsError(sentence) from error
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path} can't be read ({error}): run `neuronetz-gateway up` again.") from error
