"""Distillation measured: four hospitals by the closed form, ten uneven clients of MNIST by networks.

    python -m benchmarks.distill heart [--splits 40]     → results/distill-heart.json
    python -m benchmarks.distill mnist [--seeds 3]       → results/distill-mnist.json; goes on where it stopped

Teachers are chosen of three listed ones and settings of a short list, on rows held out of the training rows of the
first split; no test row chooses anything. What is reported is the last iterate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusionlearn as fl
from benchmarks import teachers
from fusionlearn import datasets, file, network, partition, teacher, training
from fusionlearn.methods.distill import Distill
from fusionlearn.methods.distill_head import DistillHead
from fusionlearn.methods.forest import Forest
from fusionlearn.pretrain import pretrain
from fusionlearn.sums import softmax, student_quantile

RESULTS = Path(__file__).resolve().parent / "results"

Columns = dict[str, NDArray[Any]]


def main() -> None:
    """One benchmark by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["heart", "mnist"])
    parser.add_argument("--splits", type=int, default=40, help="heart: splits, seeds 0, 1, …")
    parser.add_argument("--seeds", type=int, default=3, help="mnist: partitions, seeds 0, 1, …")
    parser.add_argument("--rows", type=int, default=60_000, help="mnist: training rows")
    given = parser.parse_args()
    began = time.perf_counter()
    found = heart(given.splits) if given.which == "heart" else mnist(given.seeds, given.rows)
    found |= {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"distill-{given.which}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found["summary"], indent=1))


def machine() -> dict[str, Any]:
    """What a time or a last digit may depend on."""
    from importlib.metadata import version

    versions = {name: version(name) for name in ("numpy", "scikit-learn", "torch")}
    return {"python": platform.python_version(), "cores": os.cpu_count(), "fusionlearn": fl.__version__, **versions}


def interval(gains: Sequence[float]) -> dict[str, float]:
    """Mean of paired gains and its 95 % interval over the splits, by Student's t."""
    mean, reach = float(np.mean(gains)), 0.0
    if len(gains) > 1:
        quantile = student_quantile(0.975, len(gains) - 1)
        reach = quantile * float(np.std(gains, ddof=1)) / len(gains) ** 0.5
    return {"mean": round(mean, 4), "low": round(mean - reach, 4), "high": round(mean + reach, 4)}


def accuracy(model: fl.Model, test: Columns) -> float:
    return float(fl.evaluate(model, test)["accuracy"])


def alone(task: fl.Task, update: fl.Update, labels: NDArray[Any], test: Columns) -> float:
    """The accuracy of one client's own model; a client with one class always answers it."""
    if len(np.unique(labels)) == 1:
        return float((test[task.schema.label.column] == labels[0]).mean())
    return accuracy(fl.fuse(task, [update])[0], test)


def joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def taken(part: Columns, rows: NDArray[Any]) -> Columns:
    return {name: cells[rows] for name, cells in part.items()}


def encoded(task: fl.Task, part: Columns) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features and labels as a teacher gets them."""
    data = task.encoder.encode(task.schema.read(part).data, task.schema, task.prior)
    return np.asarray(data["x"]), np.asarray(data["y"])


# --- four hospitals, closed form ------------------------------------------------------------------------------------

HEART_TEACHERS = ("forest", "boosting", "mlp:hidden=32,epochs=60")
HEART_SETTINGS = tuple({"mix": mix, "temperature": t} for mix in (0.5, 1.0) for t in (1.0, 2.0))


def heart_task(method: Any) -> fl.Task:
    """The ten columns all four hospitals recorded; ranges, centres and scales as in examples/hospitals."""
    number, category = fl.Number, fl.Category
    columns = {
        "age": number(0, 120, 50, 10), "sex": category(("0", "1")), "cp": category(("1", "2", "3", "4")),
        "trestbps": number(0, 300, 130, 20), "chol": number(0, 700, 240, 50), "fbs": category(("0", "1")),
        "restecg": category(("0", "1", "2")), "thalach": number(40, 250, 140, 25), "exang": category(("0", "1")),
        "oldpeak": number(-5, 10, 1, 1),
    }  # fmt: skip
    label = fl.ClassLabel("target", {"no disease": ["0"], "disease": ["1"]})
    return fl.new_task("heart", columns, label, method=method, privacy="none", max_records=10_000)


def heart(splits: int) -> dict[str, Any]:
    """Forty random splits of each hospital into 66 % to train on and 34 % to test on."""
    settings = heart_settings()
    rows = [heart_split(seed, settings) for seed in range(splits)]
    mean = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]["names"]}
    gains = {
        "fused - mean isolated student": [row["fused"] - row["mean student"] for row in rows],
        "fused - mean isolated teacher": [row["fused"] - row["mean teacher"] for row in rows],
        "fused - best isolated student": [row["fused"] - row["best student"] for row in rows],
        "fused - best isolated teacher": [row["fused"] - row["best teacher"] for row in rows],
        "fused - without a teacher": [row["fused"] - row["without a teacher"] for row in rows],
        "fused - teachers cut to equal bytes": [row["fused"] - row["teachers cut to equal bytes"] for row in rows],
    }
    return {
        "task": "heart disease, four hospitals, ten columns, 486 patients to train on and 254 to test on",
        "method": "distill_head",
        "teachers": HEART_TEACHERS,
        "settings": settings,
        "summary": {"accuracy": mean, "gain": {name: interval(values) for name, values in gains.items()}},
        "splits": rows,
    }


def heart_settings() -> dict[str, float]:
    """Mix and temperature by five-fold validation within the training rows of split 0."""
    trains = [train for train, _ in datasets.fed_heart_disease(seed=0).values()]
    rng = np.random.default_rng(0)
    folds = [rng.permutation(len(train["target"])) % 5 for train in trains]

    def score(settings: Mapping[str, float]) -> float:
        task, hits = heart_task(DistillHead(**settings)), []
        for k in range(5):
            kept = [taken(train, fold != k) for train, fold in zip(trains, folds, strict=True)]
            updates = [fl.summarize(task, part, local={"teacher": "forest"}) for part in kept]
            back = joined([taken(train, fold == k) for train, fold in zip(trains, folds, strict=True)])
            hits.append(accuracy(fl.fuse(task, updates)[0], back))
        return float(np.mean(hits))

    return dict(max(HEART_SETTINGS, key=score))


def heart_split(seed: int, settings: Mapping[str, float]) -> dict[str, Any]:
    """One split: every model on the test patients of all four hospitals together."""
    split = datasets.fed_heart_disease(seed=seed)
    trains, test = [train for train, _ in split.values()], joined([held for _, held in split.values()])
    task, plain = heart_task(DistillHead(**settings)), heart_task(DistillHead(mix=0.0))
    cut = heart_task(Forest(trees=1, max_leaves=16))  # as many bytes as the student's sums
    x_test, y_test = encoded(task, test)
    taught, chosen, students, teachers, sizes = [], [], [], [], []
    began = time.perf_counter()
    for hospital, train in enumerate(trains):
        x, y = encoded(task, train)
        rng = np.random.default_rng([seed, hospital])
        losses = [
            teacher.loss(
                teacher.held_out_answers(teacher.parse(name), x, y, task.problem, folds=3, rng=rng), y, task.problem
            )
            for name in HEART_TEACHERS
        ]
        chosen.append(HEART_TEACHERS[int(np.argmin(losses))])
        update = fl.summarize(task, train, rng=rng, local={"teacher": chosen[-1]})
        own = teacher.parse(chosen[-1]).fit(x, y, task.problem, rng=rng)
        taught.append(update)
        sizes.append(own.num_bytes)
        teachers.append(float((own.answer(x_test).argmax(axis=1) == y_test).mean()))
        students.append(alone(task, update, train["target"], test))
    seconds = (time.perf_counter() - began) / len(trains)
    forests = [fl.summarize(cut, train) for train in trains]
    pooled = fl.summarize(plain, joined(trains))
    accuracies = {
        "mean student": float(np.mean(students)),
        "best student": max(students),
        "mean teacher": float(np.mean(teachers)),
        "best teacher": max(teachers),
        "fused": accuracy(fl.fuse(task, taught)[0], test),
        "without a teacher": accuracy(fl.fuse(plain, [fl.summarize(plain, train) for train in trains])[0], test),
        "teachers cut to equal bytes": accuracy(fl.fuse(cut, forests)[0], test),
        "pooled": accuracy(fl.fuse(plain, [pooled])[0], test),
    }
    return {
        "seed": seed,
        **{name: round(value, 4) for name, value in accuracies.items()},
        "names": list(accuracies),
        "teachers": chosen,
        "teacher_bytes": sizes,
        "upload_bytes": file.num_bytes(taught[0]),
        "cut_bytes": max(file.num_bytes(update) for update in forests),
        "client_seconds": round(seconds, 2),
    }


# --- MNIST, networks ------------------------------------------------------------------------------------------------

CLIENTS, ALPHA = 10, 0.1
MNIST_TEACHERS = ("forest", "mlp:hidden=400x200,epochs=5", "cnn:epochs=3,precision=bfloat16")
MNIST_SETTINGS = tuple({"mix": mix, "temperature": t} for mix, t in ((0.5, 2.0), (0.9, 2.0), (0.5, 4.0)))
STUDENT = Distill(student="lenet5", epochs=5, rate=0.01)


def mnist_task(method: Distill) -> fl.Task:
    label = fl.ClassLabel("digit", {str(digit): [str(digit)] for digit in range(10)})
    privacy = fl.Privacy("none", "allow")
    columns = {"pixels": fl.Vector(784, 0, 255, 0, 255)}
    return fl.new_task("mnist", columns, label, method=method, privacy=privacy, max_records=100_000)


def digits() -> tuple[Columns, Columns, Columns]:
    """MNIST to train on and to test on, and USPS, all of it, as the public data: 16×16 set into the middle of 28×28."""
    parts = datasets.mnist()
    train, test = (
        {"pixels": parts[name]["image"].reshape(-1, 784).astype(np.float64), "digit": parts[name]["label"]}
        for name in ("train", "test")
    )
    usps = list(datasets.usps().values())
    images = np.concatenate([part["image"] for part in usps]).astype(np.float64)
    at = np.clip((np.arange(20) + 0.5) * 16 / 20 - 0.5, 0, 15)
    low = np.minimum(at.astype(int), 14)
    weights = np.zeros((20, 16))
    weights[np.arange(20), low] = 1 - (at - low)
    weights[np.arange(20), low + 1] += at - low
    framed = np.zeros((len(images), 28, 28))
    framed[:, 4:24, 4:24] = np.clip(weights @ images @ weights.T, 0, 1) * 255
    public = {"pixels": framed.reshape(-1, 784), "digit": np.concatenate([part["label"] for part in usps])}
    return train, test, public


def mnist(seeds: int, rows: int) -> dict[str, Any]:
    """K = 10, Dirichlet 0.1, a prior pre-trained on USPS."""
    train, test, public = digits()
    chosen = np.random.default_rng(0).permutation(len(train["digit"]))[:rows]
    train = taken(train, np.sort(chosen))
    path = RESULTS / "distill-mnist.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    start = pretrain(mnist_task(STUDENT), public, epochs=10)
    if known.get("task") == about(len(train["digit"])):  # measured before: what is missing is added
        name, tried, scores, found = (known[key] for key in ("teacher", "teachers", "settings", "seeds"))
        settings = json.loads(max(scores, key=lambda key: scores[key]))
    else:
        name, tried = mnist_teacher(train)
        settings, scores = mnist_settings(start, train, name)
        found = []
    for row in found:
        if CUT not in row["accuracy"]:
            add_cut(row, start, train, test, name)
            keep_mnist(path, tried, name, settings, scores, found)
    for seed in range(len(found), seeds):
        found.append(mnist_split(seed, start, train, test, public, name, settings))
        add_cut(found[-1], start, train, test, name)
        print(json.dumps(found[-1]["accuracy"]), file=sys.stderr, flush=True)
        keep_mnist(path, tried, name, settings, scores, found)
    return mnist_result(tried, name, settings, scores, found)


CUT = "teachers cut to equal bytes"


def about(rows: int) -> str:
    return f"MNIST, {rows} rows, {CLIENTS} clients, Dirichlet {ALPHA}; public data: USPS"


def keep_mnist(path: Path, *given: Any) -> None:
    """What is there so far, so that an interrupted run goes on."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | mnist_result(*given), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def mnist_result(
    tried: Mapping[str, float], name: str, settings: Mapping[str, float], scores: Mapping[str, float],
    found: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """The JSON of all partitions so far."""
    names = [key for key in found[0]["accuracy"] if all(key in row["accuracy"] for row in found)]
    values = {key: [row["accuracy"][key] for row in found] for key in names}
    return {
        "task": about(sum(found[0]["rows"])),
        "method": "distill",
        "student": dataclasses.asdict(dataclasses.replace(STUDENT, **settings)),
        "teachers": tried,
        "teacher": name,
        "settings": scores,
        "summary": {
            "accuracy": {key: {"mean": round(float(np.mean(v)), 4), "sd": round(float(np.std(v)), 4)}
                         for key, v in values.items()},
            "gain": {
                f"fused - {key}": interval([a - b for a, b in zip(values["fused"], values[key], strict=True)])
                for key in ("mean student", "best student", "mean teacher", "best teacher", "without a teacher",
                            "without the prior", CUT, "teachers in int8")
                if key in values
            },
        },
        "seeds": found,
    }  # fmt: skip


def add_cut(row: dict[str, Any], start: fl.Task, train: Columns, test: Columns, name: str) -> None:
    """The control at equal bytes: the partition's teachers, cut and in int8, kept as an ensemble. Goes into the row."""
    problem, x_test, text = start.problem, test["pixels"] / 255, teachers.network_of(name)
    parts = [taken(train, part) for part in parts_of(train["digit"], row["seed"])]
    small, coded, sizes, coded_sizes, sent = [], [], [], [], []
    for client, part in enumerate(parts):
        x, seed = part["pixels"] / 255, [row["seed"], client]
        taught = teacher.parse(name).fit(x, part["digit"], problem, rng=np.random.default_rng(seed))
        for less, num, said, all_sizes in (
            (*teachers.cut(taught, problem, text, seed, row["upload_bytes"], x), small, sizes),
            (*teachers.in_int8(taught, problem, text), coded, coded_sizes),
        ):
            said.append(less.answer(x_test))
            all_sizes.append(num)
        sent.append(teachers.num_bytes(taught))
    counts = np.stack([np.bincount(part["digit"], minlength=10) for part in parts])
    for key, said in ((CUT, small), ("teachers in int8", coded)):
        right = teachers.together(said, counts).argmax(axis=1) == test["digit"]
        row["accuracy"][key] = round(float(right.mean()), 4)
    row |= {"cut_bytes": max(sizes), "int8_bytes": max(coded_sizes), "teacher_bytes_measured": sent}


def parts_of(labels: NDArray[Any], seed: int) -> list[NDArray[np.int64]]:
    return partition.dirichlet(labels, CLIENTS, ALPHA, at_least=10, rng=np.random.default_rng(seed))


def mnist_teacher(train: Columns) -> tuple[str, dict[str, float]]:
    """The most accurate of three teachers on a fifth of each client's rows, held out; clients of seed 1000."""
    few = taken(train, np.arange(0, len(train["digit"]), max(1, len(train["digit"]) // 10_000)))
    problem = mnist_task(STUDENT).problem
    scores: dict[str, list[float]] = {name: [] for name in MNIST_TEACHERS}
    for rows in parts_of(few["digit"], 1000):
        rows = np.random.default_rng(0).permutation(rows)
        back, kept = rows[: len(rows) // 5], rows[len(rows) // 5 :]
        for name in MNIST_TEACHERS:
            taught = teacher.parse(name).fit(
                few["pixels"][kept] / 255, few["digit"][kept], problem, rng=np.random.default_rng(0)
            )
            right = taught.answer(few["pixels"][back] / 255).argmax(axis=1) == few["digit"][back]
            scores[name] += right.tolist()
    means = {name: round(float(np.mean(right)), 4) for name, right in scores.items()}
    return max(means, key=lambda name: means[name]), means


def mnist_settings(start: fl.Task, train: Columns, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Mix and temperature by the accuracy on rows that no client of this small round was given."""
    size = min(10_000, len(train["digit"]) // 2)
    few, back = taken(train, np.arange(size)), taken(train, np.arange(size, size + size // 2))
    scores = {}
    parts = [taken(few, rows) for rows in parts_of(few["digit"], 1000)]
    for settings in MNIST_SETTINGS:
        task = dataclasses.replace(start, method=dataclasses.replace(STUDENT, **settings))
        updates = [fl.summarize(task, part, local={"teacher": name}) for part in parts]
        scores[json.dumps(settings)] = round(accuracy(fl.fuse(task, updates)[0], back), 4)
    return json.loads(max(scores, key=lambda key: scores[key])), scores


def mnist_split(
    seed: int, start: fl.Task, train: Columns, test: Columns, public: Columns, name: str, settings: Mapping[str, float]
) -> dict[str, Any]:
    """One partition: the round, its parts alone, and its controls."""
    rows = parts_of(train["digit"], seed)
    parts = [taken(train, part) for part in rows]
    method = dataclasses.replace(STUDENT, **settings)
    task = dataclasses.replace(start, method=method)
    problem, x_test = task.problem, test["pixels"] / 255
    taught, teachers, seconds, update_seconds = [], [], [], []
    for client, part in enumerate(parts):
        began = time.perf_counter()
        own = Kept(teacher.parse(name).fit(
            part["pixels"] / 255, part["digit"], problem, rng=np.random.default_rng([seed, client])
        ))  # fmt: skip
        seconds.append(time.perf_counter() - began)
        teachers.append(float((own.taught.answer(x_test).argmax(axis=1) == test["digit"]).mean()))
        taught.append(own)
    # The teachers are trained once; every way to teach below gets the same ones.
    updates = []
    for own, part in zip(taught, parts, strict=True):
        began = time.perf_counter()
        updates.append(summarized(task, part, own))
        update_seconds.append(time.perf_counter() - began)
    fused, _ = fl.fuse(task, updates)
    further, _ = fl.fuse(task, updates, public=public)
    plain = dataclasses.replace(start, method=dataclasses.replace(method, mix=0.0))
    cold = mnist_task(method)
    students = [alone(task, update, part["digit"], test) for update, part in zip(updates, parts, strict=True)]
    budget = file.num_bytes(updates[0])
    found = {
        "prior alone": accuracy(pretrained_only(start, parts[0]), test),
        "mean student": float(np.mean(students)),
        "best student": max(students),
        "mean teacher": float(np.mean(teachers)),
        "best teacher": max(teachers),
        "fused": accuracy(fused, test),
        "fused, then taught on public rows": accuracy(further, test),
        "without a teacher": accuracy(
            fl.fuse(plain, [summarized(plain, part, own) for own, part in zip(taught, parts, strict=True)])[0], test
        ),
        "without the prior": accuracy(
            fl.fuse(cold, [summarized(cold, part, own) for own, part in zip(taught, parts, strict=True)])[0], test
        ),
        "ensemble of students": ensemble(task, updates, x_test, test["digit"]),
        "pooled student": accuracy(fl.fuse(plain, [fl.summarize(plain, train)])[0], test),
    }
    return {
        "seed": seed,
        "partition": partition.digest(rows),
        "rows": [len(part) for part in rows],
        "accuracy": {key: round(value, 4) for key, value in found.items()},
        "teacher_bytes": max(own.taught.num_bytes for own in taught),
        "upload_bytes": budget,
        "prior_bytes": sum(array.nbytes for array in start.prior.values()),
        "teacher_seconds": round(float(np.mean(seconds)), 2),
        "student_seconds": round(float(np.mean(update_seconds)), 2),
    }


@dataclasses.dataclass(frozen=True)
class Kept(teacher.Teacher):
    """A teacher that was trained before."""

    taught: teacher.Taught

    def fit(self, x: Any, y: Any, problem: Any, *, rng: Any) -> teacher.Taught:  # noqa: ARG002
        return self.taught


def summarized(task: fl.Task, part: Columns, own: Kept) -> fl.Update:
    """A client's update, taught by a teacher it already has."""
    parse, teacher.parse = teacher.parse, lambda _: own
    try:
        return fl.summarize(task, part, local={"teacher": "its own"})
    finally:
        teacher.parse = parse


def pretrained_only(start: fl.Task, part: Columns) -> fl.Model:
    idle = dataclasses.replace(start, method=dataclasses.replace(STUDENT, epochs=0, mix=0.0))
    model, _ = fl.fuse(idle, [fl.summarize(idle, part, local={"teacher": "linear:epochs=0"})])
    return dataclasses.replace(model, arrays=dict(start.prior))


def ensemble(task: fl.Task, updates: Sequence[fl.Update], x: NDArray[Any], y: NDArray[Any]) -> float:
    """All students at once, each heard by its share of a class's rows."""
    from fusionlearn import coding

    start = network.weights_of(task.prior, STUDENT.student, task.problem, "prior")
    held = np.stack([update.arrays["class_count"] for update in updates]).astype(float)
    said = np.zeros((len(x), 10))
    for share, update in zip(held / held.sum(axis=0), updates, strict=True):
        module = network.module_with(STUDENT.student, task.problem, coding.decode(update.arrays, start))
        said += share * softmax(training.scores(module, x))
    return float((said.argmax(axis=1) == y).mean())


if __name__ == "__main__":
    main()
