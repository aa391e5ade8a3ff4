"""`just attack-compare`: the cases of `just attack` on a stock `forward_auth`, without any of our modules.

Its authz knows the key, and refuses mutation paths as they are written. Records are not asked of it.

python -m tests.security.compare
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import httpx

from authz.stack.build import caddy_binary
from authz.stack.demo.exchange import Receive, Scope, Send
from authz.stack.discovery import free_port
from tests.backend.app import backend
from tests.backend.serving import App, served
from tests.gateway import MODELS
from tests.security.cases import cases, verdict
from tests.security.observed import Witness
from tests.security.spellings import MUTATIONS
from tests.up.stacks import answers, until

KEY: Final = f"nz_{'k' * 46}"
SITE: Final = """{{
	admin off
	persist_config off
	auto_https off
}}
http://:{port} {{
	bind 127.0.0.1
	route {{
		respond /healthz `{{"status":"ok"}}`
		forward_auth {authz} {{
			uri /verify
		}}
		reverse_proxy {backend}
	}}
}}
"""


async def naive(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 204 to the key for all but mutation paths; any health check is 200."""
    headers = dict(scope["headers"])
    path = headers.get(b"x-forwarded-uri", b"").decode("latin-1").partition("?")[0]
    status = 403 if path in MUTATIONS else 204
    if headers.get(b"authorization") != f"Bearer {KEY}".encode():
        status = 401
    if scope["path"] != "/verify":
        status = 200 if scope["path"] == "/healthz" else 404
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def main() -> int:
    """Run the cases, and print which a stock configuration fails and how many it passes."""
    authz: App = naive
    with (
        tempfile.TemporaryDirectory(prefix="nz") as folder,
        served(backend(*MODELS)) as url,
        served(authz) as authz_url,
        httpx.Client(base_url=url) as client,
    ):
        port = free_port()
        config = Path(folder) / "Caddyfile"
        config.write_text(SITE.format(port=port, authz=authz_url, backend=url))
        argv = [str(caddy_binary(os.environ, lambda _: None)), "run", "--config", str(config)]
        caddy = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            stock = f"http://127.0.0.1:{port}"
            until(lambda: answers(f"{stock}/healthz"))
            witness = Witness(client, "", Path(folder))
            failed = {each.name: verdict(each, stock, KEY, witness=witness)[1] for each in cases()}
        finally:
            caddy.terminate()
            caddy.wait()
    for name, found in failed.items():
        if found:
            sys.stdout.write(f"{name}: {'; '.join(found)}\n")
    passed = sum(not found for found in failed.values())
    sys.stdout.write(f"a stock forward_auth passes {passed} of {len(failed)} cases\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
