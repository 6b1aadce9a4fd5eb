"""The demo's accuracies over seeds nobody has looked at: fused beside the best pooled model.

Each seed draws another halving of scikit-learn's digits and another partition over twenty clients. The headline is
`ridge` on 2,048 random features, its rival the best of the pooled models on each seed's own test rows, which favours
the rivals: nobody could have known beforehand which it would be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import sections
from fusionlearn import demo

SEEDS = tuple(range(5000, 5020))
LOSS = 0.005  # half a point


def measure(seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Mean accuracy of every model of the demo, and how the headline differs from the best pooled one."""
    results = [demo.rows(seed) for seed in seeds]
    means = {
        which: {
            row["name"]: float(np.mean([result[which][place]["accuracy"] for result in results]))
            for place, row in enumerate(results[0][which])
        }
        for which in ("fused", "pooled")
    }
    headline = [result["fused"][-1]["accuracy"] for result in results]
    best = [max(row["accuracy"] for row in result["pooled"]) for result in results]
    differences = np.subtract(headline, best)
    return {
        "seeds": list(seeds),
        "clients": results[0]["partition"]["clients"],
        "alpha": results[0]["partition"]["alpha"],
        "means": means,
        "headline": {
            "name": results[0]["fused"][-1]["name"],
            "bytes": results[0]["fused"][-1]["bytes"],
            "accuracies": headline,
            "best_pooled": best,
            "mean_difference": float(differences.mean()),
            "worst_difference": float(differences.min()),
            "seeds_below": int((differences < -LOSS).sum()),
            "loss": LOSS,
        },
    }


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("digits")
    if found is None:
        return
    headline = found["headline"]
    yield "## The demo over fresh seeds\n"
    yield (
        f"scikit-learn's digits over {found['clients']} clients at Dirichlet {found['alpha']}; "
        f"{len(found['seeds'])} seeds nobody looked at before.\n"
    )
    yield sections.table(
        ("model", "mean accuracy"),
        [
            (f"{prefix} {name}", f"{mean:.4f}")
            for prefix, which in (("fused", "fused"), ("pooled", "pooled"))
            for name, mean in found["means"][which].items()
        ],
    )
    below = headline["seeds_below"]
    yield (
        f"Fused {headline['name']} less the best pooled model of each seed: "
        f"{100 * headline['mean_difference']:+.2f} points in the mean, {100 * headline['worst_difference']:+.2f} at "
        f"worst; {below} of {len(found['seeds'])} seeds lie more than {100 * headline['loss']:g} point below. The best "
        f"of three is picked on the test rows themselves, which favours the pooled models.\n"
    )


if __name__ == "__main__":
    print(json.dumps(measure()))
