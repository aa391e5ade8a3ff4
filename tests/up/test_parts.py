"""The parts of a stack that can be looked at without one."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from authz import settings
from authz.backends.backend import Backend
from authz.schema import dbmate_urls
from authz.stack import embedded, plan
from authz.stack.checklist import Checklist, News, Stage, pipe_report, read_news, step
from authz.stack.discovery import free_port, some_model
from authz.stack.folder import StateFolder
from authz.stack.program import last_lines
from authz.stack.supervisor import Deaths
from tests.backend.app import backend
from tests.backend.serving import served


def test_first_death_costs_no_time() -> None:
    """A child is restarted at once, then after growing pauses, and after five deaths no more."""
    deaths = Deaths()

    assert [0.0, 0.25, 0.5, 1.0, None] == [deaths.pause_s(now) for now in (0.0, 0.1, 0.2, 0.3, 0.4)]


def test_old_deaths_are_forgotten() -> None:
    """A program that dies once in a while is always restarted."""
    deaths = Deaths()

    assert {0.0} == {deaths.pause_s(now) for now in range(0, 1000, 31)}


def test_caddy_is_told_no_secret(tmp_path: Path) -> None:
    """Caddy knows no store and no token; an operator's own GATEWAY_ settings reach it."""
    caller = {
        "DATABASE_URL": "postgresql://d",
        "REDIS_URL": "unix://r",
        "OLLAMA_URL": "http://b",
        "GATEWAY_BIND": "192.0.2.1",
    }

    environ = plan.caddy_environ(StateFolder(tmp_path), 1, settings.load(caller), caller)

    assert "192.0.2.1" == environ["GATEWAY_BIND"]
    assert "http://:1" == environ["GATEWAY_SITE"]
    assert {"DATABASE_URL", "REDIS_URL", "OLLAMA_URL"}.isdisjoint(environ)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql:///x", ["postgresql:///x?sslmode=disable"]),
        ("postgresql://p@/x?host=/run", ["postgresql://p@/x?host=/run&sslmode=disable"]),
        ("postgresql://localhost/x?sslmode=require", ["postgresql://localhost/x?sslmode=require"]),
        ("postgresql://db.internal/x", ["postgresql://db.internal/x"]),
        (
            "postgresql://u:p%40@localhost:1,db.internal:2/x?target_session_attrs=primary",
            [
                "postgresql://u:p%40@localhost:1/x?target_session_attrs=primary&connect_timeout=5&sslmode=disable",
                "postgresql://u:p%40@db.internal:2/x?target_session_attrs=primary&connect_timeout=5",
            ],
        ),
    ],
)
def test_dbmate_is_given_one_host_at_a_time(url: str, expected: list[str]) -> None:
    """It demands TLS where no mode is given; on this very machine there is none."""
    assert expected == list(dbmate_urls(url))


def test_last_lines_say_something(tmp_path: Path) -> None:
    """Empty lines say nothing, and a log may be missing."""
    log = tmp_path / "x.log"
    assert [] == last_lines(log)

    log.write_text("one\n\ntwo\n \nthree\nfour\n")

    assert ["two", "three", "four"] == last_lines(log)


def test_news_pass_through_a_pipe() -> None:
    """The reports of a detached supervisor arrive unchanged, and it may report to a closed pipe."""
    reported = [News(Stage.RUNNING, "Caddy", "3 packages"), News(Stage.READY, text="nz_key", elapsed_ms=7)]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        for news in reported:
            pipe_report(writer)(news)
        writer.close()
        assert reported == list(read_news(reader))

    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as writer:
        pipe_report(writer)(reported[0])


def test_failed_step_is_reported() -> None:
    """A step that ends with an error is marked as failed before the error is seen."""
    reported: list[News] = []

    with pytest.raises(ValueError, match="no"), step("schema", reported.append):
        raise ValueError("no")

    assert [Stage.RUNNING, Stage.FAILED] == [news.stage for news in reported]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_checklist_shows_every_step(*, is_terminal: bool) -> None:
    """On a terminal and in a file alike, each step is shown with its mark, and a restart is named."""
    screen = io.StringIO()
    with Checklist(Console(file=screen, force_terminal=is_terminal, width=100)) as checklist:
        with step("Caddy", checklist) as building:
            building.note("3 packages compiled")
        checklist(News(Stage.READY, elapsed_ms=1500))
        checklist(News(Stage.RESTARTED, "redis", "killed by signal 9"))

    for text in ("✓", "Caddy", "3 packages compiled", "ready after 1.5 s", "↻ redis: killed by signal 9"):
        assert text in screen.getvalue()


def test_postgres_never_runs_as_root(stores: Path) -> None:
    """PostgreSQL refuses root, so whoever starts a stack as root still has one."""
    pid = int((stores / "postgres" / "postmaster.pid").read_text().split()[0])

    assert 0 != Path(f"/proc/{pid}").stat().st_uid


def test_unfinished_cluster_is_made_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An initialisation that was interrupted is never taken for a cluster."""
    state = tmp_path_factory.mktemp("s")
    (state / "postgres.new" / "base").mkdir(parents=True)

    with embedded.postgres_server(state) as server:
        server.kill()
        server.start()

    assert not (state / "postgres.new").exists()


def test_free_port_is_lent_to_no_connection() -> None:
    """A port for a later server is none that the kernel may give to a connection before that."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert all(free_port() < lowest for _ in range(20))


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("notes-embed", "demo"), "demo:latest"), (("notes-embed",), "notes-embed:latest"), ((), None)],
)
async def test_first_request_is_for_a_model_that_completes(
    names: tuple[str, ...], expected: str | None
) -> None:
    """The request that `up` shows asks a model that completes prompts, wherever it stands in the list."""
    with served(backend(*names)) as url:
        assert expected == await some_model([Backend("a", url)])
