"""Amazon reviews, four departments as four clients: naive Bayes on hashed n-grams from one upload each.

A quarter of all reviews is held out in each of five splits. Settings were chosen by mean accuracy on a quarter of the
rows that are not held out, over several splits; so within a split no setting was chosen on its test rows, but a row
tested in one split may have been validated on in another. `--validate` shows the neighbours of the choice. The words
that may make longer n-grams come from other public texts (airline tweets, sentences on films and restaurants), whose
labels are not looked at.

    python -m benchmarks.amazon [--validate] [-o results/amazon.json]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import html
import json
import os
import platform
import re
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusionlearn as fl
from benchmarks import images
from benchmarks.measure import ROOT
from fusionlearn import file
from fusionlearn.encoders.ngrams import Ngrams
from fusionlearn.encoders.sentences import INNER, Sentences
from fusionlearn.methods.naive_bayes import NaiveBayes
from fusionlearn.partition import digest
from fusionlearn.pretrain import pretrain
from fusionlearn.problem import ClassLabel

DOMAINS = ("books", "dvd", "electronics", "kitchen")
SEEDS = tuple(range(5))
VALIDATION_SEEDS = (0, 1, 2)
LABEL = ClassLabel("stars", {"negative": ["0"], "positive": ["1"]})
METHODS = {
    "naive bayes, plain bigrams": (Ngrams(), NaiveBayes(smoothing=3.0)),
    "naive bayes, public common words": (Ngrams(weight="unit", common=1000), NaiveBayes(smoothing=0.2)),
}
SENTENCES = "ridge, sentences (MiniLM), inner layers"
WIDTH, LENGTH = 1152, 256  # features of a review, pieces of it that are read
CHOICES = [(common, smoothing) for common in (500, 1000, 3000) for smoothing in (0.1, 0.2, 0.5)]


def folder() -> Path:
    """Where the data sets are."""
    return Path(os.environ.get("FUSIONLEARN_DATA", ROOT.parent / "shared" / "data"))


def reviews() -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64]]:
    """Texts, labels and departments of the 8,000 reviews."""
    texts: list[str] = []
    labels: list[int] = []
    domains: list[int] = []
    for number, domain in enumerate(DOMAINS):
        for sign, label in (("positive", 1), ("negative", 0)):
            path = folder() / "amazon_reviews_4domain" / domain / f"{sign}.review.gz"
            with gzip.open(path, "rt", encoding="latin-1") as opened:
                found = re.findall(r"<review_text>(.*?)</review_text>", opened.read(), re.DOTALL)
            texts += [html.unescape(text).strip() for text in found]
            labels += [label] * len(found)
            domains += [number] * len(found)
    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    return column, np.array(labels), np.array(domains)


def public_texts() -> list[str]:
    """Other people's texts, without labels."""
    texts = []
    for path in sorted((folder() / "sentiment_sentences_3domain").glob("*_labelled.txt")):
        if not path.name.startswith("amazon"):
            texts += [line.rsplit("\t", 1)[0] for line in path.read_text("utf-8", "replace").splitlines()]
    with gzip.open(folder() / "airline_tweets" / "Tweets.csv.gz", "rt", errors="replace") as opened:
        texts += [row["text"] for row in csv.DictReader(opened)]
    return [text for text in texts if text.strip()]


def split(rows: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Three quarters and a quarter of some rows."""
    order = np.random.default_rng([7, seed]).permutation(rows)
    return order[len(order) // 4 :], order[: len(order) // 4]


def question(encoder: Ngrams, method: NaiveBayes, public: list[str]) -> fl.Task:
    """The task, pre-trained where its encoder learns from public texts."""
    task = fl.new_task(
        "reviews", {"text": fl.Text()}, LABEL, encoder=encoder, method=method, privacy="none", max_records=10_000
    )
    return pretrain(task, {"text": public}) if encoder.common else task


class Bench:
    """The data, and one question at a time."""

    def __init__(self) -> None:
        self.texts, self.labels, self.domains = reviews()
        self.public = public_texts()

    def table(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Raw columns of some rows."""
        return {"text": self.texts[rows], "stars": self.labels[rows]}

    def accuracy(self, model: fl.Model, rows: NDArray[np.int64]) -> float:
        """Of a model on some rows."""
        return float(fl.evaluate(model, self.table(rows))["accuracy"])

    def one(self, task: fl.Task, train: NDArray[np.int64], test: NDArray[np.int64]) -> dict[str, Any]:
        """Fused, pooled and isolated accuracy, and what a client's part costs."""
        parts = [train[self.domains[train] == number] for number in range(len(DOMAINS))]
        began = time.process_time()
        updates = [fl.summarize(task, self.table(part)) for part in parts]
        seconds = (time.process_time() - began) / len(parts)
        model, _ = fl.fuse(task, updates)
        pooled, _ = fl.fuse(task, [fl.summarize(task, self.table(train))])
        local = [self.accuracy(fl.fuse(task, [update])[0], test) for update in updates]
        return {
            "fused": self.accuracy(model, test),
            "pooled": self.accuracy(pooled, test),
            "greatest difference of weights": float(abs(model.arrays["weights"] - pooled.arrays["weights"]).max()),
            "local mean": float(np.mean(local)),
            "local best": max(local),
            "upload bytes": max(len(file.to_bytes(update)) for update in updates),
            "client seconds": seconds,
            "partition": digest(parts),
        }

    def sentences(self) -> NDArray[np.float32]:
        """What `sentences` makes of every review, computed once and kept: (8000, WIDTH)."""
        encoder = Sentences(outputs="middle", length=LENGTH)
        schema = fl.Schema({"text": fl.Text()}, LABEL)
        return images.features(
            f"amazon-minilm-middle-{LENGTH}", WIDTH, self.texts,
            lambda texts: encoder.encode({"text": texts}, schema, {})["x"], piece=200,
        )  # fmt: skip

    def rival(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> float:
        """Pooled tf-idf bigrams and logistic regression."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        fitted = LogisticRegression(C=10.0, max_iter=300).fit(
            vectorizer.fit_transform(self.texts[train]), self.labels[train]
        )
        return float(fitted.score(vectorizer.transform(self.texts[test]), self.labels[test]))


class Encoded(Bench):
    """The same, its texts encoded beforehand."""

    def __init__(self, bench: Bench) -> None:
        self.x, self.labels, self.domains = bench.sentences(), bench.labels, bench.domains

    def table(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Features of some rows."""
        return {"x": self.x[rows], "stars": self.labels[rows]}

    def task(self) -> fl.Task:
        """A head on the features."""
        columns = {"x": fl.Vector(WIDTH, low=-INNER, high=INNER)}
        return fl.new_task(
            "reviews", columns, LABEL, encoder="identity", method="ridge", privacy="none", max_records=10_000
        )


def validate(bench: Bench) -> None:
    """Accuracy of each choice on a quarter of the training rows, averaged over splits."""
    for common, smoothing in CHOICES:
        task = question(Ngrams(weight="unit", common=common), NaiveBayes(smoothing), bench.public)
        found = []
        for seed in VALIDATION_SEEDS:
            train, held = split(split(np.arange(len(bench.labels)), seed)[0], 1000 + seed)
            model, _ = fl.fuse(task, [fl.summarize(task, bench.table(train))])
            found.append(bench.accuracy(model, held))
        print(f"common={common} smoothing={smoothing}: {np.mean(found):.4f}", flush=True)


def measure(bench: Bench, seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Everything, over the splits."""
    rows = np.arange(len(bench.labels))
    result: dict[str, Any] = {}
    for name, (encoder, method) in METHODS.items():
        task = question(encoder, method, bench.public)
        _add(result, name, [bench.one(task, *split(rows, seed)) for seed in seeds])
    encoded = Encoded(bench)
    _add(result, SENTENCES, [encoded.one(encoded.task(), *split(rows, seed)) for seed in seeds])
    rivals = [bench.rival(*split(rows, seed)) for seed in seeds]
    result["pooled tf-idf bigrams + logistic regression"] = {"pooled": float(np.mean(rivals)), "each split": rivals}
    return {
        "seeds": list(seeds),
        "results": result,
        "data": hashlib.sha256("\n".join(bench.texts).encode()).hexdigest(),
        "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


def _add(result: dict[str, Any], name: str, runs: list[dict[str, Any]]) -> None:
    """One method's figures over the splits."""
    numbers = [key for key, value in runs[0].items() if not isinstance(value, str)]
    result[name] = {key: float(np.mean([run[key] for run in runs])) for key in numbers}
    result[name]["fused, standard deviation"] = float(np.std([run["fused"] for run in runs], ddof=1))
    result[name]["fused, each split"] = [run["fused"] for run in runs]
    result[name]["partitions"] = [run["partition"] for run in runs]
    print(name, json.dumps({key: result[name][key] for key in numbers}), flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true", help="show the choice of settings on validation data")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "amazon.json")
    options = parser.parse_args()
    bench = Bench()
    if options.validate:
        validate(bench)
        return
    options.output.write_text(json.dumps(measure(bench), indent=2) + "\n")


if __name__ == "__main__":
    main()
