"""The rule by which the gateway bounds the tokens of a text, plain and slow.

It is written from the rule, not from the gateway's own code: both must give the same figures.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from tests.bound.scored import Scored, greedy

SPACE_MARK: Final = "\u2581"
MAX_RUN: Final = 64
MAX_WORD_BYTES: Final = 64
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
_GLUE: Final = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~0123456789\t'
_HUMPS: Final = re.compile(r"[A-Z]*[^A-Z]+|[A-Z]+")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
EXACT_CUTS: Final = frozenset(
    ("llama-bpe", "llama4", "qwen2", "deepseek-r1-qwen", "gpt-2", "gpt-4o", "deepseek-v3", "tekken")
)
"""The ways to cut a text in which a word is merged by itself, or with the one character before it."""
_BYTE_TOKEN: Final = re.compile(r"<0x..>", re.DOTALL)


def byte_letters() -> dict[int, str]:
    """Return the character by which a byte-level vocabulary spells each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(moved)}


_LETTER_OF: Final = byte_letters()
_BYTE_OF: Final = {letter: byte for byte, letter in _LETTER_OF.items()}


class Merger:
    """The merges of a vocabulary, applied to a text that nothing cuts."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.is_spm = info["tokenizer.ggml.model"] == "llama"
        tokens = info["tokenizer.ggml.tokens"]
        if self.is_spm:
            types = info["tokenizer.ggml.token_type"]
            self.score: dict[str, float] = {
                token: -score
                for token, score, kind in zip(tokens, info["tokenizer.ggml.scores"], types, strict=True)
                if kind in {NORMAL, USER_DEFINED} and not _BYTE_TOKEN.fullmatch(token)
            }
        else:
            self.rank = {tuple(text.split(" ")): i for i, text in enumerate(info["tokenizer.ggml.merges"])}

    def pieces(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        if self.is_spm:
            pieces = list(text.replace(" ", SPACE_MARK))
        else:
            pieces = [_LETTER_OF[byte] for byte in text.encode()]
        while len(pieces) > 1:
            ranked = [(self._rank(*pair), i) for i, pair in enumerate(pairwise(pieces))]
            rank, i = min(ranked)
            if rank == float("inf"):
                break
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        return pieces

    def count(self, text: str) -> int:
        """Return how many tokens that are; SPM spells a character that is none in bytes."""
        pieces = self.pieces(text)
        if not self.is_spm:
            return len(pieces)
        return sum(1 if piece in self.score else len(piece.encode()) for piece in pieces)

    def _rank(self, left: str, right: str) -> float:
        if self.is_spm:
            return self.score.get(left + right, float("inf"))
        return self.rank.get((left, right), float("inf"))


class Rule:
    """The bound of texts by one vocabulary, as /api/show gives it."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.kind = info["tokenizer.ggml.model"]
        tokens = info["tokenizer.ggml.tokens"]
        types = info.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
        self.bare: set[str] = set()
        self.spaced: set[str] = set()
        self.chars: set[str] = set()
        self.runs = {1}
        self.cross: set[tuple[int, int]] = set()
        if self.kind == "bert":
            self.bare = {
                token[1:]
                for token, kind in zip(tokens, types, strict=True)
                if kind in {NORMAL, USER_DEFINED} and token[0] == SPACE_MARK and is_word(token[1:])
            }
            return
        self.merger = Merger(info)
        self.is_exact = self.kind == "gpt2" and info.get("tokenizer.ggml.pre") in EXACT_CUTS
        self.has_prefix = self.kind == "llama" and info.get("tokenizer.ggml.add_space_prefix", True)
        marks = {
            token.replace(SPACE_MARK, " ")
            for token, kind in zip(tokens, types, strict=True)
            if kind in {CONTROL, USER_DEFINED}
        }
        self.scored = Scored(info, self.merger.score) if self.kind == "llama" else None
        self.ends = {"", ">", "]", *(mark[-1] for mark in marks)} if self.kind == "llama" else set()
        self.is_exact = self.is_exact and not any(
            is_word(end) for mark in marks for end in (mark[0], mark[-1])
        )
        self.marks = {mark.removeprefix(" ") for mark in marks if is_word(mark.removeprefix(" "))}
        for token, kind in zip(tokens, types, strict=True):
            if kind in {NORMAL, USER_DEFINED}:
                self._take(token, is_mark=kind == USER_DEFINED)

    def _take(self, token: str, *, is_mark: bool) -> None:
        text = self._text(token, is_mark=is_mark)
        if not text or (not is_mark and not self._is_reachable(text)):
            return
        if not text.strip(" ") and len(text) <= MAX_RUN and not (is_mark and self.has_prefix):
            self.runs.add(len(text))
        word = text.removeprefix(" ")
        is_known = is_word(word) and not is_mark and len(word.encode()) <= MAX_WORD_BYTES
        if is_known and not _is_mixed(text) and not any(mark in word for mark in self.marks):
            if text != word:
                self.spaced.add(word)
            elif not self._is_dear(word):
                self.bare.add(word)
        if len(text) == 1 and not text.isascii() and not is_mark:
            self.chars.add(text)

    def _text(self, token: str, *, is_mark: bool) -> str:
        if self.kind == "llama":
            return "" if _BYTE_TOKEN.fullmatch(token) else token.replace(SPACE_MARK, " ")
        if is_mark:
            return token
        if any(letter not in _BYTE_OF for letter in token):
            return ""
        content = bytes(_BYTE_OF[letter] for letter in token)
        try:
            return content.decode()
        except UnicodeDecodeError:
            self.cross |= {pair for pair in pairwise(content) if pair[1] >= 0xC0}
            return ""

    def _is_reachable(self, text: str) -> bool:
        """Return whether a text becomes one token, by merges of tokens alone."""
        spelled = text.replace(" ", SPACE_MARK)
        are_tokens = self.kind == "gpt2" or all(char in self.merger.score for char in spelled)
        return are_tokens and self.merger.count(text) == 1

    def _is_dear(self, word: str) -> bool:
        if not word.isascii() or _price(len(word)) == len(word):
            return False
        return any(self.merger.count(mark + word) > 1 + _price(len(word)) for mark in _GLUE)

    def _exact(self, word: str, spaces: int, char: tuple[str, int] | None, after: str) -> int | None:
        """Price a word by its merges; None if its script, length or neighbours do not allow that."""
        if not self.is_exact or len(word.encode()) > MAX_WORD_BYTES or not _is_one_script(word):
            return None
        is_accent = spaces == 0 and char is not None and _is_accent(char[0])
        if after == "'" or _is_accent(after) or is_accent:
            return None
        count = self.merger.count

        def glued(part: str) -> int:
            if spaces or char is None:
                return count(f" {part}") if spaces else 1 + count(part)
            before, paid = char
            ascii_part = next((part[:i] for i, letter in enumerate(part) if not letter.isascii()), "")
            torn = count(before + ascii_part) - paid + count(part[len(ascii_part) :]) if ascii_part else 0
            return max(count(part), count(before + part) - paid, torn)

        if not word.isascii():
            return glued(word)
        first, *rest = _CAMEL.split(word)
        return max(glued(word), glued(first) + sum(map(count, rest)))

    def bound(self, text: str) -> int:
        """Return the most tokens that a text can become."""
        if self.kind == "bert":
            return 3 + self._word_pieces(text)
        tokens, spaces, before = 1, 0, ""
        char: tuple[str, int] | None = None
        for piece, end in _pieces(text):
            if piece[0] == " ":
                spaces = len(piece)
                continue
            after = text[end : end + 1]
            tokens += max(self._run(spaces - 1), self._run(spaces) if self.scored and spaces > 1 else 0)
            if is_word(piece):
                tokens += self._word(piece, spaces, before, after, char)
            else:
                char = piece, self._raw(piece, " " if spaces else before, after)
                tokens += (spaces > 0) + char[1]
            spaces, before = 0, piece[-1]
        return tokens + self._run(spaces)

    def _word(self, word: str, spaces: int, before: str, after: str, char: tuple[str, int] | None) -> int:
        raw = (spaces > 0) + self._raw(word, " " if spaces else before, after)
        is_twice = before in self.ends
        is_whole = word in self.spaced and word in self.bare
        if spaces and (is_whole or (spaces == 1 and word in self.spaced and not is_twice)):
            return 1
        if not spaces and before == "'":
            return raw
        if not spaces and word in self.bare and before in {"", "\n"} and (is_whole or not is_twice):
            return 1
        exact = self._exact(word, spaces, char if before else None, after)
        if self.scored and not is_twice and self.scored.is_alone(word, spaces, before, after):
            exact = self.merger.count(f" {word}" if spaces else word)
        if exact is not None:
            return exact
        if not word.isascii():
            return raw
        parts = _HUMPS.findall(word)
        return (spaces > 0) + sum(_price(len(part)) if part in self.bare else len(part) for part in parts)

    def _raw(self, text: str, before: str, after: str) -> int:
        tokens, last = 0, before.encode()[-1:] or b"\0"
        for i, char in enumerate(text):
            content = char.encode()
            follows = (text[i + 1 : i + 2] or after).encode()[:1] or b"\0"
            is_torn = (last[0], content[0]) in self.cross or (content[-1], follows[0]) in self.cross
            tokens += 1 if char in self.chars and not is_torn else len(content)
            last = content[-1:]
        return tokens

    def _run(self, spaces: int) -> int:
        if spaces > MAX_RUN:
            return self._run(MAX_RUN) + self._run(spaces - MAX_RUN)
        return max(greedy(spaces, self.runs), self.merger.count(" " * spaces))

    def _word_pieces(self, text: str) -> int:
        tokens = 0
        for piece, end in _pieces(text):
            if piece[0] == " ":
                continue
            around = (text[: end - len(piece)][-1:], text[end : end + 1])
            is_known = is_word(piece) and piece.isascii() and len(piece) <= MAX_WORD_BYTES
            is_known = is_known and piece.lower() in self.bare and all(map(_is_cut, around))
            tokens += 1 if is_known else len(piece.encode())
        return tokens


def is_word(text: str) -> bool:
    """Return whether a text is made of letters."""
    return bool(text) and all(unicodedata.category(char)[0] == "L" for char in text)


def _is_accent(char: str) -> bool:
    return bool(char) and unicodedata.category(char)[0] == "M"


def _is_one_script(word: str) -> bool:
    """Return whether no tokenizer cuts a word: of one case but for its first letter, or of Han and Kana."""
    if word.isascii():
        return True
    has_capital = any(unicodedata.category(char) in {"Lu", "Lt"} for char in word[1:])
    is_european = all(ord(char) <= 0x52F for char in word) and not has_capital
    return is_european or all("\u3041" <= char <= "\u30ff" or "\u4e00" <= char <= "\u9fa5" for char in word)


def _is_mixed(text: str) -> bool:
    """Return whether a text is not ASCII and has a capital behind what is neither capital nor space."""
    capitals = [unicodedata.category(char) == "Lu" for char in text]
    humps = (
        is_capital and not was_capital and before != " "
        for before, was_capital, is_capital in zip(text, capitals, capitals[1:], strict=False)
    )
    return not text.isascii() and any(humps)


def _price(length: int) -> int:
    return min(length, max(3, (length + 1) // 2))


def _is_cut(char: str) -> bool:
    return not char or char in " \t\r\n" or ("!" <= char <= "~" and not char.isalnum())


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Cut a text into words, runs of spaces and other characters, each with where it ends."""
    start, kinds = 0, [_kind(char) for char in text]
    for end in range(1, len(text) + 1):
        if kinds[start] == "other" or end == len(text) or kinds[end] != kinds[start]:
            yield text[start:end], end
            start = end


def _kind(char: str) -> str:
    if char == " ":
        return "space"
    return "word" if is_word(char) else "other"
