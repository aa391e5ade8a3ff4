"""One Caddy snippet per backend, as the Caddyfile imports them; a token stays in a file beside it.

The first line of a rendered snippet has the digest of the rest, by which an edited one is recognised.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from authz.backends.backend import Backend

SUFFIX: Final = ".caddy"
CREDENTIAL_SUFFIX: Final = ".credential"
_FIRST_LINE: Final = re.compile(
    r"# Rendered from OLLAMA_BACKENDS, ([0-9a-f]{16}): [^\n]*\n(?P<body>.*)", re.DOTALL
)


def credential_name(backend: Backend) -> str:
    """Return the name of the file with a backend's credential.

    It stays when the token changes. It is another for another server or header, which must never be sent
    the credential of the one before while Caddy still has the old configuration.
    """
    return f"{backend.name}.{_digest(f'{backend.url} {backend.header}')}{CREDENTIAL_SUFFIX}"


def render(backend: Backend, credential: Path) -> str:
    """Write the snippet of a backend; `credential` is the file of its header's value."""
    body = _body(backend, credential)
    note = "an edit is kept until the backend changes, then `render --force` replaces it"
    return f"# Rendered from OLLAMA_BACKENDS, {_digest(body)}: {note}.\n{body}"


def is_edited(text: str) -> bool:
    """Return whether a snippet is not, or no longer, what was rendered."""
    found = _FIRST_LINE.fullmatch(text)
    return found is None or found[1] != _digest(found["body"])


def merged(old: str, rendered: str) -> str | None:
    """Return what to write over a snippet: an edit is kept while its backend is the same.

    None means that an edit would be lost. A snippet from before there were first lines is no edit.
    """
    if not old or not is_edited(old) or rendered.endswith(f"\n{old}"):
        return rendered
    return old if old.partition("\n")[0] == rendered.partition("\n")[0] else None


def _body(backend: Backend, credential: Path) -> str:
    address = backend.address
    if backend.token is None:
        line = f"import gateway_backend_open {backend.name} {address.upstream}"
    else:
        value = f'"{{file.{credential}}}"'
        line = f"import gateway_backend {backend.name} {address.upstream} {backend.header} {value}"
    if address.socket:
        return f"{line} {{\n\theader_up Host {address.host_header}\n}}\n"
    if address.prefix:
        prefix = address.prefix
        return f"{line} {{\n\trewrite {prefix}{{uri}}\n\thealth_uri {prefix}/api/version\n}}\n"
    return f"{line}\n"


def _digest(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:16]
