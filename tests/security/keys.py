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


MADE: Final = ("key", "inpath", "narrow", "elsewhere", "naming", "revoked", "disabled")
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
        **pieces(key),
    }


def pieces(key: str) -> dict[str, str]:
    """Return what is left of a key where a shell, a form or a router cuts it, or writes it in another way."""
    return {
        **{f"cut-{length}": key[:length] for length in (12, 20, 32, 40)},
        "first": key[:8],
        "second": key[8:],
        "middle": key[8:30],
        "bare-lowered": key.removeprefix(secrets.PREFIX).lower(),
        "upper": key.upper(),
        "escaped": f"%6e{key[1:]}",
        "escaped-inside": f"{key[:6]}%{ord(key[6]):02x}{key[7:]}",
        "escaped-whole": "".join(f"%{ord(each):02X}" for each in key),
        "escaped-twice": "".join(f"%25{ord(each):02x}" for each in key),
        "base64": base64.urlsafe_b64encode(key.encode()).decode().rstrip("="),
    }


def made(gateway: Gateway) -> dict[str, str]:
    """Make the keys of a gateway under attack."""
    found = spoiled(gateway.key) | {
        "inpath": gateway.create_key("inpath", "--in-path", "allowed"),
        "narrow": gateway.create_key("narrow", "--models", "demo"),
        "elsewhere": gateway.create_key("elsewhere", "--cidr", "192.0.2.0/24"),
        "naming": gateway.create_key("naming", "--end-users", "kept"),
    }
    for command, name in (("revoke-key", "revoked"), ("disable-key", "disabled")):
        found[name] = gateway.create_key(name)
        gateway.run(command, "--prefix", found[name][: secrets.LOOKUP_LENGTH]).check_returncode()
    return found
