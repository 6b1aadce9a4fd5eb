"""The gate in front of every route: who signed, how large, how often; nothing reaches a route unasked.

It is plain ASGI, so a body streams through it: bytes are counted and hashed as they pass, and a body that is not the
one its signature names is refused before the route sees its end. Everything under /v1 that is not listed as open
needs a signature.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect

from fusionlearn import http_signature
from fusionlearn.errors import SignatureError
from fusionlearn.hub.hub import Hub
from fusionlearn.hub.refusal import Refusal

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/v1/hub", "/v1/health", "/v1/ready", "/v1/openapi.json"})
SMALL_BODY = 64 * 1024  # bytes, of JSON
IDLE_SECONDS = 30.0  # a body may pause so long
SLOWEST = 4 * 1024  # bytes a second, on average, after the first pause
RATE, BURST = 50.0, 500.0  # requests a second for each key, and how many may come at once
MOST_KEYS = 20_000  # remembered for the rate


class Gate:
    """The middleware; in a request's scope routes find `caller`, an `http_signature.Signed` or None, and its `body`."""

    def __init__(self, app: App, hub: Hub) -> None:
        self.app, self.hub = app, hub
        self.rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it with a sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SAFE]
            await send(message)

        try:
            body = scope["body"] = self._admitted(scope)
            await self.app(scope, body.wrap(receive), watched)
        except ClientDisconnect:
            return  # nobody is there to be told, and nothing was taken
        except Refusal as refusal:
            if started:  # too late for a sentence: the connection is cut
                raise
            await refuse(refusal, watched)

    def _admitted(self, scope: Scope) -> Body:
        path = scope["path"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        scope["caller"] = None
        if not path.startswith("/v1/"):
            return Body(headers, SMALL_BODY, None)  # pages: cookies, see `pages`
        signed = None
        if path not in OPEN and ("signature-input" in headers or not _may_be_open(scope)):
            signed = self._signed(scope, headers)
            self.rates.take(signed.keyid)
        scope["caller"] = signed
        most = None if scope["method"] in ("PUT", "PATCH") else SMALL_BODY  # those routes know what a task allows
        return Body(headers, most, signed)

    def _signed(self, scope: Scope, headers: dict[str, str]) -> http_signature.Signed:
        raw = scope.get("raw_path") or scope["path"].encode()
        if self.hub.hosts and headers.get("host", "").lower() not in self.hub.hosts:
            raise Refusal(421, "this hub is not called so: use the address its operator gave you.", "Misdirected")
        try:
            return http_signature.verify(
                scope["method"],
                headers.get("host", ""),
                raw.decode("latin-1"),
                scope["query_string"].decode("latin-1"),
                headers,
                self.hub.now(),
            )
        except SignatureError as error:
            raise Refusal(401, str(error), "SignatureError") from error


SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]


def _may_be_open(scope: Scope) -> bool:
    """Models of a task published for everyone need no signature; their route looks that up and says 401 itself."""
    parts = scope["path"].split("/")
    return (
        scope["method"] == "GET" and len(parts) == 8
        and (parts[2], parts[4], parts[6]) == ("projects", "tasks", "models")
    )  # fmt: skip


class Body:
    """A request's body on its way: counted, hashed, not too slow."""

    def __init__(self, headers: dict[str, str], most: int | None, signed: http_signature.Signed | None) -> None:
        self.most, self.signed = most, signed
        try:
            self.length = int(headers["content-length"]) if "content-length" in headers else None
        except ValueError as error:
            raise Refusal(400, "Content-Length is no number.") from error
        if most is not None and (self.length or 0) > most:
            raise Refusal(413, f"the body has {self.length} bytes; {most} are allowed here.")
        self.hash = hashlib.sha256()
        self.seen = 0
        self.began = time.monotonic()

    def wrap(self, receive: Receive) -> Receive:
        """`receive` that checks what passes; the last piece passes only if the whole is what was signed."""

        async def checked() -> MutableMapping[str, Any]:
            if self.finished:
                return await receive()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await receive()
            except TimeoutError as error:
                raise Refusal(408, "the body came too slowly: try again.", "TooSlow") from error
            if message["type"] == "http.request":
                self._take(message)
            return message

        return checked

    finished = False

    @property
    def sha256(self) -> str:
        """Of what has passed, in hex."""
        return self.hash.hexdigest()

    def _take(self, message: MutableMapping[str, Any]) -> None:
        piece = message.get("body", b"")
        self.seen += len(piece)
        self.hash.update(piece)
        if self.most is not None and self.seen > self.most:
            raise Refusal(413, f"the body has more than the {self.most} bytes allowed here.")
        taken = time.monotonic() - self.began
        if taken > IDLE_SECONDS and self.seen / taken < SLOWEST and message.get("more_body"):
            raise Refusal(408, "the body came too slowly: try again.", "TooSlow")
        if not message.get("more_body", False):
            self.finished = True
            self._settle()

    def _settle(self) -> None:
        if self.signed is None:
            return
        named = self.signed.content_digest
        if named is None and self.seen:
            raise Refusal(401, "the body is not signed: sign its Content-Digest.", "SignatureError")
        if named is not None and named != self.hash.digest():
            raise Refusal(400, "the body is not the one that was signed: it was altered or cut. Send it again.")


class Rates:
    """A bucket of requests for each key, in this process."""

    clock = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.left: dict[str, tuple[float, float]] = {}  # key -> (requests left, when that was)

    def take(self, key: str) -> None:
        """One request by this key; 429 when it makes too many."""
        now = self.clock()
        left, then = self.left.pop(key, (BURST, now))
        left = min(BURST, left + (now - then) * RATE) - 1
        self.left[key] = (max(left, 0.0), now)
        if len(self.left) > MOST_KEYS:
            del self.left[next(iter(self.left))]  # the one that was quiet for longest
        if left < 0:
            raise Refusal(429, "too many requests by this key: wait a few seconds.", Retry_After="5")


async def refuse(refusal: Refusal, send: Send) -> None:
    """The refusal as an answer."""
    content = json.dumps({"error": str(refusal), "kind": refusal.kind}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


LASTS = datetime.timedelta(minutes=21)  # a nonce is remembered longer than its request is believed
