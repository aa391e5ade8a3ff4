"""The JSON of `/v1/responses`: what a request may say, and every part of a reply.

Fields stand in the order of the single reply; events are written as sorted maps.
"""

import msgspec
from msgspec import UNSET, UnsetType

from authz.demo.requests import NOTHING, Content


class Item(msgspec.Struct):
    """An input item: a message, a call the model made, or the output of one."""

    type: str = "message"
    role: str = ""
    content: Content = None
    name: str = ""
    arguments: str = ""
    output: Content = None


class Tool(msgspec.Struct, omit_defaults=True):
    """A tool as this dialect sends and echoes it."""

    type: str
    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET
    parameters: dict[str, object] | UnsetType = UNSET


class TextFormat(msgspec.Struct, omit_defaults=True):
    """The wanted form of the text."""

    type: str
    name: str | UnsetType = UNSET
    schema: msgspec.Raw = NOTHING
    """Echoed as it came."""
    strict: bool | UnsetType = UNSET


class Text(msgspec.Struct):
    """The text settings, echoed."""

    format: TextFormat


class TextSettings(msgspec.Struct):
    """The text settings of a request; the format may be missing."""

    format: TextFormat | None = None


class Effort(msgspec.Struct):
    """The reasoning settings of a request."""

    effort: str = ""
    summary: str = ""


class Reasoning(msgspec.Struct):
    """The reasoning settings, echoed."""

    effort: str | UnsetType | None
    summary: str | UnsetType | None


class Request(msgspec.Struct):
    """A request, as far as it changes the reply."""

    model: str = ""
    input: str | list[Item] = ""
    instructions: str = ""
    stream: bool | None = None
    max_output_tokens: int | None = None
    reasoning: Effort | None = None
    temperature: float | None = None
    top_p: float | None = None
    truncation: str | None = None
    text: TextSettings | None = None
    tools: list[Tool] | None = None


class Part(msgspec.Struct):
    """The text of a message."""

    type: str
    text: str
    annotations: list[None] = []
    logprobs: list[None] = []


class Summary(msgspec.Struct):
    """The text of a reasoning item."""

    type: str
    text: str


class Output(msgspec.Struct, kw_only=True):
    """An output item: reasoning, a message or a function call."""

    id: str
    type: str
    status: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    content: list[Part] | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    summary: list[Summary] | UnsetType = UNSET
    encrypted_content: str | UnsetType = UNSET


class InputDetails(msgspec.Struct):
    """The cached part of the input."""

    cached_tokens: int


class OutputDetails(msgspec.Struct):
    """The reasoning part of the output; Ollama never counts it."""

    reasoning_tokens: int = 0


class Usage(msgspec.Struct):
    """Usage of a whole answer."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails
    output_tokens_details: OutputDetails


class Response(msgspec.Struct, kw_only=True):
    """The response object, whole or in progress."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None
    status: str
    incomplete_details: None = None
    model: str
    previous_response_id: None = None
    instructions: str | None
    output: list[Output] | None
    error: None = None
    tools: msgspec.Raw
    tool_choice: str = "auto"
    truncation: str
    parallel_tool_calls: bool = True
    text: Text
    top_p: float
    presence_penalty: int = 0
    frequency_penalty: int = 0
    top_logprobs: int = 0
    temperature: float
    reasoning: Reasoning | None
    usage: Usage | None
    max_output_tokens: int | None
    max_tool_calls: None = None
    store: bool = False
    background: bool = False
    service_tier: str = "default"
    metadata: dict[str, str] = {}
    safety_identifier: None = None
    prompt_cache_key: None = None


class Event(msgspec.Struct, kw_only=True):
    """One server-sent event."""

    type: str
    sequence_number: int = 0
    response: Response | UnsetType = UNSET
    item: Output | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    summary_index: int | UnsetType = UNSET
    part: Part | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[None] | UnsetType = UNSET
