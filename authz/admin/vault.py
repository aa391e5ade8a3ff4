"""Commands about the keys of the vault: make a pair, and another one when it is time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz import settings as settings_
from authz.accounts import vault
from authz.accounts.session import opened
from authz.accounts.vault import PrivateKeys
from authz.admin import output
from authz.admin.options import ChangeOptions
from authz.errors import CommandError, SettingsError, StoreUnavailable

Private = Annotated[Path, Parameter(help="File of the private keys: a place that no service has.")]
Public = Annotated[Path | None, Parameter(help="File of the public keys (default: GATEWAY_PROMPT_KEY).")]


async def vault_init_command(
    *, private_key: Private, public_key: Public = None, options: ChangeOptions = ChangeOptions()
) -> int:
    """Make a pair of keys: Caddy seals prompts for the public one, and the private one opens them.

    Example: neuronetz-gateway vault init --private-key /mnt/away/vault.key
    """
    public = _public(private_key, public_key, options)
    for path in (private_key, public):
        if path.exists():
            raise CommandError(
                f"{path} is there already: `vault rotate` adds a key, and keeps the one before."
            )
    keys = PrivateKeys(()).with_new()
    keys.write(private_key, is_new=True)
    vault.write_public(public, [keys.keys[0].public_key], is_new=True)
    _show(keys, private_key, public, is_json=options.json)
    await _note(None, vault.identifier(keys.keys[0].public_key), options)
    return 0


async def vault_rotate_command(
    *, private_key: Private, public_key: Public = None, options: ChangeOptions = ChangeOptions()
) -> int:
    """Have prompts sealed for a new key from now on; the private file opens those of before, too.

    Example: neuronetz-gateway vault rotate --private-key /mnt/away/vault.key
    """
    public = _public(private_key, public_key, options)
    keys, former = PrivateKeys.read(private_key), vault.read_public(public)
    if bytes(former[0]) != bytes(keys.keys[0].public_key):
        raise CommandError(
            f"The newest key of {private_key} is not the one of {public}: name the two files of one vault."
        )
    keys = keys.with_new()
    keys.write(private_key, is_new=False)
    vault.write_public(public, [keys.keys[0].public_key, former[0]], is_new=False)
    _show(keys, private_key, public, is_json=options.json)
    await _note(vault.identifier(former[0]), vault.identifier(keys.keys[0].public_key), options)
    return 0


async def _note(former: str | None, name: str, options: ChangeOptions) -> None:
    """Note in the audit which key seals, if this machine reaches it: keys are best made elsewhere."""
    try:
        async with (
            opened(options.state, actor=options.actor) as session,
            session.store.connection() as connection,
        ):
            await session.audit(connection, "vault_key_changed", old={"vault": former}, new={"vault": name})
    except (SettingsError, StoreUnavailable):
        if not options.json:
            output.say("Note: this machine does not reach Postgres, so the audit does not name this key.")


def _public(private: Path, public: Path | None, options: ChangeOptions) -> Path:
    """Return the file of the public keys; the private ones must lie elsewhere."""
    found = settings_.load(os.environ, state=options.state, needs_stores=False)
    chosen = public or found.prompt_key
    vault.check_place(private, public=chosen, state=found.state)
    return chosen


def _show(keys: PrivateKeys, private: Path, public: Path, *, is_json: bool) -> None:
    name = vault.identifier(keys.keys[0].public_key)
    if is_json:
        output.show_json({"vault": name, "private_key": str(private), "public_key": str(public)})
        return
    output.say(
        f"Prompts are sealed for the key {name} within a second of Caddy finding it in {public}.\n"
        f"Keep {private} away from every server, and a copy of it: without it nobody can read a prompt."
    )
