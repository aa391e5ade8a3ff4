"""Toy models, written straight into Ollama's store: real files of a few hundred kilobytes."""

from __future__ import annotations

import json
import random
import struct
from array import array
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from attrs import frozen

Value = bool | int | float | str | tuple[str, list[str]] | tuple[str, list[float]] | tuple[str, list[int]]
Tensor = tuple[tuple[int, ...], list[float]]

# The runner renders chats itself; Ollama only looks for the marks of what a model can do.
_CHAT: Final = (
    "{% if tools %}<|tools|> {{ tools | tojson }}\n{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }}"
    "{% if message.tool_calls %} {{ message.tool_calls | tojson }}{% endif %}"
    "{% if message.role == 'tool' %}<tool_response></tool_response>{% endif %}\n{% endfor %}<|assistant|>"
)
_THINKING_CHAT: Final = _CHAT + "{% if enable_thinking %}<think></think>{% endif %}"
_GO_TEMPLATE: Final = (
    "{{- if .Suffix }}<|prefix|> {{ .Prompt }} <|suffix|> {{ .Suffix }} <|middle|>{{ else }}"
    "{{- range .Messages }}<|{{ .Role }}|> {{ .Content }}{{ if .ToolCalls }}{{ range .ToolCalls }}"
    '<tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>'
    "{{ end }}{{ end }}\n{{ end }}{{ if .Tools }}<|tools|>{{ end }}<|assistant|>{{ end }}"
)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_EMBEDDING: Final = 64
_FEED_FORWARD: Final = 128
_HEADS: Final = 4
_KV_HEADS: Final = 2
_BLOCKS: Final = 2
_ALIGNMENT: Final = 32
_MEDIA_TYPE: Final = "application/vnd.ollama.image."
REGISTRY: Final = ("registry.ollama.ai", "library")
_CONFIG: Final = {
    "model_format": "gguf",
    "model_family": "llama",
    "model_families": ["llama"],
    "model_type": "115.00K",
    "file_type": "F32",
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": []},
}


@frozen
class Toy:
    """A model, and which of Ollama's paths it takes."""

    name: str
    seed: int
    """Of its weights, so that each has a digest of its own."""
    context_tokens: int = 32_768
    facts: Mapping[str, Value] = {}
    """Further facts in its file."""
    layers: Mapping[str, str] = {}
    """Further blobs that its manifest names."""


_LAYERS: Final = {"license": "no rights reserved", "params": json.dumps({"stop": ["<|user|>"]})}
TOYS: Final = (
    Toy("toy", 1, facts={"tokenizer.chat_template": _CHAT}, layers=_LAYERS),
    Toy("toy2", 2, facts={"tokenizer.chat_template": _CHAT}, layers=_LAYERS),
    Toy("toy-think", 5, facts={"tokenizer.chat_template": _THINKING_CHAT}, layers=_LAYERS),
    Toy("toy-tpl", 3, layers={"template": _GO_TEMPLATE, **_LAYERS}),
    Toy("toy-embed", 4, 512, facts={"llama.pooling_type": 1, "tokenizer.ggml.add_eos_token": True}),
)


def write_models(store: Path) -> None:
    """Write every toy into an empty folder, as Ollama would have pulled it."""
    (store / "blobs").mkdir(parents=True)
    folder = store.joinpath("manifests", *REGISTRY)
    for toy in TOYS:
        file = gguf(_facts(toy), _tensors(random.Random(toy.seed)))  # noqa: S311 (weights, no secrets)
        image = "application/vnd.docker.container.image.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": _blob(store, image, json.dumps(_CONFIG).encode()),
            "layers": [
                _blob(store, f"{_MEDIA_TYPE}model", file),
                *(_blob(store, _MEDIA_TYPE + kind, text.encode()) for kind, text in toy.layers.items()),
            ],
        }
        (folder / toy.name).mkdir(parents=True)
        (folder / toy.name / "latest").write_text(json.dumps(manifest))


def _blob(store: Path, kind: str, content: bytes) -> dict[str, object]:
    digest = sha256(content).hexdigest()
    (store / "blobs" / f"sha256-{digest}").write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _facts(toy: Toy) -> dict[str, Value]:
    tokens = [
        *("<unk>", "<s>", "</s>"),
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        *_LETTERS,
        *(f"\u2581{letter}" for letter in _LETTERS),
    ]
    return {
        "general.architecture": "llama",
        "general.name": toy.name,
        "general.file_type": 0,
        "general.parameter_count": 115_000,
        "llama.context_length": toy.context_tokens,
        "llama.embedding_length": _EMBEDDING,
        "llama.block_count": _BLOCKS,
        "llama.feed_forward_length": _FEED_FORWARD,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 1e4,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ("strings", tokens),
        "tokenizer.ggml.scores": ("floats", [0.0] * len(tokens)),
        "tokenizer.ggml.token_type": ("integers", [2, 3, 3] + [6] * 256 + [1] * (1 + 2 * len(_LETTERS))),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        **toy.facts,
    }


def _tensors(dice: random.Random) -> dict[str, Tensor]:
    def weights(*shape: int) -> Tensor:
        return shape, [dice.uniform(-0.04, 0.04) for _ in range(shape[0] * shape[1])]

    def ones() -> Tensor:
        return (_EMBEDDING,), [1.0] * _EMBEDDING

    vocabulary, narrow = 260 + 2 * len(_LETTERS), _EMBEDDING * _KV_HEADS // _HEADS
    tensors = {
        "token_embd.weight": weights(_EMBEDDING, vocabulary),
        "output_norm.weight": ones(),
        "output.weight": weights(_EMBEDDING, vocabulary),
    }
    for block in range(_BLOCKS):
        for name, tensor in (
            ("attn_norm", ones()),
            ("attn_q", weights(_EMBEDDING, _EMBEDDING)),
            ("attn_k", weights(_EMBEDDING, narrow)),
            ("attn_v", weights(_EMBEDDING, narrow)),
            ("attn_output", weights(_EMBEDDING, _EMBEDDING)),
            ("ffn_norm", ones()),
            ("ffn_gate", weights(_EMBEDDING, _FEED_FORWARD)),
            ("ffn_up", weights(_EMBEDDING, _FEED_FORWARD)),
            ("ffn_down", weights(_FEED_FORWARD, _EMBEDDING)),
        ):
            tensors[f"blk.{block}.{name}.weight"] = tensor
    return tensors


def gguf(facts: Mapping[str, Value], tensors: Mapping[str, Tensor]) -> bytes:
    """Write a file of llama.cpp's format, version 3."""
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(facts))]
    for name, value in facts.items():
        kind, content = _value(value)
        head += [_string(name), struct.pack("<I", kind), content]
    data: list[bytes] = []
    for name, (shape, weights) in tensors.items():
        offset = sum(map(len, data))
        head += [_string(name), struct.pack("<I", len(shape))]
        head += [struct.pack("<Q", size) for size in shape]
        head.append(struct.pack("<IQ", 0, offset))
        data.append(_padded(array("f", weights).tobytes()))
    return _padded(b"".join(head)) + b"".join(data)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _packed(code: str) -> Callable[[float], bytes]:
    return lambda value: struct.pack(code, value)


_LISTS: Final[dict[str, tuple[int, Callable[..., bytes]]]] = {
    "strings": (8, _string),
    "floats": (6, _packed("<f")),
    "integers": (5, _packed("<i")),
}


def _value(value: Value) -> tuple[int, bytes]:
    """Encode a fact: the number of its type, and its bytes."""
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case int():
            return 4, struct.pack("<I", value)
        case float():
            return 6, struct.pack("<f", value)
        case str():
            return 8, _string(value)
        case (kind, items):
            number, encode = _LISTS[kind]
            return 9, struct.pack("<IQ", number, len(items)) + b"".join(map(encode, items))
