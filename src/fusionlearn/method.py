"""Methods: what a client computes, how updates fuse, how the model predicts.

A method is one file in `methods/` and one line in `METHODS` (or an entry point `fusionlearn.methods` in another
package). It knows neither files nor threads nor transport. Its promises are equations, tested on every method by
`fusionlearn.testing.check_method`:

    purity    same inputs and rng → same output; inputs unchanged
    additive  fuse([a, b, c]) == fuse([a + b, c]) == fuse([a + b + c]), bit for bit
    exact     fuse(map(summarize, split(D))) == fuse([summarize(D)]) to rtol, for any split of D
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, plugin
from fusionlearn.arrays import Arrays, ArraySpec, Data
from fusionlearn.problem import Problem

METHODS: Mapping[str, str] = {
    "distill": "fusionlearn.methods.distill:Distill",
    "auto": "fusionlearn.methods.auto:Auto",
    "average": "fusionlearn.methods.average:Average",
    "distill_head": "fusionlearn.methods.distill_head:DistillHead",
    "ensemble": "fusionlearn.methods.ensemble:Ensemble",
    "forest": "fusionlearn.methods.forest:Forest",
    "gaussian": "fusionlearn.methods.gaussian:Gaussian",
    "naive_bayes": "fusionlearn.methods.naive_bayes:NaiveBayes",
    "phrases": "fusionlearn.methods.phrases:Phrases",
    "ridge": "fusionlearn.methods.ridge:Ridge",
    "synthesize": "fusionlearn.methods.synthesize:Synthesize",
    "translate": "fusionlearn.methods.translate:Translate",
}
GROUP = "fusionlearn.methods"

Findings: TypeAlias = Mapping[str, Any]  # what fusing found out, for the coordinator's report; JSON values


@dataclass(frozen=True)
class Moments:
    """What anybody who holds one summary can read of the rows behind it; for the report and the leakage page."""

    count: float  # rows
    class_count: NDArray[np.float64] | None  # (c,) rows of each class
    mean: NDArray[np.float64] | None  # (d,) mean of the features
    second: NDArray[np.float64] | None  # (d+1, d+1) Σ w [1 x][1 x]ᵀ, or (d+1,) its diagonal
    class_weight: NDArray[np.float64] | None = None  # (c,) w of a row of each class; None: all 1


class Method(plugin.Plugin, abc.ABC):
    """The mathematics of one way to learn in one contact. Final subclasses are frozen dataclasses."""

    # Choices that are the client's own and never travel, such as a teacher. A method that names some takes them as
    # `summarize(..., local={"teacher": "forest"})`, each optional.
    LOCAL: ClassVar[tuple[str, ...]] = ()
    # What the names of the prior arrays begin with that only clients need, to start from: no part of a model.
    START: ClassVar[tuple[str, ...]] = ()

    # Whether its models answer with texts; those of every other method answer with classes or numbers.
    TEXTS: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def additive(self) -> bool:
        """Whether summaries may be summed, any part of them first. Then every array is int64 or int32."""

    @property
    @abc.abstractmethod
    def exact(self) -> bool:
        """Whether the fused model is the one of the pooled rows, to `rtol`."""

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str] | None:
        """What a model of this method is, for `export`: a head, a named network, or neither.

        ("linear", "") is "weights" and "bias" whose scores become the nearest probabilities, ("linear", "softmax") one
        whose scores become those of a softmax; ("network", NAME:key=value,…) is a network's weights.
        """
        return None

    @property
    def uses_public(self) -> bool:
        """Whether `fuse` learns from unlabelled rows of the server's own; where it does not, they are refused."""
        return False

    @property
    def pretrains(self) -> bool:
        """Whether `pretrain` learns anything, for which it needs labels."""
        return type(self).pretrain is not Method.pretrain

    @property
    def rtol(self) -> float:
        """How exact, relative to the largest entry of each model array."""
        return 1e-9

    @abc.abstractmethod
    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        """Names, dtypes, shapes and value bounds of a summary, before any data is seen. Errors: SettingsError."""

    @abc.abstractmethod
    def summarize(self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator) -> dict[str, Any]:
        """A client's whole computation: encoded data {"x": (n, d), "y": (n,)} → the arrays of its update."""

    @abc.abstractmethod
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
        """The server's whole computation: summaries → the model's arrays, and findings for the report.

        summaries  NumPy arrays; additive methods may get any of them already summed
        public     the server's own unlabelled rows {"x": (n, d)}, never part of the task; None unless `uses_public`
        noise_std  the standard deviation of noise added to the sums, in real units
        Errors: UpdateError when nothing can be learned from the set.
        """

    @abc.abstractmethod
    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        """{"probability": (n, c)} for classes, {"value": (n,)} in scaled units for regression, {"piece": (n, d)}
        numbers of pieces for texts.
        """

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Refuse a summary no honest client could have sent. Errors: UpdateError naming `place`."""
        arrays.check(summary, self.declare(problem, prior), place)

    def sensitivity(self, problem: Problem, prior: Arrays) -> float | None:
        """The largest L2 change that adding or removing one record makes to a summary; None when unbounded."""
        return None

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Prior arrays learned from public encoded rows {"x": (n, d), "y": (n,)}; none where nothing is learned."""
        return {}

    def within(self, problem: Problem, prior: Arrays, max_bytes: int) -> Method:
        """This method, with sizes that its settings leave open set to the most with which an update fits.

        Errors: SettingsError with the least that fits, when nothing does.
        """
        return self

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        """What the summary tells of its rows; None when it tells no moments."""
        return None

    def loss(self, model: Arrays, summary: Arrays, problem: Problem) -> float | None:
        """Mean loss of a model on the rows behind a summary, from the summary alone; None when that cannot be had."""
        return None

    def summarize_many(
        self, datasets: Sequence[Data], problem: Problem, prior: Arrays, *, rngs: Sequence[np.random.Generator]
    ) -> list[dict[str, Any]]:
        """Many clients at once, equal to one at a time; for simulation."""
        return [self.summarize(data, problem, prior, rng=rng) for data, rng in zip(datasets, rngs, strict=True)]


def available() -> dict[str, str]:
    """Name → "module:Class" of every method that can be made here."""
    return plugin.available(METHODS, GROUP)


def make(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of that name with these settings. Errors: SettingsError."""
    return plugin.make(plugin.find(Method, name, METHODS, GROUP), settings or {})  # type: ignore[type-abstract]


def from_json(value: Any) -> Method:
    """A method from what a file says of it. Errors: SettingsError."""
    return plugin.from_json(Method, value, METHODS, GROUP)  # type: ignore[type-abstract]


def to_json(method: Method) -> dict[str, Any]:
    """What a file says of a method."""
    return plugin.to_json(method)
