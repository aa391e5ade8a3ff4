"""The settings as people see them: each with where it comes from, and no secret."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz import forms
from authz.alerts.webhook import Webhook
from authz.backends import backend, env_file
from authz.configuration import variables
from authz.configuration.variables import VARIABLES, Variable
from authz.errors import SettingsError
from authz.identity.secrets import Peppers
from authz.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PREFIX: Final = "GATEWAY_"


class Source(StrEnum):
    """Where a value comes from."""

    ENVIRONMENT = "environment"
    ENV_FILE = ".env"
    STACK = "stack"
    """What `up` has left in the state folder."""
    DEFAULT = "default"


@frozen(kw_only=True)
class Shown:
    """One setting."""

    setting: str
    value: str
    unit: str
    source: Source
    default: str
    help: str
    readers: tuple[str, ...]


@frozen
class Report:
    """All settings, what is wrong with them, and what looks like a typing error."""

    settings: tuple[Shown, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def report(environ: Mapping[str, str], text: str, *, state: Path | None) -> Report:
    """Read an environment above the text of an env file, and check all of it."""
    names = [variable.name for variable in VARIABLES]
    written = {name: value for name in names if (value := env_file.value_of(text, name))}
    chosen = written | {name: value for name, value in environ.items() if value}
    read, problems = _load(chosen, state)
    rows = tuple(_row(variable, environ, written, read) for variable in VARIABLES)
    return Report(rows, tuple(problems), tuple(_notes(chosen, names)))


def _load(chosen: Mapping[str, str], state: Path | None) -> tuple[Settings, list[str]]:
    """Return the settings, or what is known of them beside the problems."""
    try:
        read = variables.load(chosen, state=state, needs_stores=False)
    except SettingsError as error:
        return Settings(), str(error).splitlines()
    with suppress(SettingsError):  # no stack has run in this folder, which need not be wrong
        read = variables.load(chosen, state=state)
    try:
        if "GATEWAY_PEPPER_FILE" in chosen or read.pepper_file.exists():
            Peppers.read(read.pepper_file)
        Webhook.of(read)
    except SettingsError as error:
        return read, [str(error)]
    return read, []


def _row(variable: Variable, environ: Mapping[str, str], written: Mapping[str, str], read: Settings) -> Shown:
    value, source = written.get(variable.name, ""), Source.ENV_FILE
    given = environ.get(variable.name, "")
    if given and given != value:  # what `just` and Compose have read from the file is in both
        value, source = given, Source.ENVIRONMENT
    default = variable.default
    if variable.field is not None and variable.bounds is None and variable.field != "backends":
        default = str(getattr(read, variable.field) or "")
    if not value:
        is_stack = variable.is_secret and bool(default)
        value, source = default, Source.STACK if is_stack else Source.DEFAULT
    return Shown(
        setting=variable.name,
        value=_hidden(variable, value),
        unit=variable.unit,
        source=source,
        default=variable.default,
        help=variable.help,
        readers=variable.readers,
    )


def _hidden(variable: Variable, value: str) -> str:
    """Return a value without its secrets."""
    if not variable.is_secret or not value:
        return value
    if variable.field in {"database_url", "redis_url"}:
        return forms.without_password(value)
    if variable.name == backend.VARIABLE:
        try:
            return backend.redacted(backend.parse(value, None))
        except SettingsError:
            return forms.HIDDEN
    return forms.HIDDEN


def _notes(chosen: Mapping[str, str], names: list[str]) -> Iterator[str]:
    for name in sorted(chosen):
        if name.startswith(_PREFIX) and name not in names:
            near = get_close_matches(name, names, n=1)
            if near:
                yield f"Note: nothing reads {name}; is {near[0]} meant?"
