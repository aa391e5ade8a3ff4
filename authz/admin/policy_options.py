"""Read what the requests of a tenant or key may ask of the machines, before anything is written.

What is not given stays; `none` leaves it to the tenant, or to the default.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from attrs import evolve, frozen
from cyclopts import Parameter

from authz.admin.limit_options import NONE
from authz.errors import UsageError
from authz.types import GREATEST_COUNT, LEAST_KEEP_ALIVE_S, Policy

_ALLOWED: Final = re.compile(r"([a-z_]+)\s*<=\s*(\S+)|([a-z_]+)\s*=\s*none", re.ASCII)
_SPAN: Final = re.compile(r"([0-9]{1,5})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_LONGEST_KEEP_ALIVE_S: Final = 30 * 86_400
_LONGEST_DEADLINE_S: Final = 86_400
_GREATEST_WEIGHT: Final = 100

ALLOWANCES: Final = {
    "num_ctx": 2**31 - 1,
    "keep_alive": _LONGEST_KEEP_ALIVE_S,
    "num_gpu": 9999,
    "stop": GREATEST_COUNT,
    "images": GREATEST_COUNT,
    "inputs": GREATEST_COUNT,
    "schema_bytes": GREATEST_COUNT,
    "logprobs": GREATEST_COUNT,
}
"""What may be allowed, and the most of it."""


@Parameter(name="*")
@frozen
class PolicyOptions:
    """What a request may ask of the machines that all share, and when it gets its turn.

    Args:
        allow: What a request may ask for, like 'num_ctx<=32768' or num_ctx=none; may be repeated.
        deadline: Longest time of an answer, like 5m; `none` leaves it to the tenant, or the setting.
        priority: Requests of a `batch` wait for a backend behind `interactive` ones, but never without end.
        weight: Turns at a full backend, 1 to 100, for each one of a tenant with weight 1; 0 takes it back.
        details: If /api/show may answer with a model's system prompt, template and license.
        end_users: If the end users that clients name are kept in the ledger, and in `usage export`.
        in_path: If the key may stand in a path, /k/KEY/api/chat, for clients that can't send it otherwise.
    """

    allow: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=False, show_default=False)] = ()
    deadline: str | None = None
    priority: Literal["interactive", "batch", "none"] | None = None
    weight: int | None = None
    details: Literal["shown", "withheld", "none"] | None = None
    end_users: Literal["kept", "ignored", "none"] | None = None
    in_path: Literal["allowed", "refused"] | None = None

    def of_tenant(self) -> PolicyOptions:
        """Return these options where a tenant may have them all. Raises UsageError for one of keys alone."""
        if self.in_path is not None:
            raise UsageError("--in-path belongs to a key, each for itself: leave it out for a tenant.")
        return self

    def applied(self, policy: Policy) -> Policy:
        """Return the policy, changed as the command line says. Raises UsageError on a bad value."""
        changes: dict[str, int | None] = {}
        for text in self.allow:
            name, value = _allowance(text)
            if name in changes:
                raise UsageError(f"--allow names {name} more than once: give each name one value.")
            changes[name] = value
        if self.deadline is not None:
            changes["deadline_s"] = None if self.deadline == NONE else _deadline(self.deadline)
        if self.priority is not None:
            changes["batch"] = None if self.priority == NONE else int(self.priority == "batch")
        if self.weight is not None:
            changes["weight"] = _weight(self.weight)
        if self.details is not None:
            changes["details"] = None if self.details == NONE else int(self.details == "shown")
        if self.end_users is not None:
            changes["end_users"] = None if self.end_users == NONE else int(self.end_users == "kept")
        if self.in_path is not None:
            changes["in_path"] = 1 if self.in_path == "allowed" else None
        return evolve(policy, **{_FIELDS.get(name, name): value for name, value in changes.items()})


_FIELDS: Final = {"keep_alive": "keep_alive_s"}


def _allowance(text: str) -> tuple[str, int | None]:
    """Parse `num_ctx<=32768` or `num_ctx=none`. Raises UsageError."""
    found = _ALLOWED.fullmatch(text.strip())
    name = (found[1] or found[3]) if found else ""
    if not found or name not in ALLOWANCES:
        names = ", ".join(ALLOWANCES)
        raise UsageError(
            f"--allow {text} is no allowance: write 'num_ctx<=32768', or num_ctx=none, with one of {names}."
        )
    if found[3]:
        return name, None
    if name == "keep_alive":
        return name, _keep_alive(found[2])
    if not re.fullmatch(r"[0-9]{1,16}", found[2], re.ASCII) or int(found[2]) > ALLOWANCES[name]:
        raise UsageError(
            f"--allow {text} is out of range: give a whole number from 0 to {ALLOWANCES[name]}, "
            f"or {name}=none for none."
        )
    return name, int(found[2])


def _keep_alive(text: str) -> int:
    """Parse how long a model may be kept; 0 allows nothing. Raises UsageError."""
    seconds = 0 if text == "0" else _seconds(text)
    if seconds is None or (seconds != 0 and not LEAST_KEEP_ALIVE_S <= seconds <= _LONGEST_KEEP_ALIVE_S):
        raise UsageError(
            f"--allow 'keep_alive<={text}' is out of range: give 5m, for which Ollama keeps a model anyway, "
            "to 30d, like 30m or 2h, or 0 to allow nothing."
        )
    return seconds


def _deadline(text: str) -> int:
    seconds = _seconds(text)
    if seconds is None or not 0 < seconds <= _LONGEST_DEADLINE_S:
        raise UsageError(
            f"--deadline {text} is out of range: give a span from 1s to 24h, like 5m, or `none` for none."
        )
    return seconds


def _weight(number: int) -> int | None:
    if not 0 <= number <= _GREATEST_WEIGHT:
        raise UsageError(f"--weight {number} is out of range: give 1 to {_GREATEST_WEIGHT}, or 0 for none.")
    return number or None


def _seconds(text: str) -> int | None:
    """Parse a span like 90s, 5m, 2h or 1d; None if it is none."""
    span = _SPAN.fullmatch(text)
    return int(span[1]) * _SECONDS[span[2]] if span else None
