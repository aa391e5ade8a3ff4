"""A gateway reaches backends by every kind of address: private CA, path prefix, IPv6, unix socket."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from attrs import frozen

from authz.stack.build import caddy_binary
from authz.stack.discovery import free_port
from tests.backend.app import backend
from tests.backend.serving import served
from tests.up.stacks import Stack, until

MODELS = ("tls", "six", "socket")
CADDYFILE = """{{
	admin off
	storage file_system {folder}
	skip_install_trust
	auto_https disable_redirects
}}
https://localhost:{tls_port} {{
	tls internal
	handle_path /a/b/* {{
		reverse_proxy {tls}
	}}
	respond 418
}}
http://[::1]:{six_port} {{
	reverse_proxy {six}
}}
http://localhost {{
	bind unix/{folder}/o.sock
	reverse_proxy {socket}
}}
"""


@frozen
class Fronts:
    """What stands before three backends: the URLs, and the certificate of the authority of one."""

    urls: dict[str, str]
    authority: Path
    behind: dict[str, str]


@pytest.fixture
def fronts() -> Iterator[Fronts]:
    """A Caddy with an authority of its own, before one backend for each kind of address."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nz")))
        behind = {model: stack.enter_context(served(backend(model))) for model in MODELS}
        ports = {"tls_port": free_port(), "six_port": free_port()}
        config = folder / "Caddyfile"
        config.write_text(CADDYFILE.format(folder=folder, **behind, **ports))
        argv = [str(caddy_binary(os.environ, lambda _: None)), "run", "--config", str(config)]
        log = stack.enter_context((folder / "log").open("wb"))
        process = stack.enter_context(
            subprocess.Popen([*argv, "--adapter", "caddyfile"], stdout=log, stderr=log)
        )
        stack.callback(process.terminate)
        authority = folder / "pki" / "authorities" / "local" / "root.crt"
        until(lambda: (folder / "o.sock").exists() and authority.exists())
        urls = {
            "tls": f"https://localhost:{ports['tls_port']}/a/b/",
            "six": f"http://[::1]:{ports['six_port']}",
            "socket": f"unix://{folder}/o.sock",
        }
        yield Fronts(urls, authority, behind)


def test_every_kind_of_address_serves(stack: Stack, fronts: Fronts) -> None:
    """authz, Caddy and the commands reach each kind alike, with its token; paths are Ollama's own."""
    backends = [{"name": name, "url": url, "token": f"t-{name}"} for name, url in fronts.urls.items()]
    given = {"OLLAMA_BACKENDS": json.dumps(backends), "SSL_CERT_FILE": str(fronts.authority)}
    stack.up(**given)

    for model in MODELS:
        answer = httpx.post(
            f"http://127.0.0.1:{stack.port}/api/chat?x=1",
            headers={"Authorization": f"Bearer {stack.key}"},
            json={"model": model, "messages": [{"role": "user", "content": "tokens=2"}]},
            timeout=10,
        )
        assert 200 == answer.status_code, (model, answer.text)
        hits = httpx.get(f"{fronts.behind[model]}/test/hits").json()
        posts = {hit["target"].partition("?")[0]: hit for hit in hits if hit["method"] == "POST"}
        assert posts.keys() <= {"/api/chat", "/api/show"}  # authz asks for the model's vocabulary
        for hit in (posts["/api/chat"], hits[-1]):
            headers = {name.lower(): value for name, value in hit["headers"]}
            assert f"Bearer t-{model}" == headers["authorization"]
        # Its health checks, too, reach the backend.
        assert {"/api/version"} <= {hit["target"] for hit in hits}
    probed = stack.run("probe-ollama", "--json", **given)
    assert [None] * 3 == [row["problem"] for row in json.loads(probed.stdout)]
    untrusted = stack.run("probe-ollama", "tls", "--json", OLLAMA_BACKENDS=given["OLLAMA_BACKENDS"])
    assert "name its authority in SSL_CERT_FILE" in json.loads(untrusted.stdout)[0]["problem"]
