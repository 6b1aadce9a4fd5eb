"""CIFAR-10 (JPEG copy) on a frozen EfficientNet-Lite0: one upload, any split, against the same head on pooled data.

    FUSIONLEARN_DATA=… python benchmarks/cifar10_features.py

Features: the widened layers inside every block and the head at 160 pixels, image and mirror image averaged (11,520).
`project` learns its directions from 7,000 crops of the photographs of Office-Caltech10, which no client holds. Settings
(160 pixels, widened layers, learned directions, roots, agreement 1.5) were chosen on 5,000 training images held back;
the test images are looked at once, by the heads below. The rivals run on the very same features.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import images as shared
import numpy as np
from images import (
    VALIDATION,
    VALIDATION_SEED,
    Watch,
    accuracy,
    distance,
    features,
    isolated,
    keep,
    one_class_each,
    problem_of,
    scores,
    split_facts,
    upload_bytes,
)

from fusionlearn import arrays, cache, datasets, sketch
from fusionlearn.encoders.backbone import Backbone
from fusionlearn.encoders.project import MEAN, MIXTURE, Project
from fusionlearn.fixed import one_blas_thread
from fusionlearn.methods.ridge import Ridge
from fusionlearn.partition import dirichlet
from fusionlearn.problem import ClassLabel, Schema, Vector

CLIENTS, ALPHA = 100, 0.1
SIDE, WIDTH = 160, 11_520
LARGE = 4096  # features of the row without a limit on the upload: 67 MB
SMALL_BYTES = 10_000_000
PUBLIC = 7000
AGREEMENT = 1.5
SOURCES = ("caltech10", "amazon", "dslr", "webcam")
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SCHEMA = Schema({"image": Vector(3072, 0, 255)}, ClassLabel("label", {label: [i] for i, label in enumerate(LABELS)}))


def crops(count: int) -> Any:
    """Square parts of public photographs, (count, 32, 32, 3) uint8, half of them mirrored."""
    from PIL import Image

    rng = np.random.default_rng(0)
    sources = datasets.office_caltech10()
    pictures = [picture for source in SOURCES for picture in sources[source]["image"]]
    found = np.empty((count, 32, 32, 3), np.uint8)
    for i in range(count):
        picture = pictures[i % len(pictures)]
        height, width = picture.shape[:2]
        side = min(width, height) * rng.uniform(0.35, 1)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        box = (left, top, left + side, top + side)
        crop = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC, box=box))
        found[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return found


def encoded(name: str, images: Any) -> Any:
    backbone = Backbone(side=SIDE, outputs="wide")
    return features(
        name, WIDTH, images, lambda some: backbone.encode({"image": some.reshape(len(some), -1)}, SCHEMA, {})["x"]
    )


def project_of(width: int) -> Project:
    return Project(width, "learned", roots=True, agreement=AGREEMENT)


def directions(public: Any) -> dict[str, Any]:
    """What pre-training of `project` learns from the public crops, kept beside the features."""
    path = cache.folder().parent / "benchmarks" / f"cifar10-directions-{AGREEMENT}.npz"
    if path.exists():
        with np.load(path) as kept:
            return {name: kept[name] for name in kept.files}
    prior = project_of(LARGE).pretrain({"x": public}, SCHEMA, rng=np.random.default_rng(0))
    np.savez(path, **prior)
    return prior


def projected(x: Any, prior: dict[str, Any], width: int) -> Any:
    """What `project` emits; the directions of fewer features are the first of more."""
    cut = {MEAN: prior[MEAN], MIXTURE: np.ascontiguousarray(prior[MIXTURE][:, :width])}
    encode = project_of(width).encode
    return np.concatenate([encode({"x": x[i : i + 4096]}, SCHEMA, cut)["x"] for i in range(0, len(x), 4096)])


def afl(x: Any, y: Any, parts: Any, test: Any, test_y: Any) -> dict[str, Any]:
    """AFL as published: each client's regularised least squares, merged, the regulariser (1 a client) taken off."""
    classes = np.eye(10)
    with one_blas_thread():
        grams = np.zeros((x.shape[1], x.shape[1]))
        moments = np.zeros((x.shape[1], 10))
        for part in parts:
            rows = x[part].astype(np.float64)
            grams += rows.T @ rows + np.eye(x.shape[1])  # the client's C_k + γI, and (C_k + γI) W_k = X_kᵀY_k
            moments += rows.T @ classes[y[part]]
        grams -= len(parts) * np.eye(x.shape[1])
        weights = np.linalg.lstsq(grams, moments, rcond=None)[0]
    size = 8 * (x.shape[1] ** 2 + 10 * x.shape[1])
    return {"accuracy": accuracy(test.astype(np.float64) @ weights, test_y), "upload_bytes": size}


def fedcgs(x: Any, y: Any, test: Any, test_y: Any) -> dict[str, Any]:
    """FedCGS as published: class means and one covariance of all rows, which give a Gaussian classifier."""
    with one_blas_thread():
        rows = x.astype(np.float64)
        means = np.stack([rows[y == label].mean(axis=0) for label in range(10)])
        covariance = np.cov(rows, rowvar=False)
        weights = np.linalg.lstsq(covariance, means.T, rcond=None)[0]
    bias = np.log(np.bincount(y) / len(y)) - 0.5 * (means.T * weights).sum(axis=0)
    size = 4 * (x.shape[1] ** 2 + 10 * x.shape[1] + 10)
    return {"accuracy": accuracy(test.astype(np.float64) @ weights + bias, test_y), "upload_bytes": size}


def row(
    name: str, x: Any, y: Any, test: Any, test_y: Any, splits: list[Any], alone: int, word: Any = 64
) -> dict[str, Any]:
    """One head at every split; for the first `alone` splits also what the clients have alone."""
    problem = problem_of(LABELS, (10.0,) * x.shape[1], 60_000)
    sums, fuse = partial(shared.sums, word=word), partial(shared.fuse, word=word)
    everyone = np.arange(len(x))
    held = np.random.default_rng(VALIDATION_SEED).permutation(len(x))
    chosen, _ = fuse([sums(x, y, np.sort(held[VALIDATION:]), problem)], problem)
    validation = accuracy(scores(chosen, x[held[:VALIDATION]]), y[held[:VALIDATION]])
    pooled, findings = fuse([sums(x, y, everyone, problem)], problem)
    result: dict[str, Any] = {
        "row": name, "features": x.shape[1], "validation": validation, "penalty": findings["penalty"],
        "pooled": accuracy(scores(pooled, test), test_y), "splits": [],
    }  # fmt: skip
    print(name, "validation", validation, "pooled", result["pooled"], flush=True)
    for number, (kind, seed, parts) in enumerate(splits):
        watch = Watch()
        total = sums(x, y, parts[0], problem)
        size = upload_bytes(total)
        for part in parts[1:]:  # one update at a time, as the product folds them
            total = arrays.add(total, sums(x, y, part, problem))
        clients = watch.seconds()
        watch = Watch()
        model, _ = fuse([total], problem)
        told = split_facts(parts, split=kind, seed=seed) | {
            "accuracy": accuracy(scores(model, test), test_y),
            "distance_to_pooled": distance(model, pooled),
            "seconds_a_client": round(clients / len(parts), 3),
            "seconds_fuse": watch.seconds(),
            "upload_bytes": size,
        }
        if number < alone:
            told |= isolated(x, y, parts, test, test_y, problem)
        result["splits"].append(told)
        print(name, kind, seed, told["accuracy"], told["distance_to_pooled"], flush=True)
    return result


def main() -> None:
    parts = datasets.cifar10()
    images = np.concatenate([parts["train"]["image"], parts["test"]["image"]])
    y, test_y = parts["train"]["label"], parts["test"]["label"]
    x = encoded("cifar10-wide-160", images)
    prior = directions(encoded("office-crops-wide-160", crops(PUBLIC)))
    splits = [
        (f"dirichlet {ALPHA}", seed, dirichlet(y, CLIENTS, ALPHA, rng=np.random.default_rng(seed))) for seed in range(5)
    ]
    splits.append(("one class each", 0, one_class_each(y, CLIENTS, np.random.default_rng(0))))
    wide = problem_of(LABELS, (10.0,), 60_000)
    small = sketch.most_features(Ridge(), wide, {}, SMALL_BYTES - 16 * 1024)
    result: dict[str, Any] = {
        "data": "CIFAR-10 (JPEG copy), 50,000 train, 10,000 test",
        "encoder": f"backbone efficientnet_lite0, wide, side {SIDE}, mirror; project with roots and agreement "
        f"{AGREEMENT}, learned on {PUBLIC} public crops",
        "rows": [], "rivals": [],
    }  # fmt: skip
    half = sketch.most_features(Ridge(word=32), wide, {}, SMALL_BYTES - 16 * 1024)
    chosen = sys.argv[1:] or ["small", "rivals", "half", "large"]
    mixed = projected(x, prior, LARGE if "large" in chosen else half if "half" in chosen else small)
    for name, width, alone, word in (("small", small, 3, 64), ("half", half, 0, 32), ("large", LARGE, 0, 64)):
        if name in chosen:
            cut = np.ascontiguousarray(mixed[:, :width])
            title = f"{name}: project {width}, ridge in {word} bits"
            told = row(title, cut[:50_000], y, cut[50_000:], test_y, splits, alone, word)
            told["download_bytes"] = 4 * (WIDTH + WIDTH * width)
            result["rows"].append(told)
            keep("cifar10_features", result)
    if "rivals" in chosen:
        last = np.asarray(x[:, WIDTH - 2 * 1280 : WIDTH - 1280])
        for place, every in (
            ("last layer, mean-pooled (1,280), as published", last),
            (f"project {small}", mixed[:, :small]),
        ):
            train, test = every[:50_000], every[50_000:]
            for name, told in (
                ("AFL", afl(train, y, splits[0][2], test, test_y)),
                ("FedCGS", fedcgs(train, y, test, test_y)),
            ):
                result["rivals"].append({"rival": name, "features": place, **told})
                print(name, place, told, flush=True)
        keep("cifar10_features", result)


if __name__ == "__main__":
    main()
