"""The bound of a text: the gateway's figures are the reference's, and no tokenizer counts more."""

from __future__ import annotations

import random
import re
from typing import Any, Final

import pytest

from tests.bound.conftest import Bounds
from tests.bound.rule import Merger, Rule
from tests.bound.vocabularies import CORPUS, byte_pairs, pieces_of_text, word_pieces

VOCABULARIES: Final[dict[str, dict[str, Any]]] = {
    "bytes": byte_pairs(400),
    "exact": byte_pairs(400) | {"tokenizer.ggml.pre": "gpt-2"},
    "few exact": byte_pairs(60) | {"tokenizer.ggml.pre": "qwen2"},
    "few bytes": byte_pairs(60),
    "pieces": pieces_of_text(300),
    "words": word_pieces(),
}
_ODD: Final = (
    "",
    " ",
    "  ",
    "\n",
    "\0",
    "'",
    "'re",
    "ß",
    "é",
    "漢",
    "字",
    "😀",
    "\u2028",
    "\x1b",
    "Ǆ",
    ">",
    "]",
)
_WORDS: Final = CORPUS.split(" ")
# What tokenizers cut a text into before they merge: GPT-2's own rule, and nothing at all.
_CUT: Final = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
TEXTS: Final = 3000


def _texts(dice: random.Random) -> list[str]:
    """Make texts of words, parts of words, odd characters and spaces, glued in every way."""
    texts = ["", " " * 200, "a" * 300, CORPUS, "\n".join(_WORDS)]
    texts += ["".join(_part(dice) for _ in range(dice.randrange(1, 9))) for _ in range(TEXTS)]
    return texts


def _part(dice: random.Random) -> str:
    word = dice.choice(_WORDS)
    end = word[dice.randrange(len(word) + 1) :]
    part = dice.choice((word, end, word.upper(), word.title(), dice.choice(_ODD), chr(dice.randrange(0x800))))
    return part + dice.choice(("", "", " ", " ", "  ", dice.choice("._-'>]\n\t")))


@pytest.mark.parametrize("info", VOCABULARIES.values(), ids=VOCABULARIES)
def test_gateway_agrees_with_the_reference(bounds: Bounds, info: dict[str, Any]) -> None:
    """Both give the same bound for every text."""
    texts = _texts(random.Random(1))  # noqa: S311 (texts, no secrets)
    rule = Rule(info)
    expected = [rule.bound(text) for text in texts]
    found = zip(texts, expected, bounds(info, texts), strict=True)
    assert not [(text, right, wrong) for text, right, wrong in found if right != wrong]


@pytest.mark.parametrize("name", ["bytes", "few bytes", "exact", "few exact", "pieces"])
def test_no_tokenizer_counts_more(name: str) -> None:
    """L3: a text never becomes more tokens than its bound, whether or not it is cut before the merges."""
    info = VOCABULARIES[name]
    rule, merger = Rule(info), Merger(info)
    wrong = []
    for text in _texts(random.Random(2)):  # noqa: S311 (texts, no secrets)
        if merger.is_spm:
            counts = [_after_marks(merger, text), merger.count(text)]
        else:
            counts = [merger.count(text) if len(text) < 100 else 0]
            counts.append(sum(merger.count(piece) for piece in _CUT.findall(text)))
        if max(counts) > rule.bound(text):
            wrong.append((text, counts, rule.bound(text)))
    assert not wrong


def _after_marks(merger: Merger, text: str) -> int:
    """Count as llama.cpp does: marks are cut out first, and a space is put before what follows one."""
    parts = re.split("(<table>|  )", text)
    return sum(1 if i % 2 else merger.count(f" {part}") for i, part in enumerate(parts) if part)
