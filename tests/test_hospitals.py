"""The main job on real data: four hospitals, one upload each, one model equal to the pooled one."""

import itertools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fusionlearn as fl
from fusionlearn import datasets, file, keys, settings

ROOT = Path(__file__).resolve().parent.parent
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
FLAMBY = {"pooled": 0.795, "FedAdam": 0.779, "FedAvg": 0.748, "best local": 0.784}  # du Terrail et al., 2022


def joined(tables):
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def gap(model, other):
    """The largest deviation of any array, relative to its largest entry."""
    return max(np.abs(model.arrays[k] - other.arrays[k]).max() / np.abs(other.arrays[k]).max() for k in model.arrays)


@pytest.fixture(scope="module")
def task():
    return file.sign(settings.task_from_toml(ROOT / "examples" / "hospitals" / "task.toml"), keys.generate())


def split(seed):
    fed = datasets.fed_heart_disease(seed=seed)
    return [train for train, _ in fed.values()], joined([test for _, test in fed.values()])


def test_the_split_is_flamby_s(real_data, task):
    trains, tests = split(43)
    assert [len(train["target"]) for train in trains] == [199, 172, 30, 85]
    assert len(tests["target"]) == 254


def test_fused_equals_pooled_and_keeps_up_with_pooled_logistic_regression(real_data, task):
    linear_model = pytest.importorskip("sklearn.linear_model")
    fused_scores, pooled_scores = [], []
    for seed in range(40):
        trains, tests = split(seed)
        fused, _ = fl.fuse(task, [fl.summarize(task, train) for train in trains])
        pooled, _ = fl.fuse(task, [fl.summarize(task, joined(trains))])
        assert gap(fused, pooled) <= 1e-9
        fused_scores.append(fl.evaluate(fused, tests)["accuracy"])
        x, y = (task.encoder.encode(task.schema.read(joined(trains)).data, task.schema, {})[k] for k in ("x", "y"))
        x_test, y_test = (task.encoder.encode(task.schema.read(tests).data, task.schema, {})[k] for k in ("x", "y"))
        pooled_scores.append(linear_model.LogisticRegression(max_iter=2000).fit(x, y).score(x_test, y_test))
    difference = float(np.mean(fused_scores) - np.mean(pooled_scores))
    assert difference >= -0.005


def test_the_seed_43_figure_as_it_falls(real_data, task):
    trains, tests = split(43)
    fused, _ = fl.fuse(task, [fl.summarize(task, train) for train in trains])
    assert fl.evaluate(fused, tests)["accuracy"] == pytest.approx(0.7913, abs=5e-5)
    assert FLAMBY["best local"] < 0.7913 < FLAMBY["pooled"]


@pytest.fixture(scope="module")
def files(task, tmp_path_factory):
    """The four signed update files of seed 43."""
    if "FUSIONLEARN_DATA" not in os.environ:
        pytest.skip("real data sets are needed: set FUSIONLEARN_DATA to the folder that holds them")
    folder = tmp_path_factory.mktemp("updates")
    for name, train in zip(HOSPITALS, split(43)[0], strict=True):
        file.write(folder / name, file.sign(fl.summarize(task, train), keys.generate()))
    return [folder / name for name in HOSPITALS]


def test_each_upload_is_under_8_kB(files):
    assert max(path.stat().st_size for path in files) < 8_000


def test_one_digest_for_every_order_and_grouping(task, files):
    updates = [fl.read(path) for path in files]
    whole = fl.digest(fl.fuse(task, updates)[0])
    for order in itertools.permutations(updates):
        assert fl.digest(fl.fuse(task, order)[0]) == whole
    for size in (1, 2, 3):
        for chosen in itertools.combinations(range(4), size):
            part = [updates[i] for i in chosen]
            rest = [updates[i] for i in range(4) if i not in chosen]
            assert fl.digest(fl.fuse(task, [fl.add(task, *part), *rest])[0]) == whole
            assert fl.digest(fl.fuse(task, [fl.add(task, fl.add(task, *part), fl.add(task, *rest))])[0]) == whole


def test_subtracting_a_hospital_is_as_if_it_had_never_been_there(task, files):
    updates = [fl.read(path) for path in files]
    total = fl.add(task, *updates)
    for gone in updates:
        never = fl.digest(fl.fuse(task, [update for update in updates if update is not gone])[0])
        assert fl.digest(fl.fuse(task, [fl.subtract(task, total, gone)])[0]) == never
    with pytest.raises(fl.FusionlearnError, match="is not in"):
        fl.subtract(task, fl.subtract(task, total, updates[0]), updates[0])


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_example_runs_as_a_person_would(real_data, tmp_path, threads):
    """The shell script, end to end, with one and with two BLAS threads: the same weights digest."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    env["PATH"] = f"{Path(os.sys.executable).parent}{os.pathsep}{env['PATH']}"
    script = ROOT / "examples" / "hospitals" / "run.sh"
    done = subprocess.run(["bash", script, tmp_path], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert "membership AUC" in told and "Held by fewer than 25 people" in told
    assert "four hospitals, fused (one upload)" in told and "0.791" in told
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["records"] for row in report["findings"]["clients"]] == [199, 172, 30, 85]
    assert max((tmp_path / f"{name}.fusion").stat().st_size for name in HOSPITALS) < 8_000
    model = file.read(tmp_path / "model.fusion", fl.Model)
    sums = {name: file.read(tmp_path / f"{name}.fusion", fl.Update).arrays for name in HOSPITALS}
    weights = {name: array.tobytes() for name, array in model.arrays.items()}
    first = RUNS.setdefault("example", (weights, {n: {k: a.tobytes() for k, a in s.items()} for n, s in sums.items()}))
    assert first == (weights, {n: {k: a.tobytes() for k, a in s.items()} for n, s in sums.items()})


RUNS: dict[str, object] = {}  # what the first run gave, for the second to equal
