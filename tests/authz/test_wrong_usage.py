"""A command line that no state of the stores could make valid: exit 2, and one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.__main__ import run

UUID = "01998b5e-0000-7000-8000-000000000000"


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a command line on stores that do not run."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_STATE", str(tmp_path))


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    "arguments",
    [
        ["create-tenant", "--name", "Acme Ltd"],
        ["create-tenant", "--name", "acme", "--timezone", "Mars/Olympus"],
        ["create-tenant", "--name", "acme", "--rpm", "0"],
        ["create-key", "--tenant", "acme", "--name", "a b"],
        ["create-key", "--tenant", "acme", "--name", "a", "--expires", "soon"],
        ["create-key", "--tenant", "acme", "--name", "a", "--cidr", "fe80::1%eth0"],
        ["create-key", "--tenant", "acme", "--name", "a", "--models", "llama 3"],
        ["rotate-key", "--prefix", "nz_aaaaaaaa", "--grace", "2020-01-01"],
        ["revoke-key", "--prefix", "first"],
        ["show-limits", "--prefix", "first"],
        ["set-limits", "--rpm", "5"],
        ["set-limits", "--tenant", "acme", "--prefix", "nz_aaaaaaaa", "--rpm", "5"],
        ["set-limits", "--tenant", "acme", "--max-output", "5"],
        ["set-limits", "--prefix", "nz_aaaaaaaa", "--timezone", "UTC"],
        ["set-limits", "--prefix", "nz_aaaaaaaa", "--tokens-per-day", "lots"],
        ["show-limits"],
        ["streams", "kill", "one"],
        ["node", "retire", "one"],
        ["usage", "--since", "soon"],
        ["usage", "--by", "colour"],
        ["audit", "--since", "soon"],
        ["audit", "--prefix", "first"],
        ["prompts", "list", "--prefix", "first"],
        ["revoke-secret", "--prefix", "first"],
        ["usage", "--since", "2026-11-02", "--until", "2026-11-01"],
        ["usage", "statement", "--tenant", "acme", "--month", "2026-1"],
        ["usage", "credit", "--request", UUID, "--tokens", "0", "--reason", "x"],
        ["usage", "credit", "--request", "one", "--tokens", "1", "--reason", "x"],
        ["usage", "credit", "--request", UUID, "--tenant", "acme", "--tokens", "1", "--reason", "x"],
        ["usage", "credit", "--tenant", "acme", "--prefix", "first", "--tokens", "1", "--reason", "x"],
        ["usage", "credit", "--tenant", "acme", "--tokens", "1", "--reason", ""],
        ["list-keys", "--in-state", "paused"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A value that can't be meant is refused by exit code 2, before the stores are asked."""
    assert 2 == run(arguments)
    shown = capsys.readouterr()
    assert not shown.out
    assert 1 == shown.err.count("\n")
    assert shown.err.startswith("error: ")


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    "arguments",
    [
        ["list-keys", "--tenant", "nothere"],
        ["revoke-key", "--prefix", "nz_aaaaaaaa"],
        ["node", "retire", UUID],
        ["streams", "kill", UUID],
    ],
    ids=" ".join,
)
def test_a_refusal_exits_1(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is well written but can't be done exits 1."""
    assert 1 == run(arguments)
    assert capsys.readouterr().err.startswith("error: ")
