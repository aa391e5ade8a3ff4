"""A journal as Caddy writes it."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from attrs import define, field

TENANT = UUID("5f64c1de-6a27-4a35-8f43-5f7b6f3a2c11")
KEY = UUID("b2b1f9a0-52a5-4c2a-9f0f-1c8ad6a3b8a1")
NODE = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
LOOKUP = "nz_3bVSxmba"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
DAY_MS = 1_795_600_000_000  # 2026-11-25
START = datetime.fromtimestamp(DAY_MS / 1000, UTC)


def uuid7(at_ms: int, number: int) -> UUID:
    """A UUIDv7 of a moment; by their numbers those of one moment differ."""
    return UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | number)


def encoded(msg: str, gateway: dict[str, object], *, at: float = DAY_MS / 1000) -> bytes:
    """A journal line, with its newline."""
    line = {"level": "info", "ts": at, "logger": "gateway.journal", "msg": msg, "gateway": gateway}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


@define
class JournalFile:
    """Writes and rotates a journal as Caddy does; its requests begin at one moment, a millisecond apart."""

    path: Path
    node: UUID = NODE
    tenant: UUID = TENANT
    key: UUID = KEY
    begun_ms: int = DAY_MS
    boot: UUID = field(init=False)
    seq: int = 0
    ids: int = 0
    rotations: int = 0

    def __attrs_post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.with_name("node").write_text(f"{self.node}\n")
        self.boot = uuid7(self.begun_ms, 1 << 40)

    @property
    def windows(self) -> dict[str, str]:
        """The day and the month, in UTC, that pay for the requests."""
        day = datetime.fromtimestamp(self.begun_ms / 1000, UTC).date().isoformat()
        return {"day": day, "month": day[:7]}

    def start(self, *, last: int | None = None) -> None:
        """A Caddy process starts; it may know the last line of the one before."""
        previous = {"boot": str(self.boot), "seq": last} if last is not None else None
        self.boot = UUID(int=self.boot.int + (1 << 80))
        self.seq = 0
        self.append(self.line("boot", {"previous": previous}))

    def resume(self, *, last: int) -> None:
        """Caddy goes on in place of a file that was lost, in which all lines up to the last were."""
        self.append(self.line("boot", {"previous": {"boot": str(self.boot), "seq": last}}))

    def new_id(self, *, at_ms: int | None = None) -> UUID:
        """The id of a new request."""
        self.ids += 1
        return uuid7((self.begun_ms if at_ms is None else at_ms) + self.ids, self.ids)

    def line(self, msg: str, fields: dict[str, object]) -> bytes:
        """The next line, numbered."""
        head: dict[str, object] = {"v": 1, "node": str(self.node), "boot": str(self.boot), "seq": self.seq}
        self.seq += 1
        return encoded(msg, head | fields, at=self.begun_ms / 1000)

    def opened(self, request_id: UUID, **fields: object) -> bytes:
        """An open line."""
        return self.line(
            "open",
            {
                "id": str(request_id),
                "tenant": str(self.tenant),
                "key": str(self.key),
                "trace_id": TRACE,
                "ip": "203.0.113.9",
                "path": "/api/chat",
                "model": "llama3.2",
                "model_asked": "gpt-4o",
                "backend": "local",
                "stream": True,
                "reserved": {"input": 25, "output": 150},
                "ceiling": {"input": 100, "output": 200},
                "prompt_bytes": 40,
                "images": 0,
                "deadline": self.begun_ms // 1000 + 1800,
                "windows": self.windows,
            }
            | fields,
        )

    def ended(self, request_id: UUID, **fields: object) -> bytes:
        """The record of a stream that ended well: 10 + 20 tokens."""
        return self.line(
            "handled request",
            {
                "id": str(request_id),
                "trace_id": TRACE,
                "ip": "203.0.113.9",
                "lookup": LOOKUP,
                "tenant": str(self.tenant),
                "key": str(self.key),
                "method": "POST",
                "path": "/api/chat",
                "model": "llama3.2",
                "model_asked": "gpt-4o",
                "backend": "local",
                "tried": "other",
                "sent": True,
                "stream": True,
                "outcome": "completed",
                "status": 200,
                "upstream_status": 200,
                "reserved": {"input": 25, "output": 150},
                "ceiling": {"input": 100, "output": 200},
                "windows": self.windows,
                "max_output": 200,
                "cold": False,
                "terminal": True,
                "input_tokens": 10,
                "output_tokens": 20,
                "deltas": 20,
                "text_bytes": 80,
                "tool_bytes": 0,
                "output_bytes": 80,
                "prompt_bytes": 40,
                "messages": 1,
                "tools": 0,
                "images": 0,
                "ttft_ms": 5,
                "duration_ms": 400,
                "waited_ms": 8,
                "bound": 30,
                "table": "ab" * 32,
            }
            | fields,
        )

    def progress(self, *running: tuple[UUID, int, int, int]) -> bytes:
        """A progress line: id, deltas, text_bytes and tool_bytes of streams that moved."""
        moved = [[str(request_id), *counts] for request_id, *counts in running]
        return self.line("progress", {"at": self.begun_ms // 1000, "running": moved})

    def request(self, **fields: object) -> UUID:
        """One whole request; answers its id."""
        request_id = self.new_id()
        self.append(self.opened(request_id))
        self.append(self.ended(request_id, **fields))
        return request_id

    def append(self, data: bytes) -> None:
        """One write."""
        with self.path.open("ab") as file:
            file.write(data)

    def rotate(self) -> Path:
        """Rename the file and begin a new, empty one."""
        self.rotations += 1
        stamp = f"2026-11-25T00-00-{self.rotations // 1000:02}.{self.rotations % 1000:03}"
        old = self.path.with_name(f"journal-{stamp}-size.log")
        self.path.rename(old)
        self.path.touch()
        return old

    def compress(self, old: Path) -> Path:
        """Compress a rotated file as Caddy does."""
        packed = old.with_name(old.name + ".gz")
        packed.write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()
        return packed
