"""Kill -9, spread over everything a hub does: nothing acknowledged is lost, nothing counts twice, nothing is torn."""

import os
import random
import signal
import time
from pathlib import Path

import httpx
import pytest
from tests import hub_faults as faults
from tests import hub_kills
from tests import hub_world as world
from tests.hub_process import Net, Served

from fusionlearn import file, keys
from fusionlearn.types import Report

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')
pytestmark = pytest.mark.skipif(faults.shim_file() is None, reason="needs Linux and a C compiler: faults by count")
POINTS = int(os.environ.get("FUSIONLEARN_KILLS", "40"))
SERVERS = int(os.environ.get("FUSIONLEARN_SERVER_KILLS", "1"))


def patience() -> float:
    """Seconds until a hub has to be ready: as much longer as others use the machine."""
    return hub_kills.READY * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.parametrize("part", range(2))
def test_a_hub_that_is_killed_at_any_call_goes_on_as_if_nothing_had_been(part: int) -> None:
    told = hub_kills.run(POINTS // 2, first=part / POINTS)
    assert told["points"] >= 0.95 * (POINTS // 2)
    assert told["faults"] == []
    assert told["slowest"] <= patience()
    assert min(told["calls"].values()) > 10 and sum(told["calls"].values()) > 500


def script(net: Net, acknowledged: dict[str, bytes]) -> str:
    """A round, each request as often as it takes; the model's digest. Acknowledged receipts are noted."""
    owner, task = world.key(world.OWNER), world.task()
    base = f"/v1/projects/default/tasks/{file.digest(task)}"
    assert net("PUT", base, owner, world.content(task)).status_code in (200, 201)
    for client in (1, 2, 3):
        body = {"key": world.public(client), "role": "client", "name": f"client {client}"}
        assert net("POST", "/v1/projects/default/keys", owner, body).status_code == 201
    for client in (1, 2, 3):
        update = world.update(client)
        path, content = f"{base}/updates/{file.digest(update)}", world.content(update)
        answer = in_pieces(net, path, client, content) if client == 3 else net("PUT", path, world.key(client), content)
        assert answer.status_code in (200, 201), answer.text
        assert acknowledged.setdefault(path, answer.content) == answer.content  # the same receipt, always
    assert net("POST", f"{base}/close", owner).status_code == 202
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = net("GET", f"{base}/status", world.key(1)).json()
        if status["model"]:
            model = net("GET", f"{base}/models/latest", world.key(1))
            assert file.digest(world.model(model.content)) == status["model"]["digest"]
            report = net("GET", f"{base}/models/latest/report", owner)
            assert world.counted(file.from_bytes(report.content, Report)) == (3, {1, 2, 3})
            return str(status["model"]["digest"])
        assert status["state"] in ("fusing", "closed"), status
        time.sleep(0.1)
    raise AssertionError("no model within a minute")


def in_pieces(net: Net, path: str, client: int, content: bytes) -> httpx.Response:
    """An upload by pieces, from where the hub says."""
    there = net("HEAD", path, world.key(client))
    have = 0 if there.status_code == 404 else int(there.headers["upload-offset"])
    if there.status_code == 200 and there.headers["upload-complete"] == "?1":
        return net("PUT", path, world.key(client), content)
    while True:
        piece = content[have : have + hub_kills.PIECE]
        headers = {"upload-offset": str(have), "upload-length": str(len(content))}
        answer = net("PATCH", path, world.key(client), piece, headers)
        if answer.status_code != 204:
            return answer
        have = int(answer.headers["upload-offset"])


@pytest.mark.timeout(600)
def test_hubs_and_workers_that_are_killed_as_processes(tmp_path: Path) -> None:
    """The whole product: `serve`, its worker, HTTP. Killed by count, where files change and where answers leave."""
    expected = world.fused([world.update(client) for client in (1, 2, 3)])
    rng = random.Random(5)
    slowest, killed = 0.0, 0
    calls = 0
    for point in range(-1, SERVERS):
        folder = tmp_path / str(point)
        data = folder / "data"
        data.mkdir(parents=True)
        keys.save(world.key(world.HUB), folder / "key")
        project = world.hub(data)  # where `serve` keeps it: a project owned by the test's owner
        from fusionlearn.hub import members

        members.make_project(project, "default", world.public(world.OWNER))
        project.close()
        control = faults.Faults(folder / "control", data)
        served = Served(folder, environment=control.environment()).start()
        classes = faults.FILES | faults.SEND
        if point < 0:  # undisturbed: how many calls there are
            control.count(classes)
        else:
            at = 1 + int((point + rng.random()) * calls / SERVERS)
            control.arm(faults.TEAR if point % 2 else faults.KILL, at, classes=classes)
        acknowledged: dict[str, bytes] = {}
        for attempt in range(4):
            net = Net(served.url)
            try:
                assert script(net, acknowledged) == expected
                break
            except httpx.TransportError:
                assert attempt < 3
                assert served.process is not None
                assert served.process.wait(10) == -signal.SIGKILL
                killed += 1
                control.disarm()
                served.start()
                slowest = max(slowest, served.ready)
            finally:
                net.close()
        if point < 0:
            calls = control.seen
        served.stop()
        assert "Traceback" not in served.log.read_text()
    assert calls > 200
    assert killed >= SERVERS // 2  # some points kill the worker, which its hub follows with another
    assert slowest <= patience()
