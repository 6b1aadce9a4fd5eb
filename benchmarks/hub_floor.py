"""The least a hub can do with an upload, as a server of its own: the yardstick of hub_ingest and hub_exchange.

It reads the body of any PUT, hashes it, writes it under its hash, brings it to the disk and commits one row to SQLite
(WAL, synchronous=FULL) before it answers 201. A GET answers with the file last written. It asks nobody who they are,
reads nothing of what it keeps, and is one process with nothing but the standard library.

python -m benchmarks.hub_floor FOLDER      prints its port
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import sys
from pathlib import Path


class Floor(asyncio.Protocol):
    """One connection."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.folder, self.database = folder, database
        self.received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n", 0, 16384)) >= 0:
            head = bytes(self.received[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            body = bytes(self.received[end + 4 : end + 4 + length])
            del self.received[: end + 4 + length]
            if head.startswith(b"get"):
                self._answer(b"200 OK", self._last())
            else:
                self._keep(body)
                self._answer(b"201 Created", b"{}")

    def _answer(self, status: bytes, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))

    def _keep(self, body: bytes) -> None:
        name = hashlib.sha256(body).hexdigest()
        fresh = self.folder / f"{name}.tmp"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(fresh, self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too
        finally:
            os.close(folder)
        with self.database:
            self.database.execute("INSERT OR IGNORE INTO upload VALUES (?, ?)", (name, len(body)))

    def _last(self) -> bytes:
        name = self.database.execute("SELECT name FROM upload ORDER BY rowid DESC LIMIT 1").fetchone()[0]
        return (self.folder / name).read_bytes()


async def serve(folder: Path) -> None:
    """Serve until killed."""
    database = sqlite3.connect(folder / "floor.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS upload (name TEXT UNIQUE, bytes INTEGER)")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Floor(folder, database), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
