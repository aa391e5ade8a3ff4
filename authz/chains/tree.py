"""Merkle trees as of RFC 6962, over hashes that are given: by a byte a leaf is known from a node."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH_BYTES: Final = 32

Step = tuple[str, bytes]
"""A hash on the way to the root, and the side on which it stands: "left" or "right"."""


def leaf(data: bytes) -> bytes:
    """Return the hash of what a leaf stands for."""
    return hashlib.sha256(b"\0" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of two hashes side by side."""
    return hashlib.sha256(b"\1" + left + right).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over at least one hash; the last one of an odd number goes up as it is."""
    level = list(hashes)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(hashes: Sequence[bytes], index: int) -> list[Step]:
    """Return what is needed to come from one of these hashes to their root."""
    steps: list[Step] = []
    level = list(hashes)
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            steps.append(("left" if beside < index else "right", level[beside]))
        level, index = _above(level), index // 2
    return steps


def follow(start: bytes, steps: Sequence[Step]) -> bytes:
    """Return the root to which a path leads."""
    for side, beside in steps:
        start = node(beside, start) if side == "left" else node(start, beside)
    return start


def split(hashes: bytes) -> list[bytes]:
    """Return hashes that stand one after the other as a list."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def _above(level: list[bytes]) -> list[bytes]:
    joined, both = b"".join(level), 2 * HASH_BYTES
    # Without a call for each node: a day may have tens of thousands.
    pairs = [
        hashlib.sha256(b"\1" + joined[at : at + both]).digest()
        for at in range(0, len(joined) - HASH_BYTES, both)
    ]
    return pairs if len(level) % 2 == 0 else [*pairs, level[-1]]
