"""Four hospitals over forty splits: fused models beside pooled logistic regression and FLamby's published figures.

The question is examples/hospitals/task.toml, fixed before anybody looked; a split is FLamby's with another seed.
Accuracy is of the 254 patients kept back, all hospitals together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import fusionlearn as fl
from benchmarks import sections
from benchmarks.measure import ROOT
from fusionlearn import datasets, settings

METHODS = ("ridge", "gaussian", "ensemble")
SEEDS = tuple(range(40))
FLAMBY_SEED = 43
# du Terrail et al., FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in Realistic Healthcare
# Settings, 2022
FLAMBY = {"pooled": 0.795, "FedAdam": 0.779, "FedAvg": 0.748, "best local": 0.784}


def joined(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rows of several tables."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def accuracies(question: fl.Task, seed: int) -> dict[str, float]:
    """Each fused method and pooled logistic regression on the same encoded columns, for one split."""
    from sklearn.linear_model import LogisticRegression

    fed = datasets.fed_heart_disease(seed=seed)
    trains, tests = [train for train, _ in fed.values()], joined([test for _, test in fed.values()])
    result = {}
    for name in METHODS:
        task = fl.new_task(
            question.name,
            question.schema.columns,
            question.schema.label,
            method=name,
            encoder=question.encoder.encoders,
            privacy=question.privacy,
            missing=question.schema.missing,
            out_of_range=question.schema.out_of_range,
            max_records=question.max_records,
        )
        model, _ = fl.fuse(task, [fl.summarize(task, train) for train in trains])
        result[name] = fl.evaluate(model, tests)["accuracy"]
    encoded = [
        question.encoder.encode(question.schema.read(part).data, question.schema, {})
        for part in (joined(trains), tests)
    ]
    logistic = LogisticRegression(max_iter=2000).fit(encoded[0]["x"], encoded[0]["y"])
    return {**result, "pooled logistic regression": float(logistic.score(encoded[1]["x"], encoded[1]["y"]))}


def measure(seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Mean accuracies over the splits, and those of FLamby's own split."""
    question = settings.task_from_toml(ROOT / "examples" / "hospitals" / "task.toml")
    splits = [accuracies(question, seed) for seed in seeds]
    names = list(splits[0])
    own = accuracies(question, FLAMBY_SEED)
    upload = sum(spec.max_bytes for spec in question.method.declare(question.problem, {}).values())
    return {
        "seeds": list(seeds),
        "mean": {name: float(np.mean([split[name] for split in splits])) for name in names},
        "standard_deviation": {name: float(np.std([split[name] for split in splits], ddof=1)) for name in names},
        "flamby_split": {"seed": FLAMBY_SEED, **own},
        "flamby": FLAMBY,
        "array_bytes": upload,
    }


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("hospitals")
    if found is None:
        return
    own = found["flamby_split"]
    yield "## Four hospitals, one upload each\n"
    yield (
        f"FLamby's Fed-Heart-Disease: 486 patients to learn from, 254 kept back, settings fixed beforehand "
        f"(`examples/hospitals/task.toml`). Accuracy over {len(found['seeds'])} splits, and on FLamby's own "
        f"(seed {own['seed']}), as it falls.\n"
    )
    yield sections.table(
        ("model", "mean", "standard deviation", f"seed {own['seed']}"),
        [
            (
                name if name.startswith("pooled") else f"fused `{name}`",
                f"{mean:.4f}",
                f"{found['standard_deviation'][name]:.4f}",
                f"{own[name]:.4f}",
            )
            for name, mean in found["mean"].items()
        ],
    )
    published = ", ".join(f"{name} {value:.3f}" for name, value in found["flamby"].items())
    yield f"FLamby's published figures on its split: {published} (du Terrail et al., 2022).\n"


if __name__ == "__main__":
    print(json.dumps(measure()))
