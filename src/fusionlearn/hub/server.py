"""uvicorn, set for a hub: no banner, limits on headers and connections, a call when it listens."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import uvicorn

from fusionlearn.errors import SettingsError

MOST_CONNECTIONS = 2000
MOST_HEAD = 64 * 1024  # bytes of a request before its body
KEEP_ALIVE = 15  # seconds


class _Server(uvicorn.Server):
    """Tells when it listens, and at which port."""

    ready: Callable[[int], None]

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready(self.servers[0].sockets[0].getsockname()[1])


def run(
    app: Any,
    *,
    host: str,
    port: int,
    cert: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
    ready: Callable[[int], None],
) -> None:
    """Serve until a signal ends it; requests that are being answered are finished first."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_protocol(),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=behind_proxy,
        forwarded_allow_ips="127.0.0.1" if behind_proxy else None,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=20,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    _settle()
    server = _Server(config)
    server.ready = ready
    try:
        server.run()
    except SystemExit as error:  # uvicorn ends the process where it cannot listen
        raise SettingsError(
            f"cannot listen at {host}:{port}: is another program there? Choose another --port."
        ) from error


def _protocol() -> Any:
    """HTTP by the parser in C where it is installed, else by uvicorn's own in Python, which takes four times as long.

    The first reads a head of any length, which here ends the connection.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"

    class Bounded(HttpToolsProtocol):
        unread = 0  # bytes since a head or a piece of a body was complete

        def data_received(self, data: bytes) -> None:
            self.unread += len(data)
            super().data_received(data)
            if self.unread > MOST_HEAD:
                self.transport.close()

        def on_headers_complete(self) -> None:
            self.unread = 0
            if sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD:
                raise ValueError("the head is too long")  # answered with 400
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self.unread = 0
            super().on_body(body)

    return Bounded


def _settle() -> None:
    gc.collect()
    gc.freeze()
    """Set the process for many small checks beside one another, rather than for one large computation."""
    threadpoolctl.threadpool_limits(1, user_api="blas")  # several updates are checked at a time already
    np.empty(31 * 2**20, np.uint8)  # freed at once: arrays as large as an update's then take each other's place
