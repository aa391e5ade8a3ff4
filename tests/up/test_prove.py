"""`doctor --prove` on whole stacks: sound ones, and ones in which a rule is broken on purpose."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from authz.stack.build import SOURCE
from authz.stack.demo.app import Demo
from authz.stack.demo.call import Call
from authz.stack.discovery import free_port
from tests.backend.serving import served
from tests.up.stacks import Stack, answers, until

pytestmark = pytest.mark.timeout(300)

LOOSE = """
CREATE FUNCTION loosen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.requests_per_minute := NULL;
    NEW.tokens_per_minute := NULL;
    NEW.concurrency := NULL;
    NEW.tokens_per_day := NULL;
    NEW.tokens_per_month := NULL;
    NEW.tokens_total := NULL;
    NEW.max_output := NULL;
    NEW.models := NULL;
    NEW.cidrs := NULL;
    NEW.expires_at := NULL;
    RETURN NEW;
END $$
"""
TRIGGER = "CREATE TRIGGER loosen BEFORE INSERT ON keys FOR EACH ROW EXECUTE FUNCTION loosen()"


async def at_length(call: Call) -> AsyncGenerator[str, None]:
    """Speak as a model does that could go on for long."""
    for number in range(0 if call.is_embedding else 400):
        await asyncio.sleep(0.02)
        yield f" {number}"


@pytest.fixture(scope="module")
def endless_url() -> Iterator[str]:
    """The URL of a backend whose answers are as long as they may be."""
    with served(Demo(("demo",), speak=at_length)) as url:
        yield url


@pytest.fixture(scope="module")
def running(endless_url: str) -> Iterator[Stack]:
    """A stack in front of it, for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        shared = Stack(Path(folder) / "s")
        shared.up(OLLAMA_BACKENDS=json.dumps([{"name": "default", "url": endless_url}]))
        yield shared
        shared.run("down")


def proved(stack: Stack, *arguments: str) -> tuple[int, list[tuple[str, str, str]]]:
    """Run it; returns the exit code, and level, check and sentence of each line."""
    done = stack.run("doctor", "--prove", "--json", *arguments)
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, [(each["level"], each["check"], each["sentence"]) for each in findings]


def failed(found: list[tuple[str, str, str]]) -> set[str]:
    """Return the checks that failed."""
    return {check for level, check, _ in found if level == "fail"}


def usable_keys(stack: Stack) -> int:
    """Return how many keys of the throw-away tenant are not revoked."""
    return query(
        stack,
        "SELECT count(*) FROM keys JOIN tenants AS t ON t.id = tenant_id "
        "WHERE t.name = 'doctor-prove' AND keys.state <> 'revoked'",
    )


def is_cleared(stack: Stack) -> bool:
    """Return whether nothing of the throw-away tenant works."""
    state = query(stack, "SELECT (state = 'disabled')::int FROM tenants WHERE name = 'doctor-prove'")
    return bool(state) and not usable_keys(stack)


def query(stack: Stack, statement: str) -> int:
    """Run a statement as the owner of the tables; returns its one value, 0 without one."""
    url = json.loads((stack.state / "stores.json").read_bytes())["database_url"]

    async def run() -> int:
        connection = await asyncpg.connect(url)
        value = await connection.fetchval(statement)
        await connection.close()
        return value or 0

    return asyncio.run(run())


def test_a_sound_stack_passes(running: Stack) -> None:
    """Every rule is proven, nothing of the throw-away tenant works afterwards, and the others pay nothing."""
    before = running.run("usage", "--json", "--tenant", "demo").stdout
    code, found = proved(running)
    assert (0, []) == (code, [line for line in found if line[0] != "ok"])
    checks = {check for _, check, _ in found}
    assert checks >= {
        *(
            "no key",
            "wrong key",
            "revoked key",
            "disabled key",
            "expired key",
            "two keys",
            "key in the query",
        ),
        *("address", "model allowlist", "unknown model", "forged address", "forged header", "oversized body"),
        *("mutation", "unknown path", "method", "spelling", "read route", "output cap", "bill", "refusals"),
        *("requests per minute", "tokens per minute", "concurrency", "budget of a day", "budget of a month"),
        *("budget in total", "revoke --kill", "end"),
    }
    assert is_cleared(running)
    assert before == running.run("usage", "--json", "--tenant", "demo").stdout


def test_limits_that_do_not_hold_are_shown(running: Stack) -> None:
    """Where keys lose their limits, the proof of each limit fails, and no other."""
    query(running, LOOSE)
    query(running, TRIGGER)
    try:
        code, found = proved(running)
    finally:
        query(running, "DROP FUNCTION loosen() CASCADE")
    expected = {
        *("requests per minute", "tokens per minute", "concurrency", "output cap"),
        *("budget of a day", "budget of a month", "budget in total"),
        *("model allowlist", "address", "expired key"),
    }
    assert (1, expected) == (code, failed(found))


@contextmanager
def edited(stack: Stack, before: str, inserted: str) -> Iterator[str]:
    """Run a second Caddy beside the stack's, with an edited Caddyfile; gives its URL."""
    pid, port = stack.pid("caddy"), free_port()
    environ = dict(
        line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line
    )
    binary = Path(f"/proc/{pid}/exe").resolve()
    text = (SOURCE / "Caddyfile").read_text()
    assert 1 == text.count(before)
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        folder = Path(name)
        (folder / "Caddyfile").write_text(text.replace(before, inserted + before))
        environ |= {
            "GATEWAY_SITE": f"http://:{port}",
            "GATEWAY_CONTROL": str(folder / "control.sock"),
            "GATEWAY_JOURNAL": str(folder / "journal.log"),
        }
        argv = [str(binary), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def test_a_way_past_the_guard_is_shown(running: Stack, endless_url: str) -> None:
    """A handle that leads to a backend, or to metrics, without the guard is named by the path it opens."""
    past = (
        f"\t\thandle /api/pull {{\n\t\t\treverse_proxy {endless_url}\n\t\t}}\n"
        "\t\thandle /metrics {\n\t\t\tmetrics\n\t\t}\n"
    )
    with edited(running, "\t\tgateway_guard {\n", past) as url:
        code, found = proved(running, "--url", url)
    assert 1 == code
    wrong = [sentence for level, check, sentence in found if (level, check) == ("fail", "mutation")]
    assert wrong
    assert all("/api/pull is" in sentence for sentence in wrong)
    assert 10 == sum((level, check) == ("ok", "mutation") for level, check, _ in found)
    (metrics,) = [sentence for level, check, sentence in found if (level, check) == ("fail", "unknown path")]
    assert metrics.startswith("GET /metrics is answered 200")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_interrupts_it_leaves_nothing_that_works(running: Stack, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM clear away; after kill -9 the next run does; two at a time are refused."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    argv = [*running.python, "-m", "authz", "doctor", "--prove", "--json", "--state", str(running.state)]
    process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: usable_keys(running))
    second = running.run("doctor", "--prove")
    assert (1, True) == (second.returncode, "Another `doctor --prove` runs" in second.stderr)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert b"" == out
    if number is signal.SIGKILL:
        assert usable_keys(running)
        assert 0 == proved(running)[0]
    else:
        assert (130, b"") == (process.returncode, error)
    assert is_cleared(running)


def test_options_of_proofs_are_theirs_alone(stack: Stack) -> None:
    """--url without --prove is wrong usage, in one sentence."""
    wrong = stack.run("doctor", "--url", "http://127.0.0.1:1")
    assert (2, 1) == (wrong.returncode, wrong.stderr.count("\n"))
