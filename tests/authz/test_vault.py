"""The keys of the vault: private ones stay away from servers, public ones are what Caddy takes."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from authz.__main__ import run
from authz.accounts import vault
from authz.accounts.vault import PRIVATE, PUBLIC, PrivateKeys
from authz.errors import CommandError
from tests.authz.sealing import sealed

PAIR = PrivateKey.generate()
PUBLIC_LINE = vault.public_line(PAIR)
PRIVATE_LINE = PRIVATE + base64.b64encode(bytes(PAIR)).decode()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stack's folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("GATEWAY_STATE", str(folder))
    return folder


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A place that no service has."""
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


def test_a_pair_of_keys(state: Path, away: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`vault init` makes a private key for its owner alone, and the public one where Caddy looks for it."""
    private, public = away / "vault.key", state / "vault.pub"
    assert 0 == run(["vault", "init", "--private-key", str(private), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert 0o600 == stat.S_IMODE(private.stat().st_mode)
    assert 0o644 == stat.S_IMODE(public.stat().st_mode)
    (key,) = vault.read_public(public)
    assert said == {
        "vault": vault.identifier(key),
        "private_key": str(private),
        "public_key": str(public),
    }
    assert b"text" == PrivateKeys.read(private).open(said["vault"], sealed(key, b"text"))
    assert 1 == run(["vault", "init", "--private-key", str(private)])
    assert "is there already" in capsys.readouterr().err
    assert (key,) == vault.read_public(public)


def test_a_rotation_keeps_what_was_sealed(
    state: Path, away: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `vault rotate` two public keys are live, the new one first; the file opens what any sealed."""
    private, public = away / "vault.key", state / "vault.pub"
    command = ["--private-key", str(private)]
    assert 0 == run(["vault", "init", *command])
    boxes = []
    for _ in range(3):
        newest = vault.read_public(public)[0]
        boxes.append((vault.identifier(newest), sealed(newest, b"text")))
        assert 0 == run(["vault", "rotate", *command])
        assert newest == vault.read_public(public)[1]
    keys = PrivateKeys.read(private)
    assert 4 == len(keys.keys)
    assert {b"text"} == {keys.open(name, box) for name, box in boxes}
    assert 0o600 == stat.S_IMODE(private.stat().st_mode)

    vault.write_public(public, [PAIR.public_key], is_new=False)
    capsys.readouterr()
    assert 1 == run(["vault", "rotate", *command])
    assert "name the two files of one vault" in capsys.readouterr().err
    assert 4 == len(PrivateKeys.read(private).keys)


@pytest.mark.parametrize("place", ["vault.key", "keys/vault.key", "../state/vault.key"])
def test_a_private_key_on_the_server(state: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A place that the services have is refused, with the reason; nothing is written."""
    (state / "keys").mkdir()
    assert 2 == run(["vault", "init", "--private-key", str(state / place)])
    said = capsys.readouterr().err
    assert "whoever breaks into a server that has it could open every prompt" in said
    assert ["keys"] == [path.name for path in state.iterdir()]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no public key"),
        ("ssh-ed25519 AAAA", "holds no public key"),
        (PUBLIC_LINE[:-4], "holds no public key"),
        (PUBLIC + "?" * 44, "holds no public key"),
        ("\xff", "holds no public key"),
        (f"{PUBLIC_LINE}\n" * 3, "more than two"),
        (
            f"{PUBLIC_LINE}\n{PRIVATE_LINE}",
            "holds a private key, and is where a server looks: whoever breaks",
        ),
    ],
)
def test_what_is_no_public_key(tmp_path: Path, text: str, match: str) -> None:
    """What stands in the place of a public key and is none is refused in a sentence."""
    path = tmp_path / "vault.pub"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CommandError, match=match):
        vault.read_public(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no private key"),
        (PRIVATE_LINE[:-4], "holds no private key"),
        (PUBLIC_LINE, "holds a public key, which opens nothing"),
        (f"{PRIVATE_LINE}\nrest", "holds no private key"),
    ],
)
def test_what_is_no_private_key(tmp_path: Path, text: str, match: str) -> None:
    """What is named as a private key and is none is refused in a sentence."""
    path = tmp_path / "vault.key"
    path.write_text(text)
    with pytest.raises(CommandError, match=match):
        PrivateKeys.read(path)
    with pytest.raises(CommandError, match=r"can't be read \(No such file"):
        PrivateKeys.read(tmp_path / "none")


def test_no_key_shows(tmp_path: Path) -> None:
    """A private key does not show where its holder is printed."""
    path = tmp_path / "vault.key"
    path.write_text(PRIVATE_LINE)
    assert "PrivateKeys()" == repr(PrivateKeys.read(path))


def test_another_vaults_box() -> None:
    """A box for another key names that key; one that was altered does not open."""
    keys = PrivateKeys((PAIR,))
    box = sealed(PAIR.public_key, b"text")
    with pytest.raises(CommandError, match="The private key 0123456789abcdef is needed"):
        keys.open("0123456789abcdef", box)
    for at in range(len(box)):
        altered = box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :]
        assert keys.open(vault.identifier(PAIR.public_key), altered) is None
        assert keys.open(vault.identifier(PAIR.public_key), box[:at]) is None
