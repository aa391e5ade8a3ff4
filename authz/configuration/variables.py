"""The one table of variables: those of Settings, and those that Caddy and Compose read.

`.env.example` and `neuronetz-gateway settings` are made of it; a test compares it with the Caddyfile and
compose.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import fields_dict, frozen

from authz import forms, settings
from authz.errors import SettingsError
from authz.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from authz.forms import Form

AUTHZ: Final = "authz"
METERING: Final = "metering"
CADDY: Final = "Caddy"
COMPOSE: Final = "Compose"
COMMANDS: Final = "commands"


@frozen(kw_only=True)
class Variable:
    """A variable: what it is for, what it may be, and which programs read it."""

    name: str
    help: str
    readers: tuple[str, ...]
    default: str = ""
    unit: str = ""
    form: Form = forms.any_text
    bounds: range | None = None
    is_secret: bool = False
    is_required: bool = False
    field: str | None = None
    """The field of Settings that holds it; None where only Caddy or Compose reads it."""


def _ours(name: str, *readers: str) -> Variable:
    """Return the variable of a field of Settings."""
    declared = fields_dict(Settings)[name]
    metadata, default = declared.metadata, getattr(_DEFAULTS, name)
    return Variable(
        name=metadata["variable"],
        help=metadata["help"],
        readers=readers,
        default="" if default in {"", (), None} else str(default),
        unit=metadata["unit"],
        form=metadata["form"],
        bounds=metadata["bounds"] if declared.type is int else None,
        is_secret=metadata["is_secret"],
        field=name,
    )


def _caddys(
    name: str, help_: str, default: str = "", *, form: Form = forms.any_text, unit: str = ""
) -> Variable:
    """Return a variable that only the Caddyfile reads."""
    return Variable(name=name, help=help_, readers=(CADDY,), default=default, form=form, unit=unit)


def _composes(name: str, help_: str, default: str, *, form: Form = forms.any_text) -> Variable:
    """Return a variable that only the Compose files read."""
    return Variable(name=name, help=help_, readers=(COMPOSE,), default=default, form=form)


_DEFAULTS: Final = Settings()

SECTIONS: Final[Mapping[str, tuple[Variable, ...]]] = {
    "What clients reach": (
        Variable(
            name="GATEWAY_DOMAIN",
            help="Name by which clients reach the gateway in containers, for which certificates are issued.",
            readers=(COMPOSE,),
            form=forms.domain,
            is_required=True,
        ),
        _caddys(
            "GATEWAY_SITE",
            'Addresses that Caddy serves: "gw.example.com, https://" has a certificate, and the second one '
            "catches requests with a strange Host. `up` and compose.yaml set it.",
            "http://:8080",
        ),
        _caddys("GATEWAY_BIND", "Addresses of this machine that Caddy listens on.", "127.0.0.1"),
        _caddys(
            "GATEWAY_ACME_DIRECTORY",
            "Where certificates come from by ACME, for an authority of your own, which SSL_CERT_FILE "
            "must name.",
            "https://acme-v02.api.letsencrypt.org/directory",
            form=forms.acme_directory,
        ),
        _caddys(
            "GATEWAY_TRUSTED_PROXIES",
            "Addresses or networks of proxies in front: what they say in X-Forwarded-For is the client's "
            "address in limits, --cidr and `audit`; no one else is believed. An address of this machine is "
            "refused; 127.0.0.1, for a proxy that runs here, believes every program on it.",
            form=forms.networks,
        ),
        _caddys(
            "GATEWAY_PROXY_PROTOCOL",
            "Load balancers that pass TCP on, and must begin each connection with a PROXY header; "
            "others must not. What begins otherwise is closed, and counted.",
            form=forms.networks,
        ),
        _caddys(
            "GATEWAY_CORS_ORIGIN",
            "Origins of the web pages that may use the gateway, with a space between two; * for all.",
            "*",
            form=forms.origins,
        ),
        _caddys(
            "GATEWAY_MAX_BODY",
            "Greatest body of a request.",
            "32MiB",
            form=forms.size,
            unit="KiB, MiB or GiB",
        ),
        _caddys(
            "GATEWAY_DRAIN",
            "How long idle connections stay open at a reload and SIGTERM: longer than clients keep them.",
            "5s",
            form=forms.drain,
            unit="s or m, up to 5m",
        ),
        _caddys(
            "GATEWAY_GRACE",
            "How long streams may go on after that, at SIGTERM; `up` and compose.yaml set it.",
            "10s",
            form=forms.time,
            unit="s, m or h",
        ),
    ),
    "Stores and secrets": (
        _ours("database_url", AUTHZ, METERING, COMMANDS),
        _ours("password_file", AUTHZ, METERING, COMMANDS),
        _ours("redis_url", AUTHZ, METERING, COMMANDS),
        _ours("pepper_file", AUTHZ, COMMANDS),
    ),
    "Backends": (
        Variable(
            name="OLLAMA_URL",
            help="The one backend, if OLLAMA_BACKENDS is empty; without either, `up` uses 127.0.0.1:11434.",
            readers=(AUTHZ, COMMANDS),
        ),
        _ours("backends", AUTHZ, COMMANDS),
        _caddys(
            "GATEWAY_BACKEND_QUEUE",
            "How long a request waits for a backend with max_in_flight before it is refused with 503.",
            "30s",
            form=forms.time,
            unit="s, m or h",
        ),
        _ours("poll_s", AUTHZ),
        Variable(
            name="SSL_CERT_FILE",
            help="Certificates of authorities that backends are trusted by, in place of the machine's; in "
            "containers lay it into caddy/backends.d and write /etc/caddy/backends.d/FILE.",
            readers=(AUTHZ, CADDY, COMMANDS),
        ),
        _ours("snippets", AUTHZ, CADDY, COMMANDS),
    ),
    "What requests may take": tuple(
        _ours(name, AUTHZ)
        for name in (
            "max_output",
            "uncapped_share",
            "expected_output",
            "context_length",
            "least_num_ctx",
            "template_tokens",
            "deadline_s",
            "queue_ms",
        )
    ),
    "The journal and the bill": (
        _ours("journal", METERING, CADDY),
        _caddys(
            "GATEWAY_JOURNAL_ROLL",
            "Size at which the journal begins a new file.",
            "64MiB",
            form=forms.size,
            unit="KiB, MiB or GiB",
        ),
        _ours("ledger_days", METERING),
        _ours("address_days", METERING),
    ),
    "Prompts that are kept": (
        _ours("prompt_key", CADDY, COMMANDS),
        _ours("prompts", METERING, CADDY),
        _caddys(
            "GATEWAY_PROMPT_ENTRY",
            "The most that is kept of a prompt, and of an answer.",
            "4MiB",
            form=forms.size,
            unit="KiB, MiB or GiB",
        ),
        _caddys(
            "GATEWAY_PROMPT_SPOOL",
            "The most that waits for metering; more is not kept.",
            "256MiB",
            form=forms.size,
            unit="KiB, MiB or GiB",
        ),
        _ours("prompt_tenant_bytes", METERING),
    ),
    "Processes, files and sockets": (
        _ours("state", AUTHZ, METERING, COMMANDS),
        _ours("authz_processes", COMMANDS),
        _ours("decisions", AUTHZ),
        _ours("tables", AUTHZ, CADDY),
        _ours("control", CADDY, COMMANDS),
        _caddys(
            "GATEWAY_AUTHZ",
            "Sockets of the authz processes, with a blank between them; `up` and compose.yaml set it.",
            f"unix/{settings.DEFAULT_STATE}/run/authz-0.sock",
        ),
        _caddys(
            "GATEWAY_RUN", "Folder of the sockets that metrics come from.", f"{settings.DEFAULT_STATE}/run"
        ),
    ),
    "Metrics": (
        _caddys("GATEWAY_METRICS", "Metrics for Prometheus: on or off.", "off", form=forms.switch),
        _caddys("GATEWAY_METRICS_BIND", "Address that the metrics are served on.", "127.0.0.1"),
        _caddys("GATEWAY_METRICS_PORT", "Port of the metrics.", "9180", form=forms.port),
        _ours("metrics", METERING, COMMANDS),
    ),
    "Alerts": (
        _ours("alert_url", AUTHZ, COMMANDS),
        _ours("alert_token_file", AUTHZ, COMMANDS),
    ),
    "Traces": (
        _caddys(
            "GATEWAY_TRACING",
            "A span of each request for OpenTelemetry: on or off. A client's traceparent goes on to Ollama "
            "and into the ledger either way.",
            "off",
            form=forms.switch,
        ),
        Variable(
            name="OTEL_EXPORTER_OTLP_ENDPOINT",
            help="Collector of the spans: http://HOST:4318. OpenTelemetry's other OTEL_ variables work, too.",
            readers=(CADDY,),
        ),
    ),
    "Containers": (
        _composes("GATEWAY_VERSION", "Tag of the gateway's own images.", "0.1.0"),
        _composes(
            "GATEWAY_IPV6",
            "Whether clients' IPv6 addresses reach the gateway: true or false.",
            "true",
            form=forms.boolean,
        ),
        _composes(
            "GATEWAY_PROXY_EXTERNAL",
            "Whether the network `proxy`, on which Ollamas of other containers are reached, was made by "
            "others: true or false.",
            "false",
            form=forms.boolean,
        ),
        _composes("POSTGRES_IMAGE", "Image of PostgreSQL.", "postgres:18.6"),
        _composes("REDIS_IMAGE", "Image of Redis.", "redis:8.0.6"),
        _composes("OLLAMA_IMAGE", "Image of Ollama.", "ollama/ollama:0.34.4"),
        _composes("PYTHON_IMAGE", "Image that authz and metering are built on.", "python:3.14.8-slim"),
        _composes("GO_IMAGE", "Image that Caddy is built in.", "golang:1.26.10-alpine"),
    ),
}

VARIABLES: Final = tuple(variable for section in SECTIONS.values() for variable in section)


def load(environ: Mapping[str, str], *, state: Path | None, needs_stores: bool = True) -> Settings:
    """Read the settings, and check what Caddy and Compose will read, too.

    Raises SettingsError with one sentence for each problem, all of them.
    """
    problems = list(_foreign_problems(environ))
    try:
        found = settings.load(environ, state=state, needs_stores=needs_stores)
    except SettingsError as error:
        raise SettingsError("\n".join([str(error), *problems])) from error
    if problems:
        raise SettingsError("\n".join(problems))
    return found


def _foreign_problems(environ: Mapping[str, str]) -> Iterator[str]:
    for variable in VARIABLES:
        text = environ.get(variable.name)
        if text and variable.field is None and (problem := variable.form(text)):
            shown = variable.name if variable.is_secret else f"{variable.name}={text!r}"
            yield f"{shown} {problem}."
