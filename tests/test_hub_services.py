"""PostgreSQL and S3: two hub processes and two workers beside one another, and the same model as from files alone."""

import concurrent.futures
import datetime
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import hub_world as world
from tests.hub_process import Net, Served
from tests.hub_services import S3, Postgres, postgres, s3

from fusionlearn import datasets, file, run, settings
from fusionlearn.agent import wire

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')
psycopg = pytest.importorskip("psycopg", reason='PostgreSQL needs psycopg: pip install "fusionlearn[postgresql]"')
from sqlalchemy import make_url  # noqa: E402
from tests.test_hub_operator import operate  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Postgres, S3]]:
    with postgres() as database, s3() as store:
        yield database, store


@pytest.fixture(scope="module")
def hubs(services: tuple[Postgres, S3], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    """Two hubs, each with a worker of its own, that share a database and a store."""
    database, store = services
    folder = tmp_path_factory.mktemp("hubs")
    made = [
        Served(folder / name, "--database", database.url, "--store", store.url, environment=store.environment)
        for name in ("first", "second")
    ]
    with made[0], made[1]:
        yield made
    for hub in made:
        assert "Traceback" not in hub.log.read_text()
    shutil.rmtree(folder)


@pytest.fixture
def nets(hubs: list[Served]) -> Iterator[list[Net]]:
    made = [Net(hub.url) for hub in hubs]
    yield made
    for net in made:
        net.close()


def until(net: Net, base: str, key: Any, version: int = 1) -> dict[str, Any]:
    """The status once this version is published."""
    for _ in range(600):
        told: dict[str, Any] = net("GET", f"{base}/status", key).json()
        if told["model"] and told["model"]["version"] >= version:
            return told
        assert told["state"] != "failed", told
        time.sleep(0.1)
    raise AssertionError("no model within a minute")


def joined(nets: list[Net], owner: Any, number: int) -> Any:
    """A new key, let in by a code that one hub gave and the other took."""
    code = nets[0]("POST", "/v1/projects/default/codes", owner, {"role": "client"}).json()["code"]
    key = world.key(5000 + number)
    assert nets[1]("POST", "/v1/enrol", key, {"code": code, "name": f"site {number}"}).status_code == 201
    return key


def test_four_hospitals_over_two_hubs_give_the_model_of_the_files(real_data: Path, nets: list[Net]) -> None:
    owner = world.key(world.HUB)
    task = file.sign(settings.task_from_toml(ROOT / "examples" / "hospitals" / "task.toml"), owner)
    tables = [train for train, _ in datasets.fed_heart_disease(seed=43).values()]
    base = f"/v1/projects/default/tasks/{file.digest(task)}"
    assert nets[0]("PUT", base, owner, file.to_bytes(task)).status_code == 201
    assert nets[1]("PUT", base, owner, file.to_bytes(task)).status_code == 200
    updates = []
    for number, table in enumerate(tables):
        key = joined(nets, owner, number)
        update = file.sign(run.summarize(task, table), key)
        path = f"{base}/updates/{file.digest(update)}"
        first = nets[number % 2]("PUT", path, key, file.to_bytes(update))
        again = nets[1 - number % 2]("PUT", path, key, file.to_bytes(update))
        assert (first.status_code, again.status_code) == (201, 200) and first.json() == again.json()
        updates.append(update)
    assert nets[1]("POST", f"{base}/close", owner).status_code == 202
    told = until(nets[0], base, owner)
    alone = file.digest(file.sign(run.fuse(task, updates)[0], owner))
    assert told["model"]["digest"] == alone
    for net in nets:
        fetched = net("GET", f"{base}/models/latest", owner)
        assert file.digest(world.model(fetched.content)) == alone
        assert (
            net("GET", f"{base}/models/latest", owner, headers={"if-none-match": fetched.headers["etag"]}).status_code
            == 304
        )
    log = [
        event for start in (0,) for event in nets[1]("GET", f"/v1/projects/default/audit?after={start}", owner).json()
    ]
    assert [event["number"] for event in log] == list(range(1, len(log) + 1))


def test_races_over_two_hubs_have_one_winner(nets: list[Net]) -> None:
    """A hundred uploads of one client, two different ones; thirty claims of one code; forty askers of one model."""
    owner, task = world.key(world.HUB), file.sign(world.task(name="races", columns=4), world.key(world.HUB))
    base = f"/v1/projects/default/tasks/{file.digest(task)}"
    assert nets[0]("PUT", base, owner, file.to_bytes(task)).status_code == 201
    clients = [joined(nets, owner, 10 + number) for number in range(2)]
    made = [
        file.sign(world.Update(file.digest(task), world.arrays(number + 1, again, 4, world.CLIENTS)), key)
        for number, key in enumerate(clients)
        for again in (0, 1)
    ]

    def put(number: int) -> int:
        update = made[number % 2]
        return nets[number // 2 % 2](
            "PUT", f"{base}/updates/{file.digest(update)}", clients[0], file.to_bytes(update)
        ).status_code

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = sorted(pool.map(put, range(60)))
        assert statuses.count(201) == 1 and set(statuses) == {200, 201, 409}
        assert statuses.count(409) == 30
        code = nets[0]("POST", "/v1/projects/default/codes", owner, {"uses": 3}).json()["code"]
        claims = pool.map(
            lambda n: nets[n % 2]("POST", "/v1/enrol", world.key(6000 + n), {"code": code}).status_code, range(30)
        )
        assert sorted(claims) == [201] * 3 + [403] * 27
        other = made[2]
        assert (
            nets[1]("PUT", f"{base}/updates/{file.digest(other)}", clients[1], file.to_bytes(other)).status_code == 201
        )
        closing = pool.map(lambda n: nets[n % 2]("POST", f"{base}/close", owner).status_code, range(20))
        assert set(closing) == {202}
    until(nets[0], base, owner)
    time.sleep(1)  # for a second worker, were it to publish once more
    assert len(nets[1]("GET", f"{base}/models", owner).json()) == 1


def test_a_database_that_goes_and_comes_back(services: tuple[Postgres, S3], nets: list[Net]) -> None:
    """503 and Retry-After while it is gone; nothing acknowledged is lost; the hub recovers by itself."""
    database, _ = services
    owner, task = world.key(world.HUB), file.sign(world.task(name="gone", columns=4), world.key(world.HUB))
    base = f"/v1/projects/default/tasks/{file.digest(task)}"
    assert nets[0]("PUT", base, owner, file.to_bytes(task)).status_code == 201
    clients = [joined(nets, owner, 20 + number) for number in range(2)]
    made = [
        file.sign(world.Update(file.digest(task), world.arrays(number + 1, 0, 4, world.CLIENTS)), key)
        for number, key in enumerate(clients)
    ]
    paths = [f"{base}/updates/{file.digest(update)}" for update in made]
    receipt = nets[0]("PUT", paths[0], clients[0], file.to_bytes(made[0]))
    assert receipt.status_code == 201
    database.stop()
    try:
        for net in nets:
            for answer in (
                net("PUT", paths[1], clients[1], file.to_bytes(made[1])), net("GET", f"{base}/status", clients[0]),
                net("GET", "/v1/ready"),
            ):  # fmt: skip
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0 and "nothing was taken" in answer.json()["error"]
            assert net("GET", "/v1/health").status_code == 200
    finally:
        database.start()
    assert nets[1]("PUT", paths[0], clients[0], file.to_bytes(made[0])).json() == receipt.json()
    assert nets[1]("PUT", paths[1], clients[1], file.to_bytes(made[1])).status_code == 201
    assert nets[0]("POST", f"{base}/close", owner).status_code == 202
    assert until(nets[0], base, owner)["model"]["members"] == 2


def test_a_bucket_that_is_not_there_is_told(
    services: tuple[Postgres, S3], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a look at the bucket itself a hub with a wrong one would call itself ready."""
    from fusionlearn.hub import refusal
    from fusionlearn.hub.store import Store

    for name, value in services[1].environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(refusal, "_told", {})
    Store(services[1].url).check()
    for _ in range(3):
        with pytest.raises(refusal.Refusal, match="file store cannot be reached"):
            Store("s3://another/hub").check()
    assert len(caplog.messages) == 1 and "404 Not Found" in caplog.messages[0]


def test_a_store_that_is_silent_is_given_up(services: tuple[Postgres, S3], monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and never answers: a client is told within its own patience, and the hub goes on after."""
    from fusionlearn.hub import refusal
    from fusionlearn.hub import store as module

    for name, value in services[1].environment.items():
        monkeypatch.setenv(name, value)
    assert datetime.timedelta(seconds=wire.TIMEOUT) > module.ANSWER + module.TRYING
    monkeypatch.setattr(module, "ANSWER", datetime.timedelta(seconds=1))
    monkeypatch.setattr(module, "TRYING", datetime.timedelta(seconds=0.5))
    store = module.Store(services[1].url)
    store.put("blobs/00/silent", b"x")
    services[1].process.send_signal(signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = [
                pool.submit(store.put, "blobs/00/more", b"y"), pool.submit(store.get, "blobs/00/silent"),
                pool.submit(store.check),
            ]  # fmt: skip
            for each in asked:
                with pytest.raises(refusal.Refusal, match="nothing was taken"):
                    each.result(timeout=100)
    finally:
        services[1].process.send_signal(signal.SIGCONT)
    assert store.get("blobs/00/silent") == b"x"


def test_a_database_that_lets_nobody_in_is_one_sentence(services: tuple[Postgres, S3], tmp_path: Path) -> None:
    database = services[0]
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create role guest login")
    right = make_url(database.url)
    for url, why in (
        (right.set(database="nowhere"), 'database "nowhere" does not exist'),
        (right.set(username="guest"), "permission denied"),
        (right.set(port=1), "Connection refused"),
    ):
        told = operate(tmp_path, "serve", "--database", url.render_as_string(hide_password=False))
        assert told.exit_code == 1 and "does not let this hub in" in told.output and why in told.output
        assert len(told.output.strip().splitlines()) <= 2  # the first run also tells of the key it made
