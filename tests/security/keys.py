"""Keys by what is wrong with them, as the attack cases name them."""

from __future__ import annotations

import base64
from typing import Final

from authz.identity import secrets
from tests.gateway import Gateway


def _checked(body: str) -> str:
    """Return a key's text with the check that fits: only authz can find that it is none."""
    return body + secrets._check(body)


STRANGER: Final = _checked(f"{secrets.PREFIX}{'Z' * 8}{'a' * 32}")
"""A well-formed key that was never made."""


MADE: Final = ("key", "inpath", "narrow", "elsewhere", "revoked", "disabled")
"""The keys that are valid somewhere, or were."""


def spoiled(key: str) -> dict[str, str]:
    """Return a key, and what a typing error, a program or a forger makes of it."""
    middle = len(key) // 2
    return {
        "key": key,
        "truncated": key[:-1],
        "lowered": key.lower(),
        "bare": key.removeprefix(secrets.PREFIX),
        "mistyped": f"{key[:middle]}{'b' if key[middle] == 'a' else 'a'}{key[middle + 1 :]}",
        "stranger": STRANGER,
        "forged": _checked(f"{key[: secrets.LOOKUP_LENGTH]}{'a' * 32}"),
        "basic-user": base64.b64encode(f"{key}:".encode()).decode(),
    }


def made(gateway: Gateway) -> dict[str, str]:
    """Make the keys of a gateway under attack."""
    found = spoiled(gateway.key) | {
        "inpath": gateway.create_key("inpath", "--in-path", "allowed"),
        "narrow": gateway.create_key("narrow", "--models", "demo"),
        "elsewhere": gateway.create_key("elsewhere", "--cidr", "192.0.2.0/24"),
    }
    for command, name in (("revoke-key", "revoked"), ("disable-key", "disabled")):
        found[name] = gateway.create_key(name)
        gateway.run(command, "--prefix", found[name][: secrets.LOOKUP_LENGTH]).check_returncode()
    return found
