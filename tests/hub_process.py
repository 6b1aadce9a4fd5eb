"""Real hubs: `fusionlearn serve` and `fusionlearn worker` as processes, and a client that talks HTTP to them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from tests import hub_world as world

from fusionlearn import http_signature, keys

LISTENS = re.compile(r"Listening on (https?://[^\s]+)")


class Served:
    """A `fusionlearn serve`; its data in `folder`, its key the test's."""

    def __init__(self, folder: Path, *options: object, environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.options = folder, options
        if not (folder / "key").exists():
            keys.save(world.key(world.HUB), folder / "key")
        self.environment = {
            **os.environ, "FUSIONLEARN_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **(environment or {}),
        }  # fmt: skip
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.ready = 0.0  # seconds from the start until it answered

    def start(self, seconds: float = 100.0) -> Served:
        """Start and wait until it is ready."""
        began = time.monotonic()
        where = [] if "--database" in self.options else ["--data", self.folder / "data"]
        command = [sys.executable, "-m", "fusionlearn", "serve", "--key", self.folder / "key", "--port", 0]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*map(str, [*command, *where, *self.options])], env=self.environment, stdout=log, stderr=log
            )
        while True:
            found = LISTENS.search(self.log.read_text(errors="replace"))
            if found:
                self.url = found[1]
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{self.url}/v1/ready", timeout=5).status_code == 200:
                        break
            if self.process.poll() is not None or time.monotonic() - began > seconds:
                self.stop()
                raise RuntimeError(f"the hub does not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        self.ready = time.monotonic() - began
        return self

    def stop(self) -> None:
        """End it as an operator would."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process is not None:
            self.process.wait()
            self.process = None

    def __enter__(self) -> Served:
        return self if self.process else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Net:
    """Signed requests over a real connection."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.http = httpx.Client(trust_env=False, timeout=10, **options)

    def __call__(
        self, method: str, path: str, key: Any = None, body: Any = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        every = dict(headers or {})
        if content and not isinstance(body, bytes):
            every["content-type"] = "application/json"
        if key is not None:
            digest = hashlib.sha256(content).digest() if content else None
            every |= http_signature.sign(method, self.url + path, every, digest, key)
        return self.http.request(method, self.url + path, content=content or None, headers=every)

    def close(self) -> None:
        self.http.close()
