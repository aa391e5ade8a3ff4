"""`connect` serves a gateway on the loopback for programs that can't send a key, and for nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from authz.identity.secrets import Pepper, mint
from authz.stack.build import caddy_binary
from authz.stack.discovery import free_port
from tests.authz.backend_kinds import Scripted, ollama
from tests.authz.json_names import ELSEWHERE
from tests.backend.serving import served
from tests.gateway import Gateway
from tests.up.connecting import ENDS_WITHIN_S, Connected, connect, connected
from tests.up.stacks import until

KEY = mint(Pepper(bytes(32))).secret
"""A well-formed key that no gateway knows."""
CADDYFILE = """{{
	admin off
	storage file_system {folder}
	skip_install_trust
	auto_https disable_redirects
}}
https://localhost:{port} {{
	tls internal
	respond `{{"version":"1"}}`
}}
"""


@pytest.fixture
def proxy(gateway: Gateway, tmp_path: Path) -> Iterator[Connected]:
    """The proxy of a running gateway."""
    with connected(gateway.url, gateway.key, folder=tmp_path) as started:
        yield started


@pytest.fixture
def upstream() -> Iterator[tuple[Scripted, str]]:
    """A server that takes any key and notes what it is asked, and its URL."""
    scripted = Scripted(ollama("toy"))
    with served(scripted) as url:
        yield scripted, url


def test_the_key_is_added(proxy: Connected, gateway: Gateway) -> None:
    """A request without a key is answered as one with it, and a foreign key beside it does no harm."""
    expected = httpx.get(f"{gateway.url}/api/tags", headers={"X-Api-Key": gateway.key}).json()
    foreign: dict[str, str]
    for foreign in ({}, {"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}, {"Api-Key": KEY}):
        answer = httpx.get(f"{proxy.host}/api/tags", headers=foreign)
        assert (200, expected) == (answer.status_code, answer.json())


def test_answers_keep_their_form(proxy: Connected, gateway: Gateway) -> None:
    """Status, headers and body are the gateway's: a refusal, a redirect, a HEAD, an unknown path."""
    bearer = {"Authorization": f"Bearer {gateway.key}"}
    for method, path in (
        ("POST", "/api/pull"),
        ("GET", "//api//tags/"),
        ("HEAD", "/"),
        ("GET", "/v1/no%2Fsuch"),
    ):
        direct = httpx.request(method, gateway.url + path, headers=bearer)
        answer = httpx.request(method, proxy.host + path)
        assert (direct.status_code, direct.content) == (answer.status_code, answer.content)
        assert direct.headers.get("location") == answer.headers.get("location")


def test_what_it_says(upstream: tuple[Scripted, str], tmp_path: Path) -> None:
    """The first line can be pasted into a shell; with --json programs read it."""
    _, url = upstream
    for options in ([], ["--json"]):
        with connected(url, KEY, *options, folder=tmp_path) as proxy:
            named = {"url": proxy.host, "gateway": url, "prefix": KEY[:11]}
            if options:
                assert named == json.loads(proxy.line)
                assert ELSEWHERE["connect"] == named.keys()
            else:
                assert proxy.line.startswith(f"OLLAMA_HOST={proxy.host}  # {url} with the key {KEY[:11]};")


def test_only_programs_of_this_machine_may_ask(upstream: tuple[Scripted, str], tmp_path: Path) -> None:
    """Another Host (DNS rebinding) and a page of another origin get 403, and the gateway hears nothing."""
    scripted, url = upstream
    with connected(url, KEY, "--origin", "https://app.example.com", folder=tmp_path) as proxy:
        port = httpx.URL(proxy.host).port
        before = len(scripted.asked)
        for headers in (
            {"Host": "evil.example.com"},
            {"Host": f"evil.example.com:{port}"},
            {"Host": "127.0.0.1.evil.example.com"},
            {"Host": "localhost@evil.example.com"},
            {"Host": ""},
            {"Origin": "https://evil.example.com"},
            {"Origin": "https://app.example.com.evil.example.com"},
            {"Origin": "http://localhost.evil.example.com"},
            {"Origin": "null"},
            {"Origin": "chrome-extension://abc"},
        ):
            answer = httpx.post(f"{proxy.host}/api/chat", headers=headers, json={})
            assert (403, 1) == (answer.status_code, len(answer.json()["error"].splitlines())), headers
        assert before == len(scripted.asked)
        for headers in (
            {"Host": f"localhost:{port}"},
            {"Host": f"[::1]:{port}"},
            {"Origin": "http://localhost:3000"},
            {"Origin": "http://127.0.0.1:3000"},
            {"Origin": "vscode-webview://abc"},
            {"Origin": "https://app.example.com"},
        ):
            assert 200 == httpx.get(f"{proxy.host}/api/tags", headers=headers).status_code


def test_the_gateway_sees_one_key(upstream: tuple[Scripted, str], tmp_path: Path) -> None:
    """Of the client's headers the gateway gets no credential, no cookie and none of the connection's."""
    scripted, url = upstream
    sent = {
        "Authorization": "Basic eDp5",
        "X-Api-Key": "x",
        "Api-Key": "y",
        "Cookie": "a=b",
        "Proxy-Authorization": "Basic eDp5",
        "TE": "trailers",
    }
    with connected(url, KEY, folder=tmp_path) as proxy:
        httpx.get(f"{proxy.host}/api/tags?ts=1", headers=sent)
    seen = scripted.headers[-1]
    assert [f"Bearer {KEY}".encode()] == [value for name, value in seen if name == b"authorization"]
    dropped = {name.lower().encode() for name in sent} - {b"authorization"}
    assert dropped.isdisjoint(name for name, _ in seen)


def test_a_body_passes_as_it_comes(tmp_path: Path) -> None:
    """What the client has sent of a body reaches the gateway before the rest of it is there."""
    with socket.create_server(("127.0.0.1", 0)) as gateway:
        gateway.settimeout(ENDS_WITHIN_S)
        url = f"http://127.0.0.1:{gateway.getsockname()[1]}"
        threading.Thread(target=_answer_probe, args=(gateway,)).start()
        with connected(url, KEY, folder=tmp_path) as proxy:
            address = httpx.URL(proxy.host)
            with socket.create_connection((address.host, address.port or 0)) as client:
                client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\none")
                connection, _ = gateway.accept()
                with connection:
                    assert _received(connection, b"one").endswith(b"one")
                    client.sendall(b"two")
                    assert _received(connection, b"two")
                    client.close()
                    connection.settimeout(ENDS_WITHIN_S)
                    assert b"" == connection.recv(1)


def _answer_probe(gateway: socket.socket) -> None:
    """Be a gateway to the question that `connect` begins with."""
    connection, _ = gateway.accept()
    with connection:
        _received(connection, b"\r\n\r\n")
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"version":"1"}')


def _received(connection: socket.socket, end: bytes) -> bytes:
    connection.settimeout(ENDS_WITHIN_S)
    found = b""
    while not found.endswith(end):
        part = connection.recv(65536)
        assert part, found
        found += part
    return found


def test_a_gateway_that_stops_is_named(tmp_path: Path) -> None:
    """When the gateway does not answer any more, the client is told so in one sentence."""
    with served(Scripted(ollama("toy"))) as url:
        running = connected(url, KEY, folder=tmp_path)
        proxy = running.__enter__()
    answer = httpx.post(f"{proxy.host}/api/chat", json={})
    running.__exit__(None, None, None)
    assert 502 == answer.status_code
    assert f"The gateway at {url} does not answer" in answer.json()["error"]


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    """Ctrl-C ends the proxy though an answer is awaited, and writes nothing more."""
    waiting = Scripted(lambda path: b'{"version":"1"}' if path == "/api/version" else None)
    with served(waiting) as url, connected(url, KEY, folder=tmp_path) as proxy:
        address = httpx.URL(proxy.host)
        with socket.create_connection((address.host, address.port or 0)) as client:
            client.sendall(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: "/api/tags" in waiting.asked)
            proxy.process.send_signal(signal.SIGINT)
            out, err = proxy.process.communicate(timeout=ENDS_WITHIN_S)
    assert (130, "", "") == (proxy.process.returncode, out, err)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("https://gw.example.com", "--key", KEY), "can be seen by everybody on this machine"),
        (("https://gw.example.com", KEY), "See `neuronetz-gateway --help`"),
        ((f"https://gw.example.com/k/{KEY}",), "can be seen by everybody on this machine"),
        ((f"https://u:{KEY}@gw.example.com",), "can be seen by everybody on this machine"),
        (("https://gw.example.com", "--host", "0.0.0.0"), "would let others use the key"),  # noqa: S104
        (("https://gw.example.com", "--host", "::"), "would let others use the key"),
        (("https://gw.example.com", "--host", "gw.example.com"), "would let others use the key"),
        (("http://gw.example.com",), "would get the key unencrypted"),
        (("unix:///run/x.sock",), "is a socket of this machine"),
        (("https://gw.example.com",), "There is no key"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    """What could never be right exits 2 with one sentence, which repeats no key."""
    done = connect(*arguments)
    assert (2, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert sentence in done.stderr
    assert KEY not in done.stderr


def test_a_key_file_is_the_users_alone(tmp_path: Path) -> None:
    """A file that others can read, that is missing or that holds no key is refused in one sentence."""
    file = tmp_path / "key"
    problems = {
        "can't be read by user": None,
        "can be read by others": 0o640,
        "is no key of a gateway": 0o600,
    }
    for sentence, mode in problems.items():
        if mode is not None:
            file.write_text("nz_short")
            file.chmod(mode)
        done = connect("https://gw.example.com", "--key-file", str(file))
        assert done.returncode in {1, 2}
        assert (1, "") == (len(done.stderr.splitlines()), done.stdout)
        assert sentence in done.stderr


def test_what_can_not_work_is_said_at_the_start(gateway: Gateway) -> None:
    """A wrong key, no gateway at the URL, and a port that is taken exit 1 with one sentence."""
    with served(Scripted(lambda _: b"<html>")) as page, socket.create_server(("127.0.0.1", 0)) as taken:
        for url, port, sentence in (
            (gateway.url, "0", "does not take the key"),
            ("http://127.0.0.1:1", "0", "does not answer"),
            (page, "0", "is no gateway"),
            (f"{gateway.url}/no/such", "0", "answers 404"),
            (gateway.url, str(taken.getsockname()[1]), "choose another with --port"),
            (gateway.url, "70000", "choose another with --port"),
        ):
            done = connect(url, key=KEY, port=port)
            assert (1, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines())), done.stderr
            assert sentence in done.stderr
            assert KEY not in done.stderr


def test_certificates_are_verified(tmp_path: Path) -> None:
    """A certificate of an unknown authority is refused by what to do, and accepted once that is named."""
    with _with_own_authority() as (url, authority):
        refused = connect(url, key=KEY)
        assert 1 == refused.returncode
        assert "its certificate is not trusted: name its authority in SSL_CERT_FILE" in refused.stderr
        with connected(url, KEY, folder=tmp_path, SSL_CERT_FILE=str(authority)) as proxy:
            assert {"version": "1"} == httpx.get(f"{proxy.host}/api/version").json()


@contextmanager
def _with_own_authority() -> Iterator[tuple[str, Path]]:
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        folder, port = Path(name), free_port()
        config, authority = folder / "Caddyfile", folder / "pki" / "authorities" / "local" / "root.crt"
        config.write_text(CADDYFILE.format(folder=folder, port=port))
        argv = [str(caddy_binary(os.environ, lambda _: None)), "run", "--config", str(config)]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen([*argv, "--adapter", "caddyfile"], stdout=log, stderr=log) as process,
        ):
            try:
                until(lambda: authority.exists() and any(folder.glob("certificates/local/localhost/*.crt")))
                yield f"https://localhost:{port}", authority
            finally:
                process.terminate()


def test_it_needs_nothing_of_a_server() -> None:
    """The command starts without the clients of Postgres and Redis."""
    code = "import json, sys, authz.admin.connect; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert {"asyncpg", "redis", "authz.store", "authz.settings"}.isdisjoint(json.loads(printed))
