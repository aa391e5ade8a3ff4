"""Snippets follow from the list of backends, and Caddy understands every one of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from authz import settings
from authz.backends import backend
from authz.backends.backend import Backend
from authz.errors import CommandError
from authz.stack import plan, snippets
from authz.stack.build import caddy_binary
from authz.stack.folder import StateFolder, make_folder

OPEN = Backend("local", "http://127.0.0.1:11434")
GPU = Backend("gpu", "https://gpu", "t0ken", "X-Key", "")
KINDS = (
    OPEN,
    GPU,
    Backend("prefix", "https://host/a/b", 'a"b {c}'),
    Backend("six", "http://[fd00::1]:5"),
    Backend("socket", "unix:///run/o.sock", "t"),
)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    """A state folder."""
    return make_folder(tmp_path / "s")


def render(folder: StateFolder, *backends: Backend, is_forced: bool = False) -> None:
    """Put the snippets of a list in place."""
    change = snippets.plan_change(folder.backends, backends, is_forced=is_forced)
    change.write_snippets()
    change.tidy()
    change.write_list()


def contents(folder: StateFolder) -> dict[str, str]:
    """Every file of the folder."""
    return {path.name: path.read_text() for path in folder.backends.iterdir()}


def test_folder_holds_what_the_list_names(folder: StateFolder) -> None:
    """C3: a token lies in a file for its owner's eyes alone, not in the snippet that people show."""
    render(folder, Backend("old", "http://o", "t"))
    render(folder, OPEN, GPU)

    found = contents(folder)
    (credential,) = folder.backends.glob("*.credential")
    assert {"backends.json", "gpu.caddy", credential.name, "local.caddy"} == found.keys()
    assert "t0ken" == found[credential.name]
    assert 0o600 == stat.S_IMODE(credential.stat().st_mode)
    assert found["gpu.caddy"].endswith(
        f'import gateway_backend gpu https://gpu X-Key "{{file.{credential}}}"\n'
    )
    assert found["local.caddy"].endswith("\nimport gateway_backend_open local http://127.0.0.1:11434\n")
    assert (OPEN, GPU) == backend.parse(found["backends.json"], None)
    assert 0o600 == stat.S_IMODE((folder.backends / "backends.json").stat().st_mode)


def test_root_writes_for_the_folders_owner(folder: StateFolder) -> None:
    """Caddy can read what root renders in a folder of Caddy's user, as `cli` does in containers."""
    if os.geteuid() == 0:
        os.chown(folder.backends, 65_532, 65_533)
    owner = folder.backends.stat()
    render(folder, OPEN, GPU)
    found = {(path.stat().st_uid, path.stat().st_gid) for path in folder.backends.iterdir()}
    assert {(owner.st_uid, owner.st_gid)} == found


async def test_caddy_understands_every_kind(folder: StateFolder) -> None:
    """https, header, prefix, IPv6 and unix socket, beside an operator's directives in braces."""
    change = snippets.plan_change(folder.backends, KINDS)
    caller = {"DATABASE_URL": "postgresql://d", "REDIS_URL": "unix://r", "PATH": os.environ["PATH"]}
    environ = plan.caddy_environ(folder, 1, settings.load(caller, state=folder.path), caller)
    binary = caddy_binary(os.environ, lambda _: None)
    with snippets.staged(change) as staged:
        await plan.validate_caddy(binary, {**environ, "GATEWAY_BACKENDS": str(staged)})
        (staged / "six.caddy").write_text("import gateway_backend_open\n")
        with pytest.raises(CommandError, match="Caddy refuses its configuration"):
            await plan.validate_caddy(binary, {**environ, "GATEWAY_BACKENDS": str(staged)})
    assert {} == contents(folder)


def test_edit_is_kept_until_its_backend_changes(folder: StateFolder) -> None:
    """An operator's edit survives other changes; one that would lose it needs --force."""
    render(folder, OPEN, GPU)
    path = folder.backends / "gpu.caddy"
    path.write_text(path.read_text().replace("gpu X-Key", "gpu X-Key "))
    edited = path.read_text()

    render(folder, GPU, Backend("new", "http://n"))
    assert edited == path.read_text()

    before = contents(folder)
    for lost in ((Backend("gpu", "https://other"),), (OPEN,)):
        with pytest.raises(CommandError, match=r"gpu\.caddy was edited by hand .*--force"):
            render(folder, *lost)
        assert before == contents(folder)
    render(folder, OPEN, is_forced=True)
    assert not path.exists()


def test_snippet_of_an_operators_own(folder: StateFolder) -> None:
    """What was not rendered is never overwritten or removed unasked; what is the same is taken over."""
    own = folder.backends / "local.caddy"
    own.write_text("# mine\nimport gateway_backend_open local http://127.0.0.1:11434\n")
    for lost in ((OPEN,), (GPU,)):
        with pytest.raises(CommandError, match="edited by hand"):
            render(folder, *lost)

    own.write_text("import gateway_backend_open local http://127.0.0.1:11434\n")
    render(folder, OPEN)
    assert own.read_text().startswith("# Rendered")


def test_change_says_what_it_needs(folder: StateFolder) -> None:
    """A token alone needs no reload; an undone change leaves what was there."""
    render(folder, GPU)
    before = contents(folder)
    rotated = snippets.plan_change(folder.backends, [Backend("gpu", "https://gpu", "new", "X-Key", "")])
    assert (False, False) == (rotated.needs_reload, rotated.removes)
    assert snippets.plan_change(folder.backends, [GPU, OPEN]).needs_reload
    assert snippets.plan_change(folder.backends, [OPEN]).removes

    change = snippets.plan_change(folder.backends, [OPEN])
    change.write_list()
    change.write_snippets()
    assert before != contents(folder)
    change.undo()
    assert before == contents(folder)


def test_another_server_is_never_sent_the_new_token(folder: StateFolder) -> None:
    """C3: until Caddy has the new configuration, the old one finds its own token unchanged."""
    old = Backend("gpu", "https://old", "OLD")
    render(folder, old)
    (credential,) = folder.backends.glob("*.credential")
    for new in (
        Backend("gpu", "https://new", "NEW"),
        Backend("gpu", "https://old", "NEW", "X-Key"),
        Backend("gpu", "https://old"),
    ):
        change = snippets.plan_change(folder.backends, [new])
        assert change.needs_reload
        change.write_snippets()
        assert "Bearer OLD" == credential.read_text()
        change.tidy()
        assert not credential.exists()
        render(folder, old)
