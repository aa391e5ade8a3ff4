"""`just attack-compare`: the attacks of `just attack` on a stock `forward_auth`, without any of our modules.

Its authz knows two keys, and refuses mutation paths as they are written. Neither words nor records are asked
of it: a refusal is any status of 400 or more, or no answer.

python -m tests.security.compare
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from authz.stack.build import caddy_binary
from authz.stack.demo.exchange import Receive, Scope, Send
from authz.stack.discovery import free_port
from tests.backend.app import backend
from tests.backend.serving import App, served
from tests.gateway import MODELS
from tests.security import keys, spellings
from tests.security.cases import cases
from tests.security.frames import RESET
from tests.security.node import GLOBALS, NAME
from tests.security.observed import Witness
from tests.security.spellings import MUTATIONS
from tests.security.trials import Proxy, Trial, attempt, every, seen_faults, urls
from tests.up.stacks import answers, until

KEYS: Final = {name: f"nz_{name[0] * 46}" for name in ("key", "narrow", "revoked", "disabled", "elsewhere")}
VALID: Final = {KEYS["key"], KEYS["narrow"]}
REFUSAL: Final = 400
SITE: Final = """{{
	{globals}
	persist_config off
}}
http://:{port}, https://{name}:{tls_port}, https://:{tls_port} {{
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
    """Answer 204 to a key for all but mutation paths; any health check is 200."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    path = headers.get(b"x-forwarded-uri", "").partition("?")[0]
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    status = 403 if path in MUTATIONS else 204
    if headers.get(b"x-api-key", token if scheme.lower() == "bearer" else "") not in VALID:
        status = 401
    if scope["path"] != "/verify":
        status = 200 if scope["path"] == "/healthz" else 404
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def stock() -> Iterator[Proxy]:
    """Run a stock Caddy, and what is behind it."""
    authz: App = naive
    with (
        tempfile.TemporaryDirectory(prefix="nz") as folder,
        served(backend(*MODELS)) as url,
        served(authz) as authz_url,
        httpx.Client(base_url=url) as client,
    ):
        port, tls_port = free_port(), free_port()
        config = Path(folder) / "Caddyfile"
        text = SITE.format(
            globals=GLOBALS, name=NAME, port=port, tls_port=tls_port, authz=authz_url, backend=url
        )
        config.write_text(text)
        argv = [str(caddy_binary(os.environ, lambda _: None)), "run", "--config", str(config)]
        environ = {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
        with subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL) as caddy:
            try:
                until(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
                secrets = keys.spoiled(KEYS["key"]) | KEYS
                yield Proxy(urls(port, tls_port), secrets, Witness(client, "", Path(folder)))
            finally:
                caddy.terminate()


def faults(trial: Trial) -> Iterator[str]:
    """Find what must not have come of an attack on anybody's proxy."""
    yield from seen_faults(trial)
    for reply, allowed in zip(trial.replies, trial.case.allowed, strict=True):
        is_refused = reply.status >= REFUSAL or reply.status == RESET
        if reply.status not in allowed and not (is_refused and allowed[0] >= REFUSAL):
            yield f"answered {reply.status} instead of {allowed}"


def spelled(proxy: Proxy) -> int:
    """Count the generated requests that reached the backend, or were no refusal."""
    proxy.witness.forget()
    passed = sum(0 < reply.status < REFUSAL for _, reply in spellings.asked(spellings.every(), proxy))
    return max(passed, len(proxy.witness.hits()))


def main() -> int:
    """Run the cases, and print which a stock configuration fails and how many it passes."""
    with stock() as proxy:
        found: dict[str, list[str]] = {case.name: [] for case in cases()}
        proxy.witness.forget()
        for way in every(cases()):
            case, over, _ = way
            try:
                found[case.name] += (f"{fault} over {over}" for fault in faults(attempt(way, proxy)))
            except TimeoutError:
                found[case.name].append(f"no answer over {over}")
                proxy.witness.forget()
            except (ConnectionError, ssl.SSLError):  # the connection is closed, and framed so
                proxy.witness.forget()
        reached = spelled(proxy)
    for name, each in found.items():
        if each:
            sys.stdout.write(f"{name}: {each[0]}\n")
    passed = sum(not each for each in found.values())
    sys.stdout.write(
        f"a stock forward_auth passes {passed} of {len(found)} cases; "
        f"{reached:,} of {len(list(spellings.every())):,} generated requests reached the backend\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
