"""What the audit has of a change in the words that users write: the difference that `apply` prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from authz.admin.policy_options import ALLOWANCES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authz.accounts.batch import Event

FIELDS: Final = {
    "requests_per_minute": "rpm",
    "tokens_per_minute": "tpm",
    "expires_at": "expires",
    "cidrs": "cidr",
    "log_prompts_s": "log-prompts",
    "deadline_s": "deadline",
    "batch": "priority",
    "keep_alive_s": "allow keep_alive",
    **{name: f"allow {name}" for name in ALLOWANCES},
}
"""What the file calls a field of the audit, where it is another name; elsewhere - stands for _."""

_WORDS: Final = {
    "batch": ("interactive", "batch"),
    "details": ("withheld", "shown"),
    "end_users": ("ignored", "kept"),
    "in_path": ("refused", "allowed"),
}
_SPANS: Final = frozenset({"log_prompts_s", "deadline_s", "keep_alive_s"})
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_UNSAID: Final = frozenset({"name", "prefix", "ssh_key"})


@frozen(kw_only=True)
class Change:
    """A field of a tenant, a key or an alias: its value before and after; None is none."""

    tenant: str | None
    key: str | None
    alias: str | None
    field: str
    old: str | None
    new: str | None

    @property
    def sentence(self) -> str:
        """Return the change as a line for people."""
        named = (("tenant", self.tenant), ("key", self.key), ("alias", self.alias))
        subject = ", ".join(f"{kind} {name}" for kind, name in named if name is not None)
        if self.field == "created":
            return f"{subject}: created"
        return f"{subject}: {self.field} {self.old or 'none'} -> {self.new or 'none'}"


def changes_of(event: Event, **place: str | None) -> Iterator[Change]:
    """Yield what an event of the audit has changed, field by field."""
    action, old, new = event.action, event.old, event.new
    if action in {"tenant_created", "key_created"}:
        yield Change(**place, field="created", old=None, new=None)
    if action == "alias_set":
        yield Change(**place, field="model", old=old and old["model"], new=new["model"])
        return
    before, after = old or {}, new or {}
    for name in after:
        if name not in _UNSAID and before.get(name) != after[name] and not (old is None and name == "state"):
            texts = [_value(name, values.get(name)) for values in (before, after)]
            yield Change(**place, field=FIELDS.get(name, name.replace("_", "-")), old=texts[0], new=texts[1])


def in_words(name: str, value: Any) -> tuple[str, Any]:
    """Return a field of the audit and its value as options have them, where that is not what is stored.

    None stays: it is a name without a value.
    """
    if name not in (*_WORDS, *_SPANS):
        return name, value
    return FIELDS.get(name, name.replace("_", "-")).removeprefix("allow "), _value(name, value)


def span(seconds: int) -> str:
    """Return a span as options take it, like 7d."""
    return next(f"{seconds // length}{unit}" for length, unit in _UNITS if seconds % length == 0)


def _value(name: str, value: Any) -> str | None:
    """Return a value as the file has it."""
    if value is None:
        return None
    if name in _WORDS:
        return _WORDS[name][value]
    if name in _SPANS:
        return span(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return ",".join(value) if isinstance(value, list | tuple) else str(value)
