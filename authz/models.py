"""Compare model names in Ollama's canonical form, and match them with allowlists.

`llama3`, `LLAMA3:latest`, `library/llama3` and `registry.ollama.ai/library/llama3:latest` are one
model (Ollama: types/model/name.go, ParseName and EqualFold).
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_PATTERN = re.compile(r"[A-Za-z0-9._:/*-]{1,256}", re.ASCII)

MAX_PARTS: Final = 3


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Return `host/namespace/model:tag`, folded; the default host and namespace are left away."""
    text = _SCHEME.sub("", name.strip().lower(), count=1)
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to a host's port, or there is none
        path, tag = text, ""
    parts = path.split("/")
    if len(parts) == MAX_PARTS and parts[0] == _HOST:
        parts = parts[1:]
    if len(parts) == MAX_PARTS - 1 and parts[0] == _NAMESPACE:
        parts = parts[1:]
    return f"{'/'.join(parts)}:{tag or _TAG}"


def is_cloud(name: str) -> bool:
    """Return whether a name sends the prompt to a cloud service, on the backend owner's account."""
    tag = canonical(name).rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")


@lru_cache(maxsize=4096)
def is_allowed(name: str, allowlist: tuple[str, ...] | None) -> bool:
    """Return whether an allowlist holds a model or a pattern (`*`) of it; None allows all."""
    if is_cloud(name):
        return False
    if allowlist is None:
        return True
    full = canonical(name)
    return any(fnmatchcase(full, _pattern(entry)) for entry in allowlist)


def is_pattern(text: str) -> bool:
    """Return whether a text can stand in an allowlist."""
    return _PATTERN.fullmatch(text) is not None


def _pattern(entry: str) -> str:
    """Complete a pattern: without a tag it means every tag; a plain name means `latest`."""
    if "*" not in entry or ":" in entry:
        return canonical(entry)
    return canonical(entry + ":*")
