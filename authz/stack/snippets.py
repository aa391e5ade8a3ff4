"""One Caddy snippet per backend, as the Caddyfile imports them; a token stays in a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from authz.backends.backend import Backend
    from authz.stack.folder import StateFolder


def write(folder: StateFolder, found: Sequence[Backend]) -> None:
    """Make the folder hold exactly the snippets of these backends."""
    for path in folder.backends.iterdir():
        path.unlink()
    for backend in found:
        credential = folder.backends / f"{backend.name}.credential"
        for value in backend.credentials().values():
            write_atomically(credential, value.encode())
        write_atomically(folder.backends / f"{backend.name}.caddy", snippet(backend, credential).encode())


def snippet(backend: Backend, credential: Path) -> str:
    """Write the line that names a backend and its credential for Caddy."""
    if backend.token is None:
        return f"import gateway_backend_open {backend.name} {backend.url}\n"
    return f'import gateway_backend {backend.name} {backend.url} {backend.header} "{{file.{credential}}}"\n'
