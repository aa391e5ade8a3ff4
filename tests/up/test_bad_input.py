"""Input that `up` cannot work with is refused in one line that says what to do; nothing is left running."""

from __future__ import annotations

import os
import re
import socket
import sys
import sysconfig
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from authz.errors import CommandError
from authz.stack import embedded
from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        return


def test_taken_port(stack: Stack) -> None:
    """A port on which another program listens is refused: clients would talk to that."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        stack.port = other.getsockname()[1]

        refusal = stack.refusal("--demo")

    assert f"error: Port {stack.port} can't be used" in refusal
    assert refusal.endswith("choose another with --port.")


def test_unreachable_backend(stack: Stack) -> None:
    """A backend that was asked for by name must answer."""
    refusal = stack.refusal(OLLAMA_URL="http://127.0.0.1:1")

    assert "http://127.0.0.1:1 does not answer" in refusal
    assert refusal.endswith("start it, or correct OLLAMA_BACKENDS or OLLAMA_URL.")


def test_backend_that_is_no_url(stack: Stack) -> None:
    """A setting that cannot be read is refused before anything starts."""
    assert "write it like http://" in stack.refusal(OLLAMA_URL="nonsense://x")


def test_backend_that_refuses_us(stack: Stack) -> None:
    """An answer other than 2xx to a probe means that it would not serve us."""
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        Thread(target=server.handle_request).start()
        refusal = stack.refusal(OLLAMA_URL=f"http://127.0.0.1:{server.server_port}")

    assert "refuses the token, or wants one (401 to GET /api/tags)" in refusal


def test_state_folder_of_another_version(stack: Stack) -> None:
    """A folder that another version made is left as it is."""
    stack.state.mkdir()
    (stack.state / "version").write_text("0\n")

    refusal = stack.refusal("--demo")

    assert "has version 0, this program needs 1" in refusal
    assert [path.name for path in stack.state.iterdir()] == ["version"]


def test_folder_of_something_else(stack: Stack) -> None:
    """A folder with other things in it is no state folder."""
    stack.state.mkdir()
    (stack.state / "thesis.tex").touch()

    assert "is not empty" in stack.refusal("--demo")
    assert [path.name for path in stack.state.iterdir()] == ["thesis.tex"]


def test_path_too_long_for_sockets(stack: Stack) -> None:
    """A socket's path has at most 107 bytes, so the folder's must be shorter."""
    stack.state = stack.state / ("x" * 90)

    assert "choose a shorter one" in stack.refusal("--demo")


@pytest.mark.parametrize("character", ['"', "*", "{"])
def test_path_that_caddy_cannot_read(stack: Stack, character: str) -> None:
    """A path in the Caddyfile may not hold characters that have a meaning there."""
    stack.state = stack.state / character

    assert f"holds {character!r}, which Caddy can't read: choose another" in stack.refusal("--demo")
    assert not stack.state.parent.exists()


def test_state_folder_that_cannot_be_made(stack: Stack) -> None:
    """If nothing can be written, the sentence says why and which option helps."""
    stack.state.write_text("a file")
    stack.state = stack.state / "s"

    assert stack.refusal("--demo").endswith("can't be used (Not a directory): choose another with --state.")


def test_cache_that_cannot_be_made(stack: Stack) -> None:
    """If Caddy's build can't be kept, the sentence says which variable helps."""
    stack.state.mkdir()
    cache = stack.state.with_name("cache")
    cache.write_text("a file")

    refusal = stack.refusal("--demo", XDG_CACHE_HOME=str(cache))

    assert refusal.endswith("(Not a directory): set XDG_CACHE_HOME to another folder.")


def test_root_without_capabilities(stack: Stack) -> None:
    """If root may not become another user, PostgreSQL can't run; a plain user needs no capability."""
    if os.geteuid() != 0:
        stack.within = ("setpriv", "--no-new-privs")
        assert stack.up()["url"]
        return
    stack.within = ("setpriv", "--bounding-set=-all")

    assert stack.refusal("--demo").endswith("run `up` as a plain user, or set DATABASE_URL.")


def test_packages_that_are_not_installed(stack: Stack, tmp_path: Path) -> None:
    """Without the extra `embedded`, `up` says how to install it."""
    packages = Path(sysconfig.get_path("purelib"))
    for found in packages.iterdir():
        if not re.match(r"go(_bin.*)?$|.*\.pth$", found.name):
            (tmp_path / found.name).symlink_to(found)
    stack.python = (sys.executable, "-S")
    path = f"{tmp_path}:{Path(__file__).parents[2]}"

    refusal = stack.refusal("--demo", PYTHONPATH=path)

    assert "The package go is not installed: run `pip install 'neuronetz-gateway[embedded]'`" in refusal


def test_caddy_that_refuses_its_settings(stack: Stack) -> None:
    """A failure behind the stores is reported as plainly as one before them."""
    refusal = stack.refusal("--demo", GATEWAY_MAX_BODY="99999999999EiB")

    assert "Caddy refuses its configuration" in refusal
    until(lambda: not stack.processes())


def test_proxies_that_are_everybody(stack: Stack) -> None:
    """A list of proxies that trusts everybody is refused in a sentence, before anything is served."""
    refusal = stack.refusal("--demo", GATEWAY_TRUSTED_PROXIES="0.0.0.0/0")

    assert refusal.rstrip().endswith(
        '(GATEWAY_TRUSTED_PROXIES) name "0.0.0.0/0", by which anybody could choose an address: '
        "name the proxies' own network"
    )
    until(lambda: not stack.processes())


def test_more_processes_than_can_be_watched(stack: Stack) -> None:
    """The number of authz processes has bounds: one, and those that Prometheus can be shown."""
    assert "is no number in its bounds" in stack.refusal("--demo", GATEWAY_AUTHZ_PROCESSES="11")


def test_database_that_does_not_answer(stack: Stack) -> None:
    """A database that was asked for by name must answer."""
    refusal = stack.refusal("--demo", DATABASE_URL="postgresql://x@127.0.0.1:1/x")

    assert "correct DATABASE_URL or the database" in refusal


def test_redis_that_does_not_answer(stack: Stack) -> None:
    """A Redis that was asked for by name must answer."""
    assert "check REDIS_URL" in stack.refusal("--demo", REDIS_URL="redis://127.0.0.1:1/0")


def test_missing_wheel() -> None:
    """A package of the extra that is not installed is named, with how to install it."""
    with pytest.raises(CommandError, match=r"no_such_wheel is not installed: run `pip install"):
        embedded.wheel_folder("no_such_wheel")
