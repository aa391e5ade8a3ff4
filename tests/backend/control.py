"""`/test/*`: read, await and clear the truth, open gates."""

from typing import Final
from urllib.parse import parse_qs

from attrs import asdict, frozen

from authz.stack.demo.exchange import Exchange
from tests.backend.gates import Gates
from tests.backend.tally import Entry, Tally

PREFIX: Final = "/test/"
_WAIT_S: Final = 5


@frozen
class Control:
    """Answers the routes of tests; they are no hits of the tally."""

    tally: Tally
    gates: Gates

    async def serve(self, exchange: Exchange) -> None:
        """Answer one control request; an unknown one is 404."""
        raw = parse_qs(exchange.scope["query_string"].decode())
        query = {name: values[0] for name, values in raw.items()}
        match exchange.method, exchange.path:
            case "GET", "/test/tally":
                entries = await self._entries(query)
                await exchange.answer(200, [asdict(entry) for entry in entries])
            case "GET", "/test/hits":
                await exchange.answer(200, [asdict(hit) for hit in self.tally.hits])
            case "GET", "/test/gauges":
                tally = self.tally
                gauges = {"in_flight": tally.in_flight, "max_in_flight": tally.max_in_flight}
                await exchange.answer(200, gauges)
            case "DELETE", "/test/tally":
                self.tally.clear()
                self.gates.clear()
                await exchange.answer(200, {})
            case "POST", "/test/release":
                self.gates.release(query["name"], int(query["words"]))
                await exchange.answer(200, {})
            case _:
                await exchange.answer(404, {})

    async def _entries(self, query: dict[str, str]) -> list[Entry]:
        """List the entries of a tag, once so many have ended or run."""

        def wanted() -> list[Entry]:
            return [entry for entry in self.tally.entries if query.get("tag") in {None, entry.tag}]

        def is_ready() -> bool:
            ended = [bool(entry.end) for entry in wanted()]
            return ended.count(True) >= int(query.get("ended", 0)) and ended.count(False) >= int(
                query.get("running", 0)
            )

        await self.tally.until(is_ready, timeout_s=_WAIT_S)
        return wanted()
