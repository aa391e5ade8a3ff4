"""One runner for the attack cases: make them on a proxy, and find what must not have come of them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from attrs import frozen

from authz.decision.refusals import SIGN_SENTENCE, WORDINGS, Reason
from authz.types import Dialect
from tests.security import canary, frames, wire
from tests.security.cases import H1, H1_TLS, H2, H2C, Case, filled, values_of
from tests.security.frames import RESET
from tests.security.node import NAME, Node
from tests.security.observed import Hit, Row, Witness
from tests.security.refusing import SENTENCE, sentence
from tests.security.wire import Line, Reply

Way = tuple[Case, str, Dialect]
"""A case, the protocol to make it over, and the dialect to make it in."""
SLOW_S: Final = 20.0
"""Bounds every wait on a connection of a slow case."""
_PROBE: Final = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
_PROBED: Final = (
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "gateway"),
    (":path", "/healthz"),
)
_HEALTHY: Final = (200, b'{"status":"ok"}')
_OURS: Final = re.compile(
    r"x[-_]nz|x-forwarded|x-(http-)?method|authorization$|x[-_]api[-_]key$|api-key$|cookie$|proxy-|upgrade$|"
    r"http2-settings$|te$|trailer$|expect$|origin$|via$|keep-alive$|transfer-encoding$|forwarded$|x-real-ip$|"
    r"content-encoding$|:"
)
"""Headers that no backend may see, whoever sent them."""


@frozen
class Proxy:
    """A proxy under attack: its URL for each protocol, the secrets, and what its backend sees."""

    urls: Mapping[str, str]
    secrets: Mapping[str, str]
    witness: Witness


def urls(port: int, tls_port: int) -> dict[str, str]:
    """Return the URL for each protocol of a Caddy on this machine."""
    plain, tls = f"http://{NAME}:{port}", f"https://{NAME}:{tls_port}"
    return {H1: plain, H2C: plain, H1_TLS: tls, H2: tls}


def proxy_of(node: Node, secrets: Mapping[str, str], witness: Witness) -> Proxy:
    """Attack a node over all protocols."""
    return Proxy(urls(node.port, node.tls_port), secrets, witness)


@frozen
class Trial:
    """A case that was made over one protocol in one dialect: its answers, and what the backend saw."""

    case: Case
    over: str
    dialect: Dialect
    values: Mapping[str, str]
    replies: Sequence[Reply]
    hits: Sequence[Hit]
    is_framed: bool

    def __str__(self) -> str:
        """Name the trial."""
        return f"{self.case.name} over {self.over} ({self.dialect})"


def every(found: Iterable[Case]) -> Iterator[Way]:
    """Yield each case with each of its protocols and dialects."""
    for case in found:
        yield from ((case, over, dialect) for dialect in case.dialects for over in case.protocols)


def sampled(found: Iterable[Case]) -> Iterator[Way]:
    """Yield each case once: its protocols take turns from case to case, and so do its dialects."""
    for number, case in enumerate(found):
        protocols, dialects = case.protocols, case.dialects
        yield case, protocols[number % len(protocols)], dialects[number // len(protocols) % len(dialects)]


def attempt(way: Way, proxy: Proxy) -> Trial:
    """Make a case over one protocol in one dialect; what came late of another would be its fault."""
    case, over, dialect = way
    values = values_of(proxy.secrets, dialect)
    send = _over_http1 if over in {H1, H1_TLS} else _over_http2
    replies, is_framed = send(case, proxy.urls[over], values)
    return Trial(case, over, dialect, values, replies, proxy.witness.taken(), is_framed=is_framed)


def _over_http1(case: Case, url: str, values: Mapping[str, str]) -> tuple[list[Reply], bool]:
    data = case.bytes_to_send(values)
    patience_s = SLOW_S if case.is_slow else wire.PATIENCE_S
    method = data.split(b" ", 1)[0].decode("latin-1")
    with wire.line(url, patience_s=patience_s) as line:
        with suppress(ConnectionError, ssl.SSLError):  # an early refusal says more
            line.send(data)
        if case.hangs_up:
            line.hang_up()
        replies = [_answer(line, method) for _ in case.answers]
        is_over = RESET in {reply.status for reply in replies}
        return replies, is_over or _is_in_order(line, replies[-1])


def _answer(line: Line, method: str) -> Reply:
    try:
        return line.read(method)
    except (ConnectionError, ssl.SSLError):
        return Reply(RESET, {}, b"")


def _is_in_order(line: Line, last: Reply) -> bool:
    """Return whether the connection is over, or answers the next request and no other."""
    if last.is_last:
        line.hang_up()  # else the server waits a while for the rest of a body
    else:
        line.send(_PROBE)
    probed = _answer(line, "GET")
    return probed.status == RESET or (not last.is_last and (probed.status, probed.body) == _HEALTHY)


def _over_http2(case: Case, url: str, values: Mapping[str, str]) -> tuple[list[Reply], bool]:
    fields, trailers = case.fields_to_send(values), case.trailers_to_send(values)
    body = filled(case.body, values).encode("latin-1")
    patience_s = SLOW_S if case.is_slow else wire.PATIENCE_S
    with frames.opened(url, patience_s=patience_s) as opened:
        reply = opened.ask(fields, body, trailers=trailers, is_whole=case.is_whole)
        probed = opened.ask(_PROBED)
        return [reply], opened.is_over or (probed.status, probed.body) == _HEALTHY


def verdict_faults(trial: Trial) -> Iterator[str]:
    """Find what must not be of a trial as its client and the backend see it."""
    for reply, allowed in zip(trial.replies, trial.case.allowed, strict=True):
        if reply.status == RESET and trial.case.send and allowed[0] >= 400 and not trial.case.hits:
            continue  # the server closes on what is no HTTP, which may be noticed before its answer
        if reply.status not in allowed:
            yield f"answered {reply.status} instead of {allowed}: {reply.body[:200]!r}"
        elif trial.case.reason:
            yield from _of_refusal(trial, reply)
    yield from seen_faults(trial)


def record_faults(trial: Trial, rows: Mapping[str, Row], kinds: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Find what must not be of a trial by the bills and the journal's lines of its requests."""
    case = trial.case
    for reply in trial.replies:
        row = rows.get(reply.request_id)
        if reply.request_id:
            yield from _of_records(reply, row, kinds[reply.request_id])
        if case.outcome and (row is None or row.outcome != case.outcome):
            yield f"the outcome is not {case.outcome}: {row}"
        said = row and (row.outcome, row.reason, row.usage_source)
        if case.reason and said != ("denied", case.reason, "none"):
            yield f"the record says {said} instead of {case.reason}"


def seen_faults(trial: Trial) -> Iterator[str]:
    """Find what must not be of a trial without the gateway's own books: hits, framing and secrets."""
    case = trial.case
    if len(trial.hits) != case.hits:
        yield f"{len(trial.hits)} requests reached the backend instead of {case.hits}"
    if not trial.is_framed:
        yield "the next request on the connection was not answered as itself"
    for hit in trial.hits:
        yield from _of_hit(trial, hit)
    needles, parts = canary.needles(trial.values["key"]), canary.parts(trial.values["key"])
    for reply in trial.replies:
        said = repr(reply).encode()
        if any(needle in said for needle in needles) or canary.holds_part(said, parts):
            yield f"the answer {reply.status} holds the key"
        if reply.headers.get("location", "/x").startswith(("//", "h")):
            yield f"the answer {reply.status} leads to {reply.headers['location']}"
        if ours := [name for name in reply.headers if name.startswith("x-nz")]:
            yield f"the answer {reply.status} has {ours}"


def _of_hit(trial: Trial, hit: Hit) -> Iterator[str]:
    case, values = trial.case, trial.values
    expected = ("POST", filled(case.target, values), filled(case.arrives, values))
    if (arrived := (hit.method, hit.target, hit.body)) != expected:
        yield f"{arrived} reached the backend instead of {expected}"
    if ours := sorted(name for name in hit.names() if _OURS.match(name)):
        yield f"{ours} reached the backend"
    lengths = [value for name, value in hit.headers if name.lower() == "content-length"]
    if lengths != [str(len(hit.body))]:
        yield f"the backend got a body of {len(hit.body)} bytes with the lengths {lengths}"
    if any(needle in repr(hit).encode() for needle in canary.needles(values["key"])):
        yield "the key reached the backend"
    about = repr((hit.method, hit.target, hit.headers)).encode()
    if canary.holds_part(about, canary.parts(values["key"], values["naming"])):
        yield f"a part of the key reached the backend: {hit.target} {hit.headers}"


def _of_records(reply: Reply, row: Row | None, kinds: Sequence[str]) -> Iterator[str]:
    """A refusal has one line in the journal and is free; what is served is billed by what it reported."""
    records = [kind for kind in kinds if kind != "open"]
    if len(records) != 1:
        yield f"{reply.status} has {len(records)} records instead of one"
    if row is None:
        yield f"{reply.status} has no bill"
    elif reply.status >= 400 and ("open" in kinds or row.tokens):
        yield f"{reply.status} was admitted: {row}"
    elif row.outcome == "completed" and row.ip != "127.0.0.1":
        yield f"{reply.status} came from {row.ip}"
    elif "open" in kinds and (row.tenant is None or row.usage_source != "reported"):
        yield f"{reply.status} is billed to no tenant by what it reported: {row}"


def _of_refusal(trial: Trial, reply: Reply) -> Iterator[str]:
    if not reply.request_id or UUID(reply.request_id).version != 7:
        yield f"{reply.status} has no id of a request: {reply.request_id!r}"
        return
    if (reply.headers.get("www-authenticate") == "Bearer") != (reply.status == 401):
        yield f"{reply.status} and WWW-Authenticate do not fit"
    if ("allow" in reply.headers) != (reply.status == 405):
        yield f"{reply.status} and Allow do not fit"
    if not trial.case.request.startswith("HEAD "):
        yield from _of_words(trial, reply, trial.case.reason)


def _of_words(trial: Trial, reply: Reply, reason: str) -> Iterator[str]:
    """A refusal is one sentence, that of its reason, in the dialect of its path."""
    shown = sentence(reply, trial.dialect)
    if not shown.startswith(WORDINGS[Reason(reason)].sentence.partition("{")[0]):
        yield f"the words of {reason} are {shown!r}"
    # The name of a model may hold a full stop, and who signs reads how.
    if reason != "model_unknown" and not SENTENCE.fullmatch(shown.removesuffix(f" {SIGN_SENTENCE}")):
        yield f"{shown!r} is not one sentence"
    if reply.headers["content-type"] != "application/json":
        yield f"{reply.headers['content-type']} is no type of a refusal"
