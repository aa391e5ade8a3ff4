"""The command `apply`: bring tenants, keys and aliases to what a file says, and print the difference."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attrs import asdict, define, field
from cyclopts import Parameter

import sql
from authz.accounts import batch as batches
from authz.accounts.aliases import set_alias
from authz.accounts.keys import create_key, set_key_state
from authz.accounts.limits import set_key_limits, set_tenant_limits
from authz.accounts.scope import Scope
from authz.accounts.scope import timezone as timezone_of
from authz.accounts.session import opened
from authz.accounts.tenants import create_tenant, find_tenant, set_tenant_state
from authz.admin import output, tenants_file
from authz.admin.difference import changes_of
from authz.admin.options import ChangeOptions
from authz.admin.tenants_file import in_words
from authz.errors import CommandError, UsageError
from authz.types import Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authz.accounts.batch import Batch
    from authz.accounts.session import Session
    from authz.admin.difference import Change
    from authz.admin.tenants_file import KeyEntry, TenantEntry, TenantsFile

_queries = sql.load("accounts")

File = Annotated[
    Path,
    Parameter(name=["--file", "-f"], allow_leading_hyphen=True, help="A YAML file; - is standard input."),
]


@define
class Applied:
    """What becomes of a file: the changes, what can't be done, and the secrets of new keys."""

    batch: Batch
    now: datetime
    is_creating: bool
    changes: list[Change] = field(factory=list)
    problems: list[str] = field(factory=list)
    secrets: dict[tuple[str, str], str] = field(factory=dict, repr=False)

    async def run(self, wanted: TenantsFile) -> None:
        """Apply a file, in one order of names: two at once wait for each other."""
        for name, entry in sorted(wanted.tenants.items()):
            await self._tenant(name, entry)
        for alias, model in sorted(wanted.aliases.items()):
            with self._about(None, alias=alias):
                await set_alias(self.batch, alias, model, tenant=None)

    def refuse_problems(self) -> None:
        """Raise CommandError with all that can't be done, if there is anything."""
        if self.problems:
            raise CommandError("\n".join(self.problems))

    async def _tenant(self, name: str, entry: TenantEntry) -> None:
        with self._about(name):
            await self._own(name, entry)
        if not await self._exists(name):
            return
        async with self.batch.store.connection() as connection:
            keys = {row["name"]: row async for row in _queries.keys_of(connection, tenant=name)}
        for key, each in sorted(entry.keys.items()):
            with self._about(name, key=key):
                await self._key(name, key, each, keys.get(key))
        for alias, model in sorted(entry.aliases.items()):
            with self._about(name, alias=alias):
                await set_alias(self.batch, alias, model, tenant=name)

    async def _exists(self, tenant: str) -> bool:
        async with self.batch.store.connection() as connection:
            return bool(await _queries.is_tenant(connection, name=tenant))

    async def _own(self, name: str, entry: TenantEntry) -> None:
        """Apply what the file says of the tenant itself."""
        if await self._exists(name):
            await set_tenant_limits(
                self.batch,
                name,
                limits=entry.limits.applied,
                policy=entry.policy.applied,
                timezone=entry.timezone,
            )
        else:
            await create_tenant(
                self.batch,
                name,
                limits=entry.limits.applied(Limits()),
                policy=entry.policy.applied(Policy()),
                timezone=timezone_of(entry.timezone or "UTC"),
            )
        async with self.batch.store.connection() as connection:
            state = (await find_tenant(connection, name))["state"]
        if entry.state not in {None, state}:
            await set_tenant_state(self.batch, name, str(entry.state))

    async def _key(self, tenant: str, name: str, entry: KeyEntry, known: Any) -> None:
        if known is None:
            if not self.is_creating:
                raise CommandError(
                    "it does not exist: add --new-keys DIR for a file with its secret, or create it with "
                    f"`create-key --tenant {tenant} --name {name}`."
                )
            created = await create_key(
                self.batch,
                tenant=tenant,
                name=name,
                limits=entry.limits.applied(Limits()),
                scope=entry.scoped(Scope(), self.now),
                policy=entry.policy.applied(Policy()),
            )
            self.secrets[tenant, name] = created.key
            prefix, state = created.prefix, "active"
        else:
            prefix, state = known["prefix"], known["state"]
            if state == "revoked":
                raise CommandError("it is revoked for good: take it out of the file, or give another name.")
            await set_key_limits(
                self.batch,
                prefix,
                limits=entry.limits.applied,
                scope=lambda old: entry.scoped(old, self.now),
                policy=entry.policy.applied,
            )
        if entry.state not in {None, state}:
            await set_key_state(self.batch, prefix, str(entry.state))

    @contextmanager
    def _about(
        self, tenant: str | None, *, key: str | None = None, alias: str | None = None
    ) -> Iterator[None]:
        """Note as changes what a part of the file has done, or as a problem why it could not."""
        place = {"tenant": tenant, "key": key, "alias": alias}
        try:
            yield
        except CommandError as error:
            where = ", ".join(f"{kind} {name}" for kind, name in place.items() if name is not None)
            self.problems.append(f"{where}: {in_words(error) if isinstance(error, UsageError) else error}")
        for event in self.batch.events:
            self.changes += changes_of(event, **place)
        self.batch.events.clear()


async def apply(
    session: Session,
    wanted: TenantsFile,
    *,
    now: datetime,
    new_keys: Path | None = None,
    is_dry_run: bool = False,
) -> list[Change]:
    """Bring tenants, keys and aliases to what a file says, and return the difference.

    Raises CommandError with a sentence for each thing that can't be done; nothing is changed then.
    """
    written: list[Path] = []
    try:
        async with batches.begun(session, is_kept=not is_dry_run) as batch:
            applied = Applied(batch, now, is_creating=new_keys is not None)
            await applied.run(wanted)
            applied.refuse_problems()
            if new_keys is not None and not is_dry_run:
                for (tenant, key), secret in applied.secrets.items():
                    written.append(_keep(new_keys / tenant / key, secret))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return applied.changes


def _keep(path: Path, secret: str) -> Path:
    """Write a secret into a file of its own, which must not be there yet. Raises CommandError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(f"{secret}\n")
    except OSError as error:
        sentence = (
            f"The secret of a new key can't be written to {path} ({error.strerror}): give --new-keys DIR."
        )
        raise CommandError(sentence) from error
    return path


async def apply_command(
    *,
    file: Annotated[
        Path, Parameter(name=["--file", "-f"], allow_leading_hyphen=True, help="YAML; - is standard input.")
    ],
    dry_run: Annotated[
        bool, Parameter(name="--dry-run", negative="", help="Print the difference, and change nothing.")
    ] = False,
    new_keys: Annotated[
        Path | None, Parameter(help="Create keys that do not exist, each secret in a file DIR/TENANT/KEY.")
    ] = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Bring tenants, keys and aliases to what a file says, and print the difference.

    What the file does not name stays as it is; nothing is deleted or revoked. Where one thing can't be done,
    nothing is. No secret is in the file, or printed.

    Example: neuronetz-gateway apply -f tenants.yaml --dry-run
    """
    now = datetime.now(UTC)
    wanted = tenants_file.read(file, now)
    async with opened(options.state, actor=options.actor) as session:
        changes = await apply(session, wanted, now=now, new_keys=new_keys, is_dry_run=dry_run)
    if options.json:
        output.show_json({"is_dry_run": dry_run, "changes": [asdict(change) for change in changes]})
        return 0
    for change in changes:
        output.say(change.sentence)
    if not changes:
        output.say("Everything is as the file says.")
    elif dry_run:
        output.say("Nothing was changed: this was a dry run.")
    return 0
