"""The text of a refusal, in each dialect."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from authz.types import Dialect
from tests.security.wire import Reply

SENTENCE: Final = re.compile(r"[A-Z](?:[^\n.]|\.(?=\S))*\.")
"""One sentence; a full stop inside a word, such as `tools.type`, does not end it."""


def sentence(reply: Reply, dialect: Dialect) -> str:
    """The words of a refusal, which must have exactly the shape of its dialect."""
    shape = reply.json()
    error = shape["error"]
    if dialect is Dialect.OLLAMA:
        status = str(shape.pop("status", ""))  # of a 401, for the ollama program
        assert {"error"} == shape.keys()
        assert (reply.status == HTTPStatus.UNAUTHORIZED) == status.startswith(f"{error} ")
        return str(error)
    assert isinstance(error, dict)
    if dialect is Dialect.OPENAI:
        assert {"error"} == shape.keys()
        assert {"message", "type", "param", "code"} == error.keys()
    else:
        assert {"type", "error", "request_id"} == shape.keys()
        assert ("error", reply.request_id) == (shape["type"], shape["request_id"])
        assert {"type", "message"} == error.keys()
    return str(error["message"])
