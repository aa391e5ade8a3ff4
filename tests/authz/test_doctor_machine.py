"""What `doctor` finds on this machine: files, sockets, the disk, and ports of backends."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.backends.backend import Backend
from authz.stack.bill import Bill
from authz.stack.doctor import exposure, files, record
from authz.stack.doctor.files import Disk, Kind
from authz.stack.doctor.finding import Level
from authz.stack.journal import Journal


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user of this machine may enter."""
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def level(path: Path, kind: Kind) -> Level:
    """Return the worst that is found of one file."""
    return max(files.judge([files.gather(path, kind)]), key=lambda each: list(Level).index(each.level)).level


def test_a_secret_that_others_can_read(folder: Path) -> None:
    """A pepper or a token is read by its owner alone, or lies where others can't go."""
    pepper = folder / "pepper"
    pepper.write_text("ab" * 32)
    pepper.chmod(0o600)
    assert Level.OK is level(pepper, Kind.PRIVATE)
    pepper.chmod(0o644)
    assert Level.FAIL is level(pepper, Kind.PRIVATE)
    folder.chmod(0o750)
    assert Level.OK is level(pepper, Kind.PRIVATE)
    assert Level.WARN is level(folder / "missing", Kind.PRIVATE)


def test_a_secret_of_the_services_user(folder: Path) -> None:
    """Root may look: a secret is rightly owned by the user of the sockets, and by no third one."""
    pepper = files.Entry(path=folder / "p", kind=Kind.PRIVATE, mode=0o400, owner=65532, is_reachable=True)
    control = files.Entry(path=folder / "c", kind=Kind.SOCKET, mode=0o600, owner=65532, is_reachable=True)
    assert [Level.OK] == [found.level for found in files.judge([pepper, control])]
    assert [Level.WARN] == [found.level for found in files.judge([pepper])]


def test_a_journal_that_others_can_read(folder: Path) -> None:
    """It names clients and what they asked for; who can write it writes bills."""
    journal = folder / "journal"
    journal.mkdir()
    for mode, expected in ((0o750, Level.OK), (0o755, Level.WARN), (0o777, Level.FAIL)):
        journal.chmod(mode)
        assert expected is level(journal, Kind.FOLDER)


def test_a_socket_that_others_can_use(folder: Path) -> None:
    """Who can connect to the control socket kills streams, to that of authz uses up limits."""
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        assert Level.OK is level(path, Kind.SOCKET)
        path.chmod(0o666)
        assert Level.FAIL is level(path, Kind.SOCKET)
        folder.chmod(0o770)
        assert Level.OK is level(path, Kind.SOCKET)


def test_a_disk_that_gets_full(folder: Path) -> None:
    """The journal must be able to grow, or every request is refused."""
    levels = [
        found.level for free in (1 << 20, 1 << 30, 1 << 40) for found in files.judge_disk(Disk(folder, free))
    ]
    assert [Level.FAIL, Level.WARN, Level.OK] == levels
    assert [] == files.judge_disk(files.disk_of(folder / "missing"))
    measured = files.disk_of(folder)
    assert measured is not None
    assert measured.free_bytes > 0


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [("", None, Level.WARN), ("", "secret", Level.OK), ("127.0.0.1", None, Level.OK)],
)
def test_an_ollama_with_an_open_port(host: str, token: str | None, expected: Level) -> None:
    """One that listens for others than this machine, and wants no token, is used past every limit."""
    with socket.create_server((host, 0)) as listener:
        backend = Backend("gpu", f"http://127.0.0.1:{listener.getsockname()[1]}", token)
        found = exposure.judge([exposure.gather(backend)])
    assert [expected] == [each.level for each in found]


def test_an_ollama_with_an_open_port_in_ipv6() -> None:
    """The wildcard of IPv6 takes connections to every address of this machine, of IPv4 too."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        backend = Backend("gpu", f"http://127.0.0.1:{listener.getsockname()[1]}")
        found = exposure.judge([exposure.gather(backend)])
    assert [Level.WARN] == [each.level for each in found]
    assert "listens on ::" in found[0].sentence


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://8.8.8.8:11434", Level.WARN),
        ("https://8.8.8.8", Level.OK),
        ("http://10.0.0.5:11434", Level.OK),
        ("http://[2001:4860:4860::8888]:11434", Level.WARN),
        ("unix:///run/ollama.sock", Level.OK),
    ],
)
def test_a_backend_at_a_public_address(url: str, expected: Level) -> None:
    """Prompts, answers and the token cross the internet in the clear."""
    found = exposure.judge([exposure.gather(Backend("gpu", url, "secret"))])
    assert [expected] == [each.level for each in found]


def test_no_backend() -> None:
    """Without one there is nothing to serve."""
    assert [Level.WARN] == [each.level for each in exposure.judge([])]


def _bill(**wrongs: int) -> Bill:
    counts = dict.fromkeys(("lost_lines", "dead_letters", "overrun_tokens", "drift_tokens"), 0) | wrongs
    return Bill(
        lag_bytes=0, lag_s=0, open_requests=0, unpublished=0, orphaned_requests=0, learned_models=0, **counts
    )


@pytest.mark.parametrize("name", ["lost_lines", "dead_letters", "overrun_tokens", "drift_tokens"])
def test_a_bill_with_faults(name: str) -> None:
    """What should be 0 and is not is a warning each, and so is a metering that can't be asked."""
    assert [Level.OK] == [each.level for each in record.judge_bill(_bill())]
    found = record.judge_bill(_bill(**{name: 3}))
    assert [Level.WARN] == [each.level for each in found]
    assert name.replace("_", " ") in found[0].sentence
    assert [Level.WARN] == [each.level for each in record.judge_bill(None)]


def test_a_journal_that_does_not_take_all() -> None:
    """A closed journal fails; a moved one, and records that the access log left out, are warnings."""

    def journal(*, is_open: bool = True, reopened: int = 0, by_guard: int = 0) -> Journal:
        return Journal(
            path="/j/journal.log",
            is_open=is_open,
            reopened=reopened,
            records_by_guard=by_guard,
            foreign_lines=0,
            suspects=["log_skip"] if by_guard else [],
        )

    def levels(written: Journal) -> list[Level]:
        return [each.level for each in record.judge_journal(written)]

    assert [Level.OK] == levels(journal())
    assert [Level.FAIL, Level.WARN, Level.WARN] == levels(journal(is_open=False, reopened=2, by_guard=3))
    assert "log_skip" in record.judge_journal(journal(by_guard=1))[0].sentence
