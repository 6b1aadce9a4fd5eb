"""Kills a hub at every kind of moment, and looks at what is left.

Each point: a copy of the hub's folder as it was before one step (an upload, a fusion, …); the step runs in a process
that is killed at its k-th change to the folder, before that call or half-way through it; a new process opens the
folder, finds the state either from before the step or from after it, does the step again, and ends where an
undisturbed run ended.

    lost      something that was acknowledged is not there
    twice     an update counts twice, or a step done again changed something
    torn      an object whose bytes are not those its name says, a broken hash chain, a state between two states

python tests/hub_kills.py POINTS     needs Linux and a C compiler; prints one JSON object     (make hub-kills)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import hub_faults as faults
from tests import hub_world as world

PROJECT = "canaries"
PIECE = 64 * 1024
READY = 5.0  # seconds
View = dict[str, Any]


# --- the steps ------------------------------------------------------------------------------------------------------


def refused(status: int, work: Callable[[], Any]) -> bool:
    """Whether the hub refuses with this status; another refusal is a fault."""
    from fusionlearn.hub.refusal import Refusal

    try:
        work()
    except Refusal as refusal:
        if refusal.status != status:
            raise
        return True
    return False


class Site:
    """The hub in this process, and what its clients and its owner do."""

    def __init__(self, folder: Path, ahead: float = 0.0) -> None:
        from fusionlearn import file
        from fusionlearn.hub import uploads

        self.clock = world.Clock(ahead)
        self.hub = world.hub(folder, now=self.clock)
        self.uploads = uploads.Uploads(self.hub)
        self.task = file.digest(world.task())
        self.digest = file.digest

    def owner(self) -> Any:
        from fusionlearn.hub import members

        return members.standing(self.hub, PROJECT, world.public(world.OWNER))

    def send(self, update: Any) -> Any:
        """The whole update; what the hub signs of it."""
        member, _ = self.uploads.allowed(PROJECT, update.signer, self.task)
        return self.uploads.receive(member, self.task, self.digest(update), world.content(update))

    def send_piece(self, update: Any, number: int) -> None:
        """The update up to and with this piece, asking first how much is there, as a client does."""
        content = world.content(update)
        member, most = self.uploads.allowed(PROJECT, update.signer, self.task)
        have, complete = 0, False
        if not refused(404, lambda: self.uploads.offset(member, self.task, self.digest(update))):
            have, complete = self.uploads.offset(member, self.task, self.digest(update))
        end = min(len(content), PIECE * (number + 1))
        while not complete and have < end:
            piece = content[have : min(have + PIECE, end)]
            told = self.uploads.append(member, self.task, self.digest(update), have, len(content), piece, most)
            have, complete = (told, False) if isinstance(told, int) else (end, True)

    def send_two(self, first: Any, second: Any) -> None:
        """Two uploads at one moment, which may share a transaction."""
        faults: list[BaseException] = []

        def send(update: Any) -> None:
            try:
                self.send(update)
            except BaseException as error:  # noqa: BLE001 - told below
                faults.append(error)

        threads = [threading.Thread(target=send, args=(update,)) for update in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]

    def work(self) -> None:
        from fusionlearn.hub import worker

        while worker.step(self.hub, "the worker of this process"):
            pass


def _beside(step: Callable[[Site], Any]) -> Callable[[Site], Any]:
    """The same step, its updates taken for small ones, which lie beside their rows."""

    def small(site: Site) -> None:
        import sqlalchemy as sa

        from fusionlearn.hub import tables, uploads

        with mock.patch.object(uploads, "SMALL", 2**30):
            step(site)
        with site.hub.reading() as connection:
            if not connection.execute(sa.select(tables.body.c.digest)).first():
                raise AssertionError("nothing lies beside its row")

    return small


def _begin(site: Site) -> None:
    from fusionlearn.hub import members

    members.make_project(site.hub, PROJECT, world.public(world.OWNER))


def _enrol(site: Site) -> None:
    from fusionlearn.hub import members

    for client in range(1, 8):
        members.enrol(site.hub, site.owner(), world.public(client), "client", f"client {client}")


def _publish(site: Site) -> None:
    from fusionlearn.hub import tasks

    tasks.publish(site.hub, site.owner(), site.task, world.content(world.task()))


def _revoke(site: Site) -> None:
    from fusionlearn.hub import members

    refused(404, lambda: members.revoke(site.hub, site.owner(), world.public(7)))  # where it is revoked already


def _close(site: Site) -> None:
    from fusionlearn.hub import fusions

    fusions.close(site.hub, site.owner(), site.task)


def _fuse_again(site: Site) -> None:
    from fusionlearn.hub import fusions

    refused(409, lambda: fusions.again(site.hub, site.owner(), site.task, [world.public(2)], True))
    if "wanted" not in [version["state"] for version in view(site)["versions"]]:
        raise AssertionError("the second model was not asked for")


def _correction() -> Any:
    from fusionlearn import file

    return world.update(3, again=1, replaces=file.digest(world.update(3)))


def _accept(site: Site, update: Any) -> None:
    from fusionlearn.hub import uploads

    uploads.accept(site.hub, site.owner(), site.task, site.digest(update))


def _withdraw(site: Site, update: Any) -> None:
    from fusionlearn.hub import members, uploads

    uploads.withdraw(site.hub, members.standing(site.hub, PROJECT, update.signer), site.task, site.digest(update))


STEPS: dict[str, Callable[[Site], Any]] = {
    "begin": _begin,  # with the tables themselves
    "enrol": _enrol,
    "publish": _publish,
    "revoke": _revoke,
    "upload": lambda site: site.send(world.update(1)),
    "first piece": lambda site: site.send_piece(world.update(2), 0),
    "second piece": lambda site: site.send_piece(world.update(2), 1),
    "last piece": lambda site: site.send_piece(world.update(2), 2),
    "two uploads": _beside(lambda site: site.send_two(world.update(3), world.update(4))),
    "correction": lambda site: site.send(_correction()),
    "accept correction": lambda site: _accept(site, _correction()),
    "upload to withdraw": _beside(lambda site: site.send(world.update(5))),
    "withdraw": lambda site: _withdraw(site, world.update(5)),
    "close": _close,
    "fuse": Site.work,
    "late": _beside(lambda site: site.send(world.update(6))),
    "accept late": lambda site: _accept(site, world.update(6)),
    "fuse again": _fuse_again,
    "publish again": Site.work,
}
MANY = {
    "begin",
    "enrol",
    "two uploads",
    "fuse",
    "publish again",
}  # steps of several transactions: more states lie between
FIRST = {1, 2, 3, 4}  # clients in the first model, the third with its correction
SECOND = {1, 3, 4, 6}


# --- what is there --------------------------------------------------------------------------------------------------


def view(site: Site) -> View:
    """Everything the hub's promises speak of, without moments and random names."""
    import sqlalchemy as sa

    from fusionlearn.hub import tables

    def rows(table: sa.Table, *columns: str) -> list[dict[str, Any]]:
        chosen = sa.select(*(table.c[column] for column in columns)).order_by(*(table.c[column] for column in columns))
        return [dict(row._mapping) for row in connection.execute(chosen)]

    with site.hub.reading() as connection:
        return {
            "projects": rows(tables.project, "name", "events"),
            "keys": [
                {**row, "revoked": row["revoked"] is not None} for row in rows(tables.member, "key", "role", "revoked")
            ],
            "tasks": rows(tables.task, "digest", "sha256", "state"),
            "updates": rows(tables.update, "digest", "signer", "state", "sha256"),
            "answers": rows(tables.answer, "task", "person", "digest"),
            "pieces": rows(tables.chunk, "digest", "start", "bytes"),
            "versions": [
                {**row, "members": sorted(row["members"])}
                for row in rows(tables.version, "number", "state", "members", "digest", "report")
            ],
        }


def difference(found: View, expected: View) -> str:
    """Rows that one view has and the other has not."""
    told = []
    for name in expected:
        told += [f"+ {name} {row}" for row in found[name] if row not in expected[name]]
        told += [f"- {name} {row}" for row in expected[name] if row not in found[name]]
    return "; ".join(told)[:600]


def torn(site: Site) -> list[str]:
    """What is broken: the log, objects that rows name, any object under a digest's name."""
    import sqlalchemy as sa

    from fusionlearn.hub import audit, tables

    found = []
    with site.hub.reading() as connection:
        there = connection.execute(sa.select(tables.project.c.name)).all()
        if there and (told := audit.verify(connection, PROJECT)):
            found.append(told)
        for sha256, content in connection.execute(
            sa.select(tables.update.c.sha256, tables.body.c.content).join_from(tables.update, tables.body)
        ):
            if hashlib.sha256(content).hexdigest() != sha256:
                found.append(f"{sha256} is torn beside its row")
    folder = site.hub.store.folder
    for name in _referenced(site):
        if not (folder / name).is_file():
            found.append(f"{name} is gone")
    for path in folder.rglob("*"):
        if path.is_file() and "#" not in path.name and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            found.append(f"{path.relative_to(folder)} is torn")
    return found


def canaries(site: Site, number: str, expected: set[int]) -> list[str]:
    """Whether a model holds each expected client's record once."""
    from fusionlearn import file
    from fusionlearn.hub import fusions
    from fusionlearn.hub.store import blob
    from fusionlearn.types import Report

    row = fusions.version(site.hub, PROJECT, site.task, number)
    report = file.from_bytes(site.hub.store.get(blob(row.report_sha256)), Report, place="report")
    records, whose = world.counted(report)
    chosen = [_correction() if client == 3 else world.update(client) for client in sorted(expected)]
    found = []
    if whose != expected:
        found.append(f"model {number} holds clients {sorted(whose)}, not {sorted(expected)}")
    if records != len(expected):
        found.append(f"model {number} holds {records} records of {len(expected)} clients")
    if row.digest != world.fused(chosen):
        found.append(f"model {number} is not the one that the files give")
    return found


# --- in processes of their own --------------------------------------------------------------------------------------


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run in a child process: its exit status (negative: the signal that ended it), and what it returned as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            signal.alarm(60)
            told = json.dumps(work()).encode()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(told)
            status = 0
        except BaseException:  # noqa: BLE001 - the parent is told by the status; a person by the trace
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(told) if told else None


def do(folder: Path, step: str) -> View:
    """One step in a fresh process; the view after it."""
    site = Site(folder)
    STEPS[step](site)
    return view(site)


def recovered(folder: Path, step: str, after: View, between: list[View], *, on: bool) -> dict[str, Any]:
    """What a new process finds, after a kill in this step; `on`: do all the steps that follow as well."""
    began = time.perf_counter()
    site = Site(folder, ahead=31.0)  # a lease of a worker that died has run out
    site.hub.check()
    found = view(site)
    ready = time.perf_counter() - began
    faults = []
    if found not in between and step not in MANY:
        faults.append(f"between two states: {difference(found, between[1])}")
    faults += torn(site)
    STEPS[step](site)
    if view(site) != after:
        faults.append(f"done again, it ended elsewhere: {difference(view(site), after)}")
    if on:
        names = list(STEPS)
        for later in names[names.index(step) + 1 :]:
            STEPS[later](site)
        faults += canaries(site, "1", FIRST) + canaries(site, "2", SECOND)
    site.hub.store.sweep(_referenced(site), now=time.time() + 2 * 24 * 3600)
    faults += torn(site)
    left = {str(path.relative_to(site.hub.store.folder)) for path in site.hub.store.folder.rglob("*") if path.is_file()}
    if left != _referenced(site):
        faults.append("the sweep left or took what it should not have")
    return {"ready": ready, "faults": faults}


def _referenced(site: Site) -> set[str]:
    from fusionlearn.hub import fusions

    with site.hub.reading() as connection:
        return fusions.named(connection)


def failing(folder: Path, step: str, control: faults.Faults, call: int, error: int, after: View) -> dict[str, Any]:
    """One call of a step fails, or all from that one on; then the disk is well again, and the step is done again."""
    site = Site(folder)
    control.arm(faults.FAIL, call, until=faults.FOR_EVER if error == errno.ENOSPC else call + 1, error=error)
    found, told = [], ""
    try:
        STEPS[step](site)
    except Exception as refusal:  # noqa: BLE001 - what it is, is what is asked
        told = f"{type(refusal).__name__} {getattr(refusal, 'status', '')}"
        if getattr(refusal, "status", 0) != 503 or "Retry-After" not in getattr(refusal, "headers", {}):
            found.append(f"failed with {told}: {refusal}"[:400])
    hits, last = control.hits, control.last
    control.disarm()
    if not told and view(site) != after:
        found.append("it was acknowledged and is not there")
    found += torn(site)
    site.clock.ahead = 31.0  # a lease of a worker that failed has run out
    STEPS[step](site)
    if view(site) != after:
        found.append(f"done again, it ended elsewhere: {difference(view(site), after)}")
    return {"ready": 0.0, "hits": hits, "last": last, "refused": bool(told), "faults": found + torn(site)}


def fail_everywhere(points: int, folder: Path, *, first: float = 0.0) -> Tally:
    """Let the disk fail at so many points: EIO once, or no space from there on."""
    warm()
    tally = Tally()
    live = folder / "live"
    control = faults.Faults(Path(os.environ["FAULTS"]), live)
    control.disarm()
    views: list[View] = [{}]
    names = list(STEPS)

    def counted(step: str) -> dict[str, Any]:
        site = Site(live)
        control.count()
        STEPS[step](site)
        tally_calls = control.seen
        control.disarm()
        return {"calls": tally_calls, "view": view(site)}

    for number, step in enumerate(names):
        shutil.copytree(live, folder / str(number))
        status, told = forked(lambda step=step: counted(step))
        assert status == 0, f"step '{step}' fails undisturbed"
        tally.calls[step] = told["calls"]
        views.append(told["view"])
    places = [(number, call) for number, step in enumerate(names) for call in range(1, tally.calls[step] + 1)]
    for point in range(points):
        number, call = places[int((point / points + first) * len(places)) % len(places)]
        shutil.rmtree(live)
        shutil.copytree(folder / str(number), live)
        error = (errno.EIO, errno.ENOSPC)[point % 2]
        status, told = forked(
            lambda step=names[number], number=number, call=call, error=error: failing(
                live, step, control, call, error, views[number + 1]
            )
        )
        where = f"{names[number]}, call {call} of {tally.calls[names[number]]}, {errno.errorcode[error]}"
        control.disarm()
        if status != 0:
            tally.faults.append(f"{where}: the process ended with {status}")
            continue
        tally.points += bool(told["hits"])
        tally.survived += not told["refused"]
        tally.faults += [f"{where} ({told['last']}): {fault}" for fault in told["faults"]]
    return tally


@dataclass
class Tally:
    """What all points together gave."""

    points: int = 0  # processes killed
    survived: int = 0  # … that ended before the chosen call
    slowest: float = 0.0  # seconds until a hub answered after a kill
    calls: dict[str, int] = field(default_factory=dict)  # changes to the folder that each step makes
    faults: list[str] = field(default_factory=list)


def kill_everywhere(points: int, folder: Path, *, first: float = 0.0, seconds: float = 1e9) -> Tally:
    """Kill at so many points, spread evenly over all steps' calls from this share of them on.

    Stops early after so many seconds.
    """
    warm()
    began = time.monotonic()
    tally = Tally()
    live = folder / "live"
    control = faults.Faults(Path(os.environ["FAULTS"]), live)
    control.disarm()
    views: list[View] = [{}]
    names = list(STEPS)
    for number, step in enumerate(names):
        shutil.copytree(live, folder / str(number))
        control.count()
        status, after = forked(lambda step=step: do(live, step))
        assert status == 0, f"step '{step}' fails undisturbed"
        tally.calls[step] = control.seen
        control.disarm()
        views.append(after)
    places = [(number, call) for number, step in enumerate(names) for call in range(1, tally.calls[step] + 1)]
    chosen = [places[int((part / points + first) * len(places)) % len(places)] for part in range(points)]
    random.Random(0).shuffle(chosen)  # so that stopping early leaves no step out
    for point, (number, call) in enumerate(chosen):
        if time.monotonic() - began > seconds:
            break
        shutil.rmtree(live)
        shutil.copytree(folder / str(number), live)
        control.arm(faults.TEAR if point % 2 else faults.KILL, call)
        status, _ = forked(lambda step=names[number]: do(live, step))
        where = f"{names[number]}, call {call} of {tally.calls[names[number]]} ({control.last})"
        control.disarm()
        if status == 0:
            tally.survived += 1
            continue
        if status != -signal.SIGKILL:
            tally.faults.append(f"{where}: the step failed instead of being killed")
            continue
        tally.points += 1
        between = views[number : number + 2]
        on = point % 8 == 0
        status, told = forked(
            lambda step=names[number], number=number, between=between, on=on: recovered(
                live, step, views[number + 1], between, on=on
            )
        )
        if status != 0:
            tally.faults.append(f"{where}: the hub does not come back")
            continue
        tally.slowest = max(tally.slowest, told["ready"])
        tally.faults += [f"{where}: {fault}" for fault in told["faults"]]
    return tally


def warm() -> None:
    """Make and import before forking whatever children need; no thread may start here."""

    from fusionlearn import report, run  # noqa: F401
    from fusionlearn.hub import audit, fusions, members, tasks, uploads, worker  # noqa: F401

    world.fused([world.update(1), world.update(2)])

    for client in range(1, world.CLIENTS + 1):
        world.content(world.update(client))
    world.content(_correction())


def run(points: int, *, first: float = 0.0, seconds: float = 1e9, kind: str = "kill") -> dict[str, Any]:
    """Kill (or, kind "fail", let the disk fail) at so many points, in a process that has the shim; what it found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "live").mkdir()
        control = faults.Faults(folder / "control", folder / "live")
        command = [sys.executable, __file__, str(points), str(first), str(seconds), str(folder), kind]
        done = subprocess.run(command, env=os.environ | control.environment(), stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main(points: int, first: float, seconds: float, folder: Path, kind: str) -> None:
    """The process with the shim."""
    began = time.monotonic()
    if kind == "kill":
        tally = kill_everywhere(points, folder, first=first, seconds=seconds)
    else:
        tally = fail_everywhere(points, folder, first=first)
    print(json.dumps({**vars(tally), "seconds": time.monotonic() - began}))  # noqa: T201


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
    else:
        found = run(int(sys.argv[1]))
        print(json.dumps(found, indent=1))  # noqa: T201
        sys.exit(bool(found["faults"]) or found["slowest"] > READY)
