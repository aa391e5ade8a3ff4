"""Conceal keys in what a client sent, as Caddy's guard does in the journal: all but their lookups.

A key may be whole, cut or in pieces, in another case, in escapes or in base64.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Final

CONCEALMENT: Final = "***"
MAX_UNESCAPINGS: Final = 8
"""How often escapes are undone in a search for a key; beyond that there is one."""

_ESCAPE: Final = re.compile(r"%[0-9a-fA-F]{2}")
_KEY: Final = re.compile(rb"[nN][zZ]_[0-9A-Za-z]{9}")
_START: Final = re.compile(r"[nN][zZ]_[0-9A-Za-z]{0,8}")
_PIECES: Final = re.compile(r"[nN][zZ]_(?:[^0-9A-Za-z]*[0-9A-Za-z]){9}")
_BASE64: Final = re.compile(r"[0-9A-Za-z+/_-]{16,}")


def concealed(text: str) -> str:
    """Return a text of a client; behind the lookup of a key nothing is left of it."""
    plain = _unescaped(text)
    if plain is not None and not _PIECES.search(plain) and _base64_start(plain) is None:
        return text
    if escape := _ESCAPE.search(text):
        text = text[: escape.start()]
    text = text[: _base64_start(text)]
    if start := _START.search(text):
        text = text[: start.end()]
    return text + CONCEALMENT


def _unescaped(text: str) -> str | None:
    """Undo the escapes of a text, and those that come to light by that; None if there is no end."""
    for _ in range(MAX_UNESCAPINGS):
        if not _ESCAPE.search(text):
            return text
        text = _ESCAPE.sub(lambda found: chr(int(found[0][1:], 16)), text)
    return None


def _base64_start(text: str) -> int | None:
    """Return where a key stands in base64, or something with a key in it."""
    for run in _BASE64.finditer(text):
        digits = run[0].replace("-", "+").replace("_", "/")
        for start in range(4):
            part = digits[start:]
            whole = part[:-1] if len(part) % 4 == 1 else part
            if _KEY.search(b64decode(whole + "=" * (-len(whole) % 4))):
                return run.start()
    return None
