"""Every setting, once: read here from the environment, passed on as a value; nothing else reads it.

Where Postgres and Redis are is taken from DATABASE_URL and REDIS_URL, else from the stores.json that
`neuronetz-gateway up` leaves in its state folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 (attrs resolves the types of Settings)
from pathlib import Path
from typing import Any, Final

import cattrs
import msgspec
from attrs import Attribute, Factory, field, fields, frozen, resolve_types

from authz.backends import backend
from authz.backends.backend import Backend  # noqa: TC001 (the same)
from authz.errors import SettingsError
from authz.types import GREATEST_COUNT

DEFAULT_STATE: Final = Path(".gateway")

MOST_PROCESSES: Final = 10
"""Of authz: the Caddyfile asks them for metrics by one digit."""

LONGEST_WAIT_MS: Final = 1000
"""In line for a slot; a decision has 1.5 s in all."""

LONGEST_LEDGER_DAYS: Final = 36_500


def _setting(
    variable: str, help_: str, default: object, *, least: int = 1, most: int = GREATEST_COUNT
) -> Any:
    """Declare a setting: its variable, what it is for, its default, and the bounds of a number."""
    metadata = {"variable": variable, "help": help_, "bounds": range(least, most + 1)}
    if callable(default):
        return field(default=Factory(default, takes_self=True), metadata=metadata)
    return field(default=default, metadata=metadata)


def _inside(*parts: str) -> Callable[[Settings], Path]:
    return lambda settings: settings.state.joinpath(*parts)


@frozen(kw_only=True)
class Settings:
    """The settings of one process."""

    state: Path = _setting("GATEWAY_STATE", "The stack's folder.", DEFAULT_STATE)
    database_url: str = _setting("DATABASE_URL", "PostgreSQL >= 15.", "")
    redis_url: str = _setting("REDIS_URL", "Redis >= 6.2 or Valkey, noeviction.", "")
    backends: tuple[Backend, ...] = _setting("OLLAMA_BACKENDS", "JSON list of backends.", ())
    snippets: Path = _setting("GATEWAY_BACKENDS", "Caddy's snippets of them.", _inside("backends.d"))
    pepper_file: Path = _setting(
        "GATEWAY_PEPPER_FILE", "Key of the key tags, one hex line each.", _inside("pepper")
    )
    journal: Path = _setting("GATEWAY_JOURNAL", "Caddy's journal.", _inside("journal", "journal.log"))
    control: Path = _setting("GATEWAY_CONTROL", "Caddy's control socket.", _inside("run", "control.sock"))
    tables: Path = _setting("GATEWAY_TABLES", "The models' vocabularies, for Caddy.", _inside("tables"))
    metrics: Path = _setting("GATEWAY_METRICS_SOCKET", "Metering's metrics.", _inside("run", "metering.sock"))
    max_output: int = _setting(
        "GATEWAY_MAX_OUTPUT", "Most output tokens of an answer that a budget pays for.", 32_768
    )
    uncapped_share: int = _setting(
        "GATEWAY_UNCAPPED_SHARE",
        "An answer without a cap may take 1 in so many of a budget's tokens left.",
        8,
    )
    expected_output: int = _setting(
        "GATEWAY_EXPECTED_OUTPUT", "Output tokens assumed of a model that a tenant is new to.", 256
    )
    context_length: int = _setting(
        "GATEWAY_CONTEXT_LENGTH", "Most input tokens of a model that names none.", 262_144
    )
    least_num_ctx: int = _setting(
        "GATEWAY_LEAST_NUM_CTX", "Context that Ollama loads models with; less is never let through.", 4096
    )
    template_tokens: int = _setting(
        "GATEWAY_TEMPLATE_TOKENS", "Tokens a template adds to a prompt, where a model's is not known.", 512
    )
    deadline_s: int = _setting("GATEWAY_DEADLINE_S", "Longest time of an answer.", 1800)
    queue_ms: int = _setting(
        "GATEWAY_QUEUE_MS", "How long a request waits for a slot.", 250, least=0, most=LONGEST_WAIT_MS
    )
    authz_processes: int = _setting(
        "GATEWAY_AUTHZ_PROCESSES", "Processes of authz that `up` starts.", 2, most=MOST_PROCESSES
    )
    decisions: int = _setting(
        "GATEWAY_DECISIONS", "Decisions that a process of authz works on at a time.", 1000
    )
    poll_s: int = _setting("GATEWAY_POLL_S", "How often backends are asked for their models.", 5)
    ledger_days: int = _setting(
        "GATEWAY_LEDGER_DAYS",
        "Days of the ledger that are kept; 0 keeps all.",
        0,
        least=0,
        most=LONGEST_LEDGER_DAYS,
    )


resolve_types(Settings)


class _Stores(msgspec.Struct, frozen=True):
    database_url: str
    redis_url: str


def load(environ: Mapping[str, str], *, state: Path | None = None, needs_stores: bool = True) -> Settings:
    """Read the settings; `state` (a command's --state) wins over GATEWAY_STATE. Raises SettingsError."""
    given = {setting.name: _read(setting, environ) for setting in fields(Settings)}
    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    known["state"] = (state or known.get("state", DEFAULT_STATE)).absolute()
    if needs_stores and not {"database_url", "redis_url"} <= known.keys():
        stores = _stores(known["state"])
        known = {"database_url": stores.database_url, "redis_url": stores.redis_url} | known
    known["backends"] = backend.parse(environ.get("OLLAMA_BACKENDS"), environ.get("OLLAMA_URL"))
    return Settings(**known)


def _read(setting: Attribute[Any], environ: Mapping[str, str]) -> Any:
    """Read one variable as the type of its setting; None where it is unset or empty."""
    variable = setting.metadata["variable"]
    text = environ.get(variable)
    if not text or setting.name == "backends":
        return None
    bounds = setting.metadata["bounds"]
    try:
        value = cattrs.structure(text, setting.type or str)
    except ValueError:
        value = None
    if value is None or (setting.type is int and value not in bounds):
        sentence = (
            f"{variable}={text} is no number in its bounds: write a whole one, "
            f"{bounds[0]} to {bounds[-1]} ({setting.metadata['help']})"
        )
        raise SettingsError(sentence)
    return value


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
