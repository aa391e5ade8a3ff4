"""llama.cpp itself as the counter of tokens: its server, on a model of one vocabulary and no weights.

Needs the package `xllamacpp`.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.ollama.models import Tensor, Value, gguf

if TYPE_CHECKING:
    from tests.bound.published import Published

_WIDTH: Final = 32
_KINDS: Final = {"tokens": "strings", "merges": "strings", "token_type": "integers", "scores": "floats"}


class LlamaCpp:
    """Counts the tokens of texts; its server ends with the process."""

    def __init__(self, model: Published) -> None:
        xllamacpp = import_module("xllamacpp")
        path = Path(mkdtemp(prefix="nz")) / "vocabulary.gguf"
        path.write_bytes(gguf(_facts(model), _tensors(model)))
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.warmup, params.n_ctx, params.n_gpu_layers = False, 256, 0
        self._server = xllamacpp.Server(params)
        self._client = httpx.Client(base_url=self._server.listening_address, trust_env=False)
        path.unlink()

    def count(self, texts: list[str]) -> list[int]:
        """Return how many tokens each text becomes, where marks in it count as themselves."""
        return [self._count(text) for text in texts]

    def _count(self, text: str) -> int:
        asked = {"content": text, "add_special": False, "parse_special": True}
        answer = self._client.post("/tokenize", content=json.dumps(asked))
        return len(answer.raise_for_status().json()["tokens"])


def _facts(model: Published) -> dict[str, Value]:
    info: dict[str, Any] = model.show()["model_info"]
    kinds = {name: _KINDS.get(name.rpartition(".")[2]) for name in info}
    vocabulary: dict[str, Any] = {
        name: (kinds[name], value) if kinds[name] else value for name, value in info.items()
    }
    return {
        "general.architecture": "llama",
        "general.name": model.name,
        "llama.context_length": 8192,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": _WIDTH,
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": _WIDTH,
        "llama.vocab_size": len(info["tokenizer.ggml.tokens"]),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        **vocabulary,
    }


def _tensors(model: Published) -> dict[str, Tensor]:
    tokens = len(model.show()["model_info"]["tokenizer.ggml.tokens"])
    flat: Tensor = ((_WIDTH,), [0.0] * _WIDTH)
    square: Tensor = ((_WIDTH, _WIDTH), [0.0] * _WIDTH**2)
    block = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
    block |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), square) | {
        "attn_norm": flat,
        "ffn_norm": flat,
    }
    return {
        "token_embd.weight": ((_WIDTH, tokens), [0.0] * (_WIDTH * tokens)),
        "output_norm.weight": flat,
        **{f"blk.0.{name}.weight": tensor for name, tensor in block.items()},
    }
