"""A forest grown in parts: each client grows trees on its own rows, the union votes.

scikit-learn grows the trees, which then travel as arrays, so no client's code or objects reach the server and
predicting needs NumPy only. A tree gives each class the share it has in the leaf, so it never votes for a class its
client has not seen, and its vote for class c weighs n_kc / n_c, the share of all rows of that class its client holds:
weighted by rows alone, clients with one class shout the others down. For regression a tree weighs n_k / n.

Update
    root         (t,)    int32    first node of each tree
    feature      (m,)    int32    column a node asks for; -1 in a leaf
    threshold    (m,)    float64  rows with x <= threshold go left
    left         (m,)    int32    next node, always further on
    right        (m,)    int32
    value        (m, c)  float32  class shares in the node (mean target, for regression)
    class_count  (c,)    int64    rows of each class (all rows, for regression)
Model
    the same arrays, all trees one after another, and tree_weight (t, c) float64 in place of class_count
Cost     upload about (24 + 4c) bytes a node, t·(2·max_leaves - 1) nodes at most; client O(t·n·d·log n); server none
Privacy  leaves of few rows speak of few people: `min_leaf` is the least; no bound on what one record changes
Source   Breiman, Random Forests, 2001; the union as fusion: Hauschild et al., Federated Random Forests, 2022
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays
from fusionlearn.arrays import Arrays, ArraySpec, Data, UpTo, as_numpy
from fusionlearn.errors import MissingExtra, SettingsError, UpdateError
from fusionlearn.method import Method, Moments
from fusionlearn.problem import Problem

CELLS = 2**22  # rows x trees walked at a time


@dataclass(frozen=True)
class Forest(Method):
    name: ClassVar[str] = "forest"

    trees: int = 50  # grown by each client
    max_leaves: int = 64  # of one tree
    min_leaf: int = 5  # least rows in a leaf

    def __post_init__(self) -> None:
        if not (1 <= self.trees <= 10_000 and 2 <= self.max_leaves <= 2**16 and self.min_leaf >= 1):
            raise SettingsError("forest: trees may be 1 to 10000, max_leaves 2 to 65536, min_leaf 1 or more.")

    @property
    def additive(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return False

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        most = self.trees * (2 * self.max_leaves - 1)
        nodes = (UpTo(most),)
        bound = problem.max_bound * (1 + 1e-6)
        top = 1.0 if problem.labels else problem.target_bound * (1 + 1e-6)
        return {
            "root": ArraySpec("int32", (self.trees,), 0, most - 1),
            "feature": ArraySpec("int32", nodes, -1, problem.num_features - 1),
            "threshold": ArraySpec("float64", nodes, -bound, bound),
            "left": ArraySpec("int32", nodes, 0, most - 1),
            "right": ArraySpec("int32", nodes, 0, most - 1),
            "value": ArraySpec("float32", (UpTo(most), problem.num_classes), 0.0 if problem.labels else -top, top),
            "class_count": ArraySpec("int64", (problem.num_classes,), 0, problem.max_records),
        }

    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        try:
            from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
        except ImportError as error:
            raise MissingExtra("forest", "scikit-learn", "trees") from error
        x, y = as_numpy(data["x"]), as_numpy(data["y"])
        grower = RandomForestClassifier if problem.labels else RandomForestRegressor
        forest = grower(
            n_estimators=self.trees,
            max_leaf_nodes=self.max_leaves,
            min_samples_leaf=min(self.min_leaf, max(1, len(x) // 2)),
            random_state=int(rng.integers(2**31)),
            n_jobs=1,
        ).fit(x, y)
        columns = forest.classes_.astype(int) if problem.labels else np.array([0])
        parts = [_tree(tree.tree_, columns, problem) for tree in forest.estimators_]
        starts = np.cumsum([0] + [len(part["feature"]) for part in parts])
        joined = _join(parts, starts[:-1])
        classes = y.astype(int) if problem.labels else np.zeros(len(x), int)
        return joined | {"class_count": np.bincount(classes, minlength=problem.num_classes).astype(np.int64)}

    def fuse(
        self,
        summaries: Sequence[Arrays],
        problem: Problem,
        prior: Arrays,
        *,
        public: Data | None = None,
        noise_std: float = 0.0,
        rng: np.random.Generator,
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        starts = np.cumsum([0] + [len(summary["feature"]) for summary in summaries])
        model = _join(summaries, starts[:-1])
        counts = np.array([summary["class_count"] for summary in summaries])
        share = counts / np.maximum(counts.sum(axis=0), 1)
        model["tree_weight"] = np.repeat(share / self.trees, self.trees, axis=0)
        leaves = model["feature"] < 0
        seen = counts.sum(axis=0) > 0
        if problem.labels and seen.sum() < 2:
            raise UpdateError("the clients together hold one class only, so there is nothing to tell apart.")
        absent = [problem.labels[k] for k in np.flatnonzero(~seen)] if problem.labels else []
        trees = len(model["root"])
        return model, {
            "records": int(counts.sum()),
            "trees": trees,
            "leaves": int(leaves.sum()),
            "absent_classes": absent,
        }

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        x = np.asarray(data["x"], np.float32)  # scikit-learn compares in single precision
        scores = np.zeros((len(x), problem.num_classes))
        step = max(1, CELLS // max(1, len(model["root"])))
        for start in range(0, len(x), step):
            rows = x[start : start + step]
            leaves = _walk(model, rows)
            for tree, weight in enumerate(model["tree_weight"]):
                scores[start : start + step] += weight * model["value"][leaves[:, tree]]
        if not problem.labels:
            return {"value": scores[:, 0]}
        return {"probability": scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-300)}

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        counts = np.asarray(summary["class_count"], np.float64)
        return Moments(float(counts.sum()), counts if problem.labels else None, None, None)

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: nodes that belong together and lead onwards, so that every walk ends."""
        arrays.check(summary, self.declare(problem, prior), place)
        rows = int(summary["class_count"].sum())
        if not 1 <= rows <= problem.max_records:
            raise UpdateError(f"{place} speaks of {rows} rows, the task allows 1 to {problem.max_records}.")
        size = len(summary["feature"])
        if size == 0 or any(len(summary[name]) != size for name in ("threshold", "left", "right", "value")):
            raise UpdateError(f"{place}: the arrays of the trees' nodes have different lengths or none.")
        here = np.arange(size)
        inner = summary["feature"] >= 0
        for name in ("left", "right"):
            ahead = summary[name][inner]
            if (ahead <= here[inner]).any() or (ahead >= size).any():
                raise UpdateError(f"{place}: array '{name}' leads to a node that is not further on in its tree.")
        if (summary["root"] >= size).any():
            raise UpdateError(f"{place}: array 'root' names a node that does not exist.")


def _tree(tree: Any, columns: NDArray[np.int64], problem: Problem) -> dict[str, NDArray[Any]]:
    """One scikit-learn tree as arrays; `columns` are the classes its client has seen."""
    leaf = tree.children_left < 0
    value = np.zeros((tree.node_count, problem.num_classes), np.float32)
    shares = tree.value[:, 0, :]
    value[:, columns] = shares / shares.sum(axis=1, keepdims=True) if problem.labels else shares
    return {
        "root": np.zeros(1, np.int32),
        "feature": np.where(leaf, -1, tree.feature).astype(np.int32),
        "threshold": np.where(leaf, 0.0, tree.threshold).astype(np.float64),
        "left": np.where(leaf, 0, tree.children_left).astype(np.int32),
        "right": np.where(leaf, 0, tree.children_right).astype(np.int32),
        "value": value,
    }


def _join(parts: Sequence[Arrays], starts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Trees one after another, their node numbers moved along; leaves keep 0."""
    joined: dict[str, NDArray[Any]] = {}
    for name in ("feature", "threshold", "value"):
        joined[name] = np.concatenate([part[name] for part in parts])
    joined["root"] = np.concatenate([part["root"] + start for part, start in zip(parts, starts, strict=True)])
    for name in ("left", "right"):
        moved = [
            np.where(part["feature"] < 0, 0, part[name] + start) for part, start in zip(parts, starts, strict=True)
        ]
        joined[name] = np.concatenate(moved)
    return {name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in joined.items()}


def _walk(model: Arrays, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """The leaf (n, t) where each row ends in each tree."""
    node = np.repeat(model["root"][None, :].astype(np.int64), len(x), axis=0)
    rows = np.arange(len(x))[:, None]
    for _ in range(len(model["feature"])):
        feature = model["feature"][node]
        inner = feature >= 0
        if not inner.any():
            break
        goes_left = x[rows, np.maximum(feature, 0)] <= model["threshold"][node]
        node = np.where(inner, np.where(goes_left, model["left"][node], model["right"][node]), node)
    return node
