"""Signed HTTP requests: RFC 9421 message signatures with Ed25519, and RFC 9530 content digests.

A request covers method, authority, path, query and, where it has a body, the body's SHA-256; its parameters name the
moment, a nonce, the key and this protocol. Signing goes through the library http-message-signatures. Verifying, which
a hub does for every request, accepts this one shape only, so that nothing of the standard's freedom is left to chance:
the fields are parsed by the library's own parser (http-sf), and the tests hold both sides against the library.
"""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusionlearn import keys
from fusionlearn.errors import SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LABEL = "sig1"
TAG = "fusionlearn"
COVERED = ("@method", "@authority", "@path", "@query")
BODY = "content-digest"
PIECE = ("upload-offset", "upload-length")  # covered when a request has them
SKEW = datetime.timedelta(minutes=8)  # how far the clocks of two honest machines may differ
NONCE_BYTES = 16
LONGEST = 2048  # letters of a signature field


@dataclass(frozen=True)
class Signed:
    """What a verified request proves."""

    keyid: str  # the public key, 64 hex digits
    nonce: str
    created: datetime.datetime
    content_digest: bytes | None  # SHA-256 the body must have; None when no body was signed


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body_digest: bytes | None,
    key: Ed25519PrivateKey,
    created: datetime.datetime | None = None,
    nonce: str | None = None,
) -> dict[str, str]:
    """The headers to add to a request: Content-Digest (with a body), Signature-Input, Signature.

    method       such as PUT
    url          the whole URL, as it will be requested
    headers      of the request so far; Upload-Offset and Upload-Length are covered when they are there
    body_digest  SHA-256 of the body, 32 bytes; None for a request without one
    """
    from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

    class Resolver(HTTPSignatureKeyResolver):  # type: ignore[misc]
        def resolve_private_key(self, key_id: str) -> Any:  # noqa: ARG002
            return key

    lower = {name.lower(): value for name, value in headers.items()}
    request = _Request(method, url, {name: lower[name] for name in PIECE if name in lower})
    if body_digest is not None:
        request.headers["Content-Digest"] = content_digest(body_digest)
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=Resolver())
    covered = (*COVERED, *((BODY,) if body_digest is not None else ()), *(name for name in PIECE if name in lower))
    signer.sign(
        request,
        key_id=keys.public_hex(key),
        created=created or datetime.datetime.now(datetime.UTC),
        nonce=nonce or secrets.token_urlsafe(NONCE_BYTES),
        tag=TAG,
        label=LABEL,
        include_alg=True,
        covered_component_ids=covered,
        use_existing_digest=body_digest is not None,
    )
    return {name: request.headers[name] for name in request.headers if name not in PIECE}


@dataclass
class _Request:
    """What the library reads of a request."""

    method: str
    url: str
    headers: dict[str, str]


def content_digest(sha256: bytes) -> str:
    """The field's value for a body with this SHA-256."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def verify(
    method: str, authority: str, path: str, query: str, headers: Mapping[str, str], now: datetime.datetime
) -> Signed:
    """Who signed this request; the body is the caller's to hash and compare with `content_digest`.

    authority  the Host header
    path       as requested, percent-encoded; query without its question mark
    headers    lower-case names
    Errors     SignatureError with one sentence
    """
    covered, parameters, signature = _fields(headers)
    expected = [*COVERED, *(name for name in (BODY, *PIECE) if name in headers)]
    if sorted(covered) != sorted(expected):
        raise SignatureError(f"the signature must cover {', '.join(expected)}, each once.")
    keyid, nonce, created = _parameters(parameters, now)
    values = {"@method": method, "@authority": authority.lower(), "@path": path or "/", "@query": f"?{query}"}
    lines = [f'"{name}": {values[name] if name in values else headers[name].strip()}' for name in covered]
    inner = " ".join(f'"{name}"' for name in covered)
    lines.append(f'"@signature-params": ({inner}){_written(parameters)}')
    if not keys.verify_bytes(keyid, signature.hex(), "\n".join(lines).encode("latin-1")):
        raise SignatureError("the request's signature is wrong: it was altered on its way, or signed by another key.")
    return Signed(keyid, nonce, created, _digest(headers[BODY]) if BODY in headers else None)


def _fields(headers: Mapping[str, str]) -> tuple[list[str], dict[str, Any], bytes]:
    """Covered components, parameters and signature, out of the two fields."""
    import http_sf

    given, signatures = headers.get("signature-input", ""), headers.get("signature", "")
    if not given or not signatures:
        raise SignatureError("the request is not signed: sign it as docs/how-to/join.md says.")
    if len(given) > LONGEST or len(signatures) > LONGEST:
        raise SignatureError("the request's signature fields are too long.")
    try:
        inputs: Any = http_sf.parse(given.encode("ascii"), tltype="dictionary")
        values: Any = http_sf.parse(signatures.encode("ascii"), tltype="dictionary")
        listed, parameters = inputs[LABEL]
        signature, _ = values[LABEL]
        covered = [name for name, extra in listed if not extra]
        whole = len(covered) == len(listed) and all(isinstance(name, str) for name in covered)
    except Exception as error:  # the parser's own errors, and shapes that are not ours
        raise SignatureError(f"the request's signature fields are not those of a signature '{LABEL}'.") from error
    if not whole or not isinstance(signature, bytes) or len(inputs) != 1 or len(values) != 1:
        raise SignatureError(f"a request has one signature, '{LABEL}', over plain components.")
    return covered, dict(parameters), signature


PARAMETERS = {"created": int, "nonce": str, "keyid": str, "alg": str, "tag": str}


def _parameters(parameters: Mapping[str, Any], now: datetime.datetime) -> tuple[str, str, datetime.datetime]:
    """Key, nonce and moment, each as it must be."""
    for name, kind in PARAMETERS.items():
        if not isinstance(parameters.get(name), kind):
            raise SignatureError(f"the signature lacks its parameter '{name}'.")
    if set(parameters) != set(PARAMETERS) or parameters["alg"] != "ed25519" or parameters["tag"] != TAG:
        raise SignatureError(f"the signature's parameters are created, nonce, keyid, alg=ed25519 and tag={TAG}.")
    if not keys.is_signer(parameters["keyid"]) or not 16 <= len(parameters["nonce"]) <= 128:
        raise SignatureError("the signature's keyid is a public key of 64 hex digits, its nonce 16 to 128 letters.")
    if not 0 <= parameters["created"] < 2**37:
        raise SignatureError("the signature's moment is none.")
    created = datetime.datetime.fromtimestamp(parameters["created"], datetime.UTC)
    if abs(now - created) > SKEW:
        raise SignatureError(
            f"the request was signed {abs((now - created).total_seconds()) / 60:.0f} minutes "
            f"{'ago' if created < now else 'ahead of now'}: set this machine's clock right."
        )
    return parameters["keyid"], parameters["nonce"], created


def _written(parameters: Mapping[str, Any]) -> str:
    """The parameters as RFC 8941 writes them, in the order they came."""
    texts = []
    for name, value in parameters.items():
        if isinstance(value, str):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            texts.append(f';{name}="{escaped}"')
        else:
            texts.append(f";{name}={value}")
    return "".join(texts)


def _digest(field: str) -> bytes:
    """The SHA-256 in a Content-Digest field."""
    import http_sf

    try:
        parsed: Any = http_sf.parse(field.encode("ascii"), tltype="dictionary")
        digest, _ = parsed["sha-256"]
    except Exception as error:
        raise SignatureError("Content-Digest is written sha-256=:BASE64:.") from error
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise SignatureError("Content-Digest holds a SHA-256, 32 bytes.")
    return digest
