"""Several methods in one upload; the server picks the one that the updates themselves speak for.

The task lists candidates, each client sends once what they need, and what several need is sent once: the Gram matrix of
ridge regression serves distill_head too, and Gaussian classes with a shared covariance are read off ridge's sums
altogether. The server fuses every candidate, judges it from what was sent, keeps the best and says why. There is no
second contact and no test data. What is judged how:

    ridge, gaussian (shared), distill_head, naive_bayes: linear scores, judged from sums. Rows of a class are taken
        as normal around their class mean with the covariance that all classes share. That gives the distribution of
        a head's scores, and the share of rows it gets right. judge = "rows": for further rows of the same clients;
        every row is taken out of the head that is tried on it (by its mean leverage, in closed form). judge =
        "clients": for clients not among these; every client is taken out of the sums and the head of the others tried
        on its own. Classes count there by the share that others hold. Features are not normal: the shares are too
        high, and it is their order that counts.
    all others: by the client's own rows. It learns each candidate from two thirds of them and tries it on the rest,
        and sends how many answers were wrong. This says nothing of what fusing adds, so such a candidate is
        preferred to those judged from sums only if it is better than all of them on the clients' own rows, beyond
        chance and by a point at least, if clients hold the same classes, and if their class means agree: a part of a
        forest or an ensemble knows nothing of classes and regions that its client has not seen.
    Where one class has more than 0.8 of the rows, ranking (AUC) is judged in the place of right answers; for numbers
        squared error is, from sums by generalised cross-validation.

What is less than a quarter of a point apart counts as equal, and the one listed first is taken.

Update
    CANDIDATE.NAME  as there  what each candidate declares, less what an earlier one sends already
    own.wrong       (m,)      float64  by candidate: wrong answers on own rows kept out, or squared errors
    own.disorder    (m,)      float64  by candidate: (1 - AUC) · rows
    own.rows        ()        int64    rows tried; these three only where a candidate is not judged from sums
Model
    chosen  ()        int64  which candidate
    …       as there         the arrays of its model
Cost     upload the sum of what is not shared; client all of the candidates, four times over where own rows are tried;
         server every candidate once, with judge = "clients" once for each client
Privacy  no bound on what one record changes
Source   leaving rows out of sums: Allen, The Relationship between Variable Selection and Data Augmentation and a
         Method for Prediction, 1974; of discriminants: Lachenbruch, Mickey, Estimation of Error Rates in
         Discriminant Analysis, 1968
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fusionlearn import arrays, heads, method, plugin, sums
from fusionlearn.arrays import Arrays, ArraySpec, Data, as_numpy
from fusionlearn.errors import SettingsError, UpdateError
from fusionlearn.fixed import FixedPoint, one_blas_thread, unpack
from fusionlearn.heads import HeadSums
from fusionlearn.method import Method, Moments
from fusionlearn.problem import Problem

Matrix = NDArray[np.float64]

DRAWS = 512  # of every class, to see which score is the largest
EQUAL = 0.0025  # shares less than this apart count as equal
MARGIN = 0.01  # by which a candidate judged on own rows must be ahead of one judged from sums
OVERLAP = 0.5  # least class overlap for a candidate that is no sum
APART = 1.0  # standard deviations between clients' class means, beyond which such a candidate is not taken
DOMINATES = 0.8  # share of the commonest class from which on ranking is judged
FOLDS = 3  # of a client's own rows
MOST_WORK = 2e11  # operations of leaving out each client; beyond, rows are left out instead
FLOOR = 1e-6  # least variance of a standardised direction


@dataclass(frozen=True)
class Class:
    """Rows by class: what judging from sums needs of them."""

    count: Matrix  # (c,)
    total: Matrix  # (c, d) Σ x
    gram: Matrix  # (d, d) Σ xxᵀ

    @property
    def mean(self) -> Matrix:
        """(c, d) class means, 0 for classes without rows."""
        return np.asarray(self.total / np.maximum(self.count, 1.0)[:, None])

    @property
    def within(self) -> Matrix:
        """(d, d) the covariance that all classes share."""
        return np.asarray((self.gram - self.total.T @ self.mean) / max(float(self.count.sum()), 1.0))


@dataclass(frozen=True)
class Standing:
    """What is known of one candidate."""

    place: int  # in the list
    name: str
    judged: str  # "sums", "own rows", or why it was passed over
    good: float | None = None  # the share it gets right, its AUC, or minus its squared error; judged from sums
    own: float | None = None  # the same, of clients' own rows


@dataclass(frozen=True)
class Auto(Method):
    name: ClassVar[str] = "auto"
    LOCAL: ClassVar[tuple[str, ...]] = ("teacher",)
    START: ClassVar[tuple[str, ...]] = ("network.", "public")

    candidates: tuple[str, ...] = ("ridge", "gaussian")  # methods to choose from, each NAME or NAME:key=value,…
    judge: Literal["rows", "clients"] = "rows"  # what the model is for: further rows of these clients, or new clients
    budget: int = 0  # bytes an update's arrays may take: candidates are taken in order as they fit; 0: no limit

    def __post_init__(self) -> None:
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise SettingsError("auto: candidates must name one method or more, each once.")
        if self.budget < 0:
            raise SettingsError(f"auto: budget is {self.budget}; it may be 0 (no limit) or a number of bytes.")
        for text, made in zip(self.candidates, self._made, strict=True):
            if isinstance(made, Auto) or made.TEXTS:
                raise SettingsError(f"auto: '{text}' cannot be a candidate: it must answer with classes or numbers.")

    @functools.cached_property
    def _made(self) -> tuple[Method, ...]:
        """The candidates, in order."""
        return tuple(
            plugin.parse(Method, text, method.METHODS, method.GROUP)  # type: ignore[type-abstract]
            for text in self.candidates
        )

    @property
    def additive(self) -> bool:
        return self.judge == "rows" and self._from_sums

    @property
    def uses_public(self) -> bool:
        return any(made.uses_public for made in self._made)

    @property
    def pretrains(self) -> bool:
        return any(made.pretrains for made in self._made)

    @property
    def exact(self) -> bool:
        return False  # the model is as exact as its candidate; which one is chosen may hang on a hair

    @property
    def graph(self) -> tuple[Literal["linear", "network"], str] | None:
        graphs = {made.graph for made in self._made}
        return graphs.pop() if len(graphs) == 1 else None

    @property
    def _from_sums(self) -> bool:
        """Whether sums alone judge every candidate."""
        if not any(_kind(made) in ("ridge", "gaussian") for made in self._made):
            return len(self._made) == 1 and self._made[0].additive
        return all(_kind(made) for made in self._made)

    # --- what is sent -----------------------------------------------------------------------------------------------

    def _taken(self, problem: Problem, prior: Arrays) -> dict[int, dict[str, str]]:
        """Place of each candidate that is used → names of its arrays and of those that travel for them.

        Passed over: those that do not suit the question, and those that no longer fit the budget. Errors:
        SettingsError when none is left.
        """
        taken: dict[int, dict[str, str]] = {}
        grams: dict[int, str] = {}  # bits of an entry → the name under which the Gram matrix travels
        room, refused = self.budget or float("inf"), []
        for place, (made, key) in enumerate(zip(self._made, self._keys(), strict=True)):
            try:
                specs = made.declare(problem, prior)
            except SettingsError as error:
                refused.append(str(error))
                continue
            if _derived(made, [self._made[other] for other in taken], problem):
                taken[place] = {}
                continue
            names = {name: f"{key}.{name}" for name in specs}
            if _kind(made) in ("ridge", "distill_head"):
                names["gram"] = grams.setdefault(made.word, names["gram"])  # type: ignore[attr-defined]
            used = {name for other in taken.values() for name in other.values()}
            size = sum(spec.max_bytes for name, spec in specs.items() if names[name] not in used)
            if size > room:
                refused.append(f"auto: '{key}' takes {size} bytes more, the budget leaves {room:.0f}: raise it.")
                if names.get("gram", "") not in used:
                    grams = {word: name for word, name in grams.items() if name != names.get("gram")}
                continue
            room -= size
            taken[place] = names
        if not taken:
            raise SettingsError(refused[0])
        return taken

    def _keys(self) -> list[str]:
        """What the candidates' arrays are called: their names, numbered where a name comes twice."""
        names = [made.name for made in self._made]
        return [f"{name}{names[:place].count(name) + 1}" if name in names[:place] else name
                for place, name in enumerate(names)]  # fmt: skip

    def declare(self, problem: Problem, prior: Arrays) -> dict[str, ArraySpec]:
        told: dict[str, ArraySpec] = {}
        for place, names in self._taken(problem, prior).items():
            specs = self._made[place].declare(problem, prior)
            told |= {travels: specs[name] for name, travels in names.items()}
        if not self._from_sums:
            most, count = problem.max_records, len(self.candidates)
            told["own.wrong"] = ArraySpec("float64", (count,), 0.0, _worst(problem) * most)
            told["own.disorder"] = ArraySpec("float64", (count,), 0.0, float(most))
            told["own.rows"] = ArraySpec("int64", (), 0, most)
        return told

    def summarize(
        self,
        data: Data,
        problem: Problem,
        prior: Arrays,
        *,
        rng: np.random.Generator,
        local: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        sent: dict[str, Any] = {}
        taken = self._taken(problem, prior)
        seeds = rng.integers(2**31, size=2 * len(self._made) + 1)
        for place, names in taken.items():
            if names:
                found = self._summary(place, data, problem, prior, int(seeds[2 * place]), local)
                sent |= {travels: found[name] for name, travels in names.items() if travels not in sent}
        if not self._from_sums:
            sent |= self._tried(list(taken), data, problem, prior, seeds, local)
        return sent

    def _summary(
        self, place: int, data: Data, problem: Problem, prior: Arrays, seed: int, local: Mapping[str, str] | None
    ) -> dict[str, Any]:
        made = self._made[place]
        kept = {name: choice for name, choice in (local or {}).items() if name in made.LOCAL}
        choices: dict[str, Any] = {"local": kept} if kept else {}
        return made.summarize(data, problem, prior, rng=np.random.default_rng(seed), **choices)

    def _tried(
        self,
        places: Sequence[int],
        data: Data,
        problem: Problem,
        prior: Arrays,
        seeds: NDArray[np.int64],
        local: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        """How each candidate does on own rows when it has learned from the others of them."""
        x, y = as_numpy(data["x"]), as_numpy(data["y"])
        wrong, disorder = np.zeros(len(self._made)), np.zeros(len(self._made))
        rows = len(x) if len(x) >= 2 * FOLDS else 0
        fold = np.random.default_rng(int(seeds[-1])).permutation(len(x)) % FOLDS
        for place in places if rows else ():
            answers = np.zeros((rows, problem.num_classes))
            for part in range(FOLDS):
                kept, out = fold != part, fold == part
                try:
                    found = self._summary(
                        place, {"x": x[kept], "y": y[kept]}, problem, prior, int(seeds[2 * place + 1]), local
                    )
                    host = {name: as_numpy(array) for name, array in found.items()}
                    model, _ = self._made[place].fuse([host], problem, prior, rng=np.random.default_rng(0))
                    told = self._made[place].predict(model, {"x": x[out]}, problem, prior)
                    answers[out] = told["probability"] if problem.labels else told["value"][:, None]
                except UpdateError:  # one class only: then that is the answer
                    answers[out] = sums.one_hot(y[kept][:1], problem.num_classes) if problem.labels else 0.0
            if problem.labels:
                wrong[place] = float((answers.argmax(axis=1) != y).sum())
                disorder[place] = rows * (1.0 - _ordered(answers, y.astype(np.int64), np.ones(rows)))
            else:
                top = problem.target_bound
                wrong[place] = float(((np.clip(answers[:, 0], -top, top) - y) ** 2).sum())
        return {"own.wrong": wrong, "own.disorder": disorder, "own.rows": np.asarray(rows, np.int64)}

    def _view(self, place: int, sent: Arrays, taken: Mapping[int, Mapping[str, str]], problem: Problem) -> Arrays:
        """A candidate's own summary, from what was sent."""
        if taken[place]:
            return {name: sent[travels] for name, travels in taken[place].items()}
        made: Any = self._made[place]
        source = next(
            other for other in taken
            if taken[other] and _kind(self._made[other]) == "ridge" and self._made[other].word == made.word  # type: ignore[attr-defined]
        )  # fmt: skip
        ridge = self._view(source, sent, taken, problem)
        bits = HeadSums(problem).grids()["moment"][0].bits
        return {
            "class_count": np.asarray(ridge["moment"][0] >> bits),
            "class_sum": np.ascontiguousarray(ridge["moment"][1:].T),
            "gram": ridge["gram"][problem.num_features + 1 :],  # less the row of the constant
        }

    def check(self, summary: Arrays, problem: Problem, prior: Arrays, place: str) -> None:
        """Besides shapes and bounds: what each candidate checks."""
        arrays.check(summary, self.declare(problem, prior), place)
        taken = self._taken(problem, prior)
        for number, names in taken.items():
            if names:
                self._made[number].check(self._view(number, summary, taken, problem), problem, prior, place)
        if self._from_sums:
            return
        rows = float(summary["own.rows"])
        limits = {"own.wrong": _worst(problem) * rows, "own.disorder": rows}
        if any((summary[name] > limit * (1 + 1e-9)).any() for name, limit in limits.items()):
            raise UpdateError(f"{place}: more answers are wrong than rows were tried; ask the client to redo it.")

    # --- what is made of it -----------------------------------------------------------------------------------------

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
        taken = self._taken(problem, prior)
        seeds = rng.integers(2**31, size=len(self._made))
        made: dict[int, tuple[dict[str, NDArray[Any]], dict[str, Any]]] = {}
        failed: UpdateError | None = None
        for place in taken:
            views = [self._view(place, summary, taken, problem) for summary in summaries]
            try:
                made[place] = self._made[place].fuse(
                    views, problem, prior, public=public, noise_std=noise_std,
                    rng=np.random.default_rng(int(seeds[place])),
                )  # fmt: skip
            except UpdateError as error:
                failed = error
        if not made:
            assert failed is not None
            raise failed
        bench = _Bench(self, taken, summaries, problem, made)
        chosen, reason = bench.choose()
        model, findings = made[chosen]
        return {**model, "chosen": np.asarray(chosen, np.int64)}, {
            **findings,
            "chosen": self.candidates[chosen],
            "reason": reason,
            **bench.told(),
        }

    def predict(self, model: Arrays, data: Data, problem: Problem, prior: Arrays) -> dict[str, NDArray[Any]]:
        made, own = self._winner(model)
        return made.predict(own, data, problem, prior)

    def pretrain(
        self, data: Data, problem: Problem, prior: Arrays, *, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """What every candidate that suits the question learns from public rows."""
        learned: dict[str, NDArray[Any]] = {}
        for place in self._taken(problem, prior):
            learned |= self._made[place].pretrain(data, problem, prior, rng=rng)
        return learned

    def moments(self, summary: Arrays, problem: Problem) -> Moments | None:
        taken = self._taken(problem, {})
        told = [self._made[place].moments(self._view(place, summary, taken, problem), problem) for place in taken]
        known = [one for one in told if one is not None]
        return next((one for one in known if one.second is not None), known[0] if known else None)

    def loss(self, model: Arrays, summary: Arrays, problem: Problem) -> float | None:
        """As the chosen candidate tells it."""
        made, own = self._winner(model)
        taken = self._taken(problem, {})
        place = int(model["chosen"])
        return made.loss(own, self._view(place, summary, taken, problem), problem) if place in taken else None

    def _winner(self, model: Arrays) -> tuple[Method, dict[str, Any]]:
        place = int(model["chosen"])
        if not 0 <= place < len(self._made):
            raise SettingsError(f"the model says that candidate {place} was chosen, and there are {len(self._made)}.")
        return self._made[place], {name: array for name, array in model.items() if name != "chosen"}


def _kind(made: Method) -> str:
    """The name of a candidate that sums can judge, else ""."""
    plain = {
        "ridge": getattr(made, "class_weights", "") == "none",
        "gaussian": getattr(made, "covariance", "") == "shared",
        "distill_head": True,
        "naive_bayes": True,
    }
    return made.name if plain.get(made.name, False) else ""


def _worst(problem: Problem) -> float:
    """The most that one row adds to what is wrong."""
    return 1.0 if problem.labels else (2 * problem.target_bound) ** 2


def _derived(made: Any, before: Sequence[Any], problem: Problem) -> bool:
    """Whether all that a candidate needs can be read off an earlier one's sums."""
    return (
        bool(problem.labels)
        and _kind(made) == "gaussian"
        and any(_kind(other) == "ridge" and other.word == made.word for other in before)
    )


# --- judging --------------------------------------------------------------------------------------------------------


class _Bench:
    """Where the candidates are judged."""

    def __init__(
        self,
        auto: Auto,
        taken: Mapping[int, Mapping[str, str]],
        summaries: Sequence[Arrays],
        problem: Problem,
        made: Mapping[int, tuple[dict[str, NDArray[Any]], dict[str, Any]]],
    ) -> None:
        self.auto, self.taken, self.summaries, self.problem, self.made = auto, taken, summaries, problem, made
        self.source = next(
            (place for kind in ("ridge", "gaussian") for place in made if _kind(auto._made[place]) == kind), None
        )
        self.counts = self._counts()
        self.ranked = bool(problem.labels) and self.counts is not None and bool(
            self.counts.sum(axis=0).max() > DOMINATES * self.counts.sum()
        )  # fmt: skip
        work = 10.0 * len(summaries) * len(made) * problem.num_features**3
        self.by_client = auto.judge == "clients" and len(summaries) > 1 and work <= MOST_WORK and bool(problem.labels)
        self.overlap, self.shift = self._overlap(), self._shift()
        self.standings = [self._standing(place) for place in range(len(auto.candidates))]

    def _counts(self) -> Matrix | None:
        """(K, c) rows of each class at each client (one row where sums came summed)."""
        if not self.problem.labels:
            return None
        found = []
        for summary in self.summaries:
            told = self.auto.moments(summary, self.problem)
            if told is None or told.class_count is None:
                return None
            found.append(np.maximum(told.class_count, 0.0))
        return np.stack(found)

    def _overlap(self) -> float | None:
        """The share of a row's class that other clients hold, in the mean over rows: 0 none, near 1 alike."""
        if self.auto.additive or self.counts is None or len(self.counts) < 2:
            return None
        held = self.counts.sum(axis=0)
        expected = 1.0 - (self.counts.sum(axis=1) ** 2).sum() / max(self.counts.sum() ** 2, 1.0)
        others = 1.0 - (self.counts**2 / np.maximum(held, 1.0)).sum() / max(self.counts.sum(), 1.0)
        return float(others / expected) if expected > 0 else None

    def _shift(self) -> float | None:
        """How far the same class lies apart at different clients: root mean square, in its standard deviations.

        What chance explains is taken off.
        """
        if self.auto.additive or self.source is None or not self.problem.labels or len(self.summaries) < 2:
            return None
        whole = self._classes(self.summaries)
        apart, within = np.zeros(self.problem.num_features), np.zeros(self.problem.num_features)
        for summary in self.summaries:
            own = self._classes([summary])
            spread = np.diag(own.within) * own.count.sum()
            # A client's rows lie about its own class means: with each of them a degree of freedom is gone.
            spare = max(float(own.count.sum() - (own.count > 0).sum()), 1.0)
            chance = (own.count > 0).sum() - (own.count / np.maximum(whole.count, 1.0)).sum()
            apart += (own.count[:, None] * (own.mean - whole.mean) ** 2).sum(axis=0) - chance * spread / spare
            within += spread
        used = within > sums.CONSTANT * np.diag(whole.gram)
        if not used.any():
            return None
        return float(np.sqrt(max(float((apart[used] / within[used]).mean()), 0.0)))

    def _classes(self, summaries: Sequence[Arrays]) -> Class:
        """Sums by class, from the candidate that tells them."""
        assert self.source is not None
        auto, problem = self.auto, self.problem
        total = arrays.total([auto._view(self.source, summary, self.taken, problem) for summary in summaries])
        made: Any = auto._made[self.source]
        if _kind(made) == "ridge":
            real = HeadSums(problem, word=made.word).decode(total)
            return Class(np.rint(real.moment[0]), real.moment[1:].T, real.gram[1:, 1:])
        first = FixedPoint.for_sums(problem.max_records, problem.max_bound)
        second = FixedPoint.for_sums(problem.max_records, problem.max_bound**2, made.word)
        return Class(
            total["class_count"].astype(float), first.decode(total["class_sum"]), unpack(second.decode(total["gram"]))
        )

    def _standing(self, place: int) -> Standing:
        name = self.auto.candidates[place]
        if place not in self.taken:
            return Standing(place, name, "passed over: it does not suit the question or the budget")
        if place not in self.made:
            return Standing(place, name, "passed over: nothing could be fused")
        own = self._own(place)
        good = self._good(place)
        return Standing(place, name, "own rows" if good is None else "sums", good, own)

    def _own(self, place: int) -> float | None:
        if self.auto._from_sums:
            return None
        rows = sum(int(summary["own.rows"]) for summary in self.summaries)
        told = "own.disorder" if self.ranked else "own.wrong"
        lost = sum(float(summary[told][place]) for summary in self.summaries)
        if not rows:
            return None
        return 1.0 - lost / rows if self.problem.labels else -lost / rows

    def _good(self, place: int) -> float | None:
        """What sums say of a candidate; None where they say nothing."""
        if self.source is None or not _kind(self.auto._made[place]):
            return None
        if not self.problem.labels:
            return self._squared(place)
        if not self.by_client:
            scores, count = self._rows_left_out(place)
            return _share_right(scores, count, self.ranked)
        right = weight = 0.0
        whole = self._classes(self.summaries)
        for left in range(len(self.summaries)):
            rest = [summary for number, summary in enumerate(self.summaries) if number != left]
            own = self._classes([self.summaries[left]])
            count = own.count * (1.0 - own.count / np.maximum(whole.count, 1.0))
            try:
                views = [self.auto._view(place, summary, self.taken, self.problem) for summary in rest]
                model, _ = self.auto._made[place].fuse(views, self.problem, {}, rng=np.random.default_rng(0))
            except UpdateError:  # the others hold one class only
                continue
            scores = _scores(model["weights"], model["bias"], own.mean, own.within)
            right += count.sum() * _share_right(scores, count, self.ranked)
            weight += count.sum()
        return right / weight if weight else None

    def _squared(self, place: int) -> float | None:
        """Minus the squared error of a head for numbers, each row left out in the mean (generalised validation)."""
        assert self.source is not None
        source: Any = self.auto._made[self.source]
        model, findings = self.made[place]
        total = arrays.total([
            self.auto._view(self.source, summary, self.taken, self.problem) for summary in self.summaries
        ])  # fmt: skip
        real = HeadSums(self.problem, word=source.word).decode(total)
        rows = float(total["count"])
        left = rows - float(findings["degrees_of_freedom"])
        return -heads.loss(model, real) * (rows / left) ** 2 if left > 0 else None

    def _rows_left_out(self, place: int) -> tuple[Matrix, Matrix]:
        """Scores of rows of each class (c, DRAWS, c), every row taken out of the model that scores it; rows of each."""
        made: Any = self.auto._made[place]
        whole = self._classes(self.summaries)
        model, findings = self.made[place]
        if _kind(made) == "gaussian":
            uniform = made.class_prior == "uniform"
            return _discriminants(whole, uniform), whole.count
        scores = _scores(model["weights"], model["bias"], whole.mean, whole.within)
        if _kind(made) == "naive_bayes":
            # A row adds x²/f to its own score where its class has the feature f times.
            shares = np.exp(model["weights"]).T * np.maximum(whole.total, 0.0).sum(axis=1)[:, None]
            square = np.diag(whole.gram) / max(whole.count.sum(), 1.0)
            pull = (square / np.maximum(shares, float(findings["smoothing"]))).sum(axis=1)
        else:
            pull = _leverage(whole, float(findings["penalty"]))
        for k, moved in enumerate(pull):
            scores[k, :, k] -= moved
        return scores, whole.count

    def choose(self) -> tuple[int, str]:
        """The best candidate's place, and why, as a sentence."""
        judged = [one for one in self.standings if one.good is not None]
        others = [one for one in self.standings if one.good is None and one.place in self.made]
        figure = "AUC" if self.ranked else "right answers" if self.problem.labels else "squared error"
        if not judged:
            best = max(others, key=lambda one: (-1e300 if one.own is None else one.own, -one.place))
            told = _compared(best, [(one, one.own) for one in others], self.problem)
            why = f"{best.name} was chosen: on rows that clients kept out themselves it has the best {figure}{told}"
            return best.place, why + "."
        top = max(one.good for one in judged if one.good is not None)
        equal = EQUAL if self.problem.labels else EQUAL * abs(top)
        best = next(one for one in judged if one.good is not None and one.good >= top - equal)
        rival = max(others, key=lambda one: -1e300 if one.own is None else one.own, default=None)
        refused = ""
        # On own rows, too few for all their features, one linear candidate may do much worse than another that fusing
        # makes its equal: the rival is held against the better of them there.
        ruler = max(judged, key=lambda one: -1e300 if one.own is None else one.own)
        if rival is not None and rival.own is not None and ruler.own is not None and rival.own > ruler.own:
            refused = self._refused(rival, ruler)
            if not refused:
                told = _compared(rival, [(rival, rival.own), (ruler, ruler.own)], self.problem)
                return rival.place, (
                    f"{rival.name} was chosen: on rows that clients kept out themselves it has the best {figure}"
                    f"{told}, and the clients hold the same classes."
                )
        left_out = "each client" if self.by_client else "each row"
        told = _compared(best, [(one, one.good) for one in judged], self.problem)
        only = len(judged) == 1
        why = (
            f"{best.name} was chosen: it is the only candidate that sums can judge"
            if only
            else f"{best.name} was chosen: with {left_out} left out of the sums it has the best {figure}{told}"
        )
        return best.place, why + (f"; {refused}." if refused else ".")

    def _refused(self, rival: Standing, ruler: Standing) -> str:
        """Why a candidate that does better on clients' own rows is not taken all the same; "" if nothing speaks."""
        assert rival.own is not None and ruler.own is not None
        rows = sum(int(summary["own.rows"]) for summary in self.summaries)
        ahead = f"{rival.name} does better on clients' own rows"
        if self.problem.labels:
            chance = 2.0 * float(np.sqrt(2 * max(rival.own * (1 - rival.own), 1e-4) / max(rows, 1)))
            margin = max(MARGIN, chance)
        else:
            margin = 4 * MARGIN * abs(ruler.own)
        if rival.own - ruler.own <= margin:
            return f"{ahead}, but by less than fusing may add"
        if self.overlap is not None and self.overlap < OVERLAP:
            return f"{ahead}, but clients share few classes (overlap {self.overlap:.2f} of 1)"
        if self.shift is not None and self.shift > APART:
            return f"{ahead}, but their records differ by {self.shift:.1f} standard deviations"
        return ""

    def told(self) -> dict[str, Any]:
        """For the report."""
        rows = float(self.counts.sum()) if self.counts is not None else None
        return {
            "class_overlap": self.overlap,
            "shift": self.shift,
            "rows_per_feature": None if rows is None else rows / max(self.problem.num_features, 1),
            "candidates": [
                {"name": one.name, "judged": one.judged, "from_sums": one.good, "own_rows": one.own}
                for one in self.standings
            ],
        }


def _compared(best: Standing, all_of: Sequence[tuple[Standing, float | None]], problem: Problem) -> str:
    """(0.93 against gaussian's 0.92), or nothing where there is nobody to compare with."""
    mine = next((value for one, value in all_of if one is best), None)
    others = [
        f"{one.name}'s {_figure(value, problem)}" for one, value in all_of if one is not best and value is not None
    ]
    return f" ({_figure(mine, problem)} against {', '.join(others)})" if mine is not None and others else ""


def _figure(value: float, problem: Problem) -> str:
    return f"{value:.3f}" if problem.labels else f"{-value:.4g}"


def _root(covariance: Matrix) -> Matrix:
    """A with AAᵀ the covariance."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _noise(covariance: Matrix) -> Matrix:
    """(DRAWS, c) public draws with that covariance, the same for every candidate."""
    drawn = np.random.default_rng(0).standard_normal((DRAWS, len(covariance)))
    return np.asarray(drawn @ _root(covariance).T)


def _scores(weights: Matrix, bias: Matrix, mean: Matrix, within: Matrix) -> Matrix:
    """Scores (c, DRAWS, c) that a linear head gives rows normal around each class mean."""
    with one_blas_thread():
        return np.asarray((mean @ weights + bias)[:, None, :] + _noise(weights.T @ within @ weights)[None])


def _share_right(scores: Matrix, count: Matrix, ranked: bool) -> float:
    """The share of rows whose own class has the highest score, or their AUC."""
    c = len(count)
    if ranked:
        labels = np.repeat(np.arange(c), scores.shape[1])
        return _ordered(
            scores.reshape(-1, scores.shape[2]), labels, np.repeat(count / scores.shape[1], scores.shape[1])
        )
    right = np.array([float((scores[k].argmax(axis=1) == k).mean()) if count[k] else 0.0 for k in range(c)])
    return float((right * count).sum() / max(count.sum(), 1e-300))


def _ordered(scores: Matrix, labels: NDArray[np.int64], weight: Matrix) -> float:
    """AUC of each class against the rest, rows weighted, in the mean over classes by their rows; ½ where one is all."""
    found = total = 0.0
    for k in range(scores.shape[1]):
        rest = np.delete(scores, k, axis=1).max(axis=1) if scores.shape[1] > 1 else 0.0
        lead = scores[:, k] - rest
        inside, outside = labels == k, labels != k
        mass, other = float(weight[inside].sum()), float(weight[outside].sum())
        if mass <= 0 or other <= 0:
            continue
        order = np.argsort(lead[outside], kind="stable")
        ordered, below = lead[outside][order], np.concatenate([[0.0], np.cumsum(weight[outside][order])])
        wins = (
            below[np.searchsorted(ordered, lead[inside], "left")]
            + below[np.searchsorted(ordered, lead[inside], "right")]
        )
        found += float((weight[inside] * wins).sum() / (2 * other))
        total += mass
    return found / total if total else 0.5


def _standard(whole: Class) -> tuple[sums.Standardised, Matrix, Matrix]:
    """Standardised sums, class means and the covariance within classes."""
    rows = float(whole.count.sum())
    gram = np.empty((whole.gram.shape[0] + 1,) * 2)
    gram[0, 0], gram[0, 1:], gram[1:, 0], gram[1:, 1:] = (
        rows,
        whole.total.sum(axis=0),
        whole.total.sum(axis=0),
        whole.gram,
    )
    standard = sums.standardise(gram, np.vstack([whole.count, whole.total.T]), whole.count)
    mean = np.where(whole.count[:, None] > 0, (whole.mean - standard.mean) / standard.scale, 0.0)
    mean[:, standard.constant] = 0.0
    return standard, mean, standard.gram / rows - (mean.T * (whole.count / rows)) @ mean


def _leverage(whole: Class, penalty: float) -> Matrix:
    """(c,) by how much, in the mean, a row of each class pulls its own score up in ridge regression with penalty λ/n.

    A row's score without itself is (s - h y) / (1 - h); dividing all scores changes no winner.
    """
    standard, mean, within = _standard(whole)
    rows = float(whole.count.sum())
    with one_blas_thread():
        values, vectors = np.linalg.eigh(standard.gram)
        damped = np.maximum(values, 0.0) + max(penalty, 1e-9) * rows
        turned = mean @ vectors
        spread = ((vectors.T @ within) * vectors.T).sum(axis=1)
    return np.asarray(np.minimum(1.0 / rows + (spread / damped).sum() + (turned**2 / damped).sum(axis=1), 1.0))


def _discriminants(whole: Class, uniform: bool) -> Matrix:
    """Scores (c, DRAWS, c) of linear discriminants for rows of each class, each row left out.

    With P the inverse of the shrunk covariance, a = tr(P Σ) and a row x = m_k + v, leaving it out turns P into
    P + g P v vᵀ P / (1 - g a), g = (1 - ρ) / n · n_k / (n_k - 1), and its own class mean into m_k - v / (n_k - 1).
    """
    standard, mean, within = _standard(whole)
    rows, c = float(whole.count.sum()), len(whole.count)
    used = ~standard.constant
    within, mean = within[np.ix_(used, used)], mean[:, used]
    with one_blas_thread():
        shrunk, share = sums.shrink(within, rows)
        values, vectors = np.linalg.eigh(shrunk)
        values = np.maximum(values, FLOOR)
        turned = (mean @ vectors) / values  # P m, in the eigenvectors' coordinates
        inside = vectors.T @ within @ vectors
    a = float((np.diag(inside) / values).sum())
    products = (mean @ vectors) @ turned.T
    draws = _noise(turned @ inside @ turned.T)
    present = whole.count > 0
    likely = present / max(present.sum(), 1) if uniform else whole.count / rows
    log_prior = np.where(present, np.log(np.maximum(likely, 1e-300)), -1e9)
    scores = np.zeros((c, DRAWS, c))
    for k in range(c):
        if whole.count[k] < 2:
            scores[k] = log_prior - 1e9 * (np.arange(c) == k)  # without its only row nobody knows the class
            continue
        more = whole.count[k] / (whole.count[k] - 1.0)
        g = (1.0 - share) / rows * more
        denominator = max(1.0 - g * a, 1e-6)
        t = draws[:, [k]] - draws
        between = products[k, k] - 2 * products[k] + np.diag(products)
        distance = a + 2 * t + between + g * (a + t) ** 2 / denominator
        distance[:, k] = more**2 * (a + g * a**2 / denominator)
        scores[k] = log_prior - 0.5 * distance
    return scores
