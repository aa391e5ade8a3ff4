"""Read a metered request of any dialect: the demo needs the same few facts of each."""

from typing import Final

import msgspec
from attrs import frozen

EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})
_CHATS: Final = frozenset({"/api/chat", "/v1/chat/completions", "/v1/messages"})


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@frozen
class Call:
    """A parsed request."""

    path: str
    model: str
    texts: tuple[str, ...]
    """The messages of a prompt, or the inputs to embed."""
    question: str
    """The last message of the user, or all inputs to embed."""
    is_stream: bool
    is_usage_asked: bool
    """OpenAI's streams show usage to those who ask for it."""
    is_base64: bool
    """OpenAI's client takes vectors in base64."""
    max_output: int | None

    @property
    def is_embedding(self) -> bool:
        """Return whether vectors are asked for."""
        return self.path in EMBEDDINGS

    @property
    def input_tokens(self) -> int:
        """Count the prompt: a token is a word, each message costs one more, and each prompt two."""
        words = sum(len(text.split()) for text in self.texts)
        if self.is_embedding:
            return words + 2 * len(self.texts)
        return words + len(self.texts) + 2


class _Message(msgspec.Struct):
    role: str = "user"
    content: object = None
    output: object = None


class _Options(msgspec.Struct):
    num_predict: int | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    model: str = ""
    messages: list[_Message] | None = None
    prompt: object = None
    input: object = None
    system: object = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    options: _Options | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    encoding_format: str = ""


def read(path: str, body: bytes) -> Call:
    """Read a request to a metered path. Raises Refusal for one that Ollama would refuse."""
    try:
        request = msgspec.json.decode(body, type=_Request)
    except (msgspec.DecodeError, RecursionError) as error:  # the latter where it is nested deeply
        raise Refusal(400, f"invalid request: {error}") from error
    if not request.model:
        raise Refusal(400, "model is required")
    if path == "/v1/messages" and not request.max_tokens:
        raise Refusal(400, "max_tokens is required and must be positive")
    messages = _messages(path, request)
    texts = tuple(text for _, text in messages)
    asked = [text for role, text in messages if role == "user"]
    options = request.options or _Options()
    caps = (options.num_predict, request.max_tokens, request.max_output_tokens)
    is_native = path.startswith("/api/")
    return Call(
        path=path,
        model=request.model,
        texts=texts,
        question=" ".join(asked) if path in EMBEDDINGS else asked[-1] if asked else "",
        is_stream=is_native if request.stream is None else request.stream,
        is_usage_asked=request.stream_options is not None and request.stream_options.include_usage,
        is_base64=request.encoding_format == "base64",
        max_output=next((cap for cap in caps if cap is not None and cap > 0), None),
    )


def _messages(path: str, request: _Request) -> list[tuple[str, str]]:
    """List the roles and texts of a prompt."""
    if path in EMBEDDINGS:
        given = request.prompt if path == "/api/embeddings" else request.input
        return [("user", _text(text)) for text in (given if isinstance(given, list) else [given])]
    system = _text(request.system or request.instructions)
    found = [("system", system)] if system else []
    if path in _CHATS:
        messages = request.messages or []
    elif path == "/v1/responses" and isinstance(request.input, list):
        messages = msgspec.convert(request.input, list[_Message])
    else:
        asked = _text(request.prompt or request.input)
        return [*found, ("user", asked)] if asked else []
    for message in messages:
        text = _text(message.content if message.content is not None else message.output)
        found.append((message.role.lower(), text))
    return found if messages else []


def _text(content: object) -> str:
    """Join the texts of a message; a part without one counts as a word."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return " ".join(map(_text, content))
        case {"text": str() as text}:
            return text
        case {"content": inner}:
            return _text(inner)
    return "<part>"
