"""Simulation: one result wherever it is computed, workers that die, seeds that are kept, one sentence for a fault."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import rounds

from fusionlearn import cli, file, partition, run
from fusionlearn.errors import DataError, FileError, SettingsError
from fusionlearn.simulate import compare, open_runner, picture, runners, simulate
from fusionlearn.simulate.runners import Processes, WorkerError
from fusionlearn.simulate.simulation import rows_of, work
from fusionlearn.simulate.spool import Spool

KINDS = ("iid", "dirichlet:0.1", "dirichlet-client:0.3", "shards:2", "quantity:0.5", "feature:0.9")


def table(rows: int = 240) -> dict[str, Any]:
    """Rows of twelve clients in one table."""
    parts = [rounds.records(client, rows // 12) for client in range(12)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# --- partitions -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS), rows=st.integers(24, 120), clients=st.integers(1, 12), seed=st.integers(0, 2**32),
    classes=st.integers(1, 5),
)  # fmt: skip
def test_every_partition_is_disjoint_complete_and_the_same_for_its_seed(kind, rows, clients, seed, classes):
    rng = np.random.default_rng(seed)
    labels, columns = rng.integers(0, classes, rows), {"x": rng.standard_normal(rows), "w": np.ones(rows)}
    first, names = partition.parse(kind).split(labels, columns, clients, rng=np.random.default_rng(seed))
    again, _ = partition.parse(kind).split(labels, columns, clients, rng=np.random.default_rng(seed))
    partition.check(first, rows)
    assert len(first) == len(names) == clients
    assert partition.digest(first) == partition.digest(again)


def test_each_kind_is_skewed_in_its_own_way():
    labels = np.repeat(np.arange(10), 100)
    columns = {"x": np.random.default_rng(1).standard_normal(1000)}

    def parts(kind: str) -> list[Any]:
        return partition.parse(kind).split(labels, columns, 10, rng=np.random.default_rng(0))[0]

    def classes(kind: str) -> float:
        return float(np.mean([len(np.unique(labels[part])) for part in parts(kind)]))

    assert classes("shards:2") <= 4 and classes("iid") == 10
    tops = {kind: np.mean([np.bincount(labels[part]).max() / len(part) for part in parts(kind)])
            for kind in ("dirichlet-client:0.1", "dirichlet-client:100")}  # fmt: skip
    assert tops["dirichlet-client:0.1"] > 0.4 and tops["dirichlet-client:100"] < 0.25
    assert {len(part) for part in parts("iid")} == {len(part) for part in parts("dirichlet-client:0.1")} == {100}
    sizes = sorted(len(part) for part in parts("quantity:0.3"))
    assert sizes[-1] > 5 * sizes[0] and sizes[0] >= 1
    means = sorted(abs(columns["x"][part].mean()) for part in parts("feature:1"))
    assert means[-1] > 1.5 and max(abs(columns["x"][part].mean()) for part in parts("feature:0")) < 0.5


def test_a_column_says_who_the_clients_are():
    wards = np.array(["north", "west", "north", "süd"])
    parts, names = partition.parse("column:ward").split(np.zeros(4, int), {"ward": wards}, 99, rng=None)
    assert names == ["north", "süd", "west"] and [part.tolist() for part in parts] == [[0, 2], [3], [1]]


@pytest.mark.parametrize(
    ("kind", "clients", "sentence"),
    [
        ("iid", 241, "241 clients cannot share 240 rows"), ("iid", 0, "1 or more"), ("dirichlet:0", 3, "above 0"),
        ("dirichlet:-1", 3, "above 0"), ("dirichlet:nan", 3, "above 0"), ("dirichlet:x", 3, "needs a number"),
        ("column:nobody", 3, "no column 'nobody'"), ("shards:0", 3, "whole number"), ("shards:100", 3, "cannot share"),
        ("feature:2", 3, "0 to 1"), ("dirichlet", 3, "is no partition"), ("spiral:2", 3, "is no partition"),
        ("iid:3", 3, "is no partition"), ("dirichlet-client:0", 2, "above 0"), ("quantity:0", 2, "above 0"),
    ],
)  # fmt: skip
def test_a_partition_that_cannot_be_is_one_sentence(kind: str, clients: int, sentence: str):
    data = table()
    with pytest.raises(SettingsError, match=sentence):
        partition.parse(kind).split(data["ill"], data, clients, rng=np.random.default_rng(0))


def test_a_saved_partition_is_read_again_or_refused(tmp_path: Path):
    parts, names = partition.parse("dirichlet:0.1").split(table()["ill"], {}, 5, rng=np.random.default_rng(0))
    partition.save(tmp_path / "parts.json", parts, names)
    found = partition.load(tmp_path / "parts.json", 240)
    assert partition.digest(found.parts) == partition.digest(parts) and found.names == names and found.held_out is None
    with pytest.raises(SettingsError, match="240"):
        partition.load(tmp_path / "parts.json", 241)
    told = json.loads((tmp_path / "parts.json").read_text())
    told["rows"][0], told["rows"][1] = told["rows"][1], told["rows"][0]
    (tmp_path / "parts.json").write_text(json.dumps(told))
    with pytest.raises(FileError, match="altered"):
        partition.load(tmp_path / "parts.json", 240)
    for content in ("{}", "[1]", "nothing", '{"rows": [[1e99]], "clients": ["a"], "digest": ""}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(FileError):
            partition.load(tmp_path / "bad.json", 240)


# --- simulation -----------------------------------------------------------------------------------------------------


def split(data: Any, clients: int = 12) -> list[Any]:
    return partition.parse("dirichlet:0.1").split(data["ill"], data, clients, rng=np.random.default_rng(3))[0]


@pytest.mark.parametrize("method", ["ridge", "ensemble"])
def test_it_is_what_the_verbs_give(method: str):
    task, data = rounds.task(method), table()
    parts = split(data)
    found = simulate(task, data, parts, seed=5)
    taking = [part for part in parts if len(part)]
    seeds = [np.random.SeedSequence(5, spawn_key=(0, number)) for number, part in enumerate(parts) if len(part)]
    updates = [
        run.summarize(task, rows_of(data, part), rng=np.random.default_rng(seed))
        for part, seed in zip(taking, seeds, strict=True)
    ]
    model, _ = run.fuse(task, updates, rng=np.random.default_rng(np.random.SeedSequence(5, spawn_key=(1,))))
    assert file.digest(found.model) == file.digest(model)
    assert found.clients == len(taking) and found.empty == len(parts) - len(taking)
    assert found.upload_bytes == sum(len(file.to_bytes(update)) for update in updates)


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_the_runner_does_not_matter(runner: str):
    if runner == "dask":
        pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    task, data = rounds.task("forest"), table()
    parts = split(data)
    here = simulate(task, data, parts, seed=1)
    there = simulate(task, data, parts, seed=1, runner=runner, workers=2)
    assert file.digest(here.model) == file.digest(there.model)
    assert here.upload_bytes == there.upload_bytes


def deadly(item: tuple[int, str]) -> int:
    """Kills its worker the first time it is asked for number 3."""
    number, mark = item
    if number == 3 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def shared(large: bytes, small: bytes, item: int) -> tuple[bytes, bytes, int, bool]:
    """The end of what is large, what is small, the item; whether this process has a module loaded."""
    return large[-4:], small, item, "sklearn" in sys.modules


def hopeless(item: int) -> int:
    """Kills its worker every time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_the_work_of_a_killed_worker_is_done_again(tmp_path: Path):
    with Processes(2) as pool:
        found = list(pool(deadly, ((number, str(tmp_path / "mark")) for number in range(9))))
    assert found == [number * number for number in range(9)]
    assert (tmp_path / "mark").exists()


def kills_once(mark: str, content: bytes, job: Any) -> Any:
    """A client's very work; whoever comes third is killed in the middle, once."""
    if job.entropy[-1] >= 3 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(content, job)


@pytest.mark.parametrize(("runner", "workers"), [("processes", 2), ("dask", 2), ("dask", 1)])
def test_a_worker_killed_in_mid_run_changes_nothing(runner: str, workers: int, tmp_path: Path):
    if runner == "dask":
        pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    data = table()
    prior = {"unused": np.zeros(2**18)} if runner == "dask" else {}  # 2 MiB: goes to the cluster once, and is lost
    task, parts = rounds.task("ridge", prior=prior), split(data)
    with open_runner(runner, workers) as opened:

        def unlucky(function: Any, items: Any) -> Any:
            return opened(functools.partial(kills_once, str(tmp_path / "mark"), *function.args), items)

        found = simulate(task, data, parts, runner=unlucky, seed=2)
    assert (tmp_path / "mark").exists()
    assert file.digest(found.model) == file.digest(simulate(task, data, parts, seed=2).model)


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_a_fault_in_a_clients_rows_is_the_same_sentence_everywhere(runner: str):
    if runner == "dask":
        pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    data = table()
    data["age"][7] = 1e6
    parts = [np.arange(120), np.arange(120, 240)]
    told = []
    for name in ("serial", runner):
        with pytest.raises(DataError, match="client 1's rows: column 'age'") as caught:
            simulate(rounds.task(), data, parts, runner=name, workers=1)
        told.append(str(caught.value))
    assert told[0] == told[1] and "1000000" not in told[0] and "8" in told[0]


def test_work_that_kills_every_worker_is_one_sentence():
    with Processes(1) as pool, pytest.raises(WorkerError, match="enough memory"):
        list(pool(hopeless, range(2)))


def test_what_all_items_share_is_told_once_by_a_file_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    large, small = bytes(runners.LARGE) + b"end", b"small"
    with contextlib.ExitStack() as files:
        told = runners._told_once(functools.partial(shared, large, small), files)
        assert isinstance(told, functools.partial)
        assert len(repr(told.args)) < 1000  # what goes with every item
        assert told(7)[:3] == (b"\0end", small, 7)
    with open_runner("processes", 2, preload=["sklearn"]) as pool:
        results = pool(functools.partial(shared, large, small), range(4))
        first = next(results)
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path.stat().st_size for path in kept] == [len(large)]
        others = pool(functools.partial(shared, large[:-1], small), range(2))  # beside the first, not in its place
        assert [found[:3] for found in others] == [(large[:-1][-4:], small, number) for number in range(2)]
        found = [first, *results]
        assert [one[:3] for one in found] == [(large[-4:], small, number) for number in range(4)]
        assert all(one[3] for one in found)  # the workers began with what they were to load
        assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_only_so_many_items_are_taken_as_are_worked_on():
    taken = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    with Processes(2) as pool:
        results = pool(abs, items())
        assert next(results) == 0
        assert len(taken) <= 6
        assert list(results) == list(range(1, 40))


def test_after_an_error_workers_end_whatever_they_are_at():
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), Processes(2) as pool:  # noqa: PT012 - the error is the block's own
        results = pool(time.sleep, [0, 60, 60])
        next(results)
        workers = pool._context.started
        1 / 0  # noqa: B018
    assert workers and not any(process.is_alive() for process in workers) and time.monotonic() - began < 30


def test_an_unknown_runner_is_one_sentence():
    for name in ("threads", "serial:3", ""):
        with pytest.raises(SettingsError, match="no runner is called"), open_runner(name):
            pass


def test_a_client_without_a_complete_row_is_left_empty():
    data, parts = table(), [np.arange(0, 100), np.zeros(0, np.int64), np.arange(100, 103), np.arange(103, 240)]
    data["dose"][100:103] = np.nan
    task = rounds.task(missing="drop")
    found = simulate(task, data, parts)
    rest = simulate(task, {name: np.delete(cells, range(100, 103)) for name, cells in data.items()}, [
        np.arange(0, 100), np.zeros(0, np.int64), np.zeros(0, np.int64), np.arange(100, 237),
    ])  # fmt: skip
    assert (found.clients, found.empty) == (2, 2) == (rest.clients, rest.empty)
    assert file.digest(found.model) == file.digest(rest.model)
    data["dose"][:] = np.nan
    with pytest.raises(SettingsError, match="no client has a row"):
        simulate(task, data, parts)


def test_updates_beyond_what_memory_is_for_lie_on_disk_and_are_the_same(monkeypatch: pytest.MonkeyPatch):
    task, data = rounds.task("ensemble"), table()
    parts = split(data)
    here = simulate(task, data, parts)
    spools: list[Spool] = []

    def small(*_: Any) -> Spool:
        spools.append(Spool(room=1000))
        return spools[0]

    monkeypatch.setattr("fusionlearn.simulate.simulation.Spool", small)
    monkeypatch.setattr("fusionlearn.simulate.spool.CHUNK", 4096)  # several files
    there = simulate(task, data, parts)
    assert file.digest(here.model) == file.digest(there.model) and here.report.members == there.report.members
    assert spools[0].taken > spools[0].room and spools[0]._map is not None


def test_a_spool_gives_back_what_it_got():
    rng = np.random.default_rng(0)
    given = [
        {"w": rng.standard_normal((3, size)), "c": rng.integers(0, 9, size).astype(np.int32), "n": np.array(size)}
        for size in (1, 7, 0, 40_000, 3)
    ]
    spool = Spool(room=0)
    kept = [spool.keep(arrays) for arrays in given]
    for before, after in zip(given, kept, strict=True):
        for name, array in before.items():
            assert after[name].dtype == array.dtype and after[name].shape == array.shape
            assert (after[name] == array).all() and (not array.size or not after[name].flags.writeable)


def test_nobody_with_a_row_is_one_sentence():
    with pytest.raises(SettingsError, match="no client has a row"):
        simulate(rounds.task(), table(), [np.zeros(0, np.int64)])


# --- the command ----------------------------------------------------------------------------------------------------


def on_disk(folder: Path) -> tuple[str, str]:
    """A task and a table as files."""
    file.write(folder / "task", rounds.task())
    data = table()
    names = list(data)
    lines = [",".join(names), *(",".join(str(data[name][row]) for name in names) for row in range(240))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "task"), str(folder / "rows.csv")


def call(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(cli.main, [*map(str, arguments), "--json"])
    return json.loads(done.stdout.splitlines()[0]) | {"status": done.exit_code}


def test_finished_seeds_are_kept_and_gone_on_with(tmp_path: Path):
    task, rows = on_disk(tmp_path)
    out = tmp_path / "out.json"
    given = ("simulate", task, rows, "--partition", "dirichlet:0.5", "--clients", 6, "--out", out)
    two = call(*given, "--seeds", 2)
    kept = json.loads(out.read_text())
    kept["seeds"]["0"]["figures"]["accuracy"] = 0.123  # shows whether it was computed again
    out.write_text(json.dumps(kept))
    three = call(*given, "--seeds", 3, "--runner", "processes", "--workers", 2)
    assert two["status"] == three["status"] == 0 and list(three["seeds"]) == ["0", "1", "2"]
    assert three["seeds"]["0"]["figures"]["accuracy"] == 0.123
    assert three["seeds"]["1"]["model"] == two["seeds"]["1"]["model"]
    other = call("simulate", task, rows, "--partition", "iid", "--clients", 6, "--out", out)
    assert other["status"] == 1 and "other settings" in other["error"]
    out.write_text("{")
    assert "does not hold results" in call(*given)["error"]


def test_a_column_of_the_file_divides_and_a_picture_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    task, rows = on_disk(tmp_path)
    found = call("simulate", task, rows, "--partition", "column:ward", "--seeds", 1, "--picture", tmp_path / "who.png")
    assert found["seeds"]["0"]["clients"] == 3
    assert (tmp_path / "who.png").read_bytes().startswith(b"\x89PNG")
    refused = call("simulate", task, rows, "--partition", "column:floor")
    assert refused["status"] == 1 and "no column 'floor'" in refused["error"]


def interrupted(folder: Path, *arguments: object, group: bool, seeds_first: int) -> subprocess.CompletedProcess[str]:
    """The command, which gets Ctrl-C once so many seeds are finished; as from a keyboard, or it alone."""
    out = Path(str(arguments[arguments.index("--out") + 1]))
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionlearn", *map(str, arguments)], cwd=folder, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        # A job in the background of a shell is deaf to Ctrl-C, and so is what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if out.exists() and len(json.loads(out.read_text())["seeds"]) >= seeds_first:
            (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
            break
        time.sleep(0.01)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


def test_workers_compute_on_one_thread_and_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with Processes(1) as pool:
        assert list(pool(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("runner", "group"), [("serial", True), ("processes", True), ("processes", False), ("dask", True)]
)
def test_ctrl_c_keeps_finished_seeds_and_leaves_nobody_behind(runner: str, group: bool, tmp_path: Path):
    if runner == "dask":
        pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    task, rows = on_disk(tmp_path)
    out = tmp_path / "out.json"
    given = ("simulate", task, rows, "--clients", 6, "--partition", "iid", "--out", out, "--workers", 2)
    done = interrupted(tmp_path, *given, "--seeds", 2000, "--runner", runner, group=group, seeds_first=2)
    assert done.returncode == 130 and not done.stdout
    kept = json.loads(out.read_text())["seeds"]
    assert done.stderr.strip().splitlines()[-1] == (
        f"Error: interrupted: {len(kept)} finished seeds are kept in {out}; the same command goes on from there."
    )
    assert "Traceback" not in done.stderr
    more = call(*given, "--seeds", len(kept) + 1)
    assert {seed: more["seeds"][seed] for seed in kept} == kept
    assert str(tmp_path) not in folders_in_use(), "a worker was left behind"


def test_what_is_told_to_be_kept_is_what_the_file_holds(tmp_path: Path):
    """Ctrl-C just before the file is written."""
    from fusionlearn.cli.simulate import Results, going_on

    results = Results(tmp_path / "out.json", {})
    results.keep({"settings": {}, "seeds": {"0": 1}})
    results.known = {"settings": {}, "seeds": {"0": 1, "1": 2}}
    with pytest.raises(click.Abort, match="1 finished seed is kept"), going_on(results):
        raise KeyboardInterrupt


def folders_in_use() -> set[str]:
    """The working folders of all processes, where the system tells them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            found.add(str(path.readlink()))
    return found


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path):
    task, rows = on_disk(tmp_path)
    out = tmp_path / "out.json"
    given = ["--clients", "6", "--partition", "iid", "--seeds", "2000", "--runner", "processes", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionlearn", "simulate", task, rows, *given, "--out", str(out)], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    while str(tmp_path) in folders_in_use() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert str(tmp_path) not in folders_in_use()
    assert json.loads(out.read_text())["seeds"]


def test_a_saved_partition_gives_the_same_result_and_holds_the_same_rows_out(tmp_path: Path):
    task, rows = on_disk(tmp_path)
    given = ("simulate", task, rows, "--seeds", 1)
    first = call(*given, "--partition", "dirichlet:0.3", "--clients", 5, "--save-partition", tmp_path / "parts.json")
    again = call(*given, "--partition", f"file:{tmp_path / 'parts.json'}")
    assert first["seeds"]["0"]["model"] == again["seeds"]["0"]["model"]
    assert first["seeds"]["0"]["figures"] == again["seeds"]["0"]["figures"]
    assert first["seeds"]["0"]["partition"] == again["seeds"]["0"]["partition"]
    told = json.loads((tmp_path / "parts.json").read_text())
    assert told["digest"] == first["seeds"]["0"]["partition"] and len(told["held_out"]) == 60
    told["held_out"][0], told["held_out"][1] = told["rows"][0][0], told["held_out"][0]
    (tmp_path / "parts.json").write_text(json.dumps(told))
    refused = call(*given, "--partition", f"file:{tmp_path / 'parts.json'}")
    assert refused["status"] == 1 and "altered" in refused["error"]


def test_a_dirichlet_partition_counts_classes_as_the_task_does():
    data = table()  # ill is 0, 1 or 2, of which the task makes no and yes
    codes = compare.class_codes(rounds.task().schema, data)
    assert (codes == (data["ill"] != "0")).all()
    data["ill"] = [*data["ill"]]
    data["ill"][3], data["ill"][4], data["ill"][5] = "", "9", " 2.0"
    assert compare.class_codes(rounds.task().schema, data)[3:6].tolist() == [-1, -1, 1]
    days = compare.class_codes(rounds.task(regression=True).schema, data)
    assert days.dtype == np.float64 and set(partition.tenths(days)) == set(range(10))


def test_a_feature_shift_looks_at_the_tasks_features_alone(tmp_path: Path):
    data = table()
    assert set(compare.numbers(rounds.task().schema, data)) == {"age", "dose"}
    task, rows = on_disk(tmp_path)  # where every cell is a text
    parts_of = call("simulate", task, rows, "--partition", "feature:1", "--clients", 3, "--seeds", 1)
    assert parts_of["status"] == 0 and parts_of["seeds"]["0"]["clients"] == 3


def test_a_picture_of_any_labels_and_no_other_file(tmp_path: Path):
    pytest.importorskip("matplotlib")
    parts = [np.arange(100), np.zeros(0, np.int64), np.arange(100, 300)]
    rng = np.random.default_rng(0)
    for number, labels in enumerate((rng.integers(-1, 3, 300), rng.standard_normal(300), rng.integers(0, 40, 300))):
        path = tmp_path / f"{number}.svg"
        picture.draw(path, labels, parts, ["a", "b", "c" * 80], ["x", "y", "z"])
        assert b"<svg" in path.read_bytes()
    for name in ("who.csv", "who", "who.gif"):
        with pytest.raises(SettingsError, match="no name for a picture"):
            picture.draw(tmp_path / name, labels, parts, ["a", "b", "c"])


def test_a_cluster_starts_beside_another():
    pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    with open_runner("dask", 1) as first, open_runner("dask", 1) as second:
        assert list(first(abs, [-1, -2])) == list(second(abs, [1, 2])) == [1, 2]


# --- a cluster of one's own -----------------------------------------------------------------------------------------


def test_workers_of_a_scheduler_that_runs(tmp_path: Path):
    pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    dask = Path(sys.executable).with_name("dask")
    found = tmp_path / "scheduler.json"
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [
        dask,
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        found,
    ]
    started = [subprocess.Popen([*map(str, scheduler)], **quiet)]
    try:
        deadline = time.monotonic() + 60
        while not found.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = json.loads(found.read_text())["address"]
        worker = [dask, "worker", address, "--nworkers", "2", "--nthreads", "1", "--dashboard-address", "127.0.0.1:0"]
        started.append(subprocess.Popen([*map(str, worker)], **quiet))
        task, data = rounds.task("forest"), table()
        parts = split(data)
        there = simulate(task, data, parts, seed=4, runner=f"dask:{address}")
        assert file.digest(there.model) == file.digest(simulate(task, data, parts, seed=4).model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fusionlearn.simulate.runners.__version__", "99.0")
            with (
                pytest.raises(SettingsError, match=r"another fusionlearn than this 99\.0"),
                open_runner(f"dask:{address}"),
            ):
                pass
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)


def test_a_scheduler_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("distributed", reason="the runner 'dask' needs the extra 'dask'")
    monkeypatch.setattr("fusionlearn.simulate.runners.WAIT", "300ms")
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(SettingsError, match="no Dask scheduler answers"), open_runner(f"dask:{address}"):
            pass
