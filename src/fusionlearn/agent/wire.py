"""Speaking to a hub over HTTP: signed requests, tried again when the network or the hub is away, uploads that resume.

Whatever is tried again is harmless to repeat: an update is known by its digest, and each request is signed anew.
"""

from __future__ import annotations

import hashlib
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fusionlearn import __version__, http_signature
from fusionlearn.errors import HubError, MissingExtra, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PIECE = 4 * 2**20  # bytes of an upload sent at a time; smaller updates go whole
PATIENCE = 120.0  # seconds of trouble before giving up
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds between tries
TIMEOUT = 60.0  # seconds for one answer
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_OTHER_NAME = ("is for another name", "write the hub's address as its operator told you")
CERTIFICATE_FAULTS = {  # by OpenSSL's number
    9: ("is not valid yet", "set this machine's clock"),
    10: ("has expired", "tell the hub's operator, or set this machine's clock"),
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}


class Hub:
    """A hub as one key sees it."""

    def __init__(
        self,
        url: str,
        key: Ed25519PrivateKey,
        *,
        ca: Path | None = None,
        patience: float = PATIENCE,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Get ready to speak; nothing is sent yet.

        url       of the hub: https://hub.example, or http:// on one's own machine
        key       signs every request
        ca        certificates (PEM) to believe besides the system's, for a private authority
        patience  seconds of trouble before giving up
        told      is told when a try failed and another follows
        Errors    SettingsError for a URL that is none, MissingExtra
        """
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("an agent", "httpx", "agent") from error
        try:
            parts = urlsplit(url)
            named = parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:  # half an address in brackets, a port that is none
            named = False
        if not named or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
            raise SettingsError(
                f"'{url.rpartition('@')[2][:200]}' is not a hub's address: write it like https://hub.example."
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.key, self.patience = key, patience
        self.told = told or (lambda _text: None)
        context = ssl.create_default_context()
        if ca is not None:
            try:
                context.load_verify_locations(ca)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(f"{ca} holds no certificate (PEM) that can be read.") from error
        agent = {"User-Agent": f"fusionlearn/{__version__}"}
        self._client = httpx.Client(verify=context, timeout=TIMEOUT, headers=agent, follow_redirects=False)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Hub:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    # --- requests -------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        fine: tuple[int, ...] = (200, 201, 202, 204),
        patience: float | None = None,
    ) -> Any:
        """One signed request, tried again until it is answered; the httpx response.

        body, content  JSON, or bytes as they are
        fine           statuses that are answers; any other is an error
        patience       seconds of trouble before giving up; None: as the hub was opened with
        Errors         HubError: what the hub said, or that it cannot be reached
        """
        import httpx

        if body is not None:
            content = json.dumps(body).encode()
        started, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                response = self._once(method, path, content, dict(headers or {}), is_json=body is not None)
                if response.status_code in fine:
                    return response
                if response.status_code not in AGAIN:
                    raise refused(response)
                trouble, wanted = refused(response), _retry_after(response)
            except httpx.TransportError as error:
                fault = self._tls_fault(error)
                if fault:  # no later try will be answered otherwise
                    raise HubError(fault) from error
                trouble, wanted = HubError(self._away(error)), 0.0
            left = (self.patience if patience is None else min(patience, self.patience)) - (time.monotonic() - started)
            wait = max(wanted, pause * random.uniform(0.5, 1.0))
            if wait > left:
                raise trouble
            self.told(f"{trouble} Trying again in {wait:.0f} s.")
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _once(self, method: str, path: str, content: bytes | None, headers: dict[str, str], *, is_json: bool) -> Any:
        url = self.url + path
        if content is not None:
            headers["Content-Type"] = "application/json" if is_json else "application/octet-stream"
        digest = hashlib.sha256(content).digest() if content else None
        headers |= http_signature.sign(method, url, headers, digest, self.key)
        return self._client.request(method, url, content=content, headers=headers)

    def _away(self, error: Exception) -> str:
        return f"{self.url} cannot be reached ({type(error).__name__}): check the address and this network's proxy."

    def _tls_fault(self, error: BaseException | None) -> str:
        """What is wrong with the other side's TLS, as a sentence; "" when it is something else, which may pass."""
        while error is not None and not isinstance(error, ssl.SSLError):
            error = error.__cause__ or error.__context__
        if isinstance(error, ssl.SSLCertVerificationError):
            what, advice = CERTIFICATE_FAULTS.get(
                error.verify_code,
                (
                    "is not by an authority this machine believes",
                    "if the hub has a private one, pass its file with --ca",
                ),
            )
            return f"the certificate of {self.url} {what}: {advice}."
        if error is not None and "WRONG_VERSION_NUMBER" in str(error):
            return f"what answers at {self.url} does not speak TLS: is the address http:// there, or the port another?"
        return ""

    # --- what a hub is asked --------------------------------------------------------------------------------------

    def who(self, patience: float | None = None) -> dict[str, Any]:
        """The hub's key, name, version and format."""
        return _object(self.ask("GET", "/v1/hub", patience=patience))

    def get(self, path: str) -> Any:
        """A JSON answer."""
        return self.ask("GET", path).json()

    def post(self, path: str, body: Any = None) -> Any:
        """A JSON answer to a JSON question."""
        response = self.ask("POST", path, body if body is not None else None)
        return response.json() if response.content else {}

    def fetch(self, path: str, known: str = "") -> bytes | None:
        """A file's bytes; None when its ETag is the one known."""
        headers = {"If-None-Match": f'"{known}"'} if known else {}
        response = self.ask("GET", path, headers=headers, fine=(200, 304))
        return None if response.status_code == 304 else bytes(response.content)

    def poll(self, path: str, known: str = "") -> tuple[Any, str]:
        """A JSON answer and its ETag; None when nothing changed."""
        headers = {"If-None-Match": known} if known else {}
        response = self.ask("GET", path, headers=headers, fine=(200, 304))
        return (None if response.status_code == 304 else response.json()), response.headers.get("ETag", "")

    def upload(self, path: str, content: bytes, progress: Callable[[float], None] | None = None) -> Any:
        """Upload a file, whole or in pieces that go on where an earlier try was cut; the last answer.

        progress  is told the share that has arrived
        """
        progress = progress or (lambda _share: None)
        if len(content) <= PIECE:
            response = self.ask("PUT", path, content=content)
            progress(1.0)
            return response
        offset = self._offset(path)
        while True:
            piece = content[offset : offset + PIECE] or content[-1:]  # all is here but its receipt: PUT tells
            if offset >= len(content):
                return self.ask("PUT", path, content=content)
            headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(content))}
            response = self.ask("PATCH", path, content=piece, headers=headers, fine=(200, 201, 202, 204, 409))
            if response.status_code in (200, 201, 202):
                progress(1.0)
                return response
            if response.status_code == 409 and "Upload-Offset" not in response.headers:
                raise refused(response)
            before, offset = offset, int(response.headers["Upload-Offset"])
            if response.status_code == 409 and offset == before:
                raise refused(response)
            progress(offset / len(content))

    def _offset(self, path: str) -> int:
        """How many bytes of the file are at the hub."""
        response = self.ask("HEAD", path, fine=(200, 404))
        return int(response.headers.get("Upload-Offset", "0")) if response.status_code == 200 else 0


def refused(response: Any) -> HubError:
    """What the hub said no with."""
    try:
        told = json.loads(response.content)
        sentence, kind = str(told["error"]), str(told.get("kind", ""))
    except (ValueError, KeyError, TypeError):
        sentence, kind = f"the hub answered {response.status_code}, and not in its own words: is it a hub?", ""
    if not sentence.isprintable():
        sentence = "the hub answered in letters that cannot be shown."
    return HubError(f"{sentence[:1].upper()}{sentence[1:2000]}", response.status_code, kind)


def _retry_after(response: Any) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE) if text.isdecimal() else 0.0


def _object(response: Any) -> dict[str, Any]:
    try:
        told = response.json()
    except ValueError as error:
        raise HubError("this address does not answer like a hub: check it.") from error
    if not isinstance(told, dict):
        raise HubError("this address does not answer like a hub: check it.")
    return told
