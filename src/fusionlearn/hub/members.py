"""Who may: projects, keys and their roles, join codes, rotation, browser sessions.

A key is believed because it signed the request; a role because a row says so. A key that is in no project sees the
same sentence for every project, there or not.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fusionlearn import file, keys
from fusionlearn.errors import SettingsError
from fusionlearn.hub import audit, tables
from fusionlearn.hub.hub import DEFAULT, Hub
from fusionlearn.hub.refusal import Refusal

PROJECT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
ROLES = ("owner", "client", "reader")
ENROLLED = (*ROLES, "manufacturer")  # a manufacturer's key only vouches for devices' keys
MOST_USES = 100_000  # of one code
MOST_HOURS = 24 * 90
LOGIN_SECONDS = 120
SESSION_HOURS = 8
NAME = 200  # letters
CODE_BYTES = 20
STRANGER = "there is no such project here, or this key is not in it: ask its owner for a join code."
BAD_CODE = "this join code is not known, was used up or has expired: ask the project's owner for a new one."


@dataclass(frozen=True)
class Member:
    """A key's standing in one project."""

    project: str
    key: str
    person: str  # the key it started with
    role: str
    name: str


def standing(hub: Hub, project: str, key: str) -> Member:
    """What this key is in this project: 404 for a stranger, 403 for a revoked key."""
    with hub.reading() as connection:
        return member_in(connection, project, key)


def member_in(connection: sa.Connection, project: str, key: str) -> Member:
    """`standing` inside a transaction."""
    table = tables.member
    row = connection.execute(sa.select(table).where(table.c.project == project, table.c.key == key)).one_or_none()
    if row is None or row.role not in ROLES:
        raise Refusal(404, STRANGER)
    if row.revoked is not None:
        raise Refusal(403, "this key was revoked: ask the project's owner for a new join code.")
    return Member(row.project, row.key, row.person, row.role, row.name)


def make_project(hub: Hub, name: str, owner: str) -> bool:
    """A project and its first owner; False when both are there already.

    Errors: SettingsError for a name that is none or is taken by another owner.
    """
    if not PROJECT.fullmatch(name):
        raise SettingsError(f"'{name[:60]}' is no project's name: use 1 to 40 of a-z, 0-9 and inner hyphens.")
    signer = keys.parse_public(owner)
    with hub.writing() as connection:
        there = connection.execute(sa.select(tables.project).where(tables.project.c.name == name)).one_or_none()
        if there is None:
            made = {"name": name, "made": hub.now(), "events": 0, "chain": audit.START}
            connection.execute(sa.insert(tables.project), [made])
            hub.log(connection, name, "project", hub.public, owner=signer)
            _enrol(hub, connection, name, signer, "owner", "owner", hub.public)
            return True
        table = tables.member
        owns = sa.select(table).where(table.c.project == name, table.c.key == signer, table.c.role == "owner")
        if connection.execute(owns).one_or_none() is None:
            raise SettingsError(f"project '{name}' is there already, and another key owns it.")
    return False


def default_project(hub: Hub, owner: str) -> None:
    """The project a fresh hub starts with; a hub that has any project is left as it is."""
    with hub.reading() as connection:
        if connection.execute(sa.select(tables.project.c.name).limit(1)).one_or_none() is not None:
            return
    make_project(hub, DEFAULT, owner)


def keeper(hub: Hub) -> str:
    """The key that made the hub's first project, which clients know as the hub's; "" before there is one."""
    table = tables.event
    with hub.reading() as connection:
        chosen = sa.select(table.c.who).where(table.c.kind == "project", table.c.number == 1)
        return str(connection.execute(chosen.order_by(table.c.at).limit(1)).scalar() or "")


def projects_of(hub: Hub, key: str) -> list[dict[str, str]]:
    """The projects a key is in, with its role in each."""
    table = tables.member
    with hub.reading() as connection:
        chosen = sa.select(table.c.project, table.c.role).where(table.c.key == key, table.c.revoked.is_(None))
        return [{"project": row.project, "role": row.role} for row in connection.execute(chosen.order_by("project"))]


# --- joining --------------------------------------------------------------------------------------------------------


def make_code(hub: Hub, owner: Member, role: str, uses: int, hours: float) -> dict[str, Any]:
    """A code that lets `uses` keys join, until it expires; the hub keeps its hash only."""
    if role not in ROLES or role == "owner":
        raise Refusal(422, "a join code is for the role client or reader; owners are enrolled by key.")
    if not 1 <= uses <= MOST_USES or not 0 < hours <= MOST_HOURS:
        raise Refusal(422, f"a join code has 1 to {MOST_USES} uses and lasts up to {MOST_HOURS} hours.")
    code = secrets.token_urlsafe(CODE_BYTES)
    expires = hub.now() + datetime.timedelta(hours=hours)
    with hub.writing() as connection:
        row = {"hash": _hash(code), "project": owner.project, "role": role, "uses": uses, "expires": expires}
        connection.execute(sa.insert(tables.code), [row])
        hub.log(connection, owner.project, "code", owner.key, role=role, uses=uses, expires=expires.isoformat())
    return {"code": code, "role": role, "uses": uses, "expires": expires.isoformat()}


def join(hub: Hub, key: str, name: str, code: str | None, certificate: Mapping[str, str] | None) -> Member:
    """Enrol the key that signed the request, by a join code or by a manufacturer's word for it.

    Joining twice with the same key is answered as the first time and uses nothing up.
    """
    with hub.writing() as connection:
        if certificate is not None:
            project, role, by = _vouched(connection, key, certificate)
        else:
            project, role, by = _by_code(hub, connection, code or "", key)
        table = tables.member
        there = connection.execute(sa.select(table).where(table.c.project == project, table.c.key == key)).one_or_none()
        if there is None:
            _enrol(hub, connection, project, key, role, name, by)
        return member_in(connection, project, key)


def _by_code(hub: Hub, connection: sa.Connection, code: str, key: str) -> tuple[str, str, str]:
    table, known = tables.code, _hash(code)
    row = connection.execute(sa.select(table).where(table.c.hash == known).with_for_update()).one_or_none()
    if row is None or row.expires <= hub.now():
        raise Refusal(403, BAD_CODE)
    member = tables.member
    there = sa.select(member.c.key).where(member.c.project == row.project, member.c.key == key)
    if connection.execute(there).one_or_none() is None:
        if row.uses < 1:
            raise Refusal(403, BAD_CODE)
        connection.execute(sa.update(table).where(table.c.hash == known).values(uses=table.c.uses - 1))
    return row.project, row.role, f"code {known[:12]}"


def _vouched(connection: sa.Connection, key: str, certificate: Mapping[str, str]) -> tuple[str, str, str]:
    """A certificate: the manufacturer's key signed b"fusionlearn device " + project + " " + the device's key."""
    by, project = certificate.get("manufacturer", ""), certificate.get("project", "")
    table = tables.member
    chosen = sa.select(table).where(table.c.project == project, table.c.key == by, table.c.role == "manufacturer")
    row = connection.execute(chosen).one_or_none()
    message = f"fusionlearn device {project} {key}".encode()
    signature = certificate.get("signature", "")
    if row is None or row.revoked is not None or not keys.verify_bytes(by, signature, message):
        raise Refusal(403, "no manufacturer this project knows has signed this device's key: ask its owner.")
    return project, "client", by


def _enrol(
    hub: Hub, connection: sa.Connection, project: str, key: str, role: str, name: str, by: str, person: str = ""
) -> None:
    row = {
        "project": project, "key": key, "person": person or key, "role": role, "name": clean(name),
        "since": hub.now(), "revoked": None,
    }  # fmt: skip
    connection.execute(sa.insert(tables.member), [row])
    hub.log(connection, project, "enrol", by, key=key, role=role)


def clean(name: str) -> str:
    """A name for people: one printable line."""
    return "".join(letter for letter in name if letter.isprintable())[:NAME].strip()


# --- keys -----------------------------------------------------------------------------------------------------------


def enrol(hub: Hub, owner: Member, key: str, role: str, name: str) -> Member:
    """Enrol a key the owner knows."""
    if role not in ENROLLED:
        raise Refusal(422, f"the role is one of {', '.join(ENROLLED)}.")
    if not keys.is_signer(key):
        raise Refusal(422, "a key is an Ed25519 public key of 64 hex digits.")
    table = tables.member
    with hub.writing() as connection:
        chosen = sa.select(table).where(table.c.project == owner.project, table.c.key == key)
        row = connection.execute(chosen).one_or_none()
        if row is not None and (row.revoked is not None or row.role != role):
            raise Refusal(409, "this key is or was enrolled in another way: let the client make a new key.")
        if row is None:
            _enrol(hub, connection, owner.project, key, role, name, owner.key)
    return Member(owner.project, key, key, role, clean(name))


def revoke(hub: Hub, owner: Member, key: str) -> None:
    """From now on the key may do nothing; what it sent stays until the owner leaves it out."""
    table = tables.member
    with hub.writing() as connection:
        audit.lock(connection, owner.project)
        rows = connection.execute(
            sa.select(table).where(table.c.project == owner.project, table.c.revoked.is_(None))
        ).all()
        row = next((row for row in rows if row.key == key), None)
        if row is None:
            raise Refusal(404, "no key of this project that is still valid begins so.")
        if row.role == "owner" and sum(other.role == "owner" for other in rows) == 1:
            raise Refusal(409, "this is the project's only owner: enrol another owner first.")
        _end(connection, owner.project, key, hub.now())
        hub.log(connection, owner.project, "revoke", owner.key, key=key)


def rotate(hub: Hub, member: Member, new: str, proof: str) -> Member:
    """The new key takes the old one's place, its updates too; the old one is revoked. Both have signed."""
    message = f"fusionlearn rotate {member.project} {member.key}".encode()
    if not keys.is_signer(new) or not keys.verify_bytes(new, proof, message):
        raise Refusal(422, "the new key has not signed that it takes the old one's place.")
    with hub.writing() as connection:
        audit.lock(connection, member.project)
        member_in(connection, member.project, member.key)
        table = tables.member
        taken = sa.select(table.c.key).where(table.c.project == member.project, table.c.key == new)
        if connection.execute(taken).one_or_none() is not None:
            raise Refusal(409, "the new key is in this project already: make another.")
        _end(connection, member.project, member.key, hub.now())
        _enrol(hub, connection, member.project, new, member.role, member.name, member.key, member.person)
    return Member(member.project, new, member.person, member.role, member.name)


def _end(connection: sa.Connection, project: str, key: str, at: datetime.datetime) -> None:
    table = tables.member
    connection.execute(sa.update(table).where(table.c.project == project, table.c.key == key).values(revoked=at))


def listed(hub: Hub, project: str) -> list[dict[str, Any]]:
    """Every key the project has or had."""
    table = tables.member
    with hub.reading() as connection:
        rows = connection.execute(sa.select(table).where(table.c.project == project).order_by(table.c.since)).all()
    return [
        {
            "key": row.key, "name": row.name, "role": row.role, "since": row.since.isoformat(),
            "revoked": row.revoked.isoformat() if row.revoked else None,
        }
        for row in rows
    ]  # fmt: skip


def names(connection: sa.Connection, project: str) -> dict[str, str]:
    """What each person of a project is called, by their first key."""
    table = tables.member
    chosen = sa.select(table.c.person, table.c.name).where(table.c.project == project)
    return {row.person: row.name for row in connection.execute(chosen)}


# --- replay and browsers --------------------------------------------------------------------------------------------


def spend(hub: Hub, key: str, nonce: str, lasts: datetime.timedelta) -> None:
    """A request that changes something is believed once: 409 when its nonce was seen."""
    now = hub.now()
    try:
        with hub.writing() as connection:
            connection.execute(sa.delete(tables.nonce).where(tables.nonce.c.expires < now))
            connection.execute(sa.insert(tables.nonce), [{"key": key, "nonce": nonce, "expires": now + lasts}])
    except sa.exc.IntegrityError as error:
        raise Refusal(409, "this very request was made before: sign it anew to repeat it.", "Replay") from error


def open_session(hub: Hub, member: Member) -> str:
    """A secret that opens the dashboard once, within two minutes."""
    return _session(hub, "login", member.project, member.key, datetime.timedelta(seconds=LOGIN_SECONDS))


def log_in(hub: Hub, login: str) -> str:
    """The cookie a login secret is good for, once."""
    table = tables.session
    with hub.writing() as connection:
        chosen = sa.select(table).where(table.c.hash == _hash(login), table.c.kind == "login").with_for_update()
        row = connection.execute(chosen).one_or_none()
        if row is not None:
            connection.execute(sa.delete(table).where(table.c.hash == row.hash))
    if row is None or row.expires <= hub.now():
        raise Refusal(403, "this link was used or is older than two minutes: run `fusionlearn dashboard` again.")
    return _session(hub, "cookie", row.project, row.key, datetime.timedelta(hours=SESSION_HOURS))


def session(hub: Hub, cookie: str) -> Member:
    """The owner behind a browser's cookie: 401 when there is none."""
    table = tables.session
    with hub.reading() as connection:
        chosen = sa.select(table).where(table.c.hash == _hash(cookie), table.c.kind == "cookie")
        row = connection.execute(chosen).one_or_none()
        if row is None or row.expires <= hub.now():
            raise Refusal(401, "not logged in, or no longer: run `fusionlearn dashboard` on your machine.")
        return member_in(connection, row.project, row.key)


def log_out(hub: Hub, cookie: str) -> None:
    """Forget a browser."""
    with hub.writing() as connection:
        connection.execute(sa.delete(tables.session).where(tables.session.c.hash == _hash(cookie)))


def _session(hub: Hub, kind: str, project: str, key: str, lasts: datetime.timedelta) -> str:
    secret = secrets.token_urlsafe(32)
    now = hub.now()
    with hub.writing() as connection:
        connection.execute(sa.delete(tables.session).where(tables.session.c.expires < now))
        row = {"hash": _hash(secret), "kind": kind, "project": project, "key": key, "expires": now + lasts}
        connection.execute(sa.insert(tables.session), [row])
    return secret


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def signed_json(hub: Hub, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON answer with the hub's signature over its canonical form."""
    return {name: dict(value), "signature": hub.key.sign(file.canonical_json(dict(value))).hex()}
