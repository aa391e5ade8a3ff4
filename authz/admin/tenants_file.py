"""Read the file that `apply` brings tenants, keys and aliases to.

Its fields are the options of `create-tenant`, `create-key` and `set-limits`, and take the same values. Every
value is read as the text that it is: `no`, 010 and 2027-01-01 mean what they mean to an option.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NewType, get_args, get_origin

import cattrs
import yaml
from attrs import evolve, field, fields, frozen, has
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory, override

from authz.accounts.scope import Scope, timezone
from authz.admin.limit_options import NONE, SPAN, LimitOptions, ScopeOptions, moment
from authz.admin.policy_options import PolicyOptions
from authz.errors import UsageError
from authz.types import Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

STDIN: Final = Path("-")

MOST_BYTES: Final = 1 << 20
DEEPEST: Final = 16
"""Bounds of a file: far more than what thousands of keys take."""

Listed = NewType("Listed", str)
"""Names in a list, or with commas between them."""


@frozen(kw_only=True)
class _Entry:
    """What a tenant and a key have alike; None stays as it is."""

    rpm: str | None = None
    tpm: str | None = None
    concurrency: str | None = None
    tokens_per_day: str | None = None
    tokens_per_month: str | None = None
    tokens_total: str | None = None
    allow: tuple[str, ...] = ()
    deadline: str | None = None
    priority: Literal["interactive", "batch", "none"] | None = None
    weight: str | None = None
    details: Literal["shown", "withheld", "none"] | None = None
    end_users: Literal["kept", "ignored", "none"] | None = None
    in_path: Literal["allowed", "refused"] | None = None
    state: Literal["active", "disabled"] | None = None

    @property
    def limits(self) -> LimitOptions:
        """Return its limits as options."""
        return LimitOptions(**{each.name: getattr(self, each.name) for each in fields(LimitOptions)})

    @property
    def policy(self) -> PolicyOptions:
        """Return its policy as options. Raises UsageError."""
        given = {each.name: getattr(self, each.name) for each in fields(PolicyOptions)}
        return PolicyOptions(**given | {"weight": _weight(self.weight)})


@frozen(kw_only=True)
class KeyEntry(_Entry):
    """What the file says of a key."""

    models: Listed | None = None
    cidr: Listed | None = None
    expires: str | None = None
    max_output: str | None = None
    log_prompts: str | None = None

    def scoped(self, scope: Scope, now: datetime) -> Scope:
        """Return the restrictions of a key, changed as the file says. Raises UsageError.

        An end that the key has already may lie in the past.
        """
        options = ScopeOptions(**{each.name: getattr(self, each.name) for each in fields(ScopeOptions)})
        if self.expires is not None and self.expires != NONE and _end(self.expires, now) == scope.expires_at:
            options = evolve(options, expires=None)
        return options.applied(scope, now)


@frozen(kw_only=True)
class TenantEntry(_Entry):
    """What the file says of a tenant, its keys by name, and its aliases."""

    timezone: str | None = None
    keys: dict[str, KeyEntry] = field(factory=dict)
    aliases: dict[str, str] = field(factory=dict)


@frozen(kw_only=True)
class TenantsFile:
    """What a file says: tenants by name, and the aliases of all."""

    tenants: dict[str, TenantEntry] = field(factory=dict)
    aliases: dict[str, str] = field(factory=dict)


def read(path: Path, now: datetime) -> TenantsFile:
    """Read and check a file. Raises UsageError with a sentence for each thing that is wrong with it."""
    try:
        with sys.stdin.buffer if path == STDIN else path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): name a YAML file.") from error
    if len(text) > MOST_BYTES:
        raise UsageError(f"{path} is larger than {MOST_BYTES:,} bytes: cut it into several files.")
    found = parse(text, str(path))
    problems = [f"{path}, {place}: {problem}" for place, problem in _problems(found, now)]
    if problems:
        raise UsageError("\n".join(problems))
    return found


def parse(text: bytes, name: str) -> TenantsFile:
    """Parse the text of a file. Raises UsageError."""
    try:
        # A BaseLoader makes nothing but texts, lists and mappings.
        plain = yaml.load(text, _Loader)  # noqa: S506  # nosec B506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} can't be read as YAML: {_fault(error)}.") from error
    if not plain:
        raise UsageError(f"{name} is empty: it has `tenants:` and `aliases:`, see `apply --help`.")
    if not isinstance(plain, dict):
        raise UsageError(f"{name} must have names with values below them: `tenants:` and `aliases:`.")
    try:
        return _converter.structure(plain, TenantsFile)
    except cattrs.BaseValidationError as error:
        found = cattrs.transform_error(error, path="$", format_exception=_sentence)
        sentences = [_placed(each) for each in found]
        raise UsageError("\n".join(f"{name}, {each}" for each in sentences)) from error


class _Loader(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads every value as text; refuses what could be meant otherwise, or grow without end."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse references, which make a few lines a million, and nesting that no field has."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "references (*name) are not read", mark)
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "it is nested too deeply", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a name that stands twice, of which YAML takes the last."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                mark = key.start_mark
                raise yaml.constructor.ConstructorError(None, None, "a name must be a text", mark)
            if key.value in seen:
                problem = f"{key.value} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark else problem


def _text(value: object, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be one value")  # noqa: TRY004 (the others are of this kind)
    return value


def _texts(value: object, _: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in texts):
        raise ValueError("must be a value, or a list of values")
    return tuple(texts)


def _choice(value: object, type_: Any) -> object:
    choices = get_args(type_)
    if value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}")
    return value


def _mapping(type_: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Return what structures a mapping: nothing below a name is an empty one."""
    whole = (
        make_dict_structure_fn(
            type_,
            converter,
            **{each.name: override(rename=each.name.replace("_", "-")) for each in fields(type_)},  # type: ignore[arg-type]
        )
        if has(type_)
        else mapping_structure_factory(type_, converter)
    )

    def structure(value: Any, asked: Any) -> Any:
        if value != "" and not isinstance(value, dict):
            raise ValueError("must have names with values below them")
        return whole(value or {}, asked)

    return structure


def _sentence(error: BaseException, _: type | None) -> str:
    """Say what is wrong with a value that cattrs could not take."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = ", ".join(sorted(each.name.replace("_", "-") for each in fields(error.cl)))
        return f"unknown {', '.join(sorted(error.extra_fields))}; it can have {known}"
    return str(error) if isinstance(error, ValueError) else "is not what belongs here"


def _placed(text: str) -> str:
    """Put the place before what is wrong there."""
    problem, _, place = text.rpartition(" @ $")
    path = re.sub(r"\['([^']*)'\]", r".\1", place).lstrip(".").replace("_", "-")
    return f"{path}: {problem}." if path else f"{problem}."


def _end(text: str, now: datetime) -> datetime:
    if SPAN.fullmatch(text):
        raise UsageError(
            f"--expires {text} would be another moment at each run: write a date, like 2026-12-31."
        )
    return moment(text, now, is_past=False)


def _weight(text: str | None) -> int | None:
    if text is None or text == NONE:
        return None if text is None else 0
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise UsageError(f"--weight {text} is no number: give 1 to 100, or `none` for none.")
    return int(text)


def in_words(error: Exception) -> str:
    """Return what an option's refusal says of a field: the same, without dashes before its name."""
    return re.sub(r"(?<![\w-])--(?=[a-z])", "", str(error))


def _problems(found: TenantsFile, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield what no state of the stores could make valid, with its place."""
    for name, tenant in found.tenants.items():
        for place, entry in (
            (name, tenant),
            *((f"{name}.keys.{key}", each) for key, each in tenant.keys.items()),
        ):
            try:
                _check(entry, now)
            except UsageError as error:
                yield f"tenants.{place}", in_words(error)


def _check(entry: _Entry, now: datetime) -> None:
    entry.limits.applied(Limits())
    policy = entry.policy.of_tenant() if isinstance(entry, TenantEntry) else entry.policy
    policy.applied(Policy())
    if isinstance(entry, TenantEntry) and entry.timezone is not None:
        timezone(entry.timezone)
    if isinstance(entry, KeyEntry):
        end = None if entry.expires in {None, NONE} else _end(entry.expires or "", now)
        entry.scoped(Scope(expires_at=end), now)


def _origin(type_: Any) -> Any:
    return get_origin(type_)


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook(Listed, lambda value, _: ",".join(_texts(value, _)))
_converter.register_structure_hook_func(lambda type_: _origin(type_) is Literal, _choice)
_converter.register_structure_hook_func(lambda type_: _origin(type_) is tuple, _texts)
_converter.register_structure_hook_factory(lambda type_: has(type_) or _origin(type_) is dict, _mapping)
