"""What is gained after averaging: ten uneven clients of digits, one upload each, one student or all their networks.

    python -m benchmarks.after_averaging validate NAME    chooses settings, on rows nobody is tested on
    python -m benchmarks.after_averaging measure NAME     adds to results/after_averaging.json, a seed at a time
    python -m benchmarks.after_averaging all NAME         both

digits      scikit-learn's 1,797 images of 8 × 8, a quarter to test on; USPS, averaged to 8 × 8, is public
mnist       10,000 of the 60,000 training images, all test images; USPS, set into the middle of 28 × 28, is public
mnist_cnn   the same for a LeNet-5

Clients are drawn by Dirichlet 0.1. All start from one network, pre-trained on USPS; public rows are 5,000 of the same,
without their labels, and as many are drawn from densities. Students learn from labels alone: what teachers do is
measured in benchmarks/distill.py. Settings are those with the best accuracy on validation rows, which are neither
trained nor tested on, over another partition. What is reported is the last iterate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusionlearn as fl
from benchmarks import sections
from fusionlearn import coding, datasets, densities, file, network, partition, sums, training
from fusionlearn.methods.distill import Distill
from fusionlearn.methods.ensemble import Ensemble
from fusionlearn.pretrain import pretrain

RESULT = sections.RESULTS / "after_averaging.json"
CLIENTS, ALPHA = 10, 0.1
SEEDS = (0, 1, 2)
VALIDATION = 1000  # seed of the partition that settings are chosen on
LABELS_ALONE = {"teacher": "linear:epochs=0"}  # with mix = 0 it is not heard
ROWS = 5_000  # public ones, and those drawn from densities
NETWORKS = {"digits": "mlp:hidden=64", "mnist": "mlp:hidden=100", "mnist_cnn": "lenet5"}
STUDENTS: Mapping[str, tuple[dict[str, Any], ...]] = {  # how a student is trained
    "digits": ({"epochs": 10, "rate": 0.02}, {"epochs": 30, "rate": 0.02}, {"epochs": 10, "rate": 0.05}),
    "mnist": ({"epochs": 5, "rate": 0.02}, {"epochs": 10, "rate": 0.02}),
    "mnist_cnn": ({"epochs": 5, "rate": 0.01},),  # as in benchmarks/distill.py
}
COMPONENTS = (1, 4)  # Gaussians of a class
# times the student's epochs, for the networks of an ensemble
LONGER: Mapping[str, tuple[int, ...]] = {"digits": (1, 3), "mnist": (1, 3), "mnist_cnn": (1,)}
GAINS = (
    ("averaged, public rows", "averaged"),
    ("averaged, densities", "averaged"),
    ("averaged, densities", "averaged, public rows"),
    ("ensemble", "ensemble, plain mean"),
    ("ensemble", "ensemble, by class"),
    ("ensemble", "averaged, densities"),
    ("ensemble", "densities alone"),
    ("averaged, densities", "best local"),
)

Columns = dict[str, NDArray[Any]]
Matrix = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Case:
    """One data set: rows for clients, rows to choose on, rows to test on, public rows with labels."""

    train: Columns
    validation: Columns
    test: Columns
    public: Columns
    low_to_high: tuple[int, float, float]  # pixels, and their range


def case(name: str) -> Case:
    """A data set by name."""
    return _digits() if name == "digits" else _mnist()


def _digits() -> Case:
    from sklearn.datasets import load_digits

    found = load_digits()
    whole = {"pixels": found.data, "digit": found.target}
    rows = np.random.default_rng(0).permutation(len(found.target))
    usps = [*datasets.usps().values()]
    small = np.concatenate([part["image"] for part in usps]).reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4)) * 16
    public = {
        "pixels": np.clip(small, 0, 16).reshape(-1, 64),
        "digit": np.concatenate([part["label"] for part in usps]),
    }
    test, held, train = (taken(whole, part) for part in np.split(rows, [450, 750]))
    return Case(train, held, test, public, (64, 0.0, 16.0))


def _mnist() -> Case:
    from benchmarks import distill

    train, test, public = distill.digits()
    rows = np.random.default_rng(0).permutation(len(train["digit"]))
    return Case(taken(train, rows[:10_000]), taken(train, rows[10_000:15_000]), test, public, (784, 0.0, 255.0))


def taken(part: Columns, rows: NDArray[Any]) -> Columns:
    """Some rows."""
    return {name: cells[rows] for name, cells in part.items()}


def parts_of(train: Columns, seed: int) -> tuple[list[Columns], str]:
    """The clients' rows, and the digest of who holds what."""
    rng = np.random.default_rng(seed)
    rows = partition.dirichlet(train["digit"], CLIENTS, ALPHA, at_least=10, rng=rng)
    return [taken(train, part) for part in rows], partition.digest(rows)


def started(name: str, data: Case, how: Mapping[str, Any]) -> fl.Task:
    """The task with its pre-trained start; its method is the student without anything after averaging."""
    pixels, low, high = data.low_to_high
    columns = {"pixels": fl.Vector(pixels, low, high, low, high)}
    label = fl.ClassLabel("digit", {str(digit): [str(digit)] for digit in range(10)})
    task = fl.new_task(
        name, columns, label, method=Distill(student=NETWORKS[name], mix=0.0, **how),
        privacy=fl.Privacy("none", "allow"), max_records=100_000,
    )  # fmt: skip
    return pretrain(task, data.public, epochs=10)


def unlabelled(data: Case) -> Columns:
    """The public rows that the average learns from."""
    rows = np.random.default_rng(1).permutation(len(data.public["digit"]))[:ROWS]
    return {"pixels": data.public["pixels"][rows]}


@dataclasses.dataclass(frozen=True)
class Round:
    """Updates of one method, and what they took."""

    task: fl.Task
    updates: list[fl.Update]
    client_seconds: float  # of processor time, mean

    @property
    def upload_bytes(self) -> int:
        """The largest."""
        return max(file.num_bytes(update) for update in self.updates)

    def fused(self, **more: Any) -> tuple[fl.Model, float]:
        """The model, and the server's seconds of processor time."""
        began = time.process_time()
        model, _ = fl.fuse(self.task, self.updates, **more)
        return model, time.process_time() - began


def a_round(start: fl.Task, method: Distill | Ensemble, parts: list[Columns]) -> Round:
    """Every client's update."""
    task = dataclasses.replace(start, method=method, max_bytes=0)
    local = LABELS_ALONE if isinstance(method, Distill) else None
    began = time.process_time()
    updates = [fl.summarize(task, part, local=local) for part in parts]
    return Round(task, updates, (time.process_time() - began) / len(parts))


def with_densities(plain: Round, parts: list[Columns], components: int) -> Round:
    """The same students, and what their clients send besides: each is trained once."""
    method = dataclasses.replace(plain.task.method, components=components, drawn_rows=ROWS)
    task = dataclasses.replace(plain.task, method=method, max_bytes=0)
    began = time.process_time()
    updates = []
    for update, part in zip(plain.updates, parts, strict=True):
        x, y = encoded(task, part)
        told = densities.encode(x, y, components, rng=np.random.default_rng(0))
        updates.append(dataclasses.replace(update, task=file.digest(task), arrays={**update.arrays, **told}))
    return Round(task, updates, plain.client_seconds + (time.process_time() - began) / len(parts))


def encoded(task: fl.Task | fl.Model, rows: Columns) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features and class codes."""
    found = task.encoder.encode(task.schema.read(rows).data, task.schema, task.prior)
    return np.asarray(found["x"]), np.asarray(found["y"])


def accuracy(model: fl.Model, rows: Columns) -> float:
    """Of the answers."""
    return float(fl.evaluate(model, rows)["accuracy"])


def right(said: Matrix, rows: Columns) -> float:
    """The share of rows that probabilities (n, c) get right."""
    return float((said.argmax(axis=1) == rows["digit"]).mean())


def separately(model: fl.Model, rows: Columns) -> tuple[Matrix, Matrix]:
    """What each network of an ensemble says by itself: of all classes, and of those its client holds; (K, n, c)."""
    counts = model.arrays["class_count"]
    x, _ = encoded(model, rows)
    assert isinstance(model.method, Ensemble)
    name = model.method.network
    start = {key: model.arrays[f"start.{key}"] for key in network.shapes(name, model.problem)}
    whole = []
    for k in range(len(counts)):
        sent = {key: array[k] for key, array in model.arrays.items() if key.startswith(("network.", "scale."))}
        whole.append(training.scores_of(name, model.problem, coding.decode(sent, start), x))
    scores = np.stack(whole)
    held = np.where(counts[:, None] > 0, scores, training.CLOSED)
    return np.stack([*map(sums.softmax, scores)]), np.stack([*map(sums.softmax, held)])


def by_densities(model: fl.Model, rows: Columns) -> Matrix:
    """What the densities of an ensemble say of the classes without any network: (n, c)."""
    x, _ = encoded(model, rows)
    told = {key: array for key, array in model.arrays.items() if key.startswith(densities.PREFIX)}
    owner = told.pop(f"{densities.PREFIX}client")
    clients = [
        densities.decode({key: array[owner == k] for key, array in told.items()}, count)
        for k, count in enumerate(model.arrays["class_count"])
    ]
    return densities.together(clients, [np.ones((len(x), len(model.schema.labels)))] * len(clients), x)


# --- choosing -------------------------------------------------------------------------------------------------------


def validate(name: str, data: Case) -> None:
    """Settings by the accuracy on validation rows; kept with all that was tried."""
    parts, _ = parts_of(data.train, VALIDATION)
    rows, tried = data.validation, {}

    def best(kind: str, choices: Any, score: Callable[[Any], float]) -> Any:
        tried[kind] = {json.dumps(choice): round(score(choice), 4) for choice in choices}
        return max(choices, key=lambda choice: tried[kind][json.dumps(choice)])

    starts = [started(name, data, how) for how in STUDENTS[name]]
    rounds = {
        json.dumps(how): a_round(start, start.method, parts) for how, start in zip(STUDENTS[name], starts, strict=True)
    }
    how = best("student", STUDENTS[name], lambda how: accuracy(rounds[json.dumps(how)].fused()[0], rows))
    plain = rounds[json.dumps(how)]

    def told(components: int) -> float:
        return accuracy(with_densities(plain, parts, components).fused()[0], rows)

    components = best("components", COMPONENTS, told)

    def longer(times: int) -> float:
        method = ensemble(name, how, components, times)
        return accuracy(a_round(plain.task, method, parts).fused()[0], rows)

    several = LONGER[name]
    times = best("times the epochs, of the ensemble", several, longer) if len(several) > 1 else several[0]
    keep(name, {"settings": {"student": how, "components": components, "longer": times}, "validation": tried})


def ensemble(name: str, how: Mapping[str, Any], components: int, longer: int) -> Ensemble:
    """The ensemble whose networks are trained like the student, perhaps longer."""
    settings = {**how, "epochs": how["epochs"] * longer}
    return Ensemble(network=NETWORKS[name], components=components, **settings)


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(name: str, data: Case, seeds: Iterable[int]) -> None:
    """Every seed that is not kept yet."""
    kept = results().get(name, {})
    runs = {run["seed"]: run for run in kept.get("runs", [])}
    left = [seed for seed in seeds if seed not in runs]
    if not left:
        return
    start = started(name, data, kept["settings"]["student"])
    whole = kept.get("whole") or {
        "prior alone": accuracy(before(start, data.train), data.test),
        "pooled": accuracy(a_round(start, start.method, [data.train]).fused()[0], data.test),
    }
    for seed in left:
        runs[seed] = one(name, data, start, kept["settings"], seed)
        told = summary(name, data, whole, [runs[key] for key in sorted(runs)])
        keep(name, {**kept, "whole": whole, **told})
        print(json.dumps(runs[seed]["accuracy"]), flush=True)


def one(name: str, data: Case, start: fl.Task, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One partition: every way to fuse it, on the test rows."""
    parts, digest = parts_of(data.train, seed)
    public = unlabelled(data)
    plain = a_round(start, start.method, parts)
    told = with_densities(plain, parts, settings["components"])
    many = a_round(start, ensemble(name, settings["student"], settings["components"], settings["longer"]), parts)
    models = {
        "averaged": plain.fused(),
        "averaged, public rows": plain.fused(public=public),
        "averaged, densities": told.fused(),
        "averaged, densities and public rows": told.fused(public=public),
        "ensemble": many.fused(),
    }
    found = {key: accuracy(model, data.test) for key, (model, _) in models.items()}
    whole, held = separately(models["ensemble"][0], data.test)
    counts = models["ensemble"][0].arrays["class_count"]
    alone = [right(said, data.test) for said in held]
    found |= {
        "ensemble, plain mean": right(whole.mean(axis=0), data.test),
        "ensemble, by class": right(((counts / counts.sum(axis=0))[:, None] * held).sum(axis=0), data.test),
        "densities alone": right(by_densities(models["ensemble"][0], data.test), data.test),
        "mean local": float(np.mean(alone)),
        "best local": max(alone),
    }
    rounds = {"averaged": plain, "averaged, densities": told, "ensemble": many}
    return {
        "seed": seed,
        "partition": digest,
        "rows": [len(part["digit"]) for part in parts],
        "accuracy": {key: round(value, 4) for key, value in found.items()},
        "upload_bytes": {key: each.upload_bytes for key, each in rounds.items()},
        "model_bytes": {key: file.num_bytes(model) for key, (model, _) in models.items()},
        "client_seconds": {key: round(each.client_seconds, 2) for key, each in rounds.items()},
        "server_seconds": {key: round(seconds, 2) for key, (_, seconds) in models.items()},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def before(start: fl.Task, rows: Columns) -> fl.Model:
    """The start, as a model."""
    model, _ = a_round(start, dataclasses.replace(start.method, epochs=0), [rows]).fused()
    return dataclasses.replace(model, arrays=dict(start.prior))


def summary(name: str, data: Case, whole: Mapping[str, float], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs say together."""
    from benchmarks.distill import interval

    values = {key: [run["accuracy"][key] for run in runs] for key in runs[0]["accuracy"]}
    return {
        "task": f"{name}: {len(data.train['digit'])} rows, {CLIENTS} clients, Dirichlet {ALPHA}; public data: USPS",
        "network": NETWORKS[name],
        "accuracy": {
            key: {"mean": round(float(np.mean(each)), 4), "sd": round(float(np.std(each)), 4)}
            for key, each in values.items()
        } | {key: {"mean": round(value, 4), "sd": 0.0} for key, value in whole.items()},
        "gain": {
            f"{better} - {worse}": interval([a - b for a, b in zip(values[better], values[worse], strict=True)])
            for better, worse in GAINS
        },
        "runs": runs,
        "machine": {
            "python": platform.python_version(), "cores": os.cpu_count(), "fusionlearn": fl.__version__,
            **{library: version(library) for library in ("numpy", "torch", "scikit-learn")},
        },
    }  # fmt: skip


def results() -> dict[str, Any]:
    """What is kept, by data set."""
    return sections.result_of("after_averaging") or {}


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Write one data set's result beside the other's."""
    RESULT.write_text(json.dumps({**results(), name: found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- the page -------------------------------------------------------------------------------------------------------

SHOWN = {
    "prior alone": "the start alone",
    "mean local": "mean isolated network",
    "best local": "best isolated network",
    "averaged": "averaged student",
    "averaged, public rows": "… then taught on public rows",
    "averaged, densities": "… then taught on rows drawn from densities",
    "averaged, densities and public rows": "… on both",
    "ensemble, plain mean": "ensemble: plain mean of probabilities",
    "ensemble, by class": "ensemble: weighed by class counts",
    "ensemble": "ensemble: weighed by class and region (`ensemble`)",
    "densities alone": "its densities alone, no network",
    "pooled": "pooled student",
}
UPLOADED = {"averaged, public rows": "averaged", "averaged, densities and public rows": "averaged, densities"}


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = {name: kept for name, kept in results().items() if "runs" in kept}
    if not found:
        return
    yield "## After averaging\n"
    yield (
        "One upload each of ten clients, Dirichlet 0.1, from one start pre-trained on USPS; accuracy on test rows, "
        "mean and standard deviation over "
        + " and ".join(f"{len(kept['runs'])} partitions of {name} ({kept['network']})" for name, kept in found.items())
        + ". Students learn from labels alone, all networks have one shape, and settings were chosen on validation "
        "rows.\n"
    )
    yield sections.table(
        ("model", *(part for name in found for part in (name, "upload"))),
        [(shown, *(part for kept in found.values() for part in _cells(kept, key))) for key, shown in SHOWN.items()],
    )
    for name, kept in found.items():
        region, by_class = (
            kept["gain"][f"ensemble - {other}"] for other in ("ensemble, plain mean", "ensemble, by class")
        )
        yield (
            f"{name}: weighing by class and region is worth {_points(region)} over the plain mean of probabilities and "
            f"{_points(by_class)} over class counts alone; densities are worth "
            f"{_points(kept['gain']['averaged, densities - averaged'])} to the averaged student, public rows "
            f"{_points(kept['gain']['averaged, public rows - averaged'])} (95 % intervals over partitions).\n"
        )


def _cells(kept: Mapping[str, Any], key: str) -> tuple[str, str]:
    told = kept["accuracy"][key]
    uploads = [run["upload_bytes"].get(UPLOADED.get(key, key)) for run in kept["runs"]]
    upload = f"{max(uploads) / 1000:.0f} kB" if None not in uploads else ""
    return f"{100 * told['mean']:.1f} ± {100 * told['sd']:.1f}", upload


def _points(gain: Mapping[str, float]) -> str:
    if gain["low"] == gain["high"]:  # one partition tells no interval
        return f"{100 * gain['mean']:+.1f} points"
    return f"{100 * gain['mean']:+.1f} points ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["validate", "measure", "all"])
    parser.add_argument("name", choices=[*NETWORKS])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    given = parser.parse_args()
    data = case(given.name)
    if given.what != "measure":
        validate(given.name, data)
    if given.what != "validate":
        measure(given.name, data, given.seeds)


if __name__ == "__main__":
    main()
