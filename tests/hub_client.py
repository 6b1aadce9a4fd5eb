"""Talks to a hub's application in this process: one ASGI call a request, nothing in between."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fusionlearn import http_signature

HOST = "hub.test"


@dataclass(frozen=True)
class Answer:
    """What came back; `status` 0 where the connection would have been cut without an answer."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """Requests of anybody: signed with the key that is given, or with none."""

    def __init__(self, app: Any, now: Any = None) -> None:
        self.app, self.now = app, now
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def __call__(
        self,
        method: str,
        path: str,
        key: Any = None,
        body: Any = b"",
        *,
        headers: dict[str, str] | None = None,
        sign: bool = True,
        **signing: Any,
    ) -> Answer:
        """One request.

        path     with its query, as it goes over the wire
        body     bytes, or what becomes JSON
        headers  more of them; they win over what signing gives
        signing  created, nonce: for `http_signature.sign`
        """
        return self.loop.run_until_complete(self.send(method, path, key, body, headers=headers, sign=sign, **signing))

    def together(self, requests: Iterable[tuple[Any, ...]]) -> list[Answer]:
        """Requests at one moment."""

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(self.send(*request) for request in requests))

        return self.loop.run_until_complete(all_of_them())

    async def send(
        self,
        method: str,
        path: str,
        key: Any = None,
        body: Any = b"",
        *,
        headers: dict[str, str] | None = None,
        sign: bool = True,
        **signing: Any,
    ) -> Answer:
        given = headers or {}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        every = {"host": HOST}
        if content:
            every["content-length"] = str(len(content))
            every["content-type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        every |= {name.lower(): value for name, value in given.items()}
        if key is not None and sign:
            if self.now is not None:
                signing.setdefault("created", self.now())
            digest = hashlib.sha256(content).digest() if content else None
            added = http_signature.sign(method, f"http://{HOST}{path}", every, digest, key, **signing)
            every = {name.lower(): value for name, value in added.items()} | every
        return await self.raw(method, path, every, [content])

    async def raw(self, method: str, path: str, headers: dict[str, str], pieces: list[bytes]) -> Answer:
        """A request as its bytes say."""
        from urllib.parse import unquote

        target, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(target), "raw_path": target.encode("latin-1", "replace"), "root_path": "",
            "query_string": query.encode("latin-1", "replace"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": (HOST, 80),
        }  # fmt: skip
        waiting = [
            {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces)}
            for number, piece in enumerate(pieces)
        ]
        status, told, content = 0, {}, bytearray()

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop(0)
            await asyncio.sleep(3600)  # the client waits for its answer
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status = message["status"]
                told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                content.extend(message.get("body", b""))

        await self.app(scope, receive, send)
        return Answer(status, told, bytes(content))
