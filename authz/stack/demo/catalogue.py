"""The models of the demo, as Ollama lists and shows them."""

from hashlib import sha256
from typing import Final

from attrs import frozen

from authz.models import canonical
from authz.stack.demo.voice import Shape

_CONTEXT_TOKENS: Final = 32_768
_EMBED_CONTEXT_TOKENS: Final = 512
_DIMENSIONS: Final = 64
_SIZE_BYTES: Final = 451_641
_FAMILY: Final = "demo"
_DETAILS: Final = {
    "parent_model": "",
    "format": "gguf",
    "family": _FAMILY,
    "families": (_FAMILY,),
    "parameter_size": "0",
    "quantization_level": "F32",
}
_TOKENIZER: Final = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ("\u2581", *(f"<0x{byte:02X}>" for byte in range(256))),
    "tokenizer.ggml.token_type": (1, *[6] * 256),
    "tokenizer.ggml.scores": (0.0,) * 257,
}
"""The least vocabulary: it has no words, so the bound of a prompt is a token a byte."""
DEFAULT_MODELS: Final = ("demo", "demo-embed")


@frozen
class Catalogue:
    """The demo's models and the time they exist since."""

    names: tuple[str, ...]
    """Those that end with `-embed` make vectors, all others text."""
    since: str
    since_s: int

    def has(self, name: str) -> bool:
        """Return whether a model is there, in any spelling of its name."""
        return canonical(name) in map(canonical, self.names)

    def tags(self) -> Shape:
        """Shape `/api/tags`."""
        return {"models": [self._tag(name) for name in self.names]}

    def show(self, name: str, *, is_verbose: bool) -> Shape:
        """Shape `/api/show`; the vocabulary is shown to those who ask for it."""
        return {
            "modelfile": f"FROM {name}\nTEMPLATE {{{{ .Prompt }}}}\n",
            "template": "{{ .Prompt }}",
            "details": _DETAILS,
            "model_info": {
                "general.architecture": _FAMILY,
                f"{_FAMILY}.context_length": _context_tokens(name),
                f"{_FAMILY}.embedding_length": _DIMENSIONS,
                **(_TOKENIZER if is_verbose else {}),
            },
            "capabilities": _capabilities(name),
            "modified_at": self.since,
        }

    def openai_models(self) -> Shape:
        """Shape `/v1/models`."""
        return {"object": "list", "data": [self.openai_model(f"{name}:latest") for name in self.names]}

    def openai_model(self, name: str) -> Shape:
        """Shape `/v1/models/NAME`."""
        return {"id": name, "object": "model", "created": self.since_s, "owned_by": "library"}

    def _tag(self, name: str) -> Shape:
        return {
            "name": f"{name}:latest",
            "model": f"{name}:latest",
            "modified_at": self.since,
            "size": _SIZE_BYTES,
            "digest": sha256(name.encode()).hexdigest(),
            "details": {**_DETAILS, "context_length": _context_tokens(name), "embedding_length": _DIMENSIONS},
            "capabilities": _capabilities(name),
        }


def _is_embedding(name: str) -> bool:
    return canonical(name).removesuffix(":latest").endswith("-embed")


def _context_tokens(name: str) -> int:
    return _EMBED_CONTEXT_TOKENS if _is_embedding(name) else _CONTEXT_TOKENS


def _capabilities(name: str) -> tuple[str, ...]:
    return ("embedding",) if _is_embedding(name) else ("tools", "completion")
