"""What the dashboard shows, as plain values: no HTML here, no database there."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa

from fusionlearn.hub import fusions, members, tables, tasks, uploads
from fusionlearn.hub.hub import Hub
from fusionlearn.hub.members import Member
from fusionlearn.keys import fingerprint

MOST_ROWS = 100  # clients shown one by one; beyond, they are counted
MOST_NAMES = 30  # of clients that are not here yet
MOST_NOTICES = 8
FEDAVG_ROUNDS = 50  # what an upload is compared with: the model's arrays down and up again, in each round


def task_list(hub: Hub, owner: Member) -> list[dict[str, Any]]:
    """Every task with what a coordinator looks for first."""
    return [{**entry, "progress": _progress(entry)} for entry in tasks.listed(hub, owner)]


def task_page(hub: Hub, owner: Member, digest: str) -> dict[str, Any]:
    """One task: how it stands, who arrived, its model."""
    told, _ = tasks.status(hub, owner, digest)
    rows = uploads.listed(hub, owner, digest)
    with hub.reading() as connection:
        enrolled = _clients(connection, owner.project)
        versions = [dict(row._mapping) for row in fusions.versions_of(connection, owner.project, digest)]
    published = [version for version in versions if version["state"] == "published"]
    answered = {row["signer"] for row in rows}
    missing = [entry for entry in enrolled if entry["key"] not in answered]
    many = len(rows) > MOST_ROWS
    # Of many only those are listed that ask for the owner's word.
    shown = [row for row in rows if row["state"] in ("waiting", "late", "excluded")] if many else rows
    return {
        "task": told,
        "progress": _progress(told),
        "updates": [{**row, "fingerprint": fingerprint(row["signer"])} for row in shown[:MOST_ROWS]],
        "more_updates": max(0, len(shown) - MOST_ROWS),
        "many": many,
        "states": _counted(row["state"] for row in rows),
        "received_bytes": sum(row["bytes"] for row in rows),
        "hours": _by_hour(rows) if many else [],
        "missing": missing[:MOST_NAMES],
        "more_missing": max(0, len(missing) - MOST_NAMES),
        "enrolled": len(enrolled),
        "versions": [_version(version) for version in reversed(versions)],
        "model": _model(published[-1], told, rows) if published else None,
    }


def _progress(entry: dict[str, Any]) -> float | None:
    quorum = entry.get("quorum")
    return None if not quorum else min(1.0, (entry.get("updates") or 0) / quorum)


def _clients(connection: sa.Connection, project: str) -> list[dict[str, str]]:
    table = tables.member
    chosen = sa.select(table.c.key, table.c.name).where(
        table.c.project == project, table.c.role == "client", table.c.revoked.is_(None)
    )
    return [
        {"key": row.key, "name": row.name or fingerprint(row.key), "fingerprint": fingerprint(row.key)}
        for row in connection.execute(chosen.order_by(table.c.name))
    ]


def _counted(states: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for state in states:
        found[state] = found.get(state, 0) + 1
    return found


def _by_hour(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many arrived in each hour, for tasks with more clients than a page can list."""
    found: dict[str, int] = {}
    for row in rows:
        hour = row["received"][:13]
        found[hour] = found.get(hour, 0) + 1
    most = max(found.values())
    return [
        {"hour": hour.replace("T", " ") + ":00", "count": count, "share": count / most}
        for hour, count in sorted(found.items())
    ]


def _version(version: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": version["number"], "state": version["state"], "members": len(version["members"]),
        "made": version["made"], "digest": version["digest"], "sentence": version["sentence"],
        "bytes": version["bytes"],
    }  # fmt: skip


def _model(version: dict[str, Any], told: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The latest model: each client's loss from its statistics, what each class rests on, what it cost to send."""
    findings = version["findings"] or {}
    clients = findings.get("clients", [])
    notices = [*findings.get("notices", [])]
    members_in = set(version["members"])
    sent = sum(row["bytes"] for row in rows if row["digest"] in members_in)
    fedavg = version["bytes"] * 2 * FEDAVG_ROUNDS * max(1, len(members_in))
    return {
        "number": version["number"],
        "digest": version["digest"],
        "bytes": version["bytes"],
        "members": len(members_in),
        "records": findings.get("records"),
        "clients": sorted((_client(row) for row in clients[:MOST_ROWS]), key=lambda row: str(row["client"])),
        "more_clients": max(0, len(clients) - MOST_ROWS),
        "losses": any(row.get("loss") is not None for row in clients),
        "classes": _classes(clients),
        "notices": notices[:MOST_NOTICES],
        "more_notices": max(0, len(notices) - MOST_NOTICES),
        "earlier": findings.get("earlier", []),
        "sent": sent,
        "fedavg": fedavg,
        "ratio": fedavg / sent if sent else None,
        "rounds": FEDAVG_ROUNDS,
        "task_bytes": told["bytes"],
    }


def _client(row: dict[str, Any]) -> dict[str, Any]:
    """A client's row; `gain` is the share of its loss without it that it takes away by taking part."""
    loss, without = row.get("loss"), row.get("loss_without")
    gain = None if loss is None or without is None or without <= 0 else (without - loss) / without
    return {**row, "gain": gain}


def _classes(clients: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each class: how many records, held by how many clients."""
    counted = [row["classes"] for row in clients if row.get("classes")]
    if not counted or len(counted) < len(clients):
        return []
    everything = sum(sum(classes.values()) for classes in counted) or 1
    return [
        {
            "label": label,
            "records": sum(classes.get(label, 0) for classes in counted),
            "share": sum(classes.get(label, 0) for classes in counted) / everything,
            "clients": sum(classes.get(label, 0) > 0 for classes in counted),
            "of": len(counted),
        }
        for label in counted[0]
    ]


def keys_page(hub: Hub, owner: Member) -> dict[str, Any]:
    """The keys, with the digits people compare: owners and readers first, then the clients, the last joined first."""
    rows = sorted(members.listed(hub, owner.project), key=lambda row: row["since"], reverse=True)
    rows.sort(key=lambda row: (row["role"] == "client", row["revoked"] is not None))
    shown = [{**row, "fingerprint": fingerprint(row["key"])} for row in rows[:MOST_ROWS]]
    return {"keys": shown, "more_keys": max(0, len(rows) - MOST_ROWS)}


def ago(moment: str | datetime.datetime | None, now: datetime.datetime) -> str:
    """A moment as people say it: 3 minutes ago, in 2 days."""
    if moment is None:
        return ""
    when = datetime.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    seconds = (now - when).total_seconds()
    size = abs(seconds)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if size >= length:
            count = int(size // length) if seconds >= 0 else round(size / length)
            text = f"{count} {unit}{'s' * (count != 1)}"
            return f"{text} ago" if seconds >= 0 else f"in {text}"
    return "just now" if seconds >= 0 else "in a moment"


def size(count: float | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "–"
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return ""
