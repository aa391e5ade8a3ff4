"""What Ollama says of a model at /api/show, asked once per digest, whole or without its maker's texts."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from authz.backends import probe
from authz.backends.probe import Unanswered

if TYPE_CHECKING:
    from authz.backends.backend import Backend

KEPT: Final = 64
MOST_KEPT_BYTES: Final = 1 << 20
"""Larger descriptions are passed on and not kept: 64 of them must not fill the memory."""

FACTS: Final = frozenset(
    {
        "details",
        "model_info",
        "projector_info",
        "capabilities",
        "modified_at",
        "parameters",
        "requires",
        "thinking",
    }
)
"""The fields that describe a model, of Ollama's api/types.go; others hold its prompts, license and origin."""

TEXTS: Final = ("tokenizer.chat_template", "general.license")
"""Fields of the model file, and what begins like them, that repeat such texts."""


class Shown:
    """The descriptions of models that were asked for last."""

    def __init__(self) -> None:
        self._by_digest: OrderedDict[str, bytes] = OrderedDict()
        self._asking: dict[str, asyncio.Task[bytes | None]] = {}

    async def of(self, backend: Backend, model: str, *, digest: str | None) -> bytes | None:
        """Return Ollama's own description of a model; None if the backend does not give one.

        Many that ask for one at the same time ask the backend once.
        """
        if digest is None:
            return await self._ask(backend, model, None)
        if digest in self._by_digest:
            self._by_digest.move_to_end(digest)
            return self._by_digest[digest]
        if digest not in self._asking:
            asking = asyncio.create_task(self._ask(backend, model, digest))
            asking.add_done_callback(lambda _: self._asking.pop(digest))
            self._asking[digest] = asking
        return await asyncio.shield(self._asking[digest])  # who leaves does not take it from the others

    async def _ask(self, backend: Backend, model: str, digest: str | None) -> bytes | None:
        try:
            async with probe.client(backend) as client:
                body = await probe.fetch(client, "/api/show", model=model)
        except Unanswered:
            return None
        if digest is not None and len(body) <= MOST_KEPT_BYTES:
            self._by_digest[digest] = body
            if len(self._by_digest) > KEPT:
                self._by_digest.popitem(last=False)
        return body


def facts(body: bytes) -> bytes | None:
    """Return a description without texts that are its maker's; None if it is no description."""
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        kept = {name: value for name, value in found.items() if name in FACTS}
        if "model_info" in kept:
            info = msgspec.json.decode(kept["model_info"], type=dict[str, msgspec.Raw] | None) or {}
            of_model = {name: value for name, value in info.items() if not name.startswith(TEXTS)}
            kept["model_info"] = msgspec.Raw(msgspec.json.encode(of_model))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.json.encode(kept)
