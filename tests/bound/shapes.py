"""Requests as honest clients make them: what a bound may not be much above."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]


def _file(name: str) -> str:
    return (_ROOT / name).read_text()


def _text(name: str) -> str:
    return _file(f"tests/bound/texts/{name}")


_TOOLS: Final = json.loads(_text("tools.json"))


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _turns(text: str) -> list[dict[str, Any]]:
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": paragraph} for i, paragraph in enumerate(paragraphs)]


def _calls() -> list[dict[str, Any]]:
    """Make the rounds of an agent that reads, edits and runs."""
    source = _file("authz/decision/checks.py")
    rounds: list[dict[str, Any]] = []
    for i in range(6):
        part = source[i * 700 : i * 700 + 700]
        arguments = {"file_path": f"/home/user/project/authz/decision/part_{i}.py", "old_string": part[:80]}
        call = {"type": "function", "function": {"name": "Edit", "arguments": arguments}}
        rounds += [
            {
                "role": "assistant",
                "content": "I'll look at the next part of the file now.",
                "tool_calls": [call],
            },
            {"role": "tool", "content": part},
        ]
    return rounds


_AGENT: Final = [
    {"role": "system", "content": _file("README.md")[:6000]},
    _user("Find out why the test of the ceilings fails, mend it, and run the tests again."),
]
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "short-chat": {
        "messages": [
            _user("Please tell me in a few words why the sky is blue in the morning and red at night.")
        ]
    },
    "agent-first-turn": {"messages": _AGENT, "tools": _TOOLS},
    "tool-loop": {"messages": [*_AGENT, *_calls(), _user("Thanks, go on.")], "tools": _TOOLS},
    "long-chat": {"messages": _turns(_file("README.md"))},
    "english": {"messages": [_user(_file("README.md") + _file("CHANGELOG.md"))]},
    "german": {"messages": [_user(_text("german.txt") * 4)]},
    "chinese": {"messages": [_user(_text("chinese.txt") * 4)]},
    "python": {"messages": [_user(_file("authz/decision/verify.py"))]},
    "go": {"messages": [_user(_file("caddy/exchange.go"))]},
}


def body_of(shape: dict[str, Any]) -> bytes:
    """Write a shape as the body of a request to /api/chat."""
    return json.dumps({"model": "m", **shape}, ensure_ascii=False).encode()
