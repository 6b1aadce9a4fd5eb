"""What a hub promises, without database, files or network: the model that its tests compare it with.

Every request is a method that returns the status the hub has to answer with, and changes the state as the hub must.
A digest stands for a file, a key for a person's key; `now` is in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STRANGER, REVOKED, NOT_ALLOWED, UNKNOWN, CONFLICT, INVALID = 404, 403, 403, 404, 409, 422


@dataclass
class Member:
    role: str
    person: str  # the first key, which rotations keep
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
    state: str  # counted, waiting, late, withdrawn, replaced, excluded
    replaces: str = ""


@dataclass
class Version:
    members: frozenset[str]
    made: bool = False


@dataclass
class Task:
    terms: tuple[int | None, float | None]  # quorum, deadline
    closed: bool = False
    updates: dict[str, Sent] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # person -> the update that holds its one place
    versions: list[Version] = field(default_factory=list)

    def counted(self) -> frozenset[str]:
        return frozenset(digest for digest, sent in self.updates.items() if sent.state == "counted")

    def end(self) -> None:
        self.closed = True
        if self.counted():
            self.versions.append(Version(self.counted()))


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
        member = self.projects[project].keys.get(key) if project in self.projects else None
        if member is None:
            return STRANGER
        if member.revoked:
            return REVOKED
        return 0 if member.role in (roles or ("owner", "client", "reader")) else NOT_ALLOWED

    def find(self, project: str, key: str, task: str, *roles: str) -> Task | int:
        return self.may(project, key, *roles) or self.projects[project].tasks.get(task) or UNKNOWN

    # --- keys ---

    def make_code(self, project: str, key: str, code: str, role: str, uses: int, hours: float) -> int:
        if refused := self.may(project, key, "owner"):
            return refused
        self.projects[project].codes[code] = Code(role, uses, self.now + 3600 * hours)
        return 201

    def join(self, key: str, code: str) -> int:
        for project in self.projects.values():
            known = project.codes.get(code)
            if known is not None and known.expires > self.now and (key in project.keys or known.uses > 0):
                known.uses -= key not in project.keys
                return 403 if project.keys.setdefault(key, Member(known.role, key)).revoked else 201
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
        owners = [name for name, member in keys.items() if member.role == "owner" and not member.revoked]
        if owners == [gone]:
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
        return 200

    # --- tasks and updates ---

    def publish(self, project: str, key: str, task: str, signer: str, quorum: int | None, hours: float | None) -> int:
        if refused := self.may(project, key, "owner"):
            return refused
        if self.may(project, signer, "owner"):
            return NOT_ALLOWED
        terms = (quorum, None if hours is None else self.now + 3600 * hours)
        known = self.projects[project].tasks.get(task)
        if known is not None:
            return 200 if known.terms == terms else CONFLICT
        self.projects[project].tasks[task] = Task(terms)
        return 201

    def upload(self, project: str, key: str, task: str, digest: str, signer: str, replaces: str = "") -> int:
        found = self.find(project, key, task, "client")
        if isinstance(found, int):
            return found
        if signer != key:
            return INVALID
        if digest in found.updates:
            return 200
        person = self.projects[project].keys[key].person
        if found.places.get(person, "") != replaces:
            return CONFLICT
        quorum, deadline = found.terms
        is_open = not found.closed and (deadline is None or deadline > self.now)
        state = "waiting" if replaces else "counted" if is_open else "late"
        found.updates[digest] = Sent(signer, person, state, replaces)
        found.places.setdefault(person, digest)
        if state == "counted" and quorum is not None and len(found.counted()) >= quorum:
            found.end()
        return 201 if state == "counted" else 202

    def withdraw(self, project: str, key: str, task: str, digest: str) -> int:
        found = self.find(project, key, task, "client")
        sent = None if isinstance(found, int) else found.updates.get(digest)
        if isinstance(found, int) or sent is None or sent.person != self.projects[project].keys[key].person:
            return found if isinstance(found, int) else UNKNOWN
        if sent.state == "replaced":
            return CONFLICT
        sent.state = "withdrawn"
        for version in found.versions:  # one that is not made yet is made without it
            if not version.made:
                version.members -= {digest}
                version.made = not version.members
        return 204

    def accept(self, project: str, key: str, task: str, digest: str) -> int:
        found = self.find(project, key, task, "owner")
        if isinstance(found, int):
            return found
        sent = found.updates.get(digest)
        if sent is None:
            return UNKNOWN
        if sent.state in ("withdrawn", "replaced"):
            return CONFLICT
        if sent.state == "waiting":
            if found.places[sent.person] != sent.replaces:
                return CONFLICT
            found.updates[sent.replaces].state = "replaced"
            found.places[sent.person] = digest
        sent.state = "counted"
        return 200

    def close(self, project: str, key: str, task: str) -> int:
        found = self.find(project, key, task, "owner")
        if isinstance(found, int):
            return found
        if not found.closed and not found.counted():
            return CONFLICT
        if not found.closed:
            found.end()
        return 202

    def fuse(self, project: str, key: str, task: str, without: frozenset[str], confirm: bool) -> int:
        found = self.find(project, key, task, "owner")
        if isinstance(found, int):
            return found
        made = [version for version in found.versions if version.made and version.members]
        wanted = [version for version in found.versions if not version.made]
        rest = found.counted() - without
        if wanted or (made and not confirm):
            return CONFLICT
        if not without <= found.counted():
            return UNKNOWN
        if not rest or (made and made[-1].members == rest):
            return CONFLICT
        for digest in without:
            found.updates[digest].state = "excluded"
        found.closed = True
        found.versions.append(Version(rest))
        return 202

    def work(self) -> None:
        """What workers do: close what is due, make every model that is wanted."""
        for task in [task for project in self.projects.values() for task in project.tasks.values()]:
            if not task.closed and task.terms[1] is not None and task.terms[1] <= self.now:
                task.end()
            for version in task.versions:
                version.made = True
