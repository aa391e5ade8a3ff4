"""Which tool the demo calls, and the JSON it makes up for arguments and for a schema."""

import re
from typing import Final

from authz.demo.gojson import encode
from authz.demo.types import Tool, ToolCall

_NAME: Final = re.compile(r"\b(?:in|for|at|of) ([A-Z][a-z]+(?: [A-Z][a-z]+)*)")
_MADE_UP: Final = "value"
_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


def call(tools: tuple[Tool, ...], asked: str) -> ToolCall:
    """Call the last tool named in the question, else the first; names in it become arguments."""
    named = [tool for tool in tools if tool.name in asked]
    tool = named[-1] if named else tools[0]
    name = _NAME.search(asked)
    arguments = {key: _filled(example(wanted), name) for key, wanted in tool.properties.items()}
    text = encode(arguments).decode()
    return ToolCall(id=f"call_{fnv32a(text):08x}", name=tool.name, arguments=text)


def example(schema: object) -> object:
    """Make the plainest value that a JSON schema allows."""
    if not isinstance(schema, dict):
        return _MADE_UP
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "object":
        wanted = schema.get("properties")
        return {k: example(v) for k, v in wanted.items()} if isinstance(wanted, dict) else {}
    if kind == "array":
        return [example(schema.get("items"))]
    plain: dict[object, object] = {"integer": 7, "number": 7, "boolean": True}
    return plain.get(kind, _MADE_UP)


def json_answer(kind: str, schema: object) -> str:
    """Answer a request for JSON: an example of its schema, or any object."""
    if schema is not None:
        return encode(example(schema)).decode().replace(",", ", ")
    return '{"ok": true, "n": 7}' if kind else ""


def fnv32a(text: str) -> int:
    """Hash as Go's hash/fnv does."""
    value = _FNV_OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def _filled(value: object, name: re.Match[str] | None) -> object:
    return name[1] if name and value == _MADE_UP else value
