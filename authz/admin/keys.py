"""Commands about keys and their secrets: create, list, rotate, disable, enable, revoke."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import asdict, frozen
from cyclopts import Parameter

from authz.accounts import scope as scope_
from authz.accounts.keys import (
    CreatedKey,
    Key,
    KeyState,
    create_key,
    end_secret,
    list_keys,
    rotate_key,
    set_key_state,
)
from authz.accounts.scope import Scope
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import limit_options, output
from authz.admin.difference import span
from authz.admin.limit_options import LimitOptions, ScopeOptions
from authz.admin.options import ChangeOptions, Kill, ListOptions
from authz.admin.policy_options import PolicyOptions
from authz.errors import UsageError
from authz.identity import signatures
from authz.identity.secrets import SSH_ALGORITHM
from authz.stack.streams import kill_all
from authz.types import Limits, Policy

if TYPE_CHECKING:
    import asyncpg

SshKey = Annotated[
    Path | None,
    Parameter(help="The public key of a client that signs (OLLAMA_AUTH=1): no secret is made."),
]
TenantName = Annotated[str, Parameter(help="The tenant's name.")]
Prefix = Annotated[str, Parameter(help="The key's first 11 characters.", validator=limit_options.prefix)]


@frozen
class Shown(Key):
    """A key as a table has it."""

    @property
    def log_prompts(self) -> str | None:
        """How long its prompts are kept, as the option takes it."""
        return None if self.log_prompts_s is None else span(self.log_prompts_s)

    @classmethod
    def of(cls, key: Key) -> Shown:
        """Return a key for a table."""
        return cls(**asdict(key, recurse=False))


async def create_key_command(
    *,
    tenant: TenantName,
    name: Annotated[str, Parameter(help="What the key is for.")],
    limits: LimitOptions = LimitOptions(),
    scope: ScopeOptions = ScopeOptions(),
    policy: PolicyOptions = PolicyOptions(),
    ssh_key: SshKey = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Create a key and print it, this once.

    Example: neuronetz-gateway create-key --tenant acme --name prod-1 --models 'qwen3:*' --expires 90d
    """
    own, may = limits.applied(Limits()), scope.applied(Scope(), datetime.now(UTC))
    allowed, public_key = policy.applied(Policy()), _public_key(ssh_key)
    async with opened(options.state, actor=options.actor) as session:
        created = await create_key(
            session, tenant=tenant, name=name, limits=own, scope=may, policy=allowed, ssh_key=public_key
        )
        async with session.store.connection() as connection:
            whole = scope_.limits_of(await find_tenant(connection, tenant))
    _show(created, is_json=options.json)
    output.note_above(scope_.above(own, whole), is_json=options.json)
    if may.log_prompts_s:
        output.note_unsealed(session.settings.prompt_key, is_json=options.json)
    return 0


async def list_keys_command(
    *,
    tenant: Annotated[str | None, Parameter(help="Only of this tenant.")] = None,
    state: Annotated[
        KeyState | None,
        Parameter(name="--in-state", help="Only keys in this state; default all but revoked."),
    ] = None,
    name: Annotated[str, Parameter(help="Only keys whose name begins like this.")] = "",
    options: ListOptions = ListOptions(),
) -> int:
    """List the keys, oldest first, without their secrets.

    Example: neuronetz-gateway list-keys --tenant acme --in-state active
    """
    async with opened(options.state) as session:
        found = await list_keys(
            session, tenant, state=state, beginning=name, after=options.after, count=options.limit + 1
        )
    keys = output.page(found, lambda row: row.prefix, limit=options.limit)
    if options.json:
        output.show_list(keys)
    else:
        empty = (
            "No such key: create one with "
            f"`neuronetz-gateway create-key --tenant {tenant or 'TENANT'} --name NAME`."
        )
        rare = ("models", "cidrs", "max_output", "log_prompts", "in_path", "expires", "ssh_key")
        columns = ("prefix", "tenant", "key", "state", *rare, "created")
        output.show_table([Shown.of(key) for key in keys], columns=columns, empty=empty, optional=rare)
    return 0


async def rotate_key_command(
    *,
    prefix: Prefix,
    grace: Annotated[str, Parameter(help="How long the older secrets still work: 24h, 7d, 0m.")] = "24h",
    ssh_key: SshKey = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Give a key a new secret and print it, this once.

    Example: neuronetz-gateway rotate-key --prefix nz_abc12345 --grace 24h
    """
    now = datetime.now(UTC)
    grace_ends = limit_options.moment(grace, now, is_past=False)
    if grace_ends < now:
        raise UsageError(f"--grace {grace} lies in the past: give a span like 24h, or 0m for none.")
    public_key = _public_key(ssh_key)
    async with opened(options.state, actor=options.actor) as session:
        created = await rotate_key(session, prefix, grace_ends=grace_ends, ssh_key=public_key)
    _show(created, is_json=options.json, older_end=grace_ends)
    if not options.json:
        output.say(_older(prefix, grace_ends, now))
    return 0


async def revoke_key_command(
    *,
    prefix: Prefix,
    kill_running: Annotated[Kill, Parameter(name="--kill")] = False,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Revoke a key for good; no request is admitted once this has returned.

    Example: neuronetz-gateway revoke-key --prefix nz_abc12345 --kill
    """
    async with opened(options.state, actor=options.actor) as session:
        key = await set_key_state(session, prefix, "revoked")
        killed = await kill_all(session, tenant=key["tenant_id"], key=key["id"]) if kill_running else 0
    _say_state(prefix, key, "revoked", killed=killed, is_json=options.json)
    return 0


async def revoke_secret_command(*, prefix: Prefix, options: ChangeOptions = ChangeOptions()) -> int:
    """End one secret of a key at once, by its prefix; the others go on, and so does what runs.

    Example: neuronetz-gateway revoke-secret --prefix nz_abc12345
    """
    async with opened(options.state, actor=options.actor) as session:
        key = await end_secret(session, prefix, at=datetime.now(UTC))
    if options.json:
        output.show_json({"prefix": prefix, "key": key["name"], "tenant": key["tenant"], "state": "revoked"})
    else:
        output.say(f"The secret {prefix} of key {key['name']} has ended; the key's other secrets go on.")
    return 0


async def disable_key_command(*, prefix: Prefix, options: ChangeOptions = ChangeOptions()) -> int:
    """Disable a key until it is enabled again.

    Example: neuronetz-gateway disable-key --prefix nz_abc12345
    """
    async with opened(options.state, actor=options.actor) as session:
        key = await set_key_state(session, prefix, "disabled")
    _say_state(prefix, key, "disabled", killed=0, is_json=options.json)
    return 0


async def enable_key_command(*, prefix: Prefix, options: ChangeOptions = ChangeOptions()) -> int:
    """Enable a key again.

    Example: neuronetz-gateway enable-key --prefix nz_abc12345
    """
    async with opened(options.state, actor=options.actor) as session:
        key = await set_key_state(session, prefix, "active")
    _say_state(prefix, key, "active", killed=0, is_json=options.json)
    return 0


def _say_state(prefix: str, key: asyncpg.Record, state: str, *, killed: int, is_json: bool) -> None:
    name = key["name"]
    facts = {"prefix": prefix, "key": name, "tenant": key["tenant"], "state": state}
    output.show_state(f"Key {prefix} ({name}) is {state}.", killed=killed, is_json=is_json, **facts)


def _public_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return signatures.public_key(file.read(signatures.LONGEST))
    except (OSError, ValueError) as error:
        sentence = f"{path} can't be read ({error}): name a public key, such as ~/.ollama/id_ed25519.pub."
        raise UsageError(sentence) from error


def _older(prefix: str, end: datetime, now: datetime) -> str:
    """Say until when the secrets of before a rotation work, and how to end one sooner."""
    if end <= now:
        return "The secrets of before have ended."
    return (
        f"Until {end.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z the secrets of before work, too: "
        f"`neuronetz-gateway revoke-secret --prefix {prefix}` ends one now."
    )


def _show(created: CreatedKey, *, is_json: bool, older_end: datetime | None = None) -> None:
    if is_json:
        is_secret = not created.key.startswith(SSH_ALGORITHM)
        facts = {
            "secret": created.key if is_secret else None,
            "ssh_key": None if is_secret else created.key,
            "prefix": created.prefix,
            "tenant": created.tenant,
            "key": created.name,
        }
        output.show_json(facts | ({"older_end": older_end} if older_end else {}))
    elif created.key.startswith(SSH_ALGORITHM):
        output.say(
            f"{created.key}\nis registered: its holder sets OLLAMA_AUTH=1. Its prefix is {created.prefix}."
        )
    else:
        output.say(f"{created.key}\nKeep it now: it is not shown again. Its prefix is {created.prefix}.")
