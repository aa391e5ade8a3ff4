"""What a deployment needs before its first start: an env file and two secrets, none of them ever replaced."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from authz import forms
from authz.backends import env_file
from authz.configuration import example
from authz.errors import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWNER: Final = 65_532
"""The user and group of the containers."""
DOMAIN: Final = "GATEWAY_DOMAIN"
_FOLDER: Final = "secrets"


@frozen
class Secret:
    """A file that is made once: how, and who may read it."""

    name: str
    mode: int
    make: Callable[[], str] = field(repr=False)


SECRETS: Final = (
    Secret("pepper", 0o400, lambda: secrets.token_hex(32)),
    # The database's own user reads it as a member of the group.
    Secret("postgres_password", 0o440, lambda: secrets.token_urlsafe(32)),
)


@frozen
class Made:
    """What was written, what was there already, and what is left to do."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    left: tuple[str, ...]


def initialise(env: Path, *, domain: str | None, is_forced: bool) -> Made:
    """Write an env file and, in a folder beside it, the secrets; what is there stays.

    `is_forced` lets another domain take the place of the one in the file. Raises CommandError.
    """
    if domain is not None and (problem := forms.domain(domain)):
        raise UsageError(f"--domain {domain!r} {problem}.")
    env_file.refuse_unwritable(env)
    _filled(env, env_file.read(env), domain, is_forced=is_forced)  # refuses before anything is made
    folder = env.parent / _FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with env_file.locked(folder):  # whoever comes second finds all that the first has written
            made = {folder / secret.name: _make(folder, secret) for secret in SECRETS}
            before = env_file.read(env)
            after = _filled(env, before, domain, is_forced=is_forced)
            made[env] = after != before
            if made[env]:
                env_file.write(env, after, expected=before)
        left = [*_exposed(folder), *_foreign(folder)]
    except OSError as error:
        raise CommandError(
            f"The secrets in {folder} can't be made ({error.strerror}): make it a folder that you can write."
        ) from error
    if not env_file.value_of(after, DOMAIN):
        left.append(f"Set {DOMAIN} in {env} before the first start in containers, or run this with --domain.")
    written, kept = ([path for path in made if made[path] is each] for each in (True, False))
    return Made(tuple(written), tuple(kept), tuple(left))


def _filled(env: Path, text: str, domain: str | None, *, is_forced: bool) -> str:
    """Return the env file's text with the domain in it; a new file is the whole example."""
    if not text.strip():
        return example.text({DOMAIN: domain} if domain else {})
    old = env_file.value_of(text, DOMAIN)
    if domain is None or domain == old:
        return text
    if old and not is_forced:
        raise CommandError(f"{env} has {DOMAIN}={old} already: replace it with --force. Nothing was written.")
    return env_file.rewritten(text, DOMAIN, domain)


def _make(folder: Path, secret: Secret) -> bool:
    """Make a secret whole or not at all; return False where there is one, which stays."""
    path, attempt = folder / secret.name, folder / f".{secret.name}.new"
    if path.exists():
        return False
    attempt.unlink(missing_ok=True)
    descriptor = os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secret.make()}\n")
        file.flush()
        if os.geteuid() == 0:
            os.fchown(file.fileno(), OWNER, OWNER)
        os.fchmod(file.fileno(), secret.mode)
        os.fsync(file.fileno())
    attempt.rename(path)
    return True


def _exposed(folder: Path) -> list[str]:
    """Return what to do about secrets that too many may read."""
    return [
        f"{folder / secret.name} can be read by others: run `chmod {secret.mode:04o} {folder / secret.name}`."
        for secret in SECRETS
        if (folder / secret.name).stat().st_mode & 0o777 & ~(secret.mode | 0o600)
    ]


def _foreign(folder: Path) -> list[str]:
    """Return what to do about secrets that the containers' user does not own."""
    paths = [folder / secret.name for secret in SECRETS]
    foreign = [str(path) for path in paths if path.stat().st_uid != OWNER or path.stat().st_gid != OWNER]
    if not foreign:
        return []
    return [
        f"Containers run as user {OWNER}: for them, run `sudo chown {OWNER}:{OWNER} {' '.join(foreign)}`."
    ]
