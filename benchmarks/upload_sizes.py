"""Accuracy against the size of the upload: every method at 10 kB, 100 kB, 1 MB and 10 MB, on three tasks.

    FUSIONLEARN_DATA=… python -m benchmarks.upload_sizes [NAME...] [--seeds 3]     what is not measured yet, and plots
    python -m benchmarks.upload_sizes --plot                                       plots alone

writes results/upload_sizes.json and docs/plots/upload-NAME.svg.

At each size a method takes the largest model of its kind that fits, by a rule fixed beforehand and the same for all
tasks (`fitted`); nothing is tuned, settings are the defaults. Sums, heads and Gaussians get more features, forests more
trees with more leaves, networks more hidden units. What is counted is an update's arrays and header. Networks start
from public data where a task has some. Where no model of the kind fits, the smallest that exists is named; where the
next size would give no larger one, nothing is measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import sections
from benchmarks.client_cost import size as size_text
from benchmarks.distill_frozen import quarter
from fusionlearn import datasets, file, partition, sketch
from fusionlearn.encoders.project import MEAN, MIXTURE, Project
from fusionlearn.encoders.random_features import RandomFeatures
from fusionlearn.fixed import one_blas_thread
from fusionlearn.method import Method, make
from fusionlearn.problem import ClassLabel, Problem, Schema, Text, Vector
from fusionlearn.types import Update

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
HEADER = 2_000  # bytes of an update that are no arrays, at most
LOCAL = 512  # features of heads and Gaussians that each client makes alone, of far fewer rows
WIDEST = 2_300  # mixtures of features: what ridge in 32 bits needs for 10 MB
TEACHER = "forest:trees=30"
PLOTS = sections.ROOT / "docs" / "plots"

Matrix = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Features:
    """The same rows in so many features."""

    x: Matrix
    public_x: Matrix  # of the rows that networks are pre-trained on
    bound: float


@dataclasses.dataclass(frozen=True)
class Question:
    """One data set."""

    about: str
    labels: tuple[str, ...]
    y: NDArray[np.int64]
    public_y: NDArray[np.int64]
    split: Callable[[int], tuple[list[NDArray[np.int64]], NDArray[np.int64]]]  # seed → clients' rows, test rows
    heads: Callable[[int], Features]  # of a number of features, for linear heads and Gaussians
    most: int  # … the most there are
    nets: Callable[[int], Features]  # of a number of features, for networks
    raw: int  # … the most there are
    trees: Features
    counts: Callable[[int], Features] | None  # not negative, for naive Bayes: by number of features, if that is free
    counted: tuple[int, ...]  # … numbers to choose from
    epochs: int  # of a network
    rate: float
    methods: tuple[str, ...]


# --- the data sets --------------------------------------------------------------------------------------------------


def digits() -> Question:
    """scikit-learn's digits, ten clients, Dirichlet 0.1. A quarter is tested on, a quarter is public for networks."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels, y = found.data / 8 - 1, found.target.astype(np.int64)
    role = np.arange(len(y)) % 4
    public, private = role == 0, np.flatnonzero(role > 1)
    schema = Schema({"x": Vector(64, -1, 1)}, TWO)

    def split(seed: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
        parts = partition.dirichlet(y[private], 10, 0.1, at_least=10, rng=np.random.default_rng(seed))
        return [private[part] for part in parts], np.flatnonzero(role == 1)

    def cosines(count: int) -> Features:
        x = np.asarray(RandomFeatures(count, bandwidth=4.0).encode({"x": pixels}, schema, {})["x"])
        return Features(x, x[public], 1.0)

    def mixed(count: int) -> Features:
        x = pixels if count >= 64 else np.asarray(Project(count).encode({"x": pixels}, schema, {})["x"])
        return Features(x, x[public], 8.0)

    raw, counts = Features(pixels, pixels[public], 1.0), Features(found.data, found.data[public], 16.0)
    return Question(
        "Digits, 898 images of 8 × 8, 10 clients, Dirichlet 0.1", tuple(map(str, range(10))), y, y[public], split,
        cosines, 1_024, mixed, 64, raw, lambda _: counts, (64,), 20, 0.02, METHODS,
    )  # fmt: skip


def heart() -> Question:
    """Four hospitals, ten columns. Nothing is public, so networks start from public random weights."""
    from benchmarks.distill import encoded, heart_task

    task = heart_task(make("ridge", {}))
    parts, place, splits = [], 0, []
    for seed in range(10):
        clients, tests = [], []
        for halves in datasets.fed_heart_disease(seed=seed).values():
            for half, rows in zip(halves, (clients, tests), strict=True):
                parts.append(encoded(task, half))
                rows.append(np.arange(place, place + len(parts[-1][1])))
                place += len(parts[-1][1])
        splits.append((clients, np.concatenate(tests)))
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    raw, schema = Features(x, x[:0], 30.0), Schema({"x": Vector(x.shape[1], -30, 30)}, TWO)

    def cosines(count: int) -> Features:
        if count <= x.shape[1]:
            return Features(x[:, :count], x[:0, :count], 30.0)
        found = np.asarray(RandomFeatures(count, bandwidth=np.sqrt(x.shape[1]) / 2).encode({"x": x}, schema, {})["x"])
        return Features(found, found[:0], 1.0)

    return Question(
        "Heart disease, 486 patients, 4 hospitals", ("no disease", "disease"), y, y[:0], lambda seed: splits[seed],
        cosines, 512, lambda _: raw, x.shape[1], raw, None, (), 20, 0.02,
        tuple(name for name in METHODS if name != "naive_bayes"),
    )  # fmt: skip


def amazon() -> Question:
    """Four departments, a quarter tested on. Networks start from other people's opinions."""
    from benchmarks import amazon as known
    from benchmarks.distill_frozen import public_opinions, review_directions
    from fusionlearn.encoders.ngrams import Ngrams

    texts, y, domains = known.reviews()
    public_texts, public_y = public_opinions()
    schema = Schema({"text": Text()}, known.LABEL)
    words = Ngrams(num_features=4096, weight="unit", common=1000)
    prior = words.pretrain({"text": public_texts}, schema, rng=np.random.default_rng(0))
    x, public_x = (words.encode({"text": some}, schema, prior)["x"] for some in (texts, public_texts))
    learned = review_directions(public_x, schema)

    def counted(count: int) -> Features:
        encoder = dataclasses.replace(words, num_features=count)
        return Features(encoder.encode({"text": texts}, schema, prior)["x"], public_x[:1], 1.0)

    def mixed(count: int) -> Features:
        if count >= 4096:
            return Features(x, public_x[::4], 1.0)
        cut = {MEAN: learned[MEAN], MIXTURE: np.ascontiguousarray(learned[MIXTURE][:, :count])}
        encode = Project(count, "learned").encode
        return Features(encode({"x": x}, schema, cut)["x"], encode({"x": public_x[::4]}, schema, cut)["x"], 10.0)

    return Question(
        "Amazon reviews, 8,000, 4 departments as clients", ("negative", "positive"), y, public_y[::4],
        lambda seed: quarter(domains, seed), mixed, WIDEST, mixed, 4096, mixed(192), counted,
        (300, 600, 3_000, 6_000, 30_000, 60_000), 5, 0.2, METHODS,
    )  # fmt: skip


TWO = ClassLabel("y", {"0": ["0"], "1": ["1"]})


def seeded() -> np.random.Generator:
    return np.random.default_rng(0)


# --- what fits ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fit:
    """A method as large as a size allows."""

    method: Method
    what: str  # in words
    features: Features


def fitted(question: Question, name: str, size: int) -> Fit | int:
    """The largest model of a kind whose update takes at most `size` bytes; else the bytes of the smallest there is."""
    limit = size - HEADER
    if name in HEADS:
        method = HEADS[name]
        narrow = problem_of(question, 1, 30.0)
        most = {"ensemble": min(question.raw, LOCAL), "synthesize": min(question.most, LOCAL)}.get(name, question.most)
        count = min(sketch.most_features(method, narrow, {}, limit), most)
        if count < 1:
            return HEADER + sketch.declared_bytes(method, narrow, {})
        return Fit(method, f"{count:,} features", (question.nets if name == "ensemble" else question.heads)(count))
    if name == "naive_bayes":
        method = make("naive_bayes", {})
        assert question.counts is not None
        fits = [
            n for n in question.counted if sketch.declared_bytes(method, problem_of(question, n, 16.0), {}) <= limit
        ]
        if not fits:
            return HEADER + sketch.declared_bytes(method, problem_of(question, question.counted[0], 16.0), {})
        return Fit(method, f"{fits[-1]:,} features", question.counts(fits[-1]))
    if name == "forest":
        node = 24 + 4 * len(question.labels)
        leaves = {SIZES[0]: 8, SIZES[1]: 16, SIZES[2]: 64, SIZES[3]: 256}[size]
        trees = min(300, limit // ((2 * leaves - 1) * node + 4))
        method = make("forest", {"trees": trees, "max_leaves": leaves})
        return Fit(method, f"{trees} trees of {leaves} leaves", question.trees)
    return _network(question, name, limit)


def _network(question: Question, name: str, limit: int) -> Fit | int:
    """All features and as many hidden units as fit; with fewer than 16, half the features, and so on."""
    count = question.raw
    while count >= 1:
        for hidden in (1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16):
            text = f"mlp:hidden={hidden}"
            which = "network" if name == "average" else "student"
            method = make(name, {which: text, "epochs": question.epochs, "rate": question.rate})
            if sketch.declared_bytes(method, problem_of(question, count, 30.0), {}) <= limit:
                return Fit(method, f"{count:,} features, {hidden} hidden units", question.nets(count))
        count //= 2
    raise AssertionError(f"{name}: no network fits")


HEADS: dict[str, Method] = {
    "ridge": make("ridge", {}),
    "ridge, 32 bits": make("ridge", {"word": 32}),
    "gaussian": make("gaussian", {}),
    "gaussian, diagonal": make("gaussian", {"covariance": "diagonal"}),
    "ensemble": make("ensemble", {}),
    "distill_head, 32 bits": make("distill_head", {"word": 32, "folds": 2}),
    "synthesize": make("synthesize", {}),
}
METHODS = (*HEADS, "naive_bayes", "forest", "average", "distill")


def problem_of(question: Question, width: int, bound: float) -> Problem:
    names = tuple(f"feature[{i}]" for i in range(width))
    kind = "multiclass" if len(question.labels) > 2 else "binary"
    return Problem(kind, question.labels, names, (bound,) * width, 100_000)  # type: ignore[arg-type]


# --- a round --------------------------------------------------------------------------------------------------------


def measured(question: Question, fit: Fit, seed: int) -> dict[str, Any]:
    """Accuracy of the fused model, bytes of the largest update."""
    parts, test = question.split(seed)
    x = fit.features.x
    problem, prior = problem_of(question, x.shape[1], fit.features.bound), {}
    if fit.method.name in ("average", "distill") and len(question.public_y):
        data = {"x": fit.features.public_x, "y": question.public_y}
        prior = fit.method.pretrain(data, problem, {}, rng=seeded())
    began = time.process_time()
    updates = []
    for client, part in enumerate(parts):
        data, rng = {"x": np.ascontiguousarray(x[part]), "y": question.y[part]}, np.random.default_rng([seed, client])
        more = {"local": {"teacher": TEACHER}} if "teacher" in fit.method.LOCAL else {}
        updates.append(fit.method.summarize(data, problem, prior, rng=rng, **more))
    seconds = (time.process_time() - began) / len(parts)
    with one_blas_thread():
        model, _ = fit.method.fuse(updates, problem, prior, rng=np.random.default_rng(seed))
    told = fit.method.predict(model, {"x": np.ascontiguousarray(x[test])}, problem, prior)["probability"]
    return {
        "accuracy": round(float((told.argmax(axis=1) == question.y[test]).mean()), 4),
        "upload_bytes": max(file.num_bytes(Update("0" * 64, one, nonce="0" * 64)) for one in updates),
        "partition": partition.digest(parts),
        "client_seconds": round(seconds, 2),
    }


# --- running --------------------------------------------------------------------------------------------------------

TASKS: dict[str, Callable[[], Question]] = {"digits": digits, "heart": heart, "amazon": amazon}


def main() -> None:
    """What was not measured yet, or the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", action="store_true")
    given = parser.parse_args()
    if given.plot:
        plots()
        return
    path = sections.RESULTS / "upload_sizes.json"
    for task in given.names or TASKS:
        measure(task, path, given.seeds)
    plots()


def measure(task: str, path: Path, seeds: int) -> None:
    """The points of one task that the result lacks, each kept at once."""
    question = TASKS[task]()
    for name in question.methods:
        for size in SIZES:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"tasks": {}}
            methods = found["tasks"].setdefault(task, {"about": question.about, "methods": {}})["methods"]
            points = methods.setdefault(name, {})
            known = points.get(str(size), {})
            if len(known.get("seeds", ())) >= seeds or "least" in known:
                continue
            points[str(size)] = point(question, name, size, seeds, points)
            print(task, name, size, json.dumps(points[str(size)]["summary"]), file=sys.stderr, flush=True)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            found |= {"machine": machine(), "peak_mib": max(found.get("peak_mib", 0), peak)}
            path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def point(question: Question, name: str, size: int, seeds: int, points: dict[str, Any]) -> dict[str, Any]:
    """One method at one size."""
    fit = fitted(question, name, size)
    if isinstance(fit, int):
        return {"least": fit, "summary": f"not below {size_text(fit)}"}
    same = [one for key, one in points.items() if one.get("model") == fit.what and int(key) < size]
    if same:
        return {**same[0], "summary": {**same[0]["summary"], "as": "the size below: there is no larger model"}}
    rows = list(points.get(str(size), {}).get("seeds", []))
    rows += [{"seed": seed, **measured(question, fit, seed)} for seed in range(len(rows), seeds)]
    accuracies = [row["accuracy"] for row in rows]
    return {
        "model": fit.what,
        "summary": {
            "accuracy": round(float(np.mean(accuracies)), 4),
            "sd": round(float(np.std(accuracies)), 4),
            "upload_bytes": max(row["upload_bytes"] for row in rows),
        },
        "seeds": rows,
    }


def machine() -> dict[str, Any]:
    """What a time or a last digit may depend on."""
    from benchmarks.distill import machine

    return machine()


# --- plots and page -------------------------------------------------------------------------------------------------

COLOURS = {
    "ridge": "#1b4f9c", "ridge, 32 bits": "#5b8fd6", "gaussian": "#0f7173", "gaussian, diagonal": "#58a8a0",
    "naive_bayes": "#8a6d00", "ensemble": "#7a3e9d", "forest": "#3d7a2b", "distill_head, 32 bits": "#c2410c",
    "average": "#555555", "distill": "#b01e4f", "synthesize": "#1a1a1a",
}  # fmt: skip


def curve(points: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Bytes and per cent of a method, the same model once."""
    summaries = [one["summary"] for one in points.values() if "seeds" in one]
    found = {one["upload_bytes"]: 100 * one["accuracy"] for one in summaries}
    return list(found), list(found.values())


def plots() -> None:
    """One picture a task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = sections.result_of("upload_sizes")
    assert found is not None
    PLOTS.mkdir(exist_ok=True)
    matplotlib.rcParams |= {"svg.hashsalt": "upload", "svg.fonttype": "none", "font.family": "sans-serif"}
    for task, told in found["tasks"].items():
        figure, axes = plt.subplots(figsize=(8.4, 5.0), layout="constrained")
        ends = []
        for name, points in told["methods"].items():
            sizes, values = curve(points)
            if not sizes:
                continue
            axes.plot(sizes, values, color=COLOURS[name], lw=1.8, marker="o", ms=4.5, clip_on=False)
            ends.append((name, sizes[-1], values[-1]))
        axes.set_xscale("log")
        least = min(axes.dataLim.x0, 5e3)
        ticks = [size for size in (1_000, *SIZES) if size >= least]
        axes.set_xlim(0.7 * least, 1.2e7)
        axes.set_xticks(ticks, [size_text(size) for size in ticks])
        axes.minorticks_off()
        low, high = axes.get_ylim()
        for (name, size, value), place in zip(ends, spread([end[2] for end in ends], (high - low) / 24), strict=True):
            axes.annotate(
                name, (size, value), (1.6e7, place), color=COLOURS[name], va="center", fontsize=9.5,
                annotation_clip=False, arrowprops={"arrowstyle": "-", "color": COLOURS[name], "lw": 0.5, "alpha": 0.5},
            )  # fmt: skip
        axes.set_title(told["about"], loc="left", fontsize=11)
        axes.set_ylabel("accuracy of the fused model, per cent")
        axes.set_xlabel("one client's upload")
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(PLOTS / f"upload-{task}.svg", metadata={"Date": None})
        plt.close(figure)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Places for labels: near their values, no two closer than a gap."""
    order = np.argsort(values)
    places = np.array(values, float)[order]
    for _ in range(500):
        close = np.flatnonzero(np.diff(places) < gap - 1e-9)
        if not len(close):
            break
        for k in close:
            middle = (places[k] + places[k + 1]) / 2
            places[k], places[k + 1] = middle - gap / 2, middle + gap / 2
    places[-1] = min(places[-1], max(values))  # none above the highest value
    for k in range(len(places) - 2, -1, -1):
        places[k] = min(places[k], places[k + 1] - gap)
    result = np.empty(len(places))
    result[order] = places
    return result.tolist()


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("upload_sizes")
    if found is None:
        return
    yield "## Accuracy against the size of the upload\n"
    yield (
        "Every method at 10 kB, 100 kB, 1 MB and 10 MB: the largest model of its kind that fits, by one rule for all "
        "tasks; nothing is tuned for a size. Fused accuracy in per cent, mean of the seeds (see the JSON). "
        "Networks start from public rows, on heart disease from random weights. "
        "*not below*: the kind has no smaller model. ↑: no larger one; the figure is that of the size before.\n"
    )
    for task, told in found["tasks"].items():
        yield f"### {told['about']}\n"
        yield f"![{told['about']}: accuracy against upload](plots/upload-{task}.svg)\n"
        yield sections.table(
            ("method", *(size_text(size) for size in SIZES)),
            [
                (f"`{name.split(', ')[0]}`{name[len(name.split(', ')[0]) :]}", *(cell(points, size) for size in SIZES))
                for name, points in told["methods"].items()
            ],
        )


def cell(points: dict[str, Any], size: int) -> str:
    one = points.get(str(size))
    if one is None:
        return ""
    if "least" in one:
        return f"not below {size_text(one['least'])}"
    return f"{100 * one['summary']['accuracy']:.1f}{' ↑' if 'as' in one['summary'] else ''}"


if __name__ == "__main__":
    main()
