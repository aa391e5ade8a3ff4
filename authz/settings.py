"""Every setting, once: read here from the environment, passed on as a value; nothing else reads it.

Where Postgres and Redis are is taken from DATABASE_URL and REDIS_URL, else from the stores.json that
`neuronetz-gateway up` leaves in its state folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping  # noqa: TC003 (attrs resolves the types of Settings)
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cattrs
import msgspec
from attrs import Attribute, Factory, field, fields, frozen, resolve_types

from authz import forms, secret_file
from authz.backends import address, backend
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
    variable: str,
    help_: str,
    default: object,
    *,
    unit: str = "",
    least: int = 1,
    most: int = GREATEST_COUNT,
    form: forms.Form = forms.any_text,
    is_secret: bool = False,
) -> Any:
    """Declare a setting: its variable, what it is for, its default, and what it may be."""
    metadata = {
        "variable": variable,
        "help": help_,
        "unit": unit,
        "bounds": range(least, most + 1),
        "form": form,
        "is_secret": is_secret,
    }
    made = Factory(default, takes_self=True) if callable(default) else default
    return field(default=made, metadata=metadata, repr=not is_secret)


def _inside(*parts: str) -> Callable[[Settings], Path]:
    return lambda settings: settings.state.joinpath(*parts)


@frozen(kw_only=True)
class Settings:
    """The settings of one process."""

    state: Path = _setting(
        "GATEWAY_STATE", "The stack's folder, in which all else lies by default.", DEFAULT_STATE
    )
    database_url: str = _setting(
        "DATABASE_URL",
        "PostgreSQL 15 or newer: postgresql://USER@HOST/DATABASE, with a standby "
        "postgresql://USER@HOST,HOST/DATABASE?target_session_attrs=primary; empty for the one of `up`.",
        "",
        form=forms.database_url,
        is_secret=True,
    )
    password_file: Path | None = _setting(
        "DATABASE_PASSWORD_FILE",
        "File with the password of the user of DATABASE_URL, which may hold any sign.",
        None,
    )
    redis_url: str = _setting(
        "REDIS_URL",
        "Redis 6.2 or newer, or Valkey, set to noeviction: redis://HOST:6379/0, "
        "sentinel://HOST:PORT,HOST:PORT/MASTER, or some nodes of a cluster, which know the others: "
        "redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT; rediss:// and rediss+cluster:// use TLS; "
        "empty for the one of `up`.",
        "",
        form=forms.redis_url,
        is_secret=True,
    )
    backends: tuple[Backend, ...] = _setting(
        "OLLAMA_BACKENDS",
        'Several backends: [{"name": "gpu-a", "url": "http://10.0.0.5:11434", "token": "..."}], with header '
        "and scheme if not Authorization and Bearer, and max_in_flight, beyond which requests wait in the "
        "gateway, fairly between tenants. Without it they wait in Ollama, where an answer without a stream "
        "that its client leaves pays for that time, too. A URL may be https://HOST/PREFIX or "
        "unix:///run/ollama.sock.",
        (),
        is_secret=True,
    )
    snippets: Path = _setting(
        "GATEWAY_BACKENDS", "Folder of Caddy's snippets of the backends.", _inside("backends.d")
    )
    pepper_file: Path = _setting(
        "GATEWAY_PEPPER_FILE",
        "Key of the key tags, one line of 64 hex digits each, mode 0400; keep it out of database backups.",
        _inside("pepper"),
    )
    journal: Path = _setting(
        "GATEWAY_JOURNAL", "Caddy's journal, which metering reads.", _inside("journal", "journal.log")
    )
    prompts: Path = _setting(
        "GATEWAY_PROMPTS",
        "Caddy's folder of sealed prompts and answers, which metering takes; of one Caddy alone.",
        _inside("journal", "prompts"),
    )
    prompt_key: Path = _setting(
        "GATEWAY_PROMPT_KEY",
        "Public key that prompts of keys with --log-prompts are sealed for; without it none is kept.",
        _inside("vault.pub"),
    )
    prompt_tenant_bytes: int = _setting(
        "GATEWAY_PROMPT_TENANT_BYTES", "Most sealed text of a tenant; more is not kept.", 2**30, unit="bytes"
    )
    control: Path = _setting("GATEWAY_CONTROL", "Caddy's control socket.", _inside("run", "control.sock"))
    tables: Path = _setting(
        "GATEWAY_TABLES", "Folder that authz and Caddy share: the models' vocabularies.", _inside("tables")
    )
    metrics: Path = _setting(
        "GATEWAY_METRICS_SOCKET", "Socket of metering's metrics.", _inside("run", "metering.sock")
    )
    max_output: int = _setting(
        "GATEWAY_MAX_OUTPUT", "Most output of an answer that a budget pays for.", 32_768, unit="tokens"
    )
    uncapped_share: int = _setting(
        "GATEWAY_UNCAPPED_SHARE",
        "An answer without a cap may take 1 in so many of a budget's tokens left.",
        8,
    )
    expected_output: int = _setting(
        "GATEWAY_EXPECTED_OUTPUT", "Output assumed of a model that a tenant is new to.", 256, unit="tokens"
    )
    context_length: int = _setting(
        "GATEWAY_CONTEXT_LENGTH", "Most input of a model that names none.", 262_144, unit="tokens"
    )
    least_num_ctx: int = _setting(
        "GATEWAY_LEAST_NUM_CTX",
        "Context that Ollama loads models with; less is never let through.",
        4096,
        unit="tokens",
    )
    template_tokens: int = _setting(
        "GATEWAY_TEMPLATE_TOKENS",
        "What a template adds to a prompt, where a model's is not known.",
        512,
        unit="tokens",
    )
    deadline_s: int = _setting("GATEWAY_DEADLINE_S", "Longest time of an answer.", 1800, unit="s")
    queue_ms: int = _setting(
        "GATEWAY_QUEUE_MS",
        "How long a request waits for a slot.",
        250,
        unit="ms",
        least=0,
        most=LONGEST_WAIT_MS,
    )
    authz_processes: int = _setting("GATEWAY_AUTHZ_PROCESSES", "Processes of authz.", 2, most=MOST_PROCESSES)
    decisions: int = _setting(
        "GATEWAY_DECISIONS", "Decisions that a process of authz works on at a time.", 1000
    )
    poll_s: int = _setting("GATEWAY_POLL_S", "How often backends are asked for their models.", 5, unit="s")
    ledger_days: int = _setting(
        "GATEWAY_LEDGER_DAYS",
        "How long the ledger is kept, 0 for all time; sums, windows and the audit of changes stay.",
        0,
        unit="days",
        least=0,
        most=LONGEST_LEDGER_DAYS,
    )
    address_days: int = _setting(
        "GATEWAY_ADDRESS_DAYS",
        "How long clients' addresses are kept, in Postgres and in the journal; 0 for as long as the ledger.",
        30,
        unit="days",
        least=0,
        most=LONGEST_LEDGER_DAYS,
    )
    alert_url: str = _setting(
        "GATEWAY_ALERT_URL",
        "Where authz posts what needs a person, as JSON whose `text` Slack and Mattermost show; for ntfy end "
        "it in ?template=yes&message={{.text}}. Empty: `neuronetz-gateway alerts list` alone has it.",
        "",
        form=address.receiver,
        is_secret=True,
    )
    alert_token_file: Path | None = _setting(
        "GATEWAY_ALERT_TOKEN_FILE",
        "File with the Bearer token that GATEWAY_ALERT_URL asks for, if any.",
        None,
    )


resolve_types(Settings)


class _Stores(msgspec.Struct, frozen=True):
    database_url: str
    redis_url: str


def load(environ: Mapping[str, str], *, state: Path | None = None, needs_stores: bool = True) -> Settings:
    """Read the settings; `state` (a command's --state) wins over GATEWAY_STATE.

    Raises SettingsError with one sentence for each problem, all of them.
    """
    problems: list[str] = []
    known: dict[str, Any] = {}
    for setting in fields(Settings):
        with _noting(problems):
            value = _read(setting, environ)
            if value is not None:
                known[setting.name] = value
    known["state"] = (state or known.get("state", DEFAULT_STATE)).absolute()
    with _noting(problems):
        known["backends"] = backend.parse(environ.get("OLLAMA_BACKENDS"), environ.get("OLLAMA_URL"))
    with _noting(problems):
        if "database_url" in known and "password_file" in known:
            known["database_url"] = _with_password(known["database_url"], known["password_file"])
    with _noting(problems):
        if needs_stores and not names_stores(environ):
            stores = _stores(known["state"])
            known = {"database_url": stores.database_url, "redis_url": stores.redis_url} | known
    if problems:
        raise SettingsError("\n".join(problems))
    return Settings(**known)


def names_stores(environ: Mapping[str, str]) -> bool:
    """Return whether an environment says where both stores are, so that no state folder is asked."""
    return bool(environ.get("DATABASE_URL") and environ.get("REDIS_URL"))


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Note a problem and go on to the next."""
    try:
        yield
    except SettingsError as error:
        problems += str(error).splitlines()


def _read(setting: Attribute[Any], environ: Mapping[str, str]) -> Any:
    """Read one variable as the type of its setting; None where it is unset or empty."""
    variable, form = setting.metadata["variable"], setting.metadata["form"]
    text = environ.get(variable)
    if not text or setting.name == "backends":
        return None
    if problem := form(text):
        shown = variable if setting.metadata["is_secret"] else f"{variable}={text!r}"
        raise SettingsError(f"{shown} {problem}.")
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


def _with_password(url: str, path: Path) -> str:
    """Put the password of a file into the URL."""
    password = secret_file.read("DATABASE_PASSWORD_FILE", path)
    try:
        return forms.with_password(url, password)
    except ValueError as error:
        raise SettingsError(f"DATABASE_URL {error}.") from error


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
