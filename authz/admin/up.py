"""The stack on one machine: `up`, attached to a terminal or not."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import IO

from rich.console import Console

from authz.admin import output
from authz.admin.options import Flag, State
from authz.admin.status import down, logs, status
from authz.errors import CommandError, GatewayError
from authz.settings import DEFAULT_STATE
from authz.stack import facts
from authz.stack.bringup import Wish, supervise
from authz.stack.checklist import Checklist, News, Stage, pipe_report, read_news
from authz.stack.folder import StateFolder, make_folder
from authz.stack.overview import overview

__all__ = ["down", "logs", "status", "up"]


def up(
    *,
    port: int = 8080,
    state: State = DEFAULT_STATE,
    detach: Flag = False,
    demo: Flag = False,
    reload: Flag = False,
    json: Flag = False,
) -> int:
    """Start the whole gateway on this machine: stores, backend, authz, metering and Caddy.

    DATABASE_URL and REDIS_URL replace the embedded PostgreSQL and Redis. The backends are those
    of OLLAMA_BACKENDS, else OLLAMA_URL, else an Ollama on 127.0.0.1:11434, else a built-in demo.

    Example: neuronetz-gateway up --port 8080 --detach

    Args:
        port: Where clients reach the gateway, on 127.0.0.1.
        state: The folder in which all of the stack lies.
        detach: Return when the gateway is ready; `down` stops it.
        demo: Use the built-in demo backend, whatever else there is.
        reload: Replace authz and metering when their code changes; streams go on.
        json: Print one JSON object for programs when the gateway is ready.
    """
    wish = Wish(
        state=state, port=port, is_demo_wanted=demo, is_reload_wanted=reload, environ=dict(os.environ)
    )
    folder = make_folder(state)
    run = _run_detached if detach else _run_attached
    return run(wish, lambda key: _show(folder, key, is_json=json))


def _run_attached(wish: Wish, show: Callable[[str | None], None]) -> int:
    console = Console(stderr=True)
    checklist = Checklist(console)

    def report(news: News) -> None:
        checklist(news)
        if news.stage is Stage.READY:
            show(news.text or None)
            console.print("Ctrl-C stops everything.", style="dim")

    with checklist:
        supervise(wish, report)
    console.print("stopped")
    return 0


def _run_detached(wish: Wish, show: Callable[[str | None], None]) -> int:
    reading, writing = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        os.close(reading)
        return _supervise_alone(wish, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, Checklist(Console(stderr=True)) as checklist:
        try:
            outcome = _listen(pipe, checklist)
        except KeyboardInterrupt:
            os.kill(supervisor, signal.SIGTERM)
            os.waitpid(supervisor, 0)
            raise
    if outcome.stage is not Stage.READY:
        raise CommandError(outcome.text)
    show(outcome.text or None)
    return 0


def _listen(pipe: IO[bytes], checklist: Checklist) -> News:
    """Show a supervisor's reports until one is about the whole stack."""
    for news in read_news(pipe):
        checklist(news)
        if not news.step:
            return news
    return News(Stage.FAILED, text="The stack ended before it was ready: `neuronetz-gateway logs` says why.")


def _supervise_alone(wish: Wish, writing: int) -> int:
    """Be the supervisor, in a session of its own that no terminal can end."""
    os.setsid()
    logs = StateFolder(wish.state.absolute()).logs
    with (logs / "supervisor.log").open("ab") as log, Path(os.devnull).open("rb") as null:
        for number, target in enumerate((null, log, log)):
            os.dup2(target.fileno(), number)
    screen = Checklist(Console(file=sys.stderr, force_terminal=False, width=1000))
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        send = pipe_report(pipe)

        def report(news: News) -> None:
            screen(news)
            send(news)

        try:
            supervise(wish, report)
        except GatewayError as error:
            report(News(Stage.FAILED, text=str(error)))
            raise
    return 0


def _show(folder: StateFolder, key: str | None, *, is_json: bool) -> None:
    known = facts.load_facts(folder)
    if known is None:
        return
    if is_json:
        output.show_value(overview(folder, known, secret=key))
        sys.stdout.flush()
        return
    is_demo = any(process.name == "demo" for process in known.processes)
    model = known.model or "MODEL"
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
    lines = (
        f"Gateway  {known.url}",
        f"Key      {key}   (tenant {known.tenant}; shown this once)" if key else None,
        "DEMO     The answers are invented: set OLLAMA_URL for a real Ollama." if is_demo else None,
        f"Stop     neuronetz-gateway down --state {quote(str(folder.path))}",
        "",
        f"curl -N {known.url}/api/chat -H 'Authorization: Bearer {key or '<key>'}' \\",
        f"  -d '{body}'",
    )
    sys.stdout.write("\n".join(line for line in lines if line is not None) + "\n")
    sys.stdout.flush()
