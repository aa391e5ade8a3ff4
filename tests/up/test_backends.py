"""Backends come, change and go while the stack runs: no stream is cut, no process restarted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from attrs import define, field

from authz.backends import backend as backend_
from authz.backends.backend import Backend
from authz.errors import CommandError
from authz.stack import apply, snippets
from authz.stack.demo.exchange import Receive, Scope, Send
from tests.backend.app import backend
from tests.backend.serving import App, served
from tests.up.stacks import Stack, until

SERVICES = ("authz-0", "authz-1", "metering", "caddy")
LONG = "tokens=40 hold=gate tag=long"


@define
class Guarded:
    """A backend that answers to some tokens only, in a header of its own."""

    app: App
    accepted: set[bytes] = field(factory=set)
    refused: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with a token that counts; the test's own need none."""
        token = dict(scope["headers"]).get(b"x-key")
        if token in self.accepted or scope["path"].startswith("/test/"):
            await self.app(scope, receive, send)
            return
        self.refused += 1
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"{}", "more_body": False})


@pytest.fixture
def guarded() -> Guarded:
    """A second backend, with a model of its own."""
    return Guarded(backend("second"), {b"old"})


@pytest.fixture
def second_url(guarded: Guarded) -> Iterator[str]:
    """Where it listens."""
    with served(guarded) as url:
        yield url


@define
class Client:
    """A client of the gateway."""

    stack: Stack

    def ask(self, model: str, words: str) -> dict[str, object]:
        """Return what a request is sent with."""
        return {
            "url": f"http://127.0.0.1:{self.stack.port}/api/chat",
            "headers": {"Authorization": f"Bearer {self.stack.key}"},
            "json": {"model": model, "messages": [{"role": "user", "content": words}]},
            "timeout": 60,
        }

    def status(self, model: str) -> int:
        """Return the status of a short answer."""
        return httpx.post(**self.ask(model, "tokens=2")).status_code  # type: ignore[arg-type]


def pids(stack: Stack) -> dict[str, int | None]:
    """Return the processes of the services."""
    return {name: stack.pid(name) for name in SERVICES}


def edit(stack: Stack, env: Path, *arguments: str) -> None:
    """Run a command that writes the env file and must succeed."""
    command, *rest = arguments
    done = stack.run(command, *rest, "--write-env", str(env))
    assert 0 == done.returncode, done.stderr
    assert "the running stack uses it" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def release(url: str, words: int) -> None:
    """Let a held answer go on."""
    httpx.post(f"{url}/test/release", params={"name": "gate", "words": words})


def test_add_rotate_and_remove_while_streams_run(
    stack: Stack, guarded: Guarded, second_url: str, tmp_path: Path
) -> None:
    """Streams that began before outlast every change, a removal of their own backend too."""
    guarded.accepted = {b"SECRET-1"}
    env = tmp_path / ".env"
    with served(backend("demo")) as first_url:
        env.write_text(f"OLLAMA_BACKENDS='{json.dumps([{'name': 'first', 'url': first_url}])}'\n# kept\n")
        stack.up(OLLAMA_BACKENDS=json.dumps([{"name": "first", "url": first_url}]))
        client, before = Client(stack), pids(stack)
        assert 404 == client.status("second")
        release(first_url, 5)
        with httpx.stream("POST", **client.ask("demo", LONG)) as stream:  # type: ignore[arg-type]
            assert 200 == stream.status_code, stream.read()
            chunks = stream.iter_lines()
            next(chunks)
            token = tmp_path / "token"
            token.write_text("SECRET-1\n")
            options = ("--token-file", str(token), "--header", "X-Key", "--scheme", "")
            edit(stack, env, "add-backend", "second", second_url, *options)
            until(lambda: client.status("second") == 200)

            release(second_url, 5)
            with httpx.stream("POST", **client.ask("second", LONG)) as removed:  # type: ignore[arg-type]
                assert 200 == removed.status_code, removed.read()
                last_chunks = removed.iter_lines()
                next(last_chunks)
                token.write_text("SECRET-2\n")
                guarded.accepted.add(b"SECRET-2")
                edit(stack, env, "add-backend", "second", second_url, *options, "--replace")
                guarded.accepted.remove(b"SECRET-1")
                assert 200 == client.status("second")

                edit(stack, env, "remove-backend", "second")
                until(lambda: client.status("second") == 404)
                release(second_url, 100)
                assert '"done":true' in list(last_chunks)[-1]
            release(first_url, 100)
            assert '"done":true' in list(chunks)[-1]
        assert 200 == client.status("demo")
        assert before == pids(stack)
        assert httpx.get(f"http://127.0.0.1:{stack.port}/readyz").is_success
    assert f'OLLAMA_BACKENDS=\'[{{"name":"first","url":"{first_url}"}}]\'\n# kept\n' == env.read_text()
    assert [] == list((stack.state / "backends.d").glob("*.credential"))


def test_token_is_rotated_under_load(stack: Stack, guarded: Guarded, second_url: str, tmp_path: Path) -> None:
    """Not one request fails while a token changes from one to the next."""
    env = tmp_path / ".env"
    one = {"name": "second", "url": second_url, "token": "old", "header": "X-Key", "scheme": ""}
    env.write_text(f"OLLAMA_BACKENDS='{json.dumps([one])}'\n")
    stack.up(OLLAMA_BACKENDS=json.dumps([one]))
    client, over, statuses = Client(stack), threading.Event(), list[int]()

    def load() -> None:
        while not over.is_set():
            statuses.append(client.status("second"))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for token, last in (("SECRET-2", "old"), ("SECRET-3", "SECRET-2")):
            guarded.accepted.add(token.encode())
            options = ("--token", token, "--header", "X-Key", "--scheme", "", "--replace")
            edit(stack, env, "add-backend", "second", second_url, *options)
            counted = len(statuses)
            until(_more_than(statuses, counted + 5))
            guarded.accepted.remove(last.encode())
            until(_more_than(statuses, counted + 20))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {200} == set(statuses)


def _more_than(statuses: list[int], count: int) -> Callable[[], bool]:
    return lambda: len(statuses) > count


def test_what_caddy_refuses_changes_nothing(stack: Stack, second_url: str, tmp_path: Path) -> None:
    """An edited snippet and a Caddyfile that can't be loaded leave env file, snippets and Caddy alone."""
    env = tmp_path / ".env"
    with served(backend("demo")) as first_url:
        text = f"OLLAMA_BACKENDS='{json.dumps([{'name': 'first', 'url': first_url}])}'\n"
        env.write_text(text)
        stack.up(OLLAMA_BACKENDS=json.dumps([{"name": "first", "url": first_url}]))
        snippet = stack.state / "backends.d" / "first.caddy"
        snippet.write_text(snippet.read_text() + "nonsense\n")
        edited = snippet.read_text()

        added = stack.run("add-backend", "b", second_url, "--no-validate", "--write-env", str(env))
        assert 1 == added.returncode
        assert "Caddy refuses its configuration" in added.stderr
        replaced = stack.run(
            "add-backend", "first", second_url, "--replace", "--no-validate", "--write-env", str(env)
        )
        assert "edited by hand" in replaced.stderr
        assert (text, edited) == (env.read_text(), snippet.read_text())
        assert 200 == Client(stack).status("demo")
        forced = stack.run(
            "render", "--force", OLLAMA_BACKENDS=json.dumps([{"name": "first", "url": first_url}])
        )
        assert 0 == forced.returncode, forced.stderr
        assert "nonsense" not in snippet.read_text()
        assert 200 == Client(stack).status("demo")


BROKEN = "reverse_proxy https://h {\n\ttransport http {\n\t\ttls_trust_pool file /nowhere.pem\n\t}\n}\n"
"""A snippet that can be read and not be loaded."""


async def test_failed_reload_is_undone(stack: Stack, second_url: str) -> None:
    """What Caddy validated and then can't load is put back, and what ran goes on."""
    stack.up()
    running = apply.running(stack.state)
    assert running is not None
    folder = running.folder.backends

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = contents()
    change = snippets.plan_change(folder, [Backend("second", second_url, "t")])
    await running.validate(change)
    (folder / "zz.caddy").write_text(BROKEN)

    with pytest.raises(CommandError, match="old snippets are back"):
        await running.apply(change)

    (folder / "zz.caddy").unlink()
    assert before == contents()
    until(lambda: stack.chat().status_code == 200)  # as soon as authz has read the old list again
    demo = backend_.parse(before["backends.json"].decode(), None)
    change = snippets.plan_change(folder, [*demo, Backend("second", second_url)])
    await running.apply(change)
    until(lambda: httpx.get(f"http://127.0.0.1:{stack.port}/readyz").is_success)
    assert {"demo.caddy", "second.caddy"} <= contents().keys()
