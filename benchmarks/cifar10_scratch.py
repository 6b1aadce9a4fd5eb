"""CIFAR-10 (JPEG copy) from scratch: `patches` and `ridge`, one upload, one fused model, no pre-training on its data.

    FUSIONLEARN_DATA=… python benchmarks/cifar10_scratch.py [small] [large]

Filters come from synthetic images alone, so no real image is looked at before the round. "small" keeps the upload at
10 MB, "large" does not. Settings (three sizes of patches, threshold, roots, mirror images) were chosen on 5,000
training images held back.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from images import (
    VALIDATION,
    VALIDATION_SEED,
    Watch,
    accuracy,
    distance,
    features,
    fuse,
    isolated,
    keep,
    problem_of,
    scores,
    split_facts,
    sums,
    upload_bytes,
)

from fusionlearn import datasets
from fusionlearn.encoders.patches import Patches
from fusionlearn.partition import dirichlet
from fusionlearn.problem import ClassLabel, Schema, Vector

ALPHA, CLIENTS, SEEDS = 0.1, 10, 5
SMALL, LARGE = 195, 768  # filters: 1,560 and 6,144 features


def encoded(name: str, images: Any, patches: Patches, width: int) -> Any:
    """Features (n, width) of images (n, height, width[, channels]), kept in the cache."""
    length = int(np.prod(patches.shape))
    label = ClassLabel("label", {"a": [0], "b": [1]})
    schema = Schema({"image": Vector(length, 0, 255)}, label)
    return features(
        name, width, images, lambda some: patches.encode({"image": some.reshape(len(some), -1)}, schema, {})["x"]
    )


def narrowed(x: Any, few: int, many: int, sizes: int = 3, cells: int = 8) -> Any:
    """The features of a model with fewer filters: of each size the first ones, which are the same.

    Features of a size lie as (cells and signs, filters).
    """
    each, kept, start = many // sizes, few // sizes, 0
    columns = []
    for _ in range(sizes):
        block = np.arange(start, start + cells * each).reshape(cells, each)
        columns.append(block[:, :kept].ravel())
        start += cells * each
    chosen = np.concatenate(columns)
    return np.concatenate([x[i : i + 5000][:, chosen] for i in range(0, len(x), 5000)])


def row(
    name: str, x: Any, y: Any, test: Any, test_y: Any, labels: Any, splits: list[Any], alone: int
) -> dict[str, Any]:
    """Fused at every split against pooled; for the first `alone` splits also the clients alone and their ensemble."""
    problem = problem_of(labels, (10.0**0.5,) * x.shape[1], 60_000)
    validation = None
    if alone:
        held = np.random.default_rng(VALIDATION_SEED).permutation(len(x))
        chosen, _ = fuse([sums(x, y, np.sort(held[VALIDATION:]), problem)], problem)
        validation = accuracy(scores(chosen, x[np.sort(held[:VALIDATION])]), y[np.sort(held[:VALIDATION])])
    pooled, findings = fuse([sums(x, y, np.arange(len(x)), problem)], problem)
    result: dict[str, Any] = {
        "row": name, "features": x.shape[1], "validation": validation, "penalty": findings["penalty"],
        "pooled": accuracy(scores(pooled, test), test_y), "splits": [],
    }  # fmt: skip
    print(name, "validation", validation, "pooled", result["pooled"], flush=True)
    for number, (kind, seed, parts) in enumerate(splits):
        parts = [part for part in parts if len(part)]
        watch = Watch()
        summaries = [sums(x, y, part, problem) for part in parts]
        clients = watch.seconds()
        watch = Watch()
        model, _ = fuse(summaries, problem)
        told = split_facts(parts, split=kind, seed=seed) | {
            "accuracy": accuracy(scores(model, test), test_y),
            "distance_to_pooled": distance(model, pooled),
            "seconds_a_client": round(clients / len(parts), 3),
            "seconds_fuse": watch.seconds(),
            "upload_bytes": upload_bytes(summaries[0]),
        }
        if number < alone:
            told |= isolated(x, y, parts, test, test_y, problem)
        result["splits"].append(told)
        print(name, kind, seed, told, flush=True)
    return result


def main() -> None:
    parts = datasets.cifar10()
    images = np.concatenate([parts["train"]["image"], parts["test"]["image"]])
    y, test_y = parts["train"]["label"], parts["test"]["label"]
    labels = [str(i) for i in range(10)]
    chosen = sys.argv[1:] or ["small", "large"]
    many = encoded(f"cifar10-patches-{LARGE}", images, Patches(filters=LARGE), 8 * LARGE)
    splits = [
        (f"dirichlet {ALPHA}", seed, dirichlet(y, CLIENTS, ALPHA, rng=np.random.default_rng(seed)))
        for seed in range(SEEDS)
    ]
    result: dict[str, Any] = {
        "data": "CIFAR-10 (JPEG copy), 50,000 train, 10,000 test",
        "encoder": "patches, sizes 4, 6 and 9, filters from synthetic images",
        "rows": [],
    }
    if "small" in chosen:
        x = narrowed(many, SMALL, LARGE)
        told = row(f"small: {SMALL} filters, ridge", x[:50_000], y, x[50_000:], test_y, labels, splits, SEEDS)
        result["rows"].append(told)
        keep("cifar10_scratch", result)
    if "large" in chosen:
        told = row(f"large: {LARGE} filters, ridge", many[:50_000], y, many[50_000:], test_y, labels, splits[:3], 1)
        result["rows"].append(told)
        keep("cifar10_scratch", result)


if __name__ == "__main__":
    main()
