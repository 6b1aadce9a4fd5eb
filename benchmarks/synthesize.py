"""Synthesis from class-conditional densities, beside Fusion Learning as first proposed, on the same splits.

    python -m benchmarks.synthesize [digits] [heart] [cifar10]      writes results/synthesize.json, a task at a time

digits   scikit-learn's, one half to test on; 10 clients, Dirichlet 0.1, 5 seeds
heart    examples/hospitals: four hospitals, 20 of FLamby's splits
cifar10  the features of benchmarks/cifar10_features.py, cut to their first 256 public directions; 10,000 training
         images over 10 clients, Dirichlet 0.1, 3 seeds; all test images

Fusion Learning (Kasturi, Ellore, Hota, 2020): every client fits distributions to each feature on its own, keeps of
FAMILIES the one with the least Kolmogorov-Smirnov distance, and sends their parameters and its model; the server draws
features independently, lets the client's model label them, and trains on the rows of all clients.

Settings and students, also the rival's and the pooled model's, are those with the best accuracy on rows held out of
the training rows: digits a fifth, heart five folds in turn of split 0, cifar10 2,000 further training images. Test rows
choose nothing.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import sections
from benchmarks.sections import RESULTS, ROOT, table
from fusionlearn import cache, datasets, file, method, partition, settings
from fusionlearn.fixed import one_blas_thread
from fusionlearn.methods.synthesize import Synthesize
from fusionlearn.problem import Problem
from fusionlearn.sums import student_quantile
from fusionlearn.types import Update

CLIENTS, ALPHA = 10, 0.1
VALIDATION = 1000  # seed of the partition that settings are chosen on
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "logistic": {"student": "logistic"},
    "logistic, decay 0.01": {"student": "logistic", "decay": 0.01},
    "mlp:hidden=128": {"student": "mlp:hidden=128", "rate": 0.02},
}
DENSITIES: tuple[Mapping[str, Any], ...] = (
    {"covariance": "low_rank", "rank": 8},
    {"covariance": "low_rank", "rank": 16},
    {"covariance": "low_rank", "rank": 32},
    {"covariance": "low_rank", "rank": 8, "components": 2},
    {"covariance": "shared", "rank": 16},
    {"covariance": "diagonal", "components": 4},
)
FAMILIES = ("norm", "uniform", "expon", "laplace", "logistic", "gumbel_r", "gumbel_l", "gamma")
BESIDE = ("ensemble", "ridge", "gaussian")  # methods of ours in the same table
WIDTH = 256  # features of cifar10

Rows = tuple[NDArray[Any], NDArray[Any]]  # features, class codes


@dataclass(frozen=True, eq=False)
class Split:
    """Who learns from what, and what all are judged on."""

    seed: int
    clients: list[Rows]
    test: Rows
    digest: str

    @property
    def pooled(self) -> Rows:
        return np.concatenate([x for x, _ in self.clients]), np.concatenate([y for _, y in self.clients])


@dataclass(frozen=True)
class Question:
    """A data set as it is asked here."""

    says: str
    problem: Problem
    splits: list[Split]
    validation: list[Split]


# --- data -----------------------------------------------------------------------------------------------------------


def skewed(seed: int, train: Rows, test: Rows) -> Split:
    """The training rows over CLIENTS clients."""
    x, y = train
    parts = partition.dirichlet(y, CLIENTS, ALPHA, at_least=1, rng=np.random.default_rng(seed))
    return Split(seed, [(x[part], y[part]) for part in parts], test, partition.digest(parts))


def digits() -> Question:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    test, train = np.split(order, [len(y) // 2])
    held, kept = np.split(train, [len(train) // 5])
    rows = {name: (x[some], y[some]) for name, some in (("t", train), ("h", held), ("k", kept), ("test", test))}
    problem = Problem("multiclass", tuple("0123456789"), tuple(f"p{j}" for j in range(64)), (16.0,) * 64, 10_000)
    return Question(
        f"scikit-learn's digits, {len(train)} to learn from; {CLIENTS} clients, Dirichlet {ALPHA}",
        problem,
        [skewed(seed, rows["t"], rows["test"]) for seed in range(5)],
        [skewed(VALIDATION + k, rows["k"], rows["h"]) for k in range(3)],
    )


def heart() -> Question:
    task = settings.task_from_toml(ROOT / "examples" / "hospitals" / "task.toml")

    def encoded(part: Mapping[str, Any]) -> Rows:
        data = task.encoder.encode(task.schema.read(part).data, task.schema, {})
        return np.asarray(data["x"]), np.asarray(data["y"])

    def split(seed: int) -> Split:
        hospitals = datasets.fed_heart_disease(seed=seed).values()
        tests = [encoded(test) for _, test in hospitals]
        clients = [encoded(train) for train, _ in hospitals]
        hashed = hashlib.sha256(b"".join(array.tobytes() for rows in clients for array in rows)).hexdigest()
        return Split(
            seed, clients, (np.concatenate([x for x, _ in tests]), np.concatenate([y for _, y in tests])), hashed
        )

    splits, rng = [split(seed) for seed in range(20)], np.random.default_rng(VALIDATION)
    folds = [rng.permutation(len(y)) % 5 for _, y in splits[0].clients]
    validation = []
    for k in range(5):
        kept = [(x[fold != k], y[fold != k]) for (x, y), fold in zip(splits[0].clients, folds, strict=True)]
        held = [(x[fold == k], y[fold == k]) for (x, y), fold in zip(splits[0].clients, folds, strict=True)]
        test = np.concatenate([x for x, _ in held]), np.concatenate([y for _, y in held])
        validation.append(Split(0, kept, test, splits[0].digest))
    return Question(
        "heart disease, four hospitals as clients, 486 patients to learn from", task.problem, splits, validation
    )


def cifar10() -> Question:
    from fusionlearn.encoders.project import MEAN, MIXTURE, Project

    folder = cache.folder().parent / "benchmarks"
    if not (folder / "cifar10-directions.npz").exists():
        raise SystemExit("cifar10: run benchmarks/cifar10_features.py first, which computes the features.")
    wide = np.load(folder / "cifar10-wide-160.npy", mmap_mode="r")
    with np.load(folder / "cifar10-directions.npz") as kept:
        prior = {MEAN: kept[MEAN], MIXTURE: np.ascontiguousarray(kept[MIXTURE][:, :WIDTH])}
    parts, project = datasets.cifar10(), Project(WIDTH, "learned")
    chosen = np.sort(np.random.default_rng(0).permutation(50_000)[:12_000])
    learned = np.random.default_rng(1).permutation(12_000)
    schema: Any = None  # which this encoder does not look at

    def rows(places: NDArray[np.int64]) -> NDArray[Any]:
        pieces = [places[start : start + 1000] for start in range(0, len(places), 1000)]
        return np.concatenate([project.encode({"x": wide[some]}, schema, prior)["x"] for some in pieces])

    x, y = rows(chosen), parts["train"]["label"][chosen]
    train, held = learned[:10_000], learned[10_000:]
    test = rows(np.arange(50_000, 60_000)), parts["test"]["label"]
    problem = Problem(
        "multiclass", tuple(map(str, range(10))), tuple(f"f{j}" for j in range(WIDTH)), (10.0,) * WIDTH, 60_000
    )
    return Question(
        f"CIFAR-10 (JPEG copy), {WIDTH} features of a frozen EfficientNet-Lite0, 10,000 images to learn from; "
        f"{CLIENTS} clients, Dirichlet {ALPHA}",
        problem,
        [skewed(seed, (x[train], y[train]), test) for seed in range(3)],
        [skewed(VALIDATION, (x[train], y[train]), (x[held], y[held]))],
    )


QUESTIONS: Mapping[str, Callable[[], Question]] = {"digits": digits, "heart": heart, "cifar10": cifar10}


# --- what is compared -----------------------------------------------------------------------------------------------


def right(told: NDArray[Any], truth: NDArray[Any]) -> float:
    """Share of rows whose class is the right one."""
    return float((told.argmax(axis=1) == truth).mean())


def trained(student: str, rows: Rows, problem: Problem, test: NDArray[Any]) -> NDArray[np.float64]:
    """What a student says of the test rows after it has learned from these; of one class it can but answer that."""
    x, y = rows
    if len(np.unique(y)) == 1:
        return np.tile(np.arange(problem.num_classes) == y[0], (len(test), 1)).astype(np.float64)
    subject = Synthesize(**STUDENTS[student])
    with one_blas_thread():
        model = subject.trained(x, y, problem, {}, np.random.default_rng(0))
    return subject.predict(model, {"x": test}, problem, {})["probability"]


def fused(subject: method.Method, split: Split, problem: Problem) -> tuple[float, int]:
    """Accuracy of a method of ours, and the bytes of its largest update."""
    summaries = [
        subject.summarize({"x": x, "y": y}, problem, {}, rng=np.random.default_rng(k))
        for k, (x, y) in enumerate(split.clients)
    ]
    with one_blas_thread():
        model, _ = subject.fuse(summaries, problem, {}, rng=np.random.default_rng(0))
    x, y = split.test
    size = max(file.num_bytes(Update("0" * 64, summary, nonce="0" * 64)) for summary in summaries)
    return right(subject.predict(model, {"x": x}, problem, {})["probability"], y), size


# --- the rival ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marginals:
    """A client's upload: a distribution for each feature on its own, and a model of its own."""

    count: int
    families: list[tuple[str, tuple[float, ...]]]
    rows: Rows  # stands for the model: it is trained again where it is asked, to the same weights

    def num_bytes(self, problem: Problem) -> int:
        """A byte for each family, four for each parameter and each weight of the model."""
        parameters = sum(1 + 4 * len(values) for _, values in self.families)
        return parameters + 4 * (problem.num_features + 1) * problem.num_classes + 8


def marginals(rows: Rows) -> Marginals:
    """The best family of each feature, by the Kolmogorov-Smirnov distance."""
    from scipy import stats

    found: list[tuple[str, tuple[float, ...]]] = []
    for column in rows[0].T.astype(np.float64):
        ordered, n = np.sort(column), len(column)
        if ordered[0] == ordered[-1]:
            found.append(("constant", (float(ordered[0]),)))
            continue
        best: tuple[float, str, tuple[float, ...]] = (np.inf, "norm", (column.mean(), column.std()))
        for name in FAMILIES:
            family = getattr(stats, name)
            with np.errstate(all="ignore"):
                try:
                    values = family.fit(column, method="MM" if name == "gamma" else "MLE")
                except (ValueError, RuntimeError, stats.FitError):
                    continue
                below = family.cdf(ordered, *values)
            distance = float(max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max()))
            if distance < best[0]:
                best = (distance, name, tuple(map(float, values)))
        found.append(best[1:])
    return Marginals(len(rows[0]), found, rows)


def fusion_learning(sent: Sequence[Marginals], problem: Problem, student: str, test: NDArray[Any]) -> NDArray[Any]:
    """What the global model says of the test rows; as many synthetic rows as `synthesize` draws."""
    from scipy import stats

    rng, total = np.random.default_rng(0), sum(one.count for one in sent)
    xs, ys = [], []
    for one in sent:
        number = max(1, round(Synthesize().samples * one.count / total))
        columns = [
            np.full(number, values[0]) if name == "constant"
            else getattr(stats, name).rvs(*values, size=number, random_state=rng)
            for name, values in one.families
        ]  # fmt: skip
        bounds = np.array(problem.feature_bounds)
        x = np.clip(np.nan_to_num(np.stack(columns, axis=1)), -bounds, bounds)
        xs.append(x)
        ys.append(trained("logistic", one.rows, problem, x).argmax(axis=1))
    return trained(student, (np.concatenate(xs), np.concatenate(ys)), problem, test)


# --- one task -------------------------------------------------------------------------------------------------------


def chosen(question: Question) -> dict[str, Any]:
    """What is best on the validation rows: densities and student, the rival's student, the pooled student."""
    problem, splits = question.problem, question.validation
    tried: dict[str, float] = {}

    def mean(name: str, score: Callable[[Split], float]) -> float:
        tried[name] = float(np.mean([score(split) for split in splits]))
        print(f"{name}: {tried[name]:.4f}", file=sys.stderr, flush=True)
        return tried[name]

    ours = max(
        ({**density, **student} for student in STUDENTS.values() for density in DENSITIES),
        key=lambda some: mean(f"synthesize {some}", lambda split: fused(Synthesize(**some), split, problem)[0]),
    )
    sent = [[marginals(rows) for rows in split.clients] for split in splits]
    rival = max(
        STUDENTS,
        key=lambda student: mean(
            f"Fusion Learning {student}",
            lambda split: right(
                fusion_learning(sent[splits.index(split)], problem, student, split.test[0]), split.test[1]
            ),
        ),
    )
    pooled = max(
        STUDENTS,
        key=lambda student: mean(
            f"pooled {student}",
            lambda split: right(trained(student, split.pooled, problem, split.test[0]), split.test[1]),
        ),
    )
    return {"settings": ours, "rival's student": rival, "pooled student": pooled, "validation": tried}


def judged(split: Split, problem: Problem, choice: Mapping[str, Any]) -> dict[str, Any]:
    """Every model on the test rows of one split."""
    x, y = split.test
    alone = [right(trained("logistic", rows, problem, x), y) for rows in split.clients]
    sent = [marginals(rows) for rows in split.clients]
    found, sizes = {}, {}
    found["synthesize"], sizes["synthesize"] = fused(Synthesize(**choice["settings"]), split, problem)
    for name in BESIDE:
        found[name], sizes[name] = fused(method.make(name), split, problem)
    found["Fusion Learning"] = right(fusion_learning(sent, problem, choice["rival's student"], x), y)
    sizes["Fusion Learning"] = max(one.num_bytes(problem) for one in sent)
    found |= {
        "mean local": float(np.mean(alone)),
        "best local": max(alone),
        "pooled": right(trained(choice["pooled student"], split.pooled, problem, x), y),
    }
    return {"seed": split.seed, "partition": split.digest, "accuracy": found, "upload_bytes": sizes}


def cost(work: Callable[[Rows], object], clients: Sequence[Rows]) -> dict[str, float]:
    """Processor seconds a client in the mean, and the most memory the largest one allocates."""
    began = time.process_time()
    for rows in clients:
        work(rows)
    seconds = (time.process_time() - began) / len(clients)
    tracemalloc.start()
    work(max(clients, key=lambda rows: len(rows[0])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": seconds, "peak_bytes": peak}


def interval(gains: Sequence[float]) -> dict[str, float]:
    """Mean of paired gains and its 95 % interval over the splits, by Student's t."""
    mean = float(np.mean(gains))
    reach = student_quantile(0.975, len(gains) - 1) * float(np.std(gains, ddof=1)) / len(gains) ** 0.5
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def measure(name: str) -> dict[str, Any]:
    """One task: what was chosen, every split, means and paired gains."""
    question = QUESTIONS[name]()
    problem, choice = question.problem, chosen(question)
    rows = []
    for split in question.splits:
        rows.append(judged(split, problem, choice))
        print(json.dumps(rows[-1]["accuracy"]), file=sys.stderr, flush=True)
    each = {key: [row["accuracy"][key] for row in rows] for key in rows[0]["accuracy"]}
    subject = Synthesize(**choice["settings"])
    clients = question.splits[0].clients
    return {
        "data": question.says,
        "clients": len(clients),
        "features": problem.num_features,
        "test_rows": len(question.splits[0].test[1]),
        **choice,
        "mean": {key: float(np.mean(values)) for key, values in each.items()},
        "standard_deviation": {key: float(np.std(values, ddof=1)) for key, values in each.items()},
        "gain": {
            f"synthesize - {key}": interval(np.subtract(each["synthesize"], values).tolist())
            for key, values in each.items()
            if key != "synthesize"
        },
        "upload_bytes": {key: max(row["upload_bytes"][key] for row in rows) for key in rows[0]["upload_bytes"]},
        "client": {
            "synthesize": cost(
                lambda part: subject.summarize({"x": part[0], "y": part[1]}, problem, {}, rng=np.random.default_rng(0)),
                clients,
            ),
            "Fusion Learning": cost(
                lambda part: (marginals(part), trained("logistic", part, problem, part[0][:1])), clients
            ),
        },
        "splits": rows,
    }


def short(found: dict[str, Any]) -> Any:
    """Six significant digits of every number."""
    return json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.6g}"))


def main() -> None:
    """The tasks named, or all."""
    from benchmarks.run import machine

    for name in sys.argv[1:] or QUESTIONS:
        began = time.perf_counter()
        found = measure(name)
        found["seconds"] = time.perf_counter() - began
        found["process_peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kept = sections.result_of("synthesize") or {"tasks": {}}
        kept = {"machine": machine(), "tasks": {**kept["tasks"], name: short(found)}}
        path = RESULTS / "synthesize.json"
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- the page -------------------------------------------------------------------------------------------------------

ROWS = ("mean local", "best local", "synthesize", "Fusion Learning", *BESIDE, "pooled")
SHOWN = {
    "mean local": "a client alone, mean",
    "best local": "a client alone, best",
    "synthesize": "**fused `synthesize`**",
    "Fusion Learning": "Fusion Learning, 2020",
    **{name: f"fused `{name}`" for name in BESIDE},
}


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("synthesize")
    if found is None:
        return
    tasks: dict[str, Any] = {name: found["tasks"][name] for name in QUESTIONS if name in found["tasks"]}
    yield "## Synthesis: densities up, any model down\n"
    yield "; ".join(f"**{name}**: {task['data']}, {len(task['splits'])} splits" for name, task in tasks.items()) + ".\n"
    yield table(
        ("model", *(part for name in tasks for part in (name, "bytes up"))),
        [
            (
                SHOWN.get(row, row),
                *(
                    part
                    for task in tasks.values()
                    for part in (
                        f"{100 * task['mean'][row]:.1f} ±{100 * task['standard_deviation'][row]:.1f}",
                        f"{task['upload_bytes'][row]:,}" if row in task["upload_bytes"] else "",
                    )
                ),
            )
            for row in ROWS
        ],
    )
    chosen_ones = "; ".join(
        f"{name} `{task['settings']['student']}`{_decay(task['settings'])} on {_density(task['settings'])}"
        for name, task in tasks.items()
    )
    gains = "; ".join(
        f"{name} {100 * gain['mean']:+.1f} [{100 * gain['low']:.1f}, {100 * gain['high']:.1f}]"
        for name, task in tasks.items()
        for gain in [task["gain"]["synthesize - Fusion Learning"]]
    )
    costs = "; ".join(
        f"{name} {ours['seconds']:.2g} s and {ours['peak_bytes'] / 1e6:.1f} MB, the rival {rival['seconds']:.2g} s"
        for name, task in tasks.items()
        for ours, rival in [(task["client"]["synthesize"], task["client"]["Fusion Learning"])]
    )
    yield (
        f"Accuracy in per cent with its standard deviation over the splits; settings chosen on validation rows "
        f"({chosen_ones}). Points above Fusion Learning, which draws every feature on its own and trusts each client's "
        f"labels: {gains} (paired, 95 %). Pooled is the best of these students on all rows. A client takes, in the "
        f"mean and at the most: {costs}.\n"
    )


def _decay(chosen_settings: Mapping[str, Any]) -> str:
    return f" with decay {chosen_settings['decay']}" if "decay" in chosen_settings else ""


def _density(chosen_settings: Mapping[str, Any]) -> str:
    """Settings in words."""
    count, kind = chosen_settings.get("components", 1), chosen_settings["covariance"]
    directions = f" of rank {chosen_settings['rank']}" if kind != "diagonal" else ""
    return f"{count} Gaussian{'s' * (count > 1)} a class, {kind}{directions}"


if __name__ == "__main__":
    main()
