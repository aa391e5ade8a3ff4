"""Where SPM merges a word by itself: no token has both an end of the word and its neighbor."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

_SPACE_MARK: Final = "\u2581"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_MAX_WORD_BYTES: Final = 64
_LAST_CHAR: Final = 0x52F


class Scored:
    """The pairs of characters that tokens have, of a vocabulary with scores."""

    def __init__(self, info: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        tokens = info["tokenizer.ggml.tokens"]
        types = info["tokenizer.ggml.token_type"]
        self._chars = {token for token in scores if len(token) == 1 and ord(token) <= _LAST_CHAR}
        self._before_space: set[int] = set()
        self._before_letter: set[int] = set()
        self._behind_letter: set[int] = set()
        made = [token for token in scores if _is_made(token, scores)]
        self._is_ordered = len({scores[token] for token in made}) == len(made)
        known = set(tokens)
        for token, kind in zip(tokens, types, strict=True):
            text = token.replace(_SPACE_MARK, " ")
            is_mark = kind in {_CONTROL, _USER_DEFINED}
            is_text = kind in {_NORMAL, _USER_DEFINED}
            if (is_mark and _meets_words(text)) or (not is_text and _is_word(text.removeprefix(" "))):
                self._is_ordered = False
            if is_text or _can_be_made(token, known):
                self._take(text)

    def _take(self, text: str) -> None:
        for left, right in pairwise(text):
            last, first = left.encode()[-1], right.encode()[0]
            if right == " " != left:
                self._before_space.add(last)
            elif _is_word(right) and not _is_word(left) and left != " ":
                self._before_letter.add(last)
            if _is_word(left) and not _is_word(right):
                self._behind_letter.add(first)

    def is_alone(self, word: str, spaces: int, before: str, after: str) -> bool:
        """Return whether a word, with the one space before it, is merged by itself; else it is unknown."""
        is_simple = spaces <= 1 and len(word.encode()) <= _MAX_WORD_BYTES and set(word) <= self._chars
        if not (self._is_ordered and is_simple and before and after):
            return False
        glued = self._before_space if spaces else self._before_letter
        return before.encode()[-1] not in glued and after.encode()[0] not in self._behind_letter


def greedy(spaces: int, runs: set[int]) -> int:
    """Return how many of the longest tokens of spaces make so many."""
    tokens = 0
    while spaces > 0:
        spaces -= max(run for run in runs if run <= spaces)
        tokens += 1
    return tokens


def _is_made(token: str, known: Mapping[str, float]) -> bool:
    return any(token[:i] in known and token[i:] in known for i in range(1, len(token)))


def _can_be_made(token: str, known: set[str]) -> bool:
    """Return whether merges may make a token that is no text, such as </s>."""

    def is_piece(part: str) -> bool:
        return part in known or len(part) == 1

    return any(is_piece(token[:i]) and is_piece(token[i:]) for i in range(1, len(token)))


def _meets_words(mark: str) -> bool:
    """Return whether a mark could cut a word, or the one space before it."""
    is_spaces = len(mark) > 1 and not mark.strip(" ")
    return any(_is_word(end) or (end == " " and not is_spaces) for end in (mark[0], mark[-1]))


def _is_word(text: str) -> bool:
    return bool(text) and all(unicodedata.category(char)[0] == "L" for char in text)
