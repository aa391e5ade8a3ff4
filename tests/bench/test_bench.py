"""The benchmark itself: a short sample of it, what it refuses, and how it calculates."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.errors import CommandError
from tests.backend.app import backend
from tests.backend.serving import served
from tests.bench import bench, kernel, table
from tests.bench.contenders import BARE, DIRECT, OURS, STOCK, Contender
from tests.bench.kernel import Cpu
from tests.bench.load import Load, Result, Target, Workload
from tests.bench.plan import Crowd, Measurements, Sample, sample

SHORT = ("--blocks", "1", "--seconds", "0.2", "--tokens", "4", "--crowd", "20")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The generator and the mock, built once."""
    return Load.build(tmp_path_factory.mktemp("load"))


@pytest.fixture
def mock_url(load: Load) -> Iterator[str]:
    """The URL of a mock backend."""
    with load.backend() as url:
        yield url


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert 1 == bench.main([*SHORT, *arguments])
    printed = capsys.readouterr()
    assert "" == printed.out
    (sentence,) = printed.err.splitlines()
    return sentence


@pytest.mark.timeout(300)
def test_a_short_run_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of one tiny block prints and writes a table with every figure of all four contenders."""
    results = tmp_path / "RESULTS.md"
    assert 0 == bench.main([*SHORT, "--results", str(results)])
    text = results.read_text()
    assert text.endswith(capsys.readouterr().out)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {row[0]: row[1:] for row in rows}
    assert cells[DIRECT][:3] == [STOCK, BARE, OURS]  # the first cell of the first row is empty
    assert {figure.title for figure in table.FIGURES} <= set(cells)
    for title in ("CPU of a request at c=16, µs", "CPU of a request at c=64, µs"):
        floor, _, ours = (float(cell.replace(",", "")) for cell in cells[title][1:4])
        assert 0 < floor < ours
    assert ["20 of 20"] * 4 == cells["streams at once that ended whole"][:4]
    assert {"caddy", "authz-0", "metering", "postgres", "redis"} <= set(cells)


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that can't be had is one sentence, before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = _refusal(capsys, "--backend-port", str(port))
    assert f"error: Port {port} can't be had (address already in use)" in sentence


def test_a_backend_that_is_no_mock_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway with another backend than the mock is not loaded: it may be in use."""
    with served(backend("bench")) as url:
        sentence = _refusal(capsys, "--peer", url)
    assert "does not pass on the answers of the benchmark's own backend" in sentence


def test_too_few_open_files_are_refused() -> None:
    """A limit on open files that the streams would meet is one sentence, before anything starts."""
    argv = [sys.executable, "-m", "tests.bench.bench", "--crowd", "2000"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", *argv], capture_output=True, text=True, check=False
    )
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(
        "error: 2,000 streams at once take 4,512 open files, and a process may have 300"
    )
    assert 1 == done.stderr.count("\n")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_each_answer_is_counted(load: Load, mock_url: str, path: str, stream: bool) -> None:
    """The generator counts whole answers and their tokens, in both dialects, streamed or not."""
    workload = Workload(clients=3, each=2, tokens=5, every="1ms", stream=stream)
    result = load.run(Target(mock_url, path=path), workload)
    assert (6, 0, 30) == (result.whole, result.failed, result.tokens)
    assert result.p50_ms is not None
    assert result.p50_ms >= 5
    assert (result.delay_ms is not None) == stream


def test_a_failure_is_no_figure(load: Load, mock_url: str) -> None:
    """A contender that fails to answer ends the run: failures are faster than answers."""
    lost = Contender("lost", Target(mock_url, path="/nowhere"), {})
    with pytest.raises(CommandError, match="lost failed 1 times"):
        sample(load, lost, Workload(clients=1, each=1))


def test_ended_children_count() -> None:
    """The CPU time of a program includes that of the processes that it started and that have ended."""
    child = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        used = kernel.cpu({"program": process.pid})["program"]
        process.communicate(b"\n")
    assert used.all_s >= 0.3


def _sample(*, whole: int, cpu_s: float, p50_ms: float) -> Sample:
    result = Result(whole, 0, "", whole, 1.0, p50_ms, 1.0, 1.0)
    return Sample(result, {"caddy": Cpu(cpu_s, 0.0)} if cpu_s else {})


def test_pairs_are_compared_within_their_block() -> None:
    """A ratio is the median of those of the blocks, and what is added is the median of the differences."""
    found = Measurements()
    blocks = {
        DIRECT: [_sample(whole=100, cpu_s=0, p50_ms=at) for at in (1.0, 10.0, 100.0)],
        STOCK: [_sample(whole=100, cpu_s=cpu, p50_ms=at) for cpu, at in ((1, 2.0), (10, 11.0), (100, 101.0))],
        OURS: [_sample(whole=100, cpu_s=cpu, p50_ms=at) for cpu, at in ((3, 3.0), (20, 13.0), (100, 109.0))],
    }
    found.samples = dict.fromkeys(("alone", "16", "64", "first", "first_gaps"), blocks)
    found.samples |= dict.fromkeys((f"stream_{count}" for count in (1, 64, 512)), blocks)
    crowd = Crowd(Result(1, 0, "", 1, 1.0, None, None, None), 0, 0)
    found.crowds = dict.fromkeys(blocks, crowd)
    rows = table.table(found).splitlines()
    assert "| CPU of a request at c=16, µs |  | 100,000 | 200,000 | x 2.00 |" in rows
    assert "| added p50 at c=1, ms | 0.00 | 1.00 | 3.00 | +2.00 |" in rows
