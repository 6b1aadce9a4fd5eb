"""Project: fewer features, each a mix of those ahead, so that an update is as small as its task allows.

The sums of d features take about 4·d² bytes; those of k mixtures 4·k². The mixtures are public and the same on every
client, so sums stay additive and exact; what they leave out no client can add.

"random"   mixtures with random signs from a public seed: inner products of features keep their size to about 1/√k,
           when the features ahead share one scale
"learned"  the k directions in which features of public data vary most, after each feature was brought to variance 1;
           `pretrain` puts them into the prior. Better for the same k, but the task carries them:

    project.mean     (d,)   float32  public means of the features ahead, or of their roots
    project.mixture  (d, k) float32  directions, scaled so that each mixture has variance 1 on the public data

Among learned directions, `agreement` favours what many features say together over what one says alone: before the
directions are found, each feature is multiplied by the root of its summed squared correlations with all, to that power.
`roots` takes the root of each feature's size first, so that a few large values do not rule. Both help where the
features ahead are the many outputs of a network.

Needs    features ahead of it
Emits    x (n, num_features), float32 where the features ahead are, else float64
Bounds   "random": what the bounds ahead allow; "learned": 10, values beyond are cut
Source   Achlioptas, Database-Friendly Random Projections, 2003; Pearson, On Lines and Planes of Closest Fit, 1901
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Arrays, Data, as_numpy
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.fixed import one_blas_thread
from fusionlearn.plugin import LATER
from fusionlearn.problem import LABEL, Schema

MEAN, MIXTURE = "project.mean", "project.mixture"
BOUND = 10.0  # of a learned mixture, in public standard deviations
STEADY = 1e-3  # share of the mean deviation added to each feature's own: what hardly varies is not blown up
FAINT = 1e-6  # share of the greatest variance below which a direction is rounding
ROWS = 256  # projected at a time, each block by a product of the same size


@dataclass(frozen=True)
class Project(Encoder):
    name: ClassVar[str] = "project"

    num_features: int = 512  # mixtures to emit; 0: as many as the task's max_bytes allows, set when it is made
    directions: Literal["random", "learned"] = "random"  # from a public seed, or from public data by pre-training
    seed: int = 0  # public
    roots: bool = field(default=False, metadata=LATER)  # whether ±√|x| is mixed instead of x
    agreement: float = field(default=0.0, metadata=LATER)  # power of what features agree on, 0 (all weigh alike) to 4

    def __post_init__(self) -> None:
        if not 0 <= self.agreement <= 4:
            raise SettingsError(f"project: agreement is {self.agreement:g}; it may be 0 to 4.")
        if self.agreement and self.directions == "random":
            raise SettingsError("project: agreement is learned from public data: set directions to learned.")
        if not 0 <= self.num_features <= 65_536:
            raise SettingsError(f"project: num_features is {self.num_features}; it may be 0 to 65536.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        if before is None:
            raise SettingsError("project needs features ahead of it: put 'backbone', 'patches' or 'table' first.")
        if self.num_features == 0:
            raise SettingsError("project: num_features = 0 means as many as max_bytes allows: give the task max_bytes.")
        bounds = [math.sqrt(bound) for bound in before.bounds] if self.roots else before.bounds
        bound = BOUND if self.directions == "learned" else sum(bounds) / math.sqrt(len(bounds))
        return Features(tuple(f"mix[{i}]" for i in range(self.num_features)), (bound,) * self.num_features)

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        x = self._rooted(as_numpy(data[X]))
        if self.directions == "learned":
            mean, mixture = self._learned(prior, x.shape[1])
            mixed = np.clip(_product(x, mean, mixture), -BOUND, BOUND)
        else:
            mixed = _product(x, None, _signs(x.shape[1], self.num_features, self.seed))
        encoded: dict[str, Any] = {X: mixed}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})

    def pretrain(self, data: Data, schema: Schema, *, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Means and directions of public features, for a task's prior; nothing for random directions.

        Errors: SettingsError when the public rows span fewer directions than are asked for.
        """
        if self.directions == "random":
            return {}
        x = self._rooted(as_numpy(data[X]).astype(np.float64))
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        scale = deviation + STEADY * deviation.mean()
        if not deviation.any():
            raise SettingsError("project: the public features are all the same: nothing can be learned from them.")
        x = (x - mean) / scale
        with one_blas_thread():
            if self.agreement:
                weight = _agreement(x) ** self.agreement
                x *= weight
                scale = np.where(weight > 0, scale / np.maximum(weight, np.finfo(float).tiny), np.inf)
            # The same directions from the smaller of the two: features by features, or rows by rows.
            wide = x.shape[1] > x.shape[0]
            values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
            values, vectors = values[::-1], vectors[:, ::-1]
            known = int((values > FAINT * values[0]).sum())
            if known < self.num_features:
                raise SettingsError(
                    f"project: {len(x)} public rows span {known} directions, {self.num_features} are asked for: give "
                    f"more public data or ask for fewer."
                )
            values, vectors = values[: self.num_features], vectors[:, : self.num_features]
            if wide:
                vectors = x.T @ (vectors / np.sqrt(values))
        mixture = vectors / scale[:, None] / np.sqrt(values / len(x))
        return {MEAN: mean.astype(np.float32), MIXTURE: mixture.astype(np.float32)}

    def _rooted(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.copysign(np.sqrt(np.abs(x)), x) if self.roots else x

    def _learned(self, prior: Arrays, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shapes = {MEAN: (width,), MIXTURE: (width, self.num_features)}
        for name, shape in shapes.items():
            have = prior.get(name)
            if have is None:
                raise SettingsError(f"project: the task has no '{name}': run `fusionlearn pretrain` on public data.")
            if have.shape != shape or have.dtype != np.float32:
                raise SettingsError(f"project: prior array '{name}' is {have.shape} {have.dtype}, {shape} is expected.")
        return prior[MEAN], prior[MIXTURE]


def _agreement(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d,) the root of each feature's summed squared correlations with all, its median 1; x of variance 1, centred."""
    among = x @ x.T  # rows by rows
    shared = np.sqrt(np.einsum("ij,ij->j", x, among @ x)) / len(x)
    return np.asarray(shared / np.median(shared[shared > 0]))


def _product(x: NDArray[Any], mean: Any, mixture: NDArray[Any]) -> NDArray[Any]:
    """(x - mean) @ mixture in x's precision, by products of one size: no row's result depends on its company."""
    dtype = np.float32 if x.dtype == np.float32 else np.float64
    mixed = np.empty((len(x), mixture.shape[1]), dtype)
    block, mixture = np.zeros((ROWS, x.shape[1]), dtype), mixture.astype(dtype, copy=False)
    with one_blas_thread():
        for start in range(0, len(x), ROWS):
            rows = x[start : start + ROWS]
            block[: len(rows)] = rows if mean is None else rows - mean
            mixed[start : start + ROWS] = (block @ mixture)[: len(rows)]
    return mixed


@functools.lru_cache(maxsize=2)
def _signs(inputs: int, outputs: int, seed: int) -> NDArray[np.float64]:
    """(inputs, outputs) of ±1/√inputs, from SHAKE-256 of a public label."""
    label = f"fusionlearn project {inputs} {outputs} {seed}".encode()
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(label).digest(-(-inputs * outputs // 8)), np.uint8))
    return np.asarray((2.0 * bits[: inputs * outputs] - 1.0) / math.sqrt(inputs)).reshape(inputs, outputs)
