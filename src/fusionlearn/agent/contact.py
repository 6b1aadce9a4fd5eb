"""One contact: enrol, fetch and verify the task, send the update once, keep the receipt, fetch and verify the model.

A hub's key is believed at first contact and held to ever after, as a coordinator's is. Nothing is believed because a
hub says so: a task is by its owner's key, a receipt and a model by the hub's or the owner's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionlearn import file, keys
from fusionlearn.agent import site
from fusionlearn.agent.site import Contact
from fusionlearn.agent.wire import AGAIN, Hub
from fusionlearn.errors import HubError, SettingsError, SignatureError
from fusionlearn.types import Model, Task

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FIRST_POLL, LONGEST_POLL = 1.0, 60.0  # seconds between looks at a task's status
WAITING = ("waiting", "late")  # states of an update that the owner has to let in
FIRST_CONTACT = 15.0  # seconds an address that never answered is tried: it is likelier wrong than away


def meet(hub: Hub) -> dict[str, Any]:
    """Make sure it is the hub it was before; what is known of it for this key.

    Errors: SignatureError when another key answers than at first contact
    """
    own = keys.public_hex(hub.key)
    known = site.enrolment(hub.url, own)
    answer = hub.who(None if known else FIRST_CONTACT)
    signer = str(answer.get("hub", ""))
    if not keys.is_signer(signer):
        raise HubError(f"{hub.url} does not answer like a hub: check the address.")
    if keys.trust(f"hub {hub.url}", signer) and signer != own:
        hub.told(f"First contact with {hub.url}: key {keys.fingerprint(signer)}. Compare the digits by telephone.")
    known = known or {"url": hub.url, "hub": signer, "projects": {}}
    if known["hub"] != signer:
        known = {**known, "hub": signer}
    site.keep_enrolment(hub.url, own, known)
    return known


def join(hub: Hub, name: str, *, code: str = "", certificate: dict[str, str] | None = None) -> str:
    """Enrol this key with a join code or a manufacturer's certificate; the project it is for."""
    own = keys.public_hex(hub.key)
    known = meet(hub)
    by = {"certificate": certificate} if certificate is not None else {"code": code}
    joined = hub.post("/v1/enrol", {**by, "name": name})
    known["projects"][joined["project"]] = joined["role"]
    site.keep_enrolment(hub.url, own, known)
    return str(joined["project"])


def certify(manufacturer: Ed25519PrivateKey, project: str, device: str) -> dict[str, str]:
    """A manufacturer's word for a device's key, good for one project: what `join` takes as a certificate."""
    message = f"fusionlearn device {project} {device}".encode()
    return {
        "manufacturer": keys.public_hex(manufacturer),
        "project": project,
        "signature": manufacturer.sign(message).hex(),
    }


def read_certificate(path: Path) -> dict[str, str]:
    """A certificate from its file. Errors: SettingsError."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(told[name]) for name in ("manufacturer", "project", "signature")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path} is no certificate that `fusionlearn certify` wrote: ask the manufacturer."
        ) from error


def project_of(hub: Hub, wanted: str = "") -> str:
    """The project to speak of: the one wanted, else the only one joined.

    Errors: SettingsError when none or several were joined
    """
    known = meet(hub)
    if wanted:
        return wanted
    joined = sorted(known["projects"])
    if len(joined) == 1:
        return str(joined[0])
    if joined:
        raise SettingsError(f"this key is in several projects there: choose one with --project: {', '.join(joined)}.")
    raise SettingsError(f"this key has not joined {hub.url} yet: pass the join code you were given with --code.")


def find_task(hub: Hub, project: str, wanted: str = "") -> Contact:
    """The task meant by the beginning of a digest, or the only one that is open.

    Errors: HubError when there is none, or several
    """
    listed = hub.get(f"/v1/projects/{project}/tasks")
    if wanted:
        found = [entry for entry in listed if entry["task"].startswith(wanted.lower())]
    else:
        found = [entry for entry in listed if entry["state"] == "open"] or listed
    if len(found) == 1:
        return Contact(hub.url, project, _digest(found[0]["task"]))
    if not found:
        meant = f"no task whose digest begins with {wanted[:64]}" if wanted else "no task yet"
        raise HubError(f"Project '{project}' has {meant}: ask its owner.")
    several = ", ".join(f"{entry['task'][:12]} ({entry['name']})" for entry in found[:5])
    raise HubError(f"Project '{project}' has several tasks: choose one with --task: {several}.")


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not keys.is_signer(text):
        raise HubError("the hub names a task by something that is no digest: is it a hub?")
    return text


def fetch_task(hub: Hub, contact: Contact) -> Task:
    """The task, verified: its bytes are what its digest says, and its signature is right."""
    known = contact.read_task()
    if known is not None and file.digest(known) == contact.task:
        return known
    content = hub.fetch(_path(contact)) or b""
    task = file.from_bytes(content, Task, place="the hub's task")
    if file.digest(task) != contact.task:
        raise SignatureError("the task that came is not the one that was asked for: do not answer it, tell its owner.")
    if not task.signer:
        raise SignatureError("the task is not signed: do not answer it, tell its owner.")
    contact.keep("task", content)
    return task


def _path(contact: Contact) -> str:
    return f"/v1/projects/{contact.project}/tasks/{contact.task}"


def send(
    hub: Hub, contact: Contact, content: bytes, digest: str, progress: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Send an update and keep the hub's receipt, verified; `waits` in the answer when the owner must let it in.

    Errors: HubError when it is refused; SignatureError when the receipt is not for these bytes by this hub
    """
    response = hub.upload(f"{_path(contact)}/updates/{digest}", content, progress)
    told = response.json()
    own = keys.public_hex(hub.key)
    check_receipt(told, hub_key=site.enrolment(hub.url, own)["hub"], task=contact.task, update=digest, content=content)
    contact.keep("receipt.json", json.dumps(told, indent=1, sort_keys=True).encode())
    waits = response.status_code == 202
    if response.status_code == 200:  # it was there already: how it stands now
        yours = status(hub, contact)["yours"] or {}
        waits = yours.get("state") in WAITING
    return {**told, "waits": waits}


def check_receipt(told: Any, *, hub_key: str, task: str, update: str, content: bytes) -> None:
    """A receipt that is the hub's word for just these bytes.

    Errors: SignatureError
    """
    try:
        receipt, signature = dict(told["receipt"]), str(told["signature"])
        message = file.canonical_json(receipt)
    except Exception as error:
        raise SignatureError("the hub's receipt is not one: send again later, and tell the hub's operator.") from error
    expected = {
        "hub": hub_key, "task": task, "update": update, "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    wrong = [name for name, value in expected.items() if receipt.get(name) != value]
    if wrong or not keys.verify_bytes(hub_key, signature, message):
        raise SignatureError("the hub's receipt is not for what was sent: tell the hub's operator, keep your update.")


def status(hub: Hub, contact: Contact) -> dict[str, Any]:
    """How the task stands, for this key."""
    told, _ = hub.poll(f"{_path(contact)}/status")
    return dict(told)


def wait(hub: Hub, contact: Contact, seconds: float, seen: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Look until there is a model; its status, or None when the time is up. Cheap: an unchanged status has no body."""
    started, pause, tag = time.monotonic(), FIRST_POLL, ""
    while True:
        try:
            told, fresh = hub.poll(f"{_path(contact)}/status", tag)
        except HubError as error:  # a hub that is away is waited for as long as its model
            if (error.status and error.status not in AGAIN) or time.monotonic() - started + pause > seconds:
                raise
            told, fresh = None, tag
        if told is not None:
            tag = fresh
            seen(told)
            if told["model"] is not None:
                return dict(told)
        if time.monotonic() - started + pause > seconds:
            return None
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_POLL)


def fetch_model(hub: Hub, contact: Contact, version: str = "latest") -> Model:
    """The model, verified: it answers this task, and the hub's key or the owner's signed it."""
    task = fetch_task(hub, contact)
    content = hub.fetch(f"{_path(contact)}/models/{version}") or b""
    model = file.from_bytes(content, Model, place="the hub's model")
    known = {site.enrolment(hub.url, keys.public_hex(hub.key)).get("hub"), task.signer}
    if model.task != contact.task or model.signer not in known:
        raise SignatureError("the model that came is not this task's, or not by the hub or the owner: do not use it.")
    contact.keep("model", content)
    return model


def rotate(hub: Hub, project: str, new: Any) -> None:
    """Let a new key take this one's place in a project."""
    old = keys.public_hex(hub.key)
    proof = new.sign(f"fusionlearn rotate {project} {old}".encode()).hex()
    hub.post(f"/v1/projects/{project}/keys/rotate", {"new": keys.public_hex(new), "proof": proof})
    known = site.enrolment(hub.url, old)
    site.keep_enrolment(hub.url, keys.public_hex(new), known)
