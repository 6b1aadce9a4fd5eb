"""A load generator: so many signed uploads over so many connections, as fast as they go or at a steady rate.

The requests are made and signed before the clock starts, so that what is measured is the server. At a steady rate a
request's time runs from the moment it was due, not from when a connection was free: a server that stalls is charged
for all who had to wait.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """The bytes of one request, head and body apart so that bodies need not be copied."""

    head: bytes
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """What a run of requests gave."""

    seconds: float  # from the first request to the last answer
    latencies: list[float]  # seconds, in order of answers
    statuses: dict[str, int]  # how many answers of each status; "cut" where a connection ended without one

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency that this share of the requests stayed under."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    def errors(self, expected: Sequence[str] = ("201",)) -> int:
        """How many answers were something else than hoped for."""
        return sum(count for status, count in self.statuses.items() if status not in expected)


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reader, writer


async def _answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(lower[at + 15 :].split(b"\r\n", 1)[0]))
    return head[9:12].decode()


async def _drive(port: int, requests: Sequence[Request], connections: int, rate: float | None) -> Outcome:
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    waiting = iter(enumerate(requests))
    began = time.perf_counter() + 0.05

    async def connection() -> None:
        reader, writer = await _connect(port)
        for number, request in waiting:
            due = began + number / rate if rate else max(began, time.perf_counter())
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            writer.write(request.head)
            writer.write(request.body)
            try:
                statuses[await _answer(reader)] += 1
            except (asyncio.IncompleteReadError, ConnectionError):
                statuses["cut"] += 1
                reader, writer = await _connect(port)
            latencies.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return Outcome(time.perf_counter() - began, latencies, dict(statuses))


def drive(port: int, requests: Sequence[Request], *, connections: int = 32, rate: float | None = None) -> Outcome:
    """Send them all; `rate` a second, or as fast as they go."""
    return asyncio.run(_drive(port, requests, connections, rate))


# --- memory of a server and its children ----------------------------------------------------------------------------


def family(process: int) -> list[int]:
    """A process and everything it started (Linux)."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def peak_bytes(process: int) -> int:
    """Most memory that each process of a family held at a time, summed (Linux: VmHWM)."""
    return sum(_field(member, "VmHWM") for member in family(process))


def _field(process: int, name: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":  # tries the floor: PORT COUNT BYTES CONNECTIONS
    port, count, size, connections = map(int, sys.argv[1:])
    made = [
        Request(
            f"PUT /{number} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode(),
            number.to_bytes(8, "little") + bytes(size - 8),
        )
        for number in range(count)
    ]
    told = drive(port, made, connections=connections)
    print(json.dumps({"rate": told.rate, "p99": told.percentile(0.99), "statuses": told.statuses}))
