"""Small vocabularies of each kind, trained here, as /api/show gives them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, Final

from tests.bound.rule import NORMAL, SPACE_MARK, byte_letters

CONTROL, USER_DEFINED, BYTE = 3, 4, 6
_LETTERS: Final = byte_letters()
CORPUS: Final = (
    "the quick brown fox jumps over the lazy dog and the assignable technology of the thing "
    "struggled with its own strength ; def count_words(self, text): return self.words[text] "
    "getItem setItem forEach HTTPServer int main(void) { return 0; } die Straße über den Fluß "
    "ÄRGER größer Übung naïve café 漢字 と かな 漢字 漢語 привет мир привет "
    "    if    else        then\n\n\tbar_baz foo.bar <b>bold</b> &amp; it's we're don't 'reason 'relation "
) * 2


def byte_pairs(merges: int) -> dict[str, Any]:
    """Train a byte-level vocabulary (the tokenizer `gpt2`) on words and the space before them."""
    words = Counter("".join(_LETTERS[byte] for byte in f" {word}".encode()) for word in CORPUS.split(" "))
    pieces = {word: tuple(word) for word in words}
    done = _merged(pieces, words, merges)
    # Merges across what pre-tokenizers cut are rare ones, but there are some.
    tokens = [*_LETTERS.values(), *dict.fromkeys(left + right for left, right in done)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*tokens, "<|end|>"],
        "tokenizer.ggml.token_type": [*[NORMAL] * len(tokens), CONTROL],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in done],
    }


def pieces_of_text(merges: int) -> dict[str, Any]:
    """Train a vocabulary of characters with scores (the tokenizer `llama`)."""
    words = Counter(f"{SPACE_MARK}{word}" for word in CORPUS.split(" "))
    done = _merged({word: tuple(word) for word in words}, words, merges)
    chars = sorted({char for word in words for char in word if char.isascii()} | {SPACE_MARK, "ß", "ü", "漢"})
    known = dict.fromkeys([*chars, *(left + right for left, right in done)])
    head = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE_MARK * 2, "<table>"]
    kinds = [2, CONTROL, *[BYTE] * 256, USER_DEFINED, USER_DEFINED]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*head, *known],
        "tokenizer.ggml.token_type": [*kinds, *[NORMAL] * len(known)],
        "tokenizer.ggml.scores": [*[0.0] * len(head), *(-float(i) for i in range(len(known)))],
    }


def word_pieces() -> dict[str, Any]:
    """Make a vocabulary of whole words and letters (the tokenizer `bert`)."""
    words = sorted({word.lower() for word in CORPUS.split() if word.isalpha() and word.isascii()})
    letters = [chr(letter) for letter in range(33, 127)]
    tokens = ["[UNK]", "[CLS]", "[SEP]", *(SPACE_MARK + word for word in words), *letters]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, CONTROL, *[NORMAL] * (len(tokens) - 3)],
    }


def _merged(pieces: dict[str, tuple[str, ...]], words: Counter[str], merges: int) -> list[tuple[str, str]]:
    """Merge the most frequent pair again and again; return the pairs in order."""
    done: list[tuple[str, str]] = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        done.append(best)
        pieces = {word: _joined(parts, best) for word, parts in pieces.items()}
    return done


def _joined(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)
