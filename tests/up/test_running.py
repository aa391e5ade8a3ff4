"""A stack that runs: what it says of itself, and how it survives the death of its parts."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)


def test_status_says_the_same_as_up(running: Stack) -> None:
    """`status` repeats what `up` printed, without the key, and adds the state of each child."""
    report = running.status()

    assert [
        "url",
        "secret",
        "tenant",
        "folder",
        "control",
        "log",
        "pids",
        "ready",
        "states",
        "bill",
        "journal",
        "backends",
        "untabled",
    ] == list(report)
    assert f"http://127.0.0.1:{running.port}" == report["url"]
    assert report["secret"] is None
    assert "demo" == report["tenant"]
    assert str(running.state) == report["folder"]
    assert report["ready"]
    assert report["states"] == {
        "caddy": "running",
        "authz": ["running", "running"],
        "metering": "running",
        "postgres": "running",
        "redis": "running",
        "demo": "running",
    }


def test_status_of_a_gateway_that_others_run(running: Stack, tmp_path: Path) -> None:
    """Without a state folder, as in containers, `status` asks the sockets that the settings name."""
    stores = json.loads((running.state / "stores.json").read_bytes())
    deployed = {
        "DATABASE_URL": stores["database_url"],
        "REDIS_URL": stores["redis_url"],
        "GATEWAY_CONTROL": str(running.state / "run" / "control.sock"),
        "GATEWAY_METRICS_SOCKET": str(running.state / "run" / "metering.sock"),
        "GATEWAY_TABLES": str(running.state / "tables"),
    }
    elsewhere = Stack(tmp_path)
    done = elsewhere.run("status", "--json", **deployed)
    report, own = json.loads(done.stdout), running.status()
    assert 0 == done.returncode
    assert list(own) == list(report)
    assert (None, None, True) == (report["url"], report["tenant"], report["ready"])
    assert report["states"] == own["states"] | dict.fromkeys(("postgres", "redis", "demo"))
    assert [each["backend"] for each in own["backends"]] == [each["backend"] for each in report["backends"]]
    assert own["journal"]["path"] == report["journal"]["path"]
    assert own["bill"].keys() == report["bill"].keys()

    table = elsewhere.run("status", **deployed).stdout
    assert table.startswith("The gateway is ready\n")
    assert 4 == len(re.findall(r"^(?:caddy|metering|authz-[01]) +running *$", table, re.MULTILINE))

    away = elsewhere.run("status", **deployed | {"GATEWAY_CONTROL": str(tmp_path / "none")})
    assert (1, True) == (away.returncode, away.stdout.startswith("The gateway is not ready\n"))
    assert "`docker compose logs`" in elsewhere.run("logs", **deployed).stderr


def test_status_has_nothing_to_complain_of(running: Stack) -> None:
    """A newcomer's first `status` names no model that lacks a vocabulary: the demo has one."""
    until(lambda: any((running.state / "tables").glob("*.table")))

    assert [] == running.status()["untabled"]


def test_status_shows_the_backends(running: Stack) -> None:
    """`status` lists each backend with what it says and has to do; a client can't ask for that."""
    (backend,) = running.status()["backends"]
    assert ("demo", True) == (backend["backend"], backend["is_live"])
    assert {"demo:latest", "demo-embed:latest"} <= {*backend["models"]}
    assert (0, 0) == (backend["in_flight"], backend["waiting"])
    url = f"http://127.0.0.1:{running.port}"
    assert {"demo": True} == httpx.get(f"{url}/readyz").json()["backends"]
    headers = {"Authorization": f"Bearer {running.key}"}
    assert 404 == httpx.get(f"{url}/backends", headers=headers).status_code


def test_state_folder_is_private(running: Stack) -> None:
    """No other user can look into the folder that holds pepper, sockets and data."""
    assert 0o700 == stat.S_IMODE(running.state.stat().st_mode)
    assert 0o400 == stat.S_IMODE((running.state / "pepper").stat().st_mode)


def test_first_key_streams_at_once(running: Stack) -> None:
    """The key that `up` printed is good for an answer as soon as `up` has returned."""
    answer = running.chat()

    assert 200 == answer.status_code
    assert '"done":true' in answer.text.splitlines()[-1]


def test_status_shows_how_far_the_bill_is(running: Stack) -> None:
    """Once an answer is settled nothing is behind, open or lost, nothing differs, and a model is known."""
    assert 200 == running.chat().status_code

    known = {"learned_models": 1}

    def wrongs() -> dict[str, float | None]:
        found = running.status()["bill"]
        assert 0 <= found.pop("lag_s") < 60
        return {name: count for name, count in found.items() if count != known.get(name, 0)}

    until(lambda: not wrongs())
    shown = running.run("status").stdout
    assert "lost lines" in shown
    assert "see `neuronetz-gateway learned list`" in shown


def test_key_is_in_no_file(running: Stack) -> None:
    """The first key is printed and kept nowhere, neither in facts nor in logs."""
    assert running.key is not None
    secret = running.key[11:].encode()
    files = [path for path in running.state.rglob("*") if path.is_file()]

    assert [path for path in files if secret in path.read_bytes()] == []


def test_second_up_is_refused(running: Stack) -> None:
    """One state folder has one stack; the refusal says how to stop it."""
    assert running.refusal().startswith("error: A stack already runs in")
    assert running.status()["ready"]


def test_logs_name_their_process(running: Stack) -> None:
    """Each line of `logs` begins with the process that wrote it."""
    lines = running.run("logs", "redis", "postgres", "--lines", "2").stdout.splitlines()

    assert {"redis", "postgres"} == {line.split(" | ")[0] for line in lines}
    assert 4 == len(lines)


def test_logs_for_programs(running: Stack) -> None:
    """With --json each line is an object; what a process writes as JSON is parsed."""
    running.chat()
    lines = running.run("logs", "--json").stdout.splitlines()
    read = [json.loads(line) for line in lines]
    assert {("process", "text"), ("process", "fields")} == {tuple(line) for line in read}
    assert {"caddy", "postgres", "redis"} <= {line["process"] for line in read}
    assert all(isinstance(line["fields"], dict) for line in read if line["process"] == "caddy")


def test_unknown_log_is_refused(running: Stack) -> None:
    """A name without a log is answered with those that there are."""
    done = running.run("logs", "nobody")

    assert 1 == done.returncode
    assert "choose from" in done.stderr
    assert "caddy" in done.stderr


def test_logs_can_be_followed(running: Stack) -> None:
    """With --follow, what happens from now on is printed as it happens, until Ctrl-C."""
    argv = [sys.executable, "-m", "authz", "logs", "demo", "--follow", "--lines", "0"]
    log = running.state / "logs" / "demo.log"
    with subprocess.Popen([*argv, "--state", str(running.state)], stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        with log.open("a") as file:
            # The first may be written before the command looks, the later ones are not.
            while not select.select([following.stdout], [], [], 0.1)[0]:
                file.write("news\n")
                file.flush()
        assert following.stdout.readline() == b"demo | news\n"

        following.send_signal(signal.SIGINT)

        assert 0 == following.wait()


@pytest.mark.parametrize("child", ["redis", "postgres", "authz-0", "metering", "demo", "caddy"])
def test_killed_child_is_restarted(running: Stack, child: str) -> None:
    """A child that dies is replaced at once, and named with its last words."""
    killed = running.pid(child)
    assert killed is not None

    os.kill(killed, signal.SIGKILL)

    until(lambda: running.pid(child) not in {None, killed})
    until(lambda: 200 == running.chat_status())
    assert f"↻ {child}: killed by signal 9, restarted: " in running.supervisor_log()
