"""Generate requests for mutation paths: each spelling is one that some router takes for the plain path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, product
from typing import Final

from tests.security import frames, wire
from tests.security.cases import H1, H1_TLS, H2, H2C, PROTOCOLS
from tests.security.keys import STRANGER
from tests.security.observed import Row
from tests.security.trials import Proxy
from tests.security.wire import Line, Reply

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
    "behind a key": _before(f"/k/{STRANGER}"),
    "behind what is no key": _before("/k/x"),
}

Combination = tuple[str, str, str, str]
"""A spelling, the path that is spelled so, the method and the protocol."""
REFUSED: Final = {400, 403, 404}
UNDER_A_MODEL: Final = "under a model"
"""A model's name may have slashes, so this is the name of a model that there is not."""
REASONS: Final = {"target_invalid", "path_unknown", "path_mutation"}
_OF_A_NAME: Final = {"model_unknown", "method_not_allowed"}
_LED_ELSEWHERE: Final = (
    "X-HTTP-Method-Override: POST",
    "X-Forwarded-Method: GET",
    "X-Forwarded-Uri: /api/tags",
    "X-Original-URL: /api/tags",
    "X-Rewrite-URL: /api/tags",
)
"""Every header by which a proxy has been led elsewhere."""


def every() -> Iterator[Combination]:
    """Yield every spelling of every path, by every method, over every protocol."""
    for over in PROTOCOLS:
        yield from ((*each, over) for each in product(SPELLINGS, MUTATIONS, METHODS))


def sampled() -> Iterator[Combination]:
    """Yield every spelling of every path; methods and protocols take turns, and each meets each spelling."""
    for number, (spelling, path) in enumerate(product(SPELLINGS, MUTATIONS)):
        yield spelling, path, METHODS[number % len(METHODS)], PROTOCOLS[number % len(PROTOCOLS)]


def asked(combinations: Iterable[Combination], proxy: Proxy) -> Iterator[tuple[Combination, Reply]]:
    """Ask for each, on one connection as long as that lasts."""
    for over, alike in groupby(sorted(combinations, key=lambda each: each[3]), key=lambda each: each[3]):
        left = list(alike)
        while left:
            with (wire.line if over in {H1, H1_TLS} else frames.opened)(proxy.urls[over]) as opened:
                while left:
                    reply = _ask(opened, left[-1], proxy.secrets["key"])
                    yield left.pop(), reply
                    if reply.is_last or reply.status == frames.RESET:
                        break


def _ask(opened: Line | frames.Frames, combination: Combination, key: str) -> Reply:
    spelling, path, method, _ = combination
    target = SPELLINGS[spelling](path)
    headers = (f"Authorization: Bearer {key}", *_LED_ELSEWHERE)
    if isinstance(opened, Line):
        lines = [f"{method} {target} HTTP/1.1", "Host: gateway", *headers, "", ""]
        return opened.ask("\r\n".join(lines).encode("latin-1"))
    fields = tuple((name.lower(), value) for name, _, value in (line.partition(": ") for line in headers))
    pseudo = ((":method", method), (":scheme", "http"), (":authority", "gateway"), (":path", target))
    return opened.ask((*pseudo, *fields))


def faults(combination: Combination, reply: Reply, rows: Mapping[str, Row]) -> Iterator[str]:
    """Find what must not have come of one."""
    is_name = combination[0] == UNDER_A_MODEL
    is_reset = reply.status == frames.RESET and combination[3] in {H2C, H2}
    if not is_reset and reply.status not in ({403, 404, 405} if is_name else REFUSED):
        yield f"{combination}: answered {reply.status}"
    row = rows.get(reply.request_id)
    reasons = REASONS | (_OF_A_NAME if is_name else set())
    if row and (row.outcome != "denied" or row.tokens or row.reason not in reasons):
        yield f"{combination}: recorded as {row}"
