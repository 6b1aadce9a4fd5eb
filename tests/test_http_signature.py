"""Signed requests: what we sign the library believes, what it signs we believe, and nothing that was changed."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("http_message_signatures")
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms
from hypothesis import given
from hypothesis import strategies as st
from tests import rounds

from fusionlearn import http_signature
from fusionlearn.errors import SignatureError

URL = "https://hub.example:8443/v1/projects/default/tasks/ab?quorum=3&deadline=2030-01-31T12%3A00%3A00Z"
PATH, QUERY = "/v1/projects/default/tasks/ab", "quorum=3&deadline=2030-01-31T12%3A00%3A00Z"
BODY = hashlib.sha256(b"an update").digest()
NOW = datetime.datetime(2026, 11, 23, 12, 0, 0, tzinfo=datetime.UTC)


@dataclasses.dataclass
class Request:
    method: str
    url: str
    headers: dict[str, str]


class Resolver(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Any:
        return rounds.key(1).public_key()


def signed(**changes: Any) -> dict[str, str]:
    given: dict[str, Any] = {
        "method": "PUT", "url": URL, "headers": {}, "body_digest": BODY, "key": rounds.key(1), "created": NOW,
        "nonce": "a-nonce-of-22-letters-",
    }  # fmt: skip
    given |= changes
    return http_signature.sign(**given) | given["headers"]


def verified(headers: dict[str, str], **changes: Any) -> http_signature.Signed:
    asked: dict[str, Any] = {
        "method": "PUT", "authority": "hub.example:8443", "path": PATH, "query": QUERY, "now": NOW,
    } | changes  # fmt: skip
    return http_signature.verify(**asked, headers={name.lower(): value for name, value in headers.items()})


def test_a_signed_request_is_believed():
    found = verified(signed())
    assert found.keyid == rounds.public(1)
    assert found.content_digest == BODY
    assert found.created == NOW and found.nonce == "a-nonce-of-22-letters-"


def test_the_library_believes_what_we_sign():
    request = Request("PUT", URL, signed(created=datetime.datetime.now(datetime.UTC)))
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=Resolver())
    results = verifier.verify(request, max_age=datetime.timedelta(minutes=5), expect_tag="fusionlearn")
    assert results[0].parameters["keyid"] == rounds.public(1)


@given(
    path=st.text(max_size=20),
    query=st.text(max_size=20),
    piece=st.booleans(),
    body=st.booleans(),
)
def test_every_request_we_sign_is_one_we_believe(path: str, query: str, piece: bool, body: bool):
    headers = {"Upload-Offset": "0", "Upload-Length": "9"} if piece else {}
    path, query = quote(path, safe="/"), quote(query, safe="=&")
    made = signed(url=f"http://h/{path}?{query}", headers=headers, body_digest=BODY if body else None)
    assert verified(made, authority="h", path=f"/{path}", query=query).content_digest == (BODY if body else None)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "POST"}, {"authority": "other.example"}, {"path": PATH + "/"}, {"query": "quorum=4"}, {"query": ""},
        {"now": NOW + datetime.timedelta(minutes=10)}, {"now": NOW - datetime.timedelta(minutes=10)},
    ],
)  # fmt: skip
def test_a_request_that_was_changed_is_refused(change: dict[str, Any]):
    with pytest.raises(SignatureError):
        verified(signed(), **change)


def test_clocks_may_differ_by_five_minutes():
    for minutes in (-5, 5):
        verified(signed(), now=NOW + datetime.timedelta(minutes=minutes))


@pytest.mark.parametrize("name", ["Content-Digest", "Upload-Offset", "Signature", "Signature-Input"])
def test_a_header_that_was_changed_or_left_out_is_refused(name: str):
    made = signed(headers={"Upload-Offset": "0", "Upload-Length": "9"})
    other = signed(
        headers={"Upload-Offset": "7", "Upload-Length": "9"}, body_digest=hashlib.sha256(b"other").digest(),
        nonce="another-nonce-of-many-letters",
    )  # fmt: skip
    for changed in (made | {name: other[name]}, {key: value for key, value in made.items() if key != name}):
        with pytest.raises(SignatureError):
            verified(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"@path" ', ""), ('"@method" ', '"@method" "@method" '), ("sig1=", "sig2="), ('alg="ed25519"', 'alg="hmac"'),
        (";tag=", ";expires=1;tag="), ("created=", "created=-"), ('keyid="', 'keyid="A'), ('"@path"', '"@path";req'),
    ],
)  # fmt: skip
def test_another_shape_of_signature_is_refused(old: str, new: str):
    made = signed()
    assert old in made["Signature-Input"]
    with pytest.raises(SignatureError):
        verified(made | {"Signature-Input": made["Signature-Input"].replace(old, new, 1)})


@given(st.text(max_size=300), st.text(max_size=300))
def test_nonsense_is_refused_with_a_sentence(first: str, second: str):
    with pytest.raises(SignatureError):
        verified({"signature-input": first, "signature": second})
