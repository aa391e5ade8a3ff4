"""Every command: what it changes is in the audit with what was and is, and nothing where nothing changed."""

from __future__ import annotations

import os
import pwd

import pytest

from authz.__main__ import run
from authz.accounts.session import system_user


@pytest.mark.parametrize(
    "actor", ["", " ", " carol", "a\nb", "\x1b[2J", "\udcff", "x" * 129, f"nz_{'a' * 46}"]
)
@pytest.mark.usefixtures("outside")
def test_an_actor_is_a_name(actor: str, capsys: pytest.CaptureFixture[str]) -> None:
    """C3: What can't be one, and a pasted key, is refused in one sentence."""
    assert 2 == run(["create-tenant", "--name", "acme", "--actor", actor])
    said = capsys.readouterr().err
    assert "--actor must say who" in said
    assert 1 == said.count("\n")


def test_the_system_user_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logged in is who asks, else whose the process is; no variable counts, and no name is no failure."""
    for variable in ("USER", "LOGNAME", "SUDO_USER"):
        monkeypatch.setenv(variable, "mallory")

    def no_login() -> str:
        raise OSError

    own = pwd.getpwuid(os.geteuid()).pw_name
    assert own == system_user(login=no_login)
    assert "alice" == system_user(login=lambda: "alice")
    assert "uid 4242424" == system_user(login=no_login, process=lambda: 4242424)
    assert f"uid {os.geteuid()}" == system_user(login=lambda: "a\nb")
    assert "mallory" != system_user()
