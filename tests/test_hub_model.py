"""Random sequences of requests, through the application, beside the reference: every status, every state, every model.

One hub serves all sequences; each has two projects of its own. Time is moved by hand, workers work when told to.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests import hub_world as world
from tests.hub_client import Client
from tests.hub_reference import Reference

from fusionlearn import file, run
from fusionlearn.problem import ClassLabel, Vector
from fusionlearn.types import Privacy, Update

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')
SEQUENCES = int(os.environ.get("FUSIONLEARN_SEQUENCES", "400"))
PARTS = 8  # for as many processes
STEPS = 14
ENDED: list[tuple[str, ...]] = []  # the sequences that were run to their end
CLIENTS = (1, 2, 3)
KEYS = (0, *CLIENTS, 4, 5, 6, 7)  # owner, clients, reader, strangers and keys to rotate to
TASKS = (0, 1)


@functools.cache
def task(number: int) -> Any:
    made = run.new_task(
        f"model {number}",
        {"x": Vector(3, low=-1, high=1)},
        ClassLabel("y", (("no", ("0",)), ("yes", ("1",)))),
        encoder="identity",
        privacy=Privacy("none", "allow"),
    )
    return file.sign(made, world.key(0))


@functools.cache
def update(number: int, signer: int, again: int, replaces: str) -> Update:
    """One of a signer's answers to a task."""
    rng = np.random.default_rng([signer, again])
    table = {"x": rng.uniform(-1, 1, (4, 3)), "y": np.array(["0", "1", "0", "1"])}
    arrays = run.summarize(task(number), table).arrays
    return file.sign(Update(file.digest(task(number)), arrays, replaces=replaces), world.key(signer))


@functools.cache
def model(number: int, members: frozenset[str]) -> str:
    """The digest of the model that these updates have to give."""
    chosen = [UPDATES[digest] for digest in sorted(members)]
    fused, _ = run.fuse(task(number), chosen, accept_replacements=True, allow_unsigned=False)
    return file.digest(file.sign(fused, world.key(world.HUB)))


UPDATES: dict[str, Update] = {}
CONTENT: dict[str, bytes] = {}


def known(made: Update) -> str:
    """The update's digest, the update itself remembered."""
    digest = file.digest(made)
    if digest not in UPDATES:
        UPDATES[digest], CONTENT[digest] = made, file.to_bytes(made)
    return digest


def _unlimited(_self: Any, _key: str) -> None:
    """Stands for the limit of requests by one key."""


class Place:
    """The hub that all sequences share."""

    def __init__(self, folder: Path) -> None:
        from fusionlearn.hub.app import create_app
        from fusionlearn.hub.gate import Rates

        self.clock = world.Clock(still=datetime.datetime.now(datetime.UTC))
        self.hub = world.hub(folder, now=self.clock)
        self.app = create_app(self.hub)
        self.client = Client(self.app, self.clock)
        Rates.take = _unlimited  # type: ignore[method-assign] # a thousand sequences are one busy key
        self.numbers = itertools.count()


PLACE: Place


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[None]:
    from fusionlearn.hub.gate import Rates

    global PLACE
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    limited = Rates.take
    PLACE = Place(folder)
    yield
    Rates.take = limited  # type: ignore[method-assign]
    PLACE.app.state.uploads.close()
    PLACE.client.close()
    PLACE.hub.close()
    shutil.rmtree(folder)


keys = st.sampled_from(KEYS)
owners = st.sampled_from((0,) * 15 + (1, 4, 5))  # mostly those who may
senders = st.sampled_from((1, 2) * 6 + (3, 3, 0, 4, 5, 6))
projects = st.sampled_from((0,) * 7 + (1,))
tasks = st.sampled_from((0,) * 7 + (1,))


class Sequence(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        from fusionlearn.hub import members
        from fusionlearn.hub import tasks as publishing

        number = next(PLACE.numbers)
        self.names = (f"p{number}a", f"p{number}b")
        self.reference = Reference()
        from tests.hub_reference import Member, Project

        for name in self.names:
            members.make_project(PLACE.hub, name, world.public(0))
            self.reference.projects[name] = Project({world.public(0): Member("owner", world.public(0))})
        owner = members.Member(self.names[0], world.public(0), world.public(0), "owner", "")
        for client, role in ((1, "client"), (2, "client"), (4, "reader")):
            self.reference.enrol(self.names[0], world.public(0), world.public(client), role)
            members.enrol(PLACE.hub, owner, world.public(client), role, "")
        self.reference.publish(self.names[0], world.public(0), file.digest(task(0)), world.public(0), None, None)
        publishing.publish(PLACE.hub, owner, file.digest(task(0)), file.to_bytes(task(0)))
        self.touched = {*self.names}
        self.codes: list[str] = []

    # --- requests, each checked against the reference ---

    def ask(self, expected: int, method: str, path: str, actor: int, body: Any = b"") -> Any:
        self.touched |= {name for name in self.names if f"/{name}/" in path}
        answer = PLACE.client(method, path, world.key(actor), body)
        assert answer.status == expected, (method, path, actor, answer.status, answer.content[:300], expected)
        return answer

    def _enrol(self, project: int, actor: int, new: int, role: str) -> int:
        name = self.names[project]
        expected = self.reference.enrol(name, world.public(actor), world.public(new), role)
        body = {"key": world.public(new), "role": role, "name": f"key {new}"}
        self.ask(expected, "POST", f"/v1/projects/{name}/keys", actor, body)
        return expected

    def _publish(self, project: int, actor: int, which: int, quorum: int | None, hours: float | None) -> int:
        import datetime

        name, digest = self.names[project], file.digest(task(which))
        expected = self.reference.publish(name, world.public(actor), digest, world.public(0), quorum, hours)
        query = [f"quorum={quorum}"] if quorum else []
        if hours:
            until = PLACE.clock() + datetime.timedelta(hours=hours)
            query.append(f"deadline={until.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}")
        self.ask(expected, "PUT", self.path(project, which) + ("?" + "&".join(query) if query else ""), actor,
                 file.to_bytes(task(which)))  # fmt: skip
        return expected

    def path(self, project: int, which: int, more: str = "") -> str:
        return f"/v1/projects/{self.names[project]}/tasks/{file.digest(task(which))}{more}"

    @rule(data=st.data(), project=projects, actor=owners)
    def about_keys(self, data: Any, project: int, actor: int) -> None:
        """One rule, so that keys do not come up more often than updates."""
        name = self.names[project]
        match data.draw(st.sampled_from(("enrol", "revoke", "rotate", "code", "code"))):
            case "enrol":
                roles = st.sampled_from(("client", "client", "reader", "owner"))
                self._enrol(project, actor, data.draw(keys), data.draw(roles))
            case "revoke":
                gone = world.public(data.draw(keys))
                expected = self.reference.revoke(name, world.public(actor), gone)
                self.ask(expected, "DELETE", f"/v1/projects/{name}/keys/{gone}", actor)
            case "rotate":
                actor, number = data.draw(senders), data.draw(st.sampled_from((3, 5, 6, 7)))
                old, new = world.public(actor), world.public(number)
                expected = self.reference.rotate(name, old, new)
                proof = world.key(number).sign(f"fusionlearn rotate {name} {old}".encode()).hex()
                self.ask(expected, "POST", f"/v1/projects/{name}/keys/rotate", actor, {"new": new, "proof": proof})
            case "code":
                uses, hours = data.draw(st.integers(1, 2)), data.draw(st.sampled_from((1, 48)))
                expected = self.reference.may(name, world.public(actor), "owner") or 201
                body = {"role": "client", "uses": uses, "hours": hours}
                answer = self.ask(expected, "POST", f"/v1/projects/{name}/codes", actor, body)
                if expected == 201:
                    self.codes.append(answer.json()["code"])
                    self.reference.make_code(name, world.public(actor), self.codes[-1], "client", uses, hours)

    @precondition(lambda self: self.codes)
    @rule(data=st.data(), actor=keys)
    def join(self, data: Any, actor: int) -> None:
        code = data.draw(st.sampled_from(self.codes))
        expected = self.reference.join(world.public(actor), code)
        self.ask(expected, "POST", "/v1/enrol", actor, {"code": code, "name": "a client"})

    @rule(project=projects, actor=owners, which=tasks, quorum=st.sampled_from((None, 1, 2)),
          hours=st.sampled_from((None, 2)))  # fmt: skip
    def publish(self, project: int, actor: int, which: int, quorum: int | None, hours: float | None) -> None:
        self._publish(project, actor, which, quorum, hours)

    @rule(actor=st.sampled_from((1, 2, 3)))
    def answer(self, actor: int) -> None:
        """What ought to happen."""
        self._upload(0, actor, 0, update(0, actor, 0, ""), actor, False)

    @rule(project=projects, actor=senders, which=tasks, again=st.integers(0, 1), another=st.booleans(),
          pieces=st.booleans())  # fmt: skip
    def upload(self, project: int, actor: int, which: int, again: int, another: bool, pieces: bool) -> None:
        """Somebody's first answer, or another one without saying so; at times with another's file."""
        signer = 1 if another and again else actor
        self._upload(project, actor, which, update(which, signer, again, ""), signer, pieces)

    @rule(project=projects, which=tasks, data=st.data(), actor=senders)
    def correct(self, project: int, which: int, data: Any, actor: int) -> None:
        """A correction of one of the updates that are here, often one's own."""
        found = self.reference.projects[self.names[project]].tasks.get(file.digest(task(which)))
        replaces = data.draw(st.sampled_from(sorted(found.updates))) if found and found.updates else "0" * 64
        actor = next((n for n in KEYS if found and found.updates and found.updates[replaces].signer == world.public(n)
                      and data.draw(st.booleans())), actor)  # fmt: skip
        self._upload(project, actor, which, update(which, actor, 2, replaces), actor, False)

    def _upload(self, project: int, actor: int, which: int, made: Update, signer: int, pieces: bool) -> None:
        digest, name = known(made), self.names[project]
        expected = self.reference.upload(
            name, world.public(actor), file.digest(task(which)), digest, world.public(signer), made.replaces
        )
        path, content = self.path(project, which, f"/updates/{digest}"), CONTENT[digest]
        if not pieces:
            answer = self.ask(expected, "PUT", path, actor, content)
        else:
            self.touched.add(name)
            headers = {"upload-offset": "0", "upload-length": str(len(content))}
            answer = PLACE.client("PATCH", path, world.key(actor), content, headers=headers)
            assert answer.status == expected, (answer, expected)
        if expected in (200, 201, 202):
            assert answer.json()["receipt"]["update"] == digest and answer.json()["receipt"]["project"] == name

    @rule(project=projects, which=tasks, data=st.data(), actor=senders)
    def withdraw(self, project: int, which: int, data: Any, actor: int) -> None:
        digest, actor = self._pick(project, which, data, actor)
        expected = self.reference.withdraw(self.names[project], world.public(actor), file.digest(task(which)), digest)
        self.ask(expected, "DELETE", self.path(project, which, f"/updates/{digest}"), actor)

    @rule(project=projects, which=tasks, data=st.data(), actor=owners)
    def accept(self, project: int, which: int, data: Any, actor: int) -> None:
        digest, _ = self._pick(project, which, data, actor)
        expected = self.reference.accept(self.names[project], world.public(actor), file.digest(task(which)), digest)
        self.ask(expected, "POST", self.path(project, which, f"/updates/{digest}/accept"), actor)

    def _pick(self, project: int, which: int, data: Any, actor: int) -> tuple[str, int]:
        """One of the updates that are here, and often its signer."""
        found = self.reference.projects[self.names[project]].tasks.get(file.digest(task(which)))
        if not found or not found.updates:
            return "0" * 64, actor
        digest = data.draw(st.sampled_from(sorted(found.updates)))
        own = [number for number in KEYS if world.public(number) == found.updates[digest].signer]
        return digest, own[0] if own and data.draw(st.booleans()) else actor

    @rule(project=projects, which=tasks, actor=owners)
    def close(self, project: int, which: int, actor: int) -> None:
        expected = self.reference.close(self.names[project], world.public(actor), file.digest(task(which)))
        self.ask(expected, "POST", self.path(project, which, "/close"), actor)

    @rule(project=projects, which=tasks, actor=owners, data=st.data(), confirm=st.sampled_from((True, True, False)))
    def fuse(self, project: int, which: int, actor: int, data: Any, confirm: bool) -> None:
        without = frozenset({self._pick(project, which, data, 0)[0]}) if data.draw(st.booleans()) else frozenset()
        expected = self.reference.fuse(
            self.names[project], world.public(actor), file.digest(task(which)), without, confirm
        )
        body = {"without": sorted(without), "confirm": confirm}
        self.ask(expected, "POST", self.path(project, which, "/fuse"), actor, body)

    @rule()
    def work(self) -> None:
        from fusionlearn.hub import worker

        while worker.step(PLACE.hub, "a worker"):
            pass
        self.reference.work()
        self.touched = {*self.names}

    @rule(hours=st.sampled_from((0.5, 3.0, 50.0)))
    def wait(self, hours: float) -> None:
        PLACE.clock.ahead += 3600 * hours
        self.reference.now += 3600 * hours

    # --- what must hold after every request ---

    @invariant()
    def the_hub_says_what_the_reference_says(self) -> None:
        if not hasattr(self, "names"):
            return
        import sqlalchemy as sa

        from fusionlearn.hub import members, tables, uploads

        for name in sorted(self.touched):
            for digest, expected in self.reference.projects[name].tasks.items():
                owner = members.Member(name, "", "", "owner", "")
                states = {entry["digest"]: entry["state"] for entry in uploads.listed(PLACE.hub, owner, digest)}
                assert states == {update: sent.state for update, sent in expected.updates.items()}
                with PLACE.hub.reading() as connection:
                    table = tables.version
                    chosen = sa.select(table).where(table.c.project == name, table.c.task == digest)
                    versions = connection.execute(chosen.order_by(table.c.number)).all()
                assert [frozenset(version.members) for version in versions] == [v.members for v in expected.versions]
                assert [version.state != "wanted" for version in versions] == [v.made for v in expected.versions]
                for version in versions:
                    if not version.members:
                        assert version.state == "failed"
                    elif version.state != "wanted":
                        which = next(number for number in TASKS if file.digest(task(number)) == digest)
                        assert version.state == "published", version.sentence
                        assert version.digest == model(which, frozenset(version.members))
        self.touched = set()

    def teardown(self) -> None:
        if not hasattr(self, "names"):
            return
        from fusionlearn.hub import audit, worker

        with PLACE.hub.reading() as connection:
            for name in self.names:
                assert audit.verify(connection, name) == ""
        while worker.step(PLACE.hub, "a worker"):  # so that the next sequence finds nothing to do
            pass
        ENDED.append(self.names)


@pytest.mark.parametrize("part", range(PARTS))
def test_random_sequences_end_as_the_reference_says(part: int) -> None:
    before = len(ENDED)
    run_state_machine_as_test(
        Sequence,
        settings=settings(
            max_examples=SEQUENCES // PARTS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    assert len(ENDED) - before >= SEQUENCES // PARTS
