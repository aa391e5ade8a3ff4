"""`/demo/*`, for tests only: read, await and clear the truth, open gates."""

from typing import Final
from urllib.parse import parse_qs

import msgspec
from attrs import asdict, frozen

from authz.demo.backend import Backend
from authz.demo.exchange import Exchange
from authz.demo.tally import Entry

PREFIX: Final = "/demo/"
_JSON: Final = "application/json"
_WAIT_MS: Final = 5000


@frozen
class _Query:
    """Which entries to list, and for how many of them to wait."""

    tag: str | None
    running: int
    ended: int
    wait_ms: int


@frozen
class Control:
    """Answers the test routes of one backend; they are no hits of the tally."""

    backend: Backend

    async def serve(self, exchange: Exchange) -> None:
        """Answer one control request; an unknown one is 404."""
        tally = self.backend.tally
        match exchange.method, exchange.path:
            case "GET", "/demo/tally":
                await self._entries(exchange)
            case "GET", "/demo/hits":
                await _answer(exchange, [asdict(hit) for hit in tally.hits])
            case "GET", "/demo/gauges":
                gauges = {"in_flight": tally.in_flight, "max_in_flight": tally.max_in_flight}
                await _answer(exchange, gauges)
            case "DELETE", "/demo/tally":
                self.backend.clear()
                await _answer(exchange, {"cleared": True})
            case "POST", "/demo/release":
                await self._release(exchange)
            case _:
                await exchange.answer(404, "text/plain", b"404 page not found")

    async def _entries(self, exchange: Exchange) -> None:
        query = _query(exchange.query)

        def is_ready() -> bool:
            ended = [bool(entry.end) for entry in self._wanted(query)]
            return ended.count(True) >= query.ended and ended.count(False) >= query.running

        await self.backend.tally.until(is_ready, timeout_s=query.wait_ms / 1000)
        await _answer(exchange, [_shape(entry) for entry in self._wanted(query)])

    def _wanted(self, query: _Query) -> list[Entry]:
        entries = self.backend.tally.entries
        return [entry for entry in entries if query.tag in {None, entry.tag}]

    async def _release(self, exchange: Exchange) -> None:
        query = parse_qs(exchange.query.decode())
        name, chunks = query.get("name", [""])[0], int(query.get("chunks", ["1"])[0])
        self.backend.gates.release(name, chunks)
        await _answer(exchange, {"released": chunks})


def _query(raw: bytes) -> _Query:
    query = parse_qs(raw.decode())
    return _Query(
        tag=query.get("tag", [None])[0],
        running=int(query.get("running", ["0"])[0]),
        ended=int(query.get("ended", ["0"])[0]),
        wait_ms=int(query.get("wait_ms", [str(_WAIT_MS)])[0]),
    )


def _shape(entry: Entry) -> dict[str, object]:
    return asdict(entry) | {"finished": entry.finished, "cancelled": entry.cancelled}


async def _answer(exchange: Exchange, shape: object) -> None:
    await exchange.answer(200, _JSON, msgspec.json.encode(shape))
