"""What `doctor` finds at a real Caddy whose configuration was edited."""

from __future__ import annotations

import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from authz.stack.build import SOURCE, caddy_binary
from authz.stack.discovery import free_port
from authz.stack.doctor import edge, site
from authz.stack.doctor.edge import Proxy, Running, Site
from authz.stack.doctor.finding import Finding, Level
from authz.stack.doctor.site import Answer
from tests.up.stacks import until

NOW = datetime(2026, 11, 27, tzinfo=UTC)
BACKEND = "import gateway_backend_open local http://127.0.0.1:9\n"
TLS = "auto_https disable_redirects\n\tlocal_certs\n\tskip_install_trust"

Start = Callable[..., Path]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        yield Path(name)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a Caddy with the Caddyfile, edited, and returns its control socket."""
    running: list[subprocess.Popen[bytes]] = []

    def started(address: str, *edits: tuple[str, str]) -> Path:
        text = (SOURCE / "Caddyfile").read_text()
        for before, inserted in edits:
            assert 1 == text.count(before)
            text = text.replace(before, inserted + before)
        (folder / "Caddyfile").write_text(text)
        (folder / "backends.d").mkdir()
        (folder / "backends.d" / "local.caddy").write_text(BACKEND)
        environ = {
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
            "GATEWAY_AUTHZ": f"unix/{folder}/authz-0.sock",
            "GATEWAY_BACKENDS": str(folder / "backends.d"),
            "GATEWAY_CONTROL": str(folder / "control.sock"),
            "GATEWAY_JOURNAL": str(folder / "journal.log"),
            "GATEWAY_METRICS": "on",
            "GATEWAY_METRICS_PORT": str(free_port()),
            "GATEWAY_RUN": str(folder),
            "GATEWAY_SITE": address,
        }
        binary = caddy_binary(os.environ, lambda _: None)
        argv = [str(binary), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        with (folder / "log").open("wb") as log:
            running.append(subprocess.Popen(argv, env=environ, stdout=log, stderr=log))
        until(lambda: edge.gather(folder / "control.sock") is not None)
        return folder / "control.sock"

    yield started
    for process in running:
        process.terminate()
        process.wait()


def wrong(found: list[Finding]) -> list[tuple[Level, str]]:
    """Return what is not well."""
    return [(each.level, each.check) for each in found if each.level is not Level.OK]


def test_the_caddyfile_as_it_is(start: Start) -> None:
    """All ways to the backends are guarded; metrics of our own processes are no way to one."""
    control = start(f"http://:{free_port()}")
    assert [] == wrong(edge.judge(edge.gather(control), control))


@pytest.mark.parametrize(
    ("before", "inserted", "missing"),
    [
        ("\t\tgateway_guard {\n", "\t\treverse_proxy /debug/* 127.0.0.1:9\n", "gateway_guard"),
        ("\t\t@read vars", "\t\treverse_proxy /api/tags 127.0.0.1:9\n", "gateway_tap"),
        ("\troute {\n\t\timport", "\thandle_errors {\n\t\treverse_proxy 127.0.0.1:9\n\t}\n", "gateway_guard"),
    ],
)
def test_another_way_to_a_backend(start: Start, before: str, inserted: str, missing: str) -> None:
    """A proxy that a request reaches without guard or tap is named, with where it leads."""
    control = start(f"http://:{free_port()}", (before, inserted))
    found = edge.judge(edge.gather(control), control)
    assert [(Level.FAIL, "guard")] == wrong(found)
    sentence = found[-1].sentence
    assert "127.0.0.1:9 without" in sentence
    assert missing in sentence


def test_a_caddy_without_a_guard() -> None:
    """A Caddy that is not ours, too old, or away fails."""
    proxy = Proxy(listen=(":80",), behind="nothing", asks_authz=False, dials=("127.0.0.1:11434",))
    foreign = Running("v2.11.7 h1:x", (Site((":80",), (), is_tls=False, is_guarded=False),), (proxy,))
    socket = Path("/run/control.sock")
    assert [(Level.FAIL, "guard")] == wrong(edge.judge(foreign, socket))
    guarded = (Site((":80",), (), is_tls=False, is_guarded=True),)
    assert [(Level.FAIL, "caddy")] == wrong(edge.judge(Running("v2.11.6 h1:x", guarded, ()), socket))
    assert [] == wrong(edge.judge(Running("unknown", guarded, ()), socket))
    assert [(Level.FAIL, "caddy")] == wrong(edge.judge(edge.gather(Path("/nowhere")), socket))


def judged(control: Path) -> list[Finding]:
    """Judge the guarded site of a Caddy as the command does."""
    running = edge.gather(control)
    assert running is not None
    guarded = next(each for each in running.sites if each.is_guarded)
    answers = [site.gather(*name) for name in site.names(guarded)]
    return site.judge(guarded, answers, now=datetime.now(UTC))


def test_the_site_has_tls(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that no client trusts fails, one that ends soon is a warning; HSTS is sent."""
    port = free_port()
    control = start(f"https://localhost:{port}", ("persist_config off", f"{TLS}\n\t"))
    until(lambda: _has_certificate(port, folder))
    untrusted = judged(control)
    assert [(Level.FAIL, "site")] == wrong(untrusted)
    assert "CERTIFICATE_VERIFY_FAILED" in untrusted[0].sentence
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "caddy/pki/authorities/local/root.crt"))
    # Caddy's own authority makes certificates for half a day.
    (found,) = judged(control)
    assert (Level.WARN, "ends") == (found.level, found.sentence.split()[4])
    assert "max-age=31536000" == site.gather("localhost", port).hsts


def _has_certificate(port: int, folder: Path) -> bool:
    root = folder / "caddy/pki/authorities/local/root.crt"
    if not root.exists():
        return False
    trusting = ssl.create_default_context(cafile=root)
    try:
        return httpx.get(f"https://localhost:{port}/healthz", verify=trusting).is_success
    except httpx.TransportError:
        return False


def test_what_a_client_meets() -> None:
    """An old certificate and a missing header are warnings; both right is well."""
    public = Site((":443",), ("gw.example.com",), is_tls=True, is_guarded=True)
    fine = Answer(name="gw.example.com", ends=NOW + timedelta(days=30), hsts="max-age=1")
    assert [] == wrong(site.judge(public, [fine], now=NOW))
    for answer in (
        Answer(name="gw.example.com", ends=NOW + timedelta(days=30)),
        Answer(name="gw.example.com", ends=NOW + timedelta(days=1), hsts="max-age=1"),
    ):
        assert [(Level.WARN, "site")] == wrong(site.judge(public, [answer], now=NOW))


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("127.0.0.1:8080", []), ("[::1]:80", []), (":80", [Level.WARN]), ("tcp/0.0.0.0:80", [Level.WARN])],
)
def test_a_site_in_plain_http(listen: str, expected: list[Level]) -> None:
    """Only on this machine keys may go without TLS."""
    plain = Site((listen,), (), is_tls=False, is_guarded=True)
    assert expected == [level for level, _ in wrong(site.judge(plain, [], now=NOW))]
