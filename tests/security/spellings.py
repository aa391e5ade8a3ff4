"""Other ways to write a path: each is one that some router, proxy or decoder takes for the plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MUTATIONS: Final = (
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/sha256:0",
    "/api/me",
    "/api/signout",
    "/api/user/keys/x",
    "/api/experimental/web_fetch",
    "/api/codex/x",
)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "post")


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _raw(text: str) -> str:
    """The UTF-8 bytes of a text, one character each, as they go over the wire."""
    return text.encode().decode("latin-1")


def _inner(separator: str) -> Callable[[str], str]:
    """Write the slashes after the first in another way."""
    return lambda path: "/" + path[1:].replace("/", separator)


def _before(prefix: str) -> Callable[[str], str]:
    return lambda path: prefix + path


def _after(suffix: str) -> Callable[[str], str]:
    return lambda path: path + suffix


SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "query": _after("?path=/api/chat"),
    "empty query": _after("?"),
    "method override in the query": _after("?_method=GET"),
    "encoded slash": _inner("%2F"),
    "encoded slash, lower case": _inner("%2f"),
    "slash encoded twice": _inner("%252F"),
    "overlong slash": _inner("%c0%af"),
    "wide slash": _inner("%EF%BC%8F"),
    "backslash": _inner("\\"),
    "encoded backslash": _inner("%5c"),
    "double slash": _inner("//"),
    "leading double slash": _before("/"),
    "authority": _before("//gateway"),
    "absolute": _before("http://gateway"),
    "opaque": _before("x:"),
    "leading dot": _before("/."),
    "inner dot": _inner("/./"),
    "encoded dot": _inner("/%2e/"),
    "out of a known path": _before("/api/chat/../.."),
    "out of a known path, encoded": _before("/api/tags/%2e%2e/%2e%2e"),
    "out of a known path, half encoded": _before("/v1/models/..%2f.."),
    "out of a known path, by backslash": _before("/v1/models/..%5c.."),
    "out of the root": _before("/.."),
    "trailing slash": _after("/"),
    "trailing dot": _after("."),
    "trailing dots": _after("/.."),
    "trailing space": _after("%20"),
    "trailing tab": _after("%09"),
    "trailing newline": _after("%0a"),
    "trailing CRLF and a header": _after("%0d%0aX-Nz-Grant:%20x"),
    "trailing NUL": _after("%00"),
    "NUL encoded twice": _after("%2500"),
    "fragment": _after("#/api/chat"),
    "encoded question mark": _after("%3F"),
    "parameter": _after(";x=1"),
    "session id": _after(";jsessionid=1"),
    "inner parameter": _inner(";/"),
    "upper case": str.upper,
    "title case": str.title,
    "first letter encoded": lambda path: f"/{_escaped(path[1])}{path[2:]}",
    "last letter encoded": lambda path: path[:-1] + _escaped(path[-1]),
    "all encoded": lambda path: "/" + _escaped(path[1:]),
    "all encoded twice": lambda path: "/" + _escaped(path[1:]).replace("%", "%25"),
    "wide letters": lambda path: path[:5] + _raw("".join(chr(ord(each) + 0xFEE0) for each in path[5:])),
    "raw high byte": _after("\xff"),
    "overlong": _after("a" * 20_000),
    "under a known path": _before("/api/chat"),
    "under a model": _before("/v1/models/demo"),
    "star": _after("*"),
    "tilde": _before("/~"),
}

UNPARSABLE: Final = {
    "NUL": "/api/pull\0",
    "newline": "/api/pull\n",
    "space": "/api/pull x",
    "tab": "/api/pull\t",
    "delete": "/api/pull\x7f",
    "broken escape": "/api/pull%zz",
    "half an escape": "/api/pull%2",
    "unicode escape": "/api%u002fpull",
    "no slash": "api/pull",
    "raw byte order mark": "\xef\xbb\xbf/api/pull",
    "query alone": "?x",
    "nothing": "",
    "longer than all headers may be": "/api/pull" + "a" * 70_000,
}
"""Malformed request targets: the HTTP server itself refuses them."""
