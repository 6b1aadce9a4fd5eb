"""The JavaScript client beside Python: the same arrays, the same signatures, the same refusals, the same answers."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import rounds, test_agent

from fusionlearn import datasets, file, keys, run, settings
from fusionlearn.problem import Category, ClassLabel, Number
from fusionlearn.types import Model, Update

CLIENT = Path(__file__).parents[1] / "clients" / "javascript" / "fusionlearn.mjs"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the JavaScript client needs node: install Debian's nodejs")


def node(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(NODE), CLIENT, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def kept(folder: Path, number: int = 1) -> Path:
    path = folder / f"key{number}.pem"
    if not path.exists():
        keys.save(rounds.key(number), path)
    return path


def both(folder: Path, task: Any, data: dict[str, Any]) -> tuple[Update, Update]:
    """JavaScript's update and Python's."""
    file.write(folder / "task", task)
    table = test_agent.csv_of(folder / "rows.csv", data)
    done = node("summarize", folder / "task", table, "-o", folder / "update", "--key", kept(folder))
    assert done.returncode == 0, done.stderr
    found = file.read(folder / "update", Update)
    assert file.digest(found) == done.stdout.strip()
    return found, file.sign(run.summarize(task, data), rounds.key(1))


@pytest.mark.parametrize("seed", range(12))
def test_arrays_are_equal_to_the_bit_where_values_are_short(seed: int, tmp_path: Path):
    rng = np.random.default_rng(seed)
    rows, rule = int(rng.integers(1, 700)), ("drop", "center", "indicator")[seed % 3]
    columns = {
        "count": Number(0, 64, center=16, scale=8), "half": Number(-4, 4, center=0.5, scale=0.25),
        "code": Category(("a", "b", "2")), "flag": Category(("0", "1")),
    }  # fmt: skip
    label = ClassLabel("y", (("no", ("0",)), ("perhaps", ("1", "x")), ("yes", ("2",))))
    task = file.sign(
        run.new_task("short", columns, label, privacy="none", missing=rule, out_of_range="clip"), rounds.key(0)
    )
    data: dict[str, Any] = {
        "count": rng.integers(0, 80, rows).astype(str), "half": (rng.integers(-20, 20, rows) / 4).astype(str),
        "code": rng.choice(["a", "b", "2.0", " a"], rows), "flag": rng.choice(["0", "1", "1.0"], rows),
        "y": rng.choice(["0", "1", "x", "2"], rows),
    }  # fmt: skip
    if rows > 3:
        for name in ("count", "code"):
            data[name] = np.where(rng.random(rows) < 0.1, "NA", data[name])
    found, expected = both(tmp_path, task, data)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    assert file.digest(found) == file.digest(expected)  # and so are the files' names


def test_four_hospitals_differ_by_a_unit_of_the_last_place_at_most(real_data: Path, tmp_path: Path):
    task = file.sign(settings.task_from_toml(test_agent.EXAMPLE / "task.toml"), rounds.key(0))
    updates, expected = [], []
    for number, (hospital, (train, _)) in enumerate(datasets.fed_heart_disease().items()):
        folder = tmp_path / hospital
        folder.mkdir()
        one, other = both(folder, task, {name: train[name] for name in (*task.schema.columns, "target")})
        for name, array in other.arrays.items():
            assert int(np.abs(one.arrays[name] - array).max()) <= 1, (hospital, name)
        assert np.array_equal(one.arrays["count"], other.arrays["count"])
        updates.append(file.sign(run.unsigned(one), rounds.key(number)))
        expected.append(file.sign(run.unsigned(other), rounds.key(number)))
    model, same = run.fuse(task, updates)[0], run.fuse(task, expected)[0]
    np.testing.assert_allclose(model.arrays["weights"], same.arrays["weights"], rtol=1e-9, atol=1e-12)
    file.write(tmp_path / "model", file.sign(model, rounds.key(0)))
    test = datasets.fed_heart_disease()["va"][1]
    table = test_agent.csv_of(tmp_path / "test.csv", {name: test[name] for name in task.schema.columns})
    lines = node("predict", tmp_path / "model", table).stdout.split()
    told = np.array([[float(cell) for cell in line.split(",")] for line in lines[-len(test["age"]) :]])
    np.testing.assert_allclose(told, run.predict(model, test)["probability"], atol=1e-12)


def test_hostile_files_are_refused_in_a_sentence(tmp_path: Path):
    task = file.to_bytes(rounds.task())
    length = struct.unpack("<Q", task[:8])[0]
    header = json.loads(task[8 : 8 + length])
    table = test_agent.csv_of(tmp_path / "rows.csv", rounds.records(1))

    def with_header(changed: Any) -> bytes:
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + task[8 + length :]

    metadata = header["__metadata__"]
    bad = {
        "empty": b"", "huge header": struct.pack("<Q", 2**40) + task[8:], "cut": task[:-3] + b"}",
        "no json": struct.pack("<Q", 4) + b"nope" + b"x" * 20,
        "altered": with_header({**header, "__metadata__": {**metadata, "max_records": "999999"}}),
        "another kind": with_header({**header, "__metadata__": {**metadata, "kind": "model"}}),
        "numbers in the header": with_header({**header, "__metadata__": {**metadata, "x": 1}}),
        "an array too many": with_header({**header, "a": {"dtype": "F64", "shape": [9], "data_offsets": [0, 72]}}),
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / "task").write_bytes(content)
        done = node("summarize", tmp_path / "task", table, "-o", tmp_path / "update", "--key", kept(tmp_path))
        assert done.returncode == 1 and done.stderr.startswith("Error: "), name
        assert "internal" not in done.stderr and not (tmp_path / "update").exists(), name


def test_a_table_s_fault_names_its_place_and_never_its_cell(tmp_path: Path):
    file.write(tmp_path / "task", rounds.task())
    data = rounds.records(1)
    for name, cell in (("age", "4711"), ("age", "Anna"), ("ward", "Anna"), ("ill", "Anna"), ("dose", "")):
        cells = data[name].astype(object)
        cells[2] = cell
        table = test_agent.csv_of(tmp_path / "rows.csv", {**data, name: cells})
        done = node("summarize", tmp_path / "task", table, "-o", tmp_path / "u", "--key", kept(tmp_path))
        assert done.returncode == 1 and f"'{name}'" in done.stderr and "row 3" in done.stderr, done.stderr
        assert not cell or cell not in done.stderr


def test_what_it_does_not_know_it_says(tmp_path: Path):
    table = test_agent.csv_of(tmp_path / "rows.csv", rounds.records(1))
    for task in (rounds.task("gaussian"), rounds.task(regression=True)):
        file.write(tmp_path / "task", task)
        done = node("summarize", tmp_path / "task", table, "-o", tmp_path / "u", "--key", kept(tmp_path))
        assert done.returncode == 1 and "only" in done.stderr


def test_a_whole_contact_over_the_network(tmp_path: Path):
    pytest.importorskip("fastapi", reason="a hub needs the extra 'hub'")
    from tests.hub_process import Served

    hub = Served(tmp_path / "hub")
    hub.start()
    try:
        home = test_agent.owner_home(hub, tmp_path)
        task = test_agent.published(hub, home, "devices", "--quorum", 2)
        code = test_agent.as_user(home, "invite", "--hub", hub.url)["code"]
        maker = test_agent.as_user(tmp_path / "maker", "keygen")["public"]
        test_agent.as_user(home, "members", "--hub", hub.url, "--enrol", maker, "--role", "manufacturer")
        for number in (1, 2):
            device = node("keygen", tmp_path / f"device{number}.pem").stdout.strip()
            word = tmp_path / f"device{number}.json"  # the second device joins by its manufacturer's word
            test_agent.as_user(tmp_path / "maker", "certify", device, "--project", "default", "-o", word)
            how = ("--code", code) if number == 1 else ("--certificate", word)
            table = test_agent.csv_of(tmp_path / f"{number}.csv", rounds.records(number, 80))
            given = ("join", hub.url, *how, "--data", table, "--key", tmp_path / f"device{number}.pem")
            refused = node(*given, "--task", task)
            assert refused.returncode == 1 and "not agreed" in refused.stderr
            done = node(*given, "--task", task, "--yes")
            assert done.returncode == 0, done.stderr
            again = node(*given, "--task", task, "--yes")
            assert json.loads(again.stdout)["receipt"] == json.loads(done.stdout)["receipt"]
        fetched = None
        for _ in range(40):
            fetched = node("fetch", hub.url, "-o", tmp_path / "m", "--key", tmp_path / "device1.pem", "--task", task)
            if fetched.returncode == 0:
                break
        assert fetched is not None and fetched.returncode == 0, fetched.stderr
        assert file.read(tmp_path / "m", Model).task == task
    finally:
        hub.stop()
