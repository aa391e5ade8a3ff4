"""`/api/embed`, `/api/embeddings` and `/v1/embeddings`: vectors of the words and letters."""

from base64 import b64encode
from collections.abc import Callable
from math import floor, sqrt
from struct import pack
from typing import Final

import msgspec
from attrs import frozen
from msgspec import UNSET, UnsetType

from authz.demo import errors
from authz.demo.errors import Wording
from authz.demo.gojson import encode, number, single, single_number
from authz.demo.requests import decode
from authz.demo.tools import fnv32a
from authz.demo.types import Refusal

_DIMENSIONS: Final = 64
_DIGITS: Final = 1e7
_EMPTY: Final = "missing request body"


class _Request(msgspec.Struct):
    model: str = ""
    input: object = None
    prompt: str = ""
    dimensions: int = 0
    encoding_format: str = ""


class _Embed(msgspec.Struct, kw_only=True):
    model: str
    embeddings: list[list[float]]
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET


class _Embeddings(msgspec.Struct):
    embedding: list[float]


class _Item(msgspec.Struct):
    object: str
    embedding: list[float] | str
    index: int


class _ItemUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class _List(msgspec.Struct):
    object: str
    data: list[_Item]
    model: str
    usage: _ItemUsage


@frozen
class Wanted:
    """A request for vectors of any route, understood."""

    model: str
    texts: tuple[str, ...]
    dimensions: int = 0
    is_base64: bool = False


@frozen
class Embedder:
    """How one route reads a request for vectors and words the reply."""

    path: str
    understand: Callable[[bytes], Wanted | Refusal]
    reply: Callable[[Wanted, int], bytes]
    """Words the vectors, given the tokens of the input."""
    wording: Wording


def input_tokens(text: str) -> int:
    """Count an input: its words, and one token before and after."""
    return len(text.split()) + 2


def _understand_embed(body: bytes) -> Wanted | Refusal:
    request = decode(body, _Request, missing=_EMPTY)
    if isinstance(request, Refusal):
        return request
    if not request.model:
        return Refusal(404, "model '' not found")
    return _wanted(request)


def _understand_embeddings(body: bytes) -> Wanted | Refusal:
    request = decode(body, _Request, missing=_EMPTY)
    if isinstance(request, Refusal):
        return request
    if not request.model:
        return Refusal(400, "model is required")
    return Wanted(request.model, (request.prompt,) if request.prompt else ())


def _understand_openai(body: bytes) -> Wanted | Refusal:
    request = decode(body, _Request, missing="EOF")
    if isinstance(request, Refusal):
        return request
    kind = request.encoding_format
    if kind.lower() not in {"", "float", "base64"}:
        text = f"Invalid value for 'encoding_format' = {kind}. Supported values: ['float', 'base64']."
        return Refusal(400, text, early=True)
    if request.input is None or request.input == []:
        return Refusal(400, "invalid input", early=True)
    # Ollama embeds an empty text here, and answers without vectors on its own route.
    if request.input == "":
        request.input = [""]
    return _wanted(request)


def _wanted(request: _Request) -> Wanted | Refusal:
    given = [request.input] if isinstance(request.input, str) and request.input else request.input
    texts = given or []
    if not isinstance(texts, list):
        return Refusal(400, "invalid input type")
    strings = tuple(text for text in texts if isinstance(text, str))
    if len(strings) != len(texts):
        return Refusal(400, "invalid input type")
    is_base64 = request.encoding_format.lower() == "base64"
    return Wanted(request.model, strings, request.dimensions, is_base64)


def _reply_embed(wanted: Wanted, tokens: int) -> bytes:
    vectors = [[single_number(x) for x in _vector(wanted, text)] for text in wanted.texts]
    body = _Embed(model=wanted.model, embeddings=vectors)
    if vectors:
        body.total_duration, body.load_duration = 2_000_000, 1_000_000
        body.prompt_eval_count = tokens
    return encode(body)


def _reply_embeddings(wanted: Wanted, tokens: int) -> bytes:
    del tokens  # this route never reports them
    vectors = [[number(single(x)) for x in _raw_vector(text)] for text in wanted.texts]
    return encode(_Embeddings(vectors[0] if vectors else []))


def _reply_openai(wanted: Wanted, tokens: int) -> bytes:
    items = [
        _Item("embedding", _shaped(wanted, _vector(wanted, text)), index)
        for index, text in enumerate(wanted.texts)
    ]
    return encode(_List("list", items, wanted.model, _ItemUsage(tokens, tokens)))


def _shaped(wanted: Wanted, vector: list[float]) -> list[float] | str:
    if wanted.is_base64:
        return b64encode(pack(f"<{len(vector)}f", *vector)).decode()
    return [single_number(x) for x in vector]


def _raw_vector(text: str) -> list[float]:
    vector = [0.0] * _DIMENSIONS
    for word in text.lower().split():
        vector[fnv32a(f"w:{word}") % _DIMENSIONS] += 0.5
        for letter in word:
            vector[fnv32a(f"c:{letter}") % _DIMENSIONS] += 1
    length = sqrt(1e-9 + sum(x * x for x in vector))
    # Rounded as Go does: half away from zero, where Python rounds half to even.
    return [floor(x / length * _DIGITS + 0.5) / _DIGITS for x in vector]


def _vector(wanted: Wanted, text: str) -> list[float]:
    vector = _normal([single(x) for x in _raw_vector(text)])
    return _normal(vector[: wanted.dimensions]) if wanted.dimensions > 0 else vector


def _normal(vector: list[float]) -> list[float]:
    # In float32 step by step, as Ollama computes it, so that the digits are the same.
    total = 0.0
    for x in vector:
        total = single(total + single(x * x))
    scale = single(1 / max(sqrt(total), 1e-12))
    return [single(x * scale) for x in vector]


EMBED: Final = Embedder("/api/embed", _understand_embed, _reply_embed, errors.NATIVE)
EMBEDDINGS: Final = Embedder("/api/embeddings", _understand_embeddings, _reply_embeddings, errors.NATIVE)
OPENAI: Final = Embedder("/v1/embeddings", _understand_openai, _reply_openai, errors.OPENAI)
