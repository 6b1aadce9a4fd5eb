"""What a hub promises, without database, files or network: the model that its tests compare it with.

Every request is a method that returns the status the hub has to answer with, and changes the state as the hub must.
A digest stands for a file, a key for a person's key; time is a number of seconds that `now` holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STRANGER, REVOKED, NOT_ALLOWED, UNKNOWN, CONFLICT, INVALID = 404, 403, 403, 404, 409, 422
COUNTED, WAITING, LATE, WITHDRAWN, REPLACED, EXCLUDED = "counted", "waiting", "late", "withdrawn", "replaced", "excluded"


@dataclass
class Member:
    role: str
    person: str
    revoked: bool = False


@dataclass
class Code:
    role: str
    uses: int
    expires: float


@dataclass
class Sent:
    signer: str
    person: str
    state: str
    replaces: str = ""


@dataclass
class Task:
    quorum: int | None = None
    deadline: float | None = None
    closed: bool = False
    updates: dict[str, Sent] = field(default_factory=dict)
    versions: list[frozenset[str]] = field(default_factory=list)  # what each model was asked to hold

    def present(self) -> frozenset[str]:
        return frozenset(digest for digest, sent in self.updates.items() if sent.state == COUNTED)


@dataclass
class Project:
    keys: dict[str, Member] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)


class Reference:
    def __init__(self) -> None:
        self.now = 0.0
        self.projects: dict[str, Project] = {}

    def may(self, project: str, key: str, *roles: str) -> int:
        """0 when the key may; else the status of the refusal."""
        there = self.projects.get(project)
        member = there and there.keys.get(key)
        if not member or member.role == "manufacturer":
            return STRANGER
        if member.revoked:
            return REVOKED
        return 0 if member.role in (roles or ("owner", "client", "reader")) else NOT_ALLOWED

    # --- keys ---

    def make_code(self, project: str, key: str, code: str, role: str, uses: int, hours: float) -> int:
        refused = self.may(project, key, "owner")
        if not refused:
            self.projects[project].codes[code] = Code(role, uses, self.now + 3600 * hours)
        return refused or 201

    def join(self, key: str, code: str) -> int:
        for project in self.projects.values():
            known = project.codes.get(code)
            if known and known.expires > self.now:
                if key not in project.keys:
                    if known.uses < 1:
                        return 403
                    known.uses -= 1
                    project.keys[key] = Member(known.role, key)
                return 403 if project.keys[key].revoked else 201
        return 403

    def enrol(self, project: str, key: str, new: str, role: str) -> int:
        if refused := self.may(project, key, "owner"):
            return refused
        there = self.projects[project].keys.setdefault(new, Member(role, new))
        return CONFLICT if there.revoked or there.role != role else 201

    def revoke(self, project: str, key: str, gone: str) -> int:
        if refused := self.may(project, key, "owner"):
            return refused
        keys = self.projects[project].keys
        if gone not in keys or keys[gone].revoked:
            return UNKNOWN
        owners = [member for member in keys.values() if member.role == "owner" and not member.revoked]
        if owners == [keys[gone]]:
            return CONFLICT
        keys[gone].revoked = True
        return 204

    def rotate(self, project: str, key: str, new: str) -> int:
        if refused := self.may(project, key):
            return refused
        keys = self.projects[project].keys
        if new in keys:
            return CONFLICT
        keys[new] = Member(keys[key].role, keys[key].person)
        keys[key].revoked = True
        return 201

    # --- tasks and updates ---

    def publish(self, project: str, key: str, task: str, quorum: int | None, deadline: float | None) -> int:
        if refused := self.may(project, key, "owner"):
            return refused
        known = task in self.projects[project].tasks
        self.projects[project].tasks.setdefault(task, Task(quorum, deadline))
        return 200 if known else 201

    def find(self, project: str, key: str, task: str, *roles: str) -> Task | int:
        return self.may(project, key, *roles) or self.projects[project].tasks.get(task) or UNKNOWN

    def tick(self) -> None:
        """What time brings: a task past its deadline is closed and fused."""
        for task in (task for project in self.projects.values() for task in project.tasks.values()):
            if not task.closed and task.deadline is not None and task.deadline <= self.now:
                self._end(task)

    def _end(self, task: Task) -> None:
        task.closed = True
        if task.present() and not task.versions:
            task.versions.append(task.present())

    def upload(self, project: str, key: str, task: str, digest: str, signer: str, replaces: str = "") -> int:
        found = self.find(project, key, task, "client")
        if isinstance(found, int):
            return found
        if signer != key:
            return INVALID
        if digest in found.updates:
            return 200
        self.tick()
        person = self.projects[project].keys[key].person
        place = [name for name, sent in found.updates.items() if sent.person == person and sent.state == COUNTED]
        if replaces:
            if replaces not in found.updates or found.updates[replaces].person != person:
                return INVALID
            found.updates[digest] = Sent(signer, person, WAITING, replaces)
            return 202
        if place:
            return CONFLICT
        found.updates[digest] = Sent(signer, person, LATE if found.closed else COUNTED)
        if not found.closed and found.quorum is not None and len(found.present()) >= found.quorum:
            self._end(found)
        return 202 if found.updates[digest].state == LATE else 201

    def withdraw(self, project: str, key: str, task: str, digest: str) -> int:
        found = self.find(project, key, task, "client")
        if isinstance(found, int):
            return found
        sent = found.updates.get(digest)
        if sent is None or sent.person != self.projects[project].keys[key].person:
            return UNKNOWN
        sent.state = WITHDRAWN
        return 204

    def accept(self, project: str, key: str, task: str, digest: str) -> int:
        found = self.find(project, key, task, "owner")
        if isinstance(found, int):
            return found
        sent = found.updates.get(digest)
        if sent is None:
            return UNKNOWN
        if sent.state not in (WAITING, LATE):
            return CONFLICT
        for other in found.updates.values():
            if other.person == sent.person and other.state == COUNTED:
                other.state = REPLACED
        sent.state = COUNTED
        return 200

    def close(self, project: str, key: str, task: str) -> int:
        found = self.find(project, key, task, "owner")
        if isinstance(found, int):
            return found
        self._end(found)
        return 200

    def fuse(self, project: str, key: str, task: str, without: frozenset[str], confirm: bool) -> int:
        found = self.find(project, key, task, "owner")
        if isinstance(found, int):
            return found
        rest = found.present() - without
        if not rest or (found.versions and not confirm):
            return CONFLICT
        for digest in without & found.present():
            found.updates[digest].state = EXCLUDED
        found.versions.append(rest)
        return 202
