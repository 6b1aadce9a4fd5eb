"""The laws, on every method and encoder there is: drawn tables, NumPy and torch; and that the suite itself can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlearn import encoder, method, teacher, testing
from fusionlearn.arrays import as_numpy
from fusionlearn.methods.gaussian import Gaussian
from fusionlearn.methods.ridge import Ridge

# Every registered method in its own settings, and in those that take another path through its code.
SETTINGS = {
    "ridge": [{}, {"penalty": 0.0}, {"penalty": 0.3}, {"word": 32}],
    "gaussian": [{}, {"covariance": "per_class"}, {"covariance": "diagonal"}, {"class_prior": "uniform"}],
    "naive_bayes": [{}, {"smoothing": 0.0}, {"class_prior": "uniform"}, {"word": 32}],
    "forest": [{"trees": 2, "max_leaves": 8}],
    "average": [{"network": "mlp:hidden=4", "epochs": 1}, {"network": "linear", "epochs": 1, "word": 32}],
    "distill": [
        {"student": "mlp:hidden=4", "epochs": 1, "components": 2, "drawn_rows": 50},
        {"student": "linear", "epochs": 1, "folds": 2, "coding": "fixed"},
    ],
    "ensemble": [{}, {"network": "mlp:hidden=4", "epochs": 1}],
    "distill_head": [{"folds": 2}, {"mix": 0.0}],
    "synthesize": [
        {"samples": 200},
        {"samples": 200, "student": "ridge", "covariance": "shared", "rank": 2},
        {"samples": 200, "student": "mlp:hidden=4", "epochs": 1, "covariance": "diagonal", "components": 3},
        {"samples": 200, "student": "ridge", "components": 2, "min_rows": 1},
    ],
}
# methods whose labels are texts, which the drawn tables lack: test_phrases.py and test_translate.py hold them to it
TEXTS = {"phrases", "translate"}
CONFIGURED = [(name, values) for name in sorted({*method.METHODS} - TEXTS) for values in SETTINGS.get(name, [{}])]
AFTER = {"random_features": ["table"], "project": ["table"]}
OTHER_TABLES = {
    "backbone": "images",
    "identity": "numbers alone",
    "ngrams": "texts",
    "onnx": "images",
    "patches": "images",
    "sentences": "texts",
    "subwords": "texts",
}


@pytest.fixture(scope="module", autouse=True)
def _quick_teachers():
    """The laws speak of methods: a teacher of three trees will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "DEFAULT", "forest:trees=3")
        yield


def made(name, values):
    try:
        subject = method.make(name, values)
        testing.check_method(subject, tries=1)
    except ImportError as error:
        pytest.skip(str(error))
    return subject


@pytest.mark.parametrize(("name", "values"), CONFIGURED, ids=[f"{name} {values or ''}" for name, values in CONFIGURED])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_method_keeps_its_laws(name, values, seed):
    testing.check_method(made(name, values), tries=1, seed=seed)


def test_class_weights_keep_the_laws():
    testing.check_method(method.make("ridge", {"class_weights": [1.0, 4.0]}), kinds=["binary"])


@pytest.mark.parametrize("name", sorted(encoder.ENCODERS))
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_encoder_keeps_its_promises(name, seed):
    if name in OTHER_TABLES:
        pytest.skip(f"{name} reads {OTHER_TABLES[name]}: its own tests hold it to the same promises")
    testing.check_encoder(encoder.make(name), after=AFTER.get(name, ()), tries=1, seed=seed)


@pytest.mark.parametrize("name", ["ridge", "gaussian"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_torch_tensors_give_the_same_sums(name, kind, seed):
    torch = pytest.importorskip("torch")
    subject = method.make(name)
    case = testing.draw(kind, np.random.default_rng(seed))
    try:
        task = testing._task(case.schema, subject)
    except testing.SettingsError:
        return
    clean = task.schema.read(case.tables[0]).data
    encoded = task.encoder.encode(clean, task.schema, {})
    plain = subject.summarize(encoded, task.problem, {}, rng=np.random.default_rng(0))
    tensors = {key: torch.asarray(np.array(cells)) for key, cells in encoded.items()}
    other = subject.summarize(tensors, task.problem, {}, rng=np.random.default_rng(0))
    assert set(plain) == set(other)
    for key, array in plain.items():
        found = as_numpy(other[key])
        assert found.dtype == array.dtype
        # Two libraries round their products differently in the last bit of a double, 2^-52 of the sum.
        assert np.abs(found - array).max(initial=0) <= 1 + np.abs(array).max(initial=0) * 2.0**-50


def test_random_features_take_torch_tensors():
    torch = pytest.importorskip("torch")
    case = testing.draw("binary", np.random.default_rng(3))
    ahead = encoder.make("table").encode(case.schema.read(case.tables[0]).data, case.schema, {})
    cosines = encoder.make("random_features")
    found = cosines.encode({key: torch.asarray(np.array(cells)) for key, cells in ahead.items()}, case.schema, {})
    expected = cosines.encode(ahead, case.schema, {})
    assert np.allclose(as_numpy(found["x"]), expected["x"], rtol=1e-12, atol=1e-12)


# --- methods that break one law each: the suite must say which -------------------------------------------------------


@dataclass(frozen=True)
class Forgetful(Ridge):
    """Its model depends on which update comes first."""

    name: ClassVar[str] = "forgetful"

    def fuse(self, summaries, problem, prior, **rest):
        model, findings = super().fuse(summaries, problem, prior, **rest)
        return {**model, "bias": model["bias"] + float(summaries[0]["count"])}, findings


@dataclass(frozen=True)
class Floating(Ridge):
    name: ClassVar[str] = "floating"

    def fuse(self, summaries, problem, prior, **rest):
        model, findings = super().fuse(summaries, problem, prior, **rest)
        return {**model, "bias": model["bias"] * (1 + 1e-15 * len(summaries) * 8)}, findings


@dataclass(frozen=True)
class Careless(Ridge):
    name: ClassVar[str] = "careless"

    def summarize(self, data, problem, prior, *, rng):
        data["x"][:1] *= 1.0000001
        return super().summarize(data, problem, prior, rng=rng)


@dataclass(frozen=True)
class Drawing(Ridge):
    name: ClassVar[str] = "drawing"

    def summarize(self, data, problem, prior, *, rng):
        summary = super().summarize(data, problem, prior, rng=rng)
        return {**summary, "square": summary["square"] + int(np.random.default_rng().integers(1, 1000))}


@dataclass(frozen=True)
class Trusting(Ridge):
    name: ClassVar[str] = "trusting"

    def check(self, summary, problem, prior, place):
        if "gram" not in summary:
            super().check(summary, problem, prior, place)


@dataclass(frozen=True)
class Boundless(Ridge):
    name: ClassVar[str] = "boundless"

    def declare(self, problem, prior):
        specs = super().declare(problem, prior)
        return {**specs, "count": type(specs["count"])("int64", (), 1, 2)}


@dataclass(frozen=True)
class Doubtful(Ridge):
    name: ClassVar[str] = "doubtful"

    def predict(self, model, data, problem, prior):
        answers = super().predict(model, data, problem, prior)
        return {key: cells * 1.001 for key, cells in answers.items()}


@dataclass(frozen=True)
class Batchy(Gaussian):
    name: ClassVar[str] = "batchy"

    def predict(self, model, data, problem, prior):
        x = np.asarray(data["x"])
        return super().predict(model, {"x": x - x.mean(axis=0)}, problem, prior)


@dataclass(frozen=True)
class Lossy(Ridge):
    """Sums of rows rounded to three places are sums, but not those of the rows."""

    name: ClassVar[str] = "lossy"

    def summarize(self, data, problem, prior, *, rng):
        scale = np.abs(data["x"]).max(axis=0) + 1.0
        rows = {**data, "x": np.round(data["x"] / scale, 3) * scale}
        return super().summarize(rows, problem, prior, rng=rng)


@dataclass(frozen=True)
class Loose(Ridge):
    name: ClassVar[str] = "loose"

    def summarize_many(self, datasets, problem, prior, *, rngs):
        found = super().summarize_many(datasets, problem, prior, rngs=rngs)
        return [{**summary, "count": summary["count"] + 1} for summary in found]


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Forgetful, "additive|exact|purity"),
        (Floating, "additive"),
        (Careless, "purity"),
        (Drawing, "purity"),
        (Trusting, "refusal"),
        (Boundless, "declared"),
        (Doubtful, "answers: probabilities sum"),
        (Batchy, "answers: a row depends"),
        (Lossy, "exact"),
        (Loose, "vectorised"),
    ],
)
def test_a_broken_law_is_named(broken, law):
    with pytest.raises(AssertionError, match=law):
        testing.check_method(broken)


def test_a_method_that_answers_nothing_is_refused():
    with pytest.raises(AssertionError, match="refuses every kind"):
        testing.check_method(Gaussian, kinds=["regression"])


@dataclass(frozen=True)
class Wide(type(encoder.make("table"))):
    name: ClassVar[str] = "wide"

    def encode(self, data, schema, prior):
        found = super().encode(data, schema, prior)
        return {**found, "x": found["x"] * 3}


@dataclass(frozen=True)
class Peeking(type(encoder.make("table"))):
    name: ClassVar[str] = "peeking"

    def encode(self, data, schema, prior):
        found = super().encode(data, schema, prior)
        return {**found, "x": found["x"] * (0.5 if "y" in data else 1.0)}


@pytest.mark.parametrize(("broken", "promise"), [(Wide, "passes its bound"), (Peeking, "depend on the label")])
def test_a_broken_encoder_is_named(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        testing.check_encoder(broken)
