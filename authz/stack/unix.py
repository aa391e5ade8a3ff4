"""HTTP on a unix socket, without httpx, whose import takes longer than all the rest of `status`.

`python -m authz.stack.unix SOCKET TARGET` exits with 0 if that is answered: the health check of a container.
"""

from __future__ import annotations

import socket
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 3.0


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(path: Path, target: str) -> bytes | None:
    """Return the body of a 200; None if nothing listens there, or it answers anything else."""
    connection = _Connection(path)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.read() if answer.status == HTTPStatus.OK else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(get(Path(sys.argv[1]), sys.argv[2]) is None)
