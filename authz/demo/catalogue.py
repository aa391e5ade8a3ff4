"""The read routes: version, models, loaded models, and what is known of one model."""

from datetime import timedelta
from hashlib import sha256
from typing import Final

import msgspec
from attrs import frozen
from msgspec import UNSET, UnsetType

from authz.demo import errors
from authz.demo.backend import Backend
from authz.demo.exchange import Exchange
from authz.demo.gojson import encode
from authz.demo.native import moment
from authz.demo.requests import decode
from authz.demo.types import CHARSET_JSON, CONTEXT_TOKENS, Model, Refusal

_VERSION: Final = "0.0.0"
"""What an Ollama says that was not built for a release."""
_SIZE_BYTES: Final = 451_641
_KEEP: Final = timedelta(minutes=5)
_PLAIN_JSON: Final = "application/json"
_ONE_MODEL: Final = "/v1/models/"


class _Version(msgspec.Struct):
    version: str


class _Details(msgspec.Struct, kw_only=True):
    parent_model: str = ""
    format: str = "gguf"
    family: str
    families: tuple[str, ...]
    parameter_size: str
    quantization_level: str = "F32"
    context_length: int | UnsetType = UNSET
    embedding_length: int | UnsetType = UNSET


class _Tag(msgspec.Struct):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: _Details
    capabilities: tuple[str, ...]


class _Tags(msgspec.Struct):
    models: list[_Tag]


class _Loaded(msgspec.Struct):
    name: str
    model: str
    size: int
    digest: str
    details: _Details
    expires_at: str
    size_vram: int
    context_length: int


class _AllLoaded(msgspec.Struct):
    models: list[_Loaded]


class _Show(msgspec.Struct):
    modelfile: str
    template: str
    details: _Details
    model_info: dict[str, str | int]
    capabilities: tuple[str, ...]
    modified_at: str


class _ShowRequest(msgspec.Struct):
    model: str = ""
    name: str = ""


class _OpenAIModel(msgspec.Struct):
    id: str
    object: str
    created: int
    owned_by: str


class _OpenAIModels(msgspec.Struct):
    object: str
    data: list[_OpenAIModel]


@frozen
class Catalogue:
    """Answers what the backend has, from its list of models."""

    backend: Backend

    async def version(self, exchange: Exchange) -> None:
        """Answer `/api/version`."""
        await exchange.answer(200, CHARSET_JSON, encode(_Version(_VERSION)))

    async def tags(self, exchange: Exchange) -> None:
        """Answer `/api/tags`."""
        since = moment(self.backend.started)
        tags = [
            _Tag(
                name=_full(model),
                model=_full(model),
                modified_at=since,
                size=_SIZE_BYTES,
                digest=_digest(model),
                details=_details(model, is_long=True),
                capabilities=model.capabilities,
            )
            for model in self.backend.models
        ]
        await exchange.answer(200, CHARSET_JSON, encode(_Tags(tags)))

    async def loaded(self, exchange: Exchange) -> None:
        """Answer `/api/ps`."""
        until = moment(self.backend.clock() + _KEEP)
        loaded = [
            _Loaded(
                name=_full(model),
                model=_full(model),
                size=_SIZE_BYTES,
                digest=_digest(model),
                details=_details(model),
                expires_at=until,
                size_vram=_SIZE_BYTES,
                context_length=min(CONTEXT_TOKENS, model.context_tokens),
            )
            for model in self.backend.loaded
        ]
        await exchange.answer(200, CHARSET_JSON, encode(_AllLoaded(loaded)))

    async def show(self, exchange: Exchange) -> None:
        """Answer `/api/show`."""
        request = decode(await exchange.body(), _ShowRequest, missing="missing request body")
        if isinstance(request, Refusal):
            await exchange.answer(400, CHARSET_JSON, errors.NATIVE.error(request))
            return
        name = request.model or request.name
        model = self.backend.model(name)
        if model:
            await exchange.answer(200, CHARSET_JSON, encode(self._shown(model)))
            return
        refusal = _missing(name) if name else Refusal(400, "model is required")
        await exchange.answer(refusal.status, CHARSET_JSON, errors.NATIVE.error(refusal))

    async def openai_models(self, exchange: Exchange) -> None:
        """Answer `/v1/models`."""
        models = [self._openai(_full(model)) for model in self.backend.models]
        body = encode(_OpenAIModels("list", models)) + b"\n"
        await exchange.answer(200, _PLAIN_JSON, body)

    async def openai_model(self, exchange: Exchange) -> None:
        """Answer `/v1/models/{id}`."""
        name = exchange.path.removeprefix(_ONE_MODEL)
        if self.backend.model(name) is None:
            await exchange.answer(404, _PLAIN_JSON, errors.OPENAI.error(_missing(name)) + b"\n")
            return
        await exchange.answer(200, _PLAIN_JSON, encode(self._openai(name)) + b"\n")

    def _openai(self, name: str) -> _OpenAIModel:
        return _OpenAIModel(name, "model", int(self.backend.started.timestamp()), "library")

    def _shown(self, model: Model) -> _Show:
        family = model.family
        return _Show(
            modelfile=f"FROM {_full(model)}\nTEMPLATE {{{{ .Prompt }}}}\n",
            template="{{ .Prompt }}",
            details=_details(model),
            model_info={
                "general.architecture": family,
                f"{family}.context_length": model.context_tokens,
                f"{family}.embedding_length": 64,
            },
            capabilities=model.capabilities,
            modified_at=moment(self.backend.started),
        )


def _missing(name: str) -> Refusal:
    full = name if ":" in name else f"{name}:latest"
    return Refusal(404, f"model '{full}' not found")


def _full(model: Model) -> str:
    return f"{model.name}:latest"


def _digest(model: Model) -> str:
    return sha256(model.name.encode()).hexdigest()


def _details(model: Model, *, is_long: bool = False) -> _Details:
    return _Details(
        family=model.family,
        families=(model.family,),
        parameter_size=model.parameters,
        context_length=model.context_tokens if is_long else UNSET,
        embedding_length=64 if is_long else UNSET,
    )
