"""Look for texts that real tokenizers cut into more tokens than their bound.

`just bound-search` runs it with the packages that it needs besides, `tokenizers` and `xllamacpp`. It tries
random texts, words of the vocabulary glued in every way, other scripts, repetitions, and changes of the worst
ones so far.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Self

import msgspec

from tests.bound.build import built, described
from tests.bound.llama_cpp import LlamaCpp
from tests.bound.published import EMBEDDING, PUBLISHED, Published

ROUND: Final = 5000
KEPT: Final = 300
LONGEST: Final = 400
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GLUE: Final = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~0123456789\t\n' "
_SCRIPTS: Final = ((0xA0, 0x3000), (0x3000, 0xA000), (0xAC00, 0xD7A0), (0xF900, 0xFFFD), (0x10000, 0x1FBFF))


class Texts:
    """Texts that a tokenizer may cut in a bad way."""

    def __init__(self, tokens: list[str], dice: random.Random) -> None:
        self._tokens = tokens
        self._words = [token.strip() for token in tokens if token.strip()]
        self._dice = dice
        self._kinds = (
            lambda: self._repeat(lambda: dice.choice(_LETTERS), 30),
            lambda: self._repeat(self._char, 20),
            lambda: self._repeat(lambda: self._word() + dice.choice(_GLUE), 8),
            lambda: self._repeat(self._word, 8),
            lambda: (dice.choice(_GLUE) + self._word()) * dice.randrange(1, 12),
            lambda: (self._word().capitalize() + self._word().title()) * dice.randrange(1, 6),
            lambda: self._repeat(lambda: dice.choice(self._tokens), 8),
            lambda: self._torn() * dice.randrange(1, 9),
            lambda: self._repeat(lambda: f" {self._word().lower()}{self._word().lower()}", 8),
            lambda: self._word() + " " * dice.randrange(1, 70) + self._word(),
        )

    def new(self) -> str:
        """Make a text of some kind."""
        return self._dice.choice(self._kinds)()

    def changed(self, text: str) -> str:
        """Change a text a little."""
        i = self._dice.randrange(len(text) + 1)
        options = (
            text[:i] + self._char() + text[i:],
            text[:i] + text[i + 1 :],
            text * 2,
            text[:i] + self._word() + text[i:],
        )
        return self._dice.choice(options)[:LONGEST]

    def _word(self) -> str:
        return self._dice.choice(self._words)

    def _torn(self) -> str:
        word = self._word()
        i = self._dice.randrange(len(word))
        return word[:i] + self._dice.choice((" ", "  ", "'", "_", "")) + word[i:]

    def _char(self) -> str:
        kind = self._dice.randrange(6)
        if kind == 0:
            return chr(self._dice.randrange(*self._dice.choice(_SCRIPTS)))
        if kind == 1:
            return " " * self._dice.randrange(1, 4)
        return self._dice.choice(_GLUE if kind == 2 else _LETTERS)

    def _repeat(self, make: Any, most: int) -> str:
        return "".join(make() for _ in range(self._dice.randrange(1, most)))


Count = Callable[[list[str]], list[int]]


def search(model: Published, count: Count, *, texts: int, seed: int) -> tuple[float, list[str]]:
    """Return the greatest share of its bound that a text reached, and the texts that passed theirs."""
    dice = random.Random(seed)  # noqa: S311 (texts, no secrets)
    tokenizer = _tokenizer(model)
    ids = dice.sample(range(tokenizer.get_vocab_size(with_added_tokens=False)), 20_000)
    source = Texts([tokenizer.decode([i]) for i in ids], dice)
    worst, wrong, kept = 0.0, [], list[str]()
    with Bounds(model) as bounds:
        for turn in range(-(-texts // ROUND)):
            is_climb = turn % 3 == 2 and kept
            made = (source.changed(dice.choice(kept)) if is_climb else source.new() for _ in range(ROUND))
            tried = [text for text in made if text and _is_unicode(text)]
            figures = zip(count(tried), bounds.of(tried), tried, strict=True)
            shares = sorted(((tokens / bound, text) for tokens, bound, text in figures), reverse=True)
            worst = max(worst, shares[0][0])
            wrong += [text for share, text in shares if share > 1]
            kept = dice.sample(kept, min(len(kept), KEPT)) + [text for _, text in shares[:100]]
    return worst, wrong


def _tokenizer(model: Published) -> Any:
    return import_module("tokenizers").Tokenizer.from_str(json.dumps(model.tokenizer()))


def _counter(model: Published, name: str) -> Count:
    """Return what counts: llama.cpp itself, or Hugging Face's tokenizers."""
    if name == "llama.cpp":
        return LlamaCpp(model).count
    tokenizer = _tokenizer(model)
    return lambda texts: [len(cut.ids) for cut in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


class Bounds:
    """The gateway's own rule, in a process of its own."""

    def __init__(self, model: Published) -> None:
        self._show = described(model)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [str(built()), str(self._show)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def of(self, texts: list[str]) -> list[int]:
        """Return the bounds of texts."""
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        lines = b"".join(msgspec.json.encode(text) + b"\n" for text in texts)
        writer = threading.Thread(target=lambda: (stdin.write(lines), stdin.flush()))
        writer.start()
        found = [int(stdout.readline()) for _ in texts]
        writer.join()
        return found


def main() -> int:
    """Search in every vocabulary; the arguments are how many texts, a seed, and what counts."""
    texts, seed, counter = (*sys.argv[1:], *("30000", "1", "tokenizers")[len(sys.argv) - 1 :])
    found = False
    for model in (*PUBLISHED, *EMBEDDING):
        worst, wrong = search(model, _counter(model, counter), texts=int(texts), seed=int(seed))
        sys.stdout.write(f"{model.name:14}{texts} texts, at most {worst:.4f} of the bound {wrong[:3]}\n")
        sys.stdout.flush()
        found = found or bool(wrong)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
