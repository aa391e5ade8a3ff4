"""Report the steps of `up`: live on a terminal, line by line anywhere else.

A detached supervisor has no screen: it writes the same news as JSON lines into a pipe, and the
command that started it shows them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Final, Self

import msgspec
from attrs import define, field, frozen
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.console import Console


class Stage(StrEnum):
    """The progress of a step or, without a step's name, of the whole stack."""

    RUNNING = "running"
    DONE = "done"
    RESTARTED = "restarted"
    READY = "ready"
    FAILED = "failed"


@frozen
class News:
    """One thing that happened on the way up; `text` is a note, a sentence or the first key."""

    stage: Stage
    step: str = ""
    text: str = ""
    elapsed_ms: int = 0


@define
class Step:
    """A step in progress, which may say more about itself."""

    name: str
    report: Callable[[News], None]
    text: str = ""

    def note(self, text: str) -> None:
        """Replace what stands beside the step."""
        if text != self.text:
            self.text = text
            self.report(News(Stage.RUNNING, self.name, text))


@contextmanager
def step(name: str, report: Callable[[News], None]) -> Iterator[Step]:
    """Report that a step began, how it ended and how long it took."""
    began = time.monotonic()
    current = Step(name, report)
    report(News(Stage.RUNNING, name))
    stage = Stage.FAILED
    try:
        yield current
        stage = Stage.DONE
    finally:
        report(News(stage, name, current.text, elapsed_ms(began)))


def elapsed_ms(began: float) -> int:
    """Milliseconds since this reading of the monotonic clock."""
    return round((time.monotonic() - began) * 1000)


def pipe_report(pipe: IO[bytes]) -> Callable[[News], None]:
    """Write news as JSON lines; the reader may have left."""

    def report(news: News) -> None:
        try:
            pipe.write(msgspec.json.encode(news) + b"\n")
            pipe.flush()
        except BrokenPipeError:
            return

    return report


def read_news(pipe: IO[bytes]) -> Iterator[News]:
    """Read the news of a supervisor, until it closes its end."""
    for line in pipe:
        yield msgspec.json.decode(line, type=News)


_MARKS: Final = {Stage.DONE: Text("✓", "green"), Stage.FAILED: Text("✗", "red")}


@define
class Checklist:
    """The steps on the screen, each with its mark, its note and its time."""

    console: Console
    _rows: dict[str, News] = field(factory=dict)
    _live: Live | None = None

    def __call__(self, news: News) -> None:
        """Show this news."""
        if news.stage is Stage.READY:
            self.close()
            self.console.print(f"ready after {news.elapsed_ms / 1000:.1f} s", highlight=False)
        if not news.step:
            return
        if news.stage is Stage.RESTARTED:
            self.console.print(f"↻ {news.step}: {news.text}", markup=False, highlight=False)
            return
        self._rows[news.step] = news
        if self._live is not None:
            self._live.update(self._table())
        elif news.stage in _MARKS:
            parts = (_MARKS[news.stage].plain, news.step, news.text, f"{news.elapsed_ms / 1000:.1f} s")
            self.console.print("  ".join(filter(None, parts)), markup=False, highlight=False)

    def __enter__(self) -> Self:
        """Start drawing, where the console is a terminal."""
        if self.console.is_terminal:
            self._live = Live(self._table(), console=self.console)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        self.close()

    def close(self) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for news in self._rows.values():
            is_running = news.stage is Stage.RUNNING
            mark = Spinner("dots", style="cyan") if is_running else _MARKS[news.stage]
            took = "" if is_running else f"{news.elapsed_ms / 1000:.1f} s"
            table.add_row(mark, news.step, Text(news.text, "dim"), took)
        return table
