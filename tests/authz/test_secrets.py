"""Secrets: their form, their carriers, and what is stored of them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import SettingsError
from authz.identity import secrets
from authz.identity.secrets import ALPHABET, Pepper, Peppers, mint

PEPPER = Pepper(b"p" * 32)


def _minted() -> secrets.Minted:
    characters = itertools.cycle("aB3dE6gH9j")
    return mint(PEPPER, lambda _: next(characters))


def test_form() -> None:
    """A secret is nz_, 8 public, 32 secret and 6 check characters: one word of 49."""
    minted = _minted()
    assert 49 == len(minted.secret)
    assert minted.secret.startswith("nz_aB3dE6gH")
    assert "nz_aB3dE6gH" == minted.lookup
    assert secrets.is_well_formed(minted.secret)


@given(st.integers(3, 48), st.sampled_from(ALPHABET))
def test_any_changed_character_is_noticed(position: int, other: str) -> None:
    """A typo anywhere is no secret, so no store is asked for it."""
    secret = _minted().secret
    changed = secret[:position] + other + secret[position + 1 :]
    assert (changed == secret) == secrets.is_well_formed(changed)


@given(st.text(max_size=60))
def test_other_texts_are_no_secrets(text: str) -> None:
    """Anything else that is sent is recognized as no secret, without an exception."""
    assert not secrets.is_well_formed(text)


def test_tag_depends_on_pepper_and_secret() -> None:
    """Without the pepper a stored tag says nothing; another secret has another tag."""
    secret = _minted().secret
    assert PEPPER.tag(secret) == _minted().tag
    assert PEPPER.tag(secret) != Pepper(b"q" * 32).tag(secret)
    assert PEPPER.tag(secret) != PEPPER.tag(secret[:-1] + "0")


def test_hash_proves_the_secret_only() -> None:
    """The Argon2id hash fits its secret and no other."""
    minted = _minted()
    assert secrets.is_proven(minted.hash, minted.secret)
    assert not secrets.is_proven(minted.hash, minted.secret[:-1] + "0")
    assert not secrets.is_proven("no hash at all", minted.secret)


SECRET = _minted().secret.encode()


def test_a_secret_is_presented_in_one_form() -> None:
    """The guard leaves one credential in one header, whatever the client sent it in."""
    headers = [(b"host", b"x"), (b"authorization", b"Bearer " + SECRET)]
    assert SECRET.decode() == secrets.presented(headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer  " + SECRET)],
        [(b"authorization", b"Bearer " + SECRET[:-1])],
        [(b"authorization", b"Bearer " + SECRET + b"x")],
        [(b"authorization", b"Bearer " + SECRET.lower())],
        [(b"authorization", b"Bearer nz_\xff\xfe")],
        [(b"authorization", b"Digest " + SECRET)],
        [(b"x-api-key", SECRET)],
        [(b"authorization", b"Bearer " + SECRET), (b"authorization", b"Bearer " + SECRET)],
    ],
)
def test_no_secret(headers: list[tuple[bytes, bytes]]) -> None:
    """Anything else carries none, without an exception."""
    assert secrets.presented(headers) is None


def test_pepper_file_must_be_private(tmp_path: Path) -> None:
    """A pepper that others may read is refused with the command that mends it."""
    path = tmp_path / "pepper"
    path.write_text("ab" * 32)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 0400"):
        Peppers.read(path)


@pytest.mark.parametrize(("mode", "group"), [(0o440, 0), (0o440, 12345), (0o640, 12345), (0o404, 0)])
def test_a_credential_of_systemd_is_private(tmp_path: Path, mode: int, group: int) -> None:
    """An ACL that lets this user read shows as rights of root's group; another group's are too many."""
    path, is_root = tmp_path / "pepper", os.geteuid() == 0
    path.write_text("ab" * 32)
    if is_root:
        os.chown(path, 0, group)
    path.chmod(mode)
    if is_root and (mode, group) == (0o440, 0):
        assert 1 == len(Peppers.read(path).alive)
        return
    with pytest.raises(SettingsError, match="can be read by others"):
        Peppers.read(path)


def test_pepper_of_another_user_is_one_sentence(tmp_path: Path) -> None:
    """A pepper that this user may not read is refused with the command that mends it."""
    path, is_root = tmp_path / "pepper", os.geteuid() == 0
    path.write_text("ab" * 32)
    path.chmod(0o400 if is_root else 0)
    user = 12345 if is_root else os.geteuid()
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o711)
    os.seteuid(user)
    try:
        with pytest.raises(SettingsError) as refused:
            Peppers.read(path)
    finally:
        os.seteuid(os.getuid())
    assert f"The pepper file {path} can't be read by user {user}: run `chown {user} {path}`." == str(
        refused.value
    )


def test_missing_pepper_is_one_sentence(tmp_path: Path) -> None:
    """A pepper that does not exist is named, with the command that makes one."""
    with pytest.raises(SettingsError, match=r"^There is no pepper file .*neuronetz-gateway init`\.$"):
        Peppers.read(tmp_path / "pepper")


@pytest.mark.parametrize("text", ["", "abcd", "zz" * 32])
def test_pepper_file_must_hold_a_pepper(tmp_path: Path, text: str) -> None:
    """A short, empty or garbled pepper is refused."""
    path = tmp_path / "pepper"
    path.write_text(text)
    path.chmod(0o400)
    with pytest.raises(SettingsError):
        Peppers.read(path)


def test_two_peppers_may_live(tmp_path: Path) -> None:
    """The first pepper makes new tags; the ids of both are known."""
    path = tmp_path / "pepper"
    path.write_text(f"{'ab' * 32}\n{'cd' * 32}\n")
    path.chmod(0o400)
    peppers = Peppers.read(path)
    assert 2 == len(peppers.alive)
    assert peppers.alive[1] == peppers.get(peppers.alive[1].id)
    assert peppers.get("another") is None


def test_secrets_are_not_shown() -> None:
    """The text of our values, which logs print, holds neither secret nor tag nor pepper."""
    minted = _minted()
    assert minted.secret not in repr(minted)
    assert minted.hash not in repr(minted)
    assert "pppp" not in repr(PEPPER)
