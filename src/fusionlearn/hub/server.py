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


def _settle() -> None:
    gc.collect()
    gc.freeze()
    """Set the process for many small checks beside one another, rather than for one large computation."""
    threadpoolctl.threadpool_limits(1, user_api="blas")  # several updates are checked at a time already
    np.empty(31 * 2**20, np.uint8)  # freed at once: arrays as large as an update's then take each other's place
