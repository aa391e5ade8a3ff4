"""A registry of models: it serves a folder of Ollama's to `ollama pull`. Runs in a container, alone."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STORE = "blobs"
"""Our other name: Ollama wants to be sent elsewhere for a blob, as its own registry does."""


class Handler(BaseHTTPRequestHandler):
    """Answer for /v2/library/NAME/manifests/TAG and /v2/library/NAME/blobs/DIGEST."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Say how long it is."""
        self._answer(is_body_wanted=False)

    def do_GET(self) -> None:
        """Send it, or the part of it that is asked for."""
        self._answer(is_body_wanted=True)

    def _answer(self, *, is_body_wanted: bool) -> None:
        _, _, _, name, kind, which = self.path.split("/")
        folder = Path(sys.argv[1])
        path = folder / "blobs" / which.replace(":", "-")
        if kind == "manifests":
            path = folder / "manifests" / "registry.ollama.ai" / "library" / name / which
        elif is_body_wanted and not self.headers["Host"].startswith(STORE):
            self.send_response(307)
            self.send_header("Location", f"http://{STORE}:5000{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, status = path.read_bytes(), 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            content, status = content[int(first) : int(last) + 1 if last else None], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if is_body_wanted:
            self.wfile.write(content)


ThreadingHTTPServer(("", 5000), Handler).serve_forever()
