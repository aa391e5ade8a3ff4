"""The JSON bodies that the dialects share: decoding, content parts, tools, logprobs."""

from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from authz.demo.gojson import encode
from authz.demo.types import Logprob, Refusal, Tool

_Body = TypeVar("_Body")


NOTHING: Final = msgspec.Raw()
"""A raw field that was not sent."""


class ContentPart(msgspec.Struct):
    """A piece of a message; only text has words, the rest costs one."""

    type: str = ""
    text: str | None = None


Content = str | list[ContentPart] | None


class Function(msgspec.Struct):
    """A tool's description for the model."""

    name: str = ""
    description: str | UnsetType = UNSET
    parameters: dict[str, object] | UnsetType = UNSET


class ToolShape(msgspec.Struct):
    """A tool as `/api/chat` and OpenAI's chat send it."""

    function: Function
    type: str = "function"


class TokenLogprob(msgspec.Struct):
    """One token's log probability and bytes."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobShape(TokenLogprob):
    """A token with its alternatives, if some were asked for."""

    top_logprobs: list[TokenLogprob] | UnsetType = UNSET


def decode(body: bytes, shape: type[_Body], *, missing: str) -> _Body | Refusal:
    """Read a body as Ollama's router does; `missing` words the error for an empty one."""
    if not body.strip():
        return Refusal(400, missing, early=True)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        return Refusal(400, f"json: cannot unmarshal: {error}", early=True)
    except msgspec.DecodeError as error:
        # Go's words for a body that ends too early: clients look for them.
        is_cut = "truncated" in str(error)
        return Refusal(400, "unexpected EOF" if is_cut else f"invalid JSON: {error}", early=True)


def texts(content: Content) -> list[str]:
    """List the texts of a message's parts; a part without text stands for one word."""
    if isinstance(content, list):
        return [f"<|{part.type}|>" if part.text is None else part.text for part in content]
    return [content or ""]


def raw_text(raw: msgspec.Raw) -> str:
    """Read a raw field's JSON; null and an empty list are as good as nothing."""
    text = bytes(raw).decode()
    return "" if text in {"null", "[]"} else text


def tool(function: Function) -> Tool:
    """Understand a tool: the words of its JSON are what it costs."""
    parameters = function.parameters or {}
    properties = parameters.get("properties")
    return Tool(
        name=function.name,
        text=encode(ToolShape(function)).decode(),
        properties=properties if isinstance(properties, dict) else {},
    )


def logprobs(given: tuple[Logprob, ...]) -> list[LogprobShape]:
    """Shape log probabilities: a quarter for the token, half a step less for each alternative."""
    return [_logprob(each) for each in given]


def _logprob(given: Logprob) -> LogprobShape:
    tops = [
        TokenLogprob(text, -0.25 - 0.5 * place, list(text.encode())) for place, text in enumerate(given.top)
    ]
    return LogprobShape(given.token, -0.25, list(given.token.encode()), tops or UNSET)
