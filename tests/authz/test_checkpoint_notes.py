"""Signed checkpoints as texts: what is not exactly what this gateway signs is none."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from attrs import evolve

from authz.chains import checkpoint
from authz.chains.checkpoint import Checkpoint, PrivateKey, PublicKey
from authz.chains.links import Day
from authz.errors import CommandError

KEY = PrivateKey("signer", b"s" * 32)
DATABASE = UUID("019ab0f4-0000-7000-8000-000000000001")
DAYS = [Day("audit", date(2026, 11, n), n, n, bytes([n]) * 32, b"h" * 32) for n in (1, 2, 3)]


def made() -> Checkpoint:
    """A checkpoint of three days."""
    return checkpoint.make(DATABASE, datetime(2026, 11, 25, 12, tzinfo=UTC), DAYS)


def test_what_is_signed_is_read() -> None:
    """The text that was signed, by the key that signed it."""
    assert made() == checkpoint.parse(KEY.sign(made().text), KEY.public)


def test_a_signature_names_its_key() -> None:
    """One that says that it is by another key is none, even if the key fits."""
    note = KEY.sign(made().text)
    encoded = note.split()[-1]
    other = base64.b64encode(b"\0\0\0\0" + base64.b64decode(encoded)[4:]).decode()
    for changed in (note.replace(" signer ", " another "), note.replace(encoded, other)):
        assert changed != note
        with pytest.raises(CommandError, match="is not signed with the key signer"):
            checkpoint.parse(changed, KEY.public)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("checkpoint 1\n", "checkpoint 2\n"),
        ("\ndays 3 ", "\ndays 03 "),
        (f"\ndatabase {DATABASE}", f"\ndatabase {DATABASE.hex}"),
        ("\nchain audit 3 ", "\nlink audit 3 "),
        ("\nmade ", "\nmade"),
    ],
)
def test_another_text_is_no_checkpoint(old: str, new: str) -> None:
    """Whatever the key has signed: a text is read only as it would be written."""
    text = made().text
    assert old in text
    with pytest.raises(CommandError, match="is no checkpoint of"):
        checkpoint.parse(KEY.sign(text.replace(old, new)), KEY.public)


def test_a_public_key_has_its_digest() -> None:
    """A key that was mistyped, or has another's name, is refused before anything is checked with it."""
    text = str(KEY.public)
    assert KEY.public == PublicKey.parse(f"{text}\n")
    for changed in (text.replace("signer", "another"), text.replace(KEY.public.id.hex(), "00000000")):
        with pytest.raises(CommandError, match="is no public key of"):
            PublicKey.parse(changed)


def test_the_last_note_of_a_file_counts() -> None:
    """Each checkpoint is appended to those before."""
    later = evolve(made(), made="2026-11-26T12:00:00Z")
    both = KEY.sign(made().text) + KEY.sign(later.text)
    assert later == checkpoint.parse(checkpoint.last_note(both), KEY.public)


def test_days_are_those_of_the_root() -> None:
    """One more, one fewer, a changed one or another number of them is a fault."""
    known = made()
    assert [] == known.faults_of(reversed(DAYS))
    changed = [*DAYS[:2], evolve(DAYS[2], root=b"x" * 32)]
    for days in (DAYS[:2], changed, [*DAYS, evolve(DAYS[2], day=date(2026, 11, 4))]):
        assert 1 == len(known.faults_of(days))
    assert 1 == len(evolve(known, days=4).faults_of(DAYS))
