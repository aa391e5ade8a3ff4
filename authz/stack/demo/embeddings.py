"""`/api/embed`, `/api/embeddings` and `/v1/embeddings`: a vector of the words of each input."""

from base64 import b64encode
from math import sqrt
from struct import pack
from typing import Final
from zlib import crc32

from authz.stack.demo.call import Call
from authz.stack.demo.voice import Shape

DIMENSIONS: Final = 64


def embedded(call: Call) -> Shape:
    """Shape the vectors that a request asks for, and what they cost."""
    vectors = [_vector(text) for text in call.texts]
    if call.path == "/api/embeddings":
        return {"embedding": vectors[0]}
    if call.path == "/api/embed":
        return {"model": call.model, "embeddings": vectors, "prompt_eval_count": call.input_tokens}
    data = [
        {"object": "embedding", "embedding": _base64(each) if call.is_base64 else each, "index": index}
        for index, each in enumerate(vectors)
    ]
    usage = {"prompt_tokens": call.input_tokens, "total_tokens": call.input_tokens}
    return {"object": "list", "data": data, "model": call.model, "usage": usage}


def _vector(text: str) -> list[float]:
    """Count the words of a text at places that their hashes give, and scale to length one."""
    vector = [0.0] * DIMENSIONS
    for word in text.lower().split():
        vector[crc32(word.encode()) % DIMENSIONS] += 1
    length = sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _base64(vector: list[float]) -> str:
    return b64encode(pack(f"<{len(vector)}f", *vector)).decode()
