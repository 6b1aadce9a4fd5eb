"""MNIST from scratch: `patches` and `ridge`, one upload, clients of nearly one class each (Dirichlet 0.01).

    FUSIONLEARN_DATA=… python benchmarks/mnist.py

Filters come from synthetic images alone. No setting was chosen for MNIST: they are those of CIFAR-10, without mirror
images, since the mirror image of a digit is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cifar10_scratch import encoded, row
from images import keep

from fusionlearn import datasets
from fusionlearn.encoders.patches import Patches
from fusionlearn.partition import dirichlet

ALPHA, CLIENTS, SEEDS = 0.01, 10, 5
FILTERS = 195


def main() -> None:
    parts = datasets.mnist()
    images = np.concatenate([parts["train"]["image"], parts["test"]["image"]])
    y, test_y = parts["train"]["label"], parts["test"]["label"]
    patches = Patches(shape=(28, 28, 1), filters=FILTERS, mirror=False)
    x = encoded(f"mnist-patches-{FILTERS}", images, patches, 8 * FILTERS)
    splits = [
        (f"dirichlet {ALPHA}", seed, dirichlet(y, CLIENTS, ALPHA, rng=np.random.default_rng(seed)))
        for seed in range(SEEDS)
    ]
    labels = [str(i) for i in range(10)]
    told = row(f"{FILTERS} filters, ridge", x[:60_000], y, x[60_000:], test_y, labels, splits, SEEDS)
    result: dict[str, Any] = {"data": "MNIST, 60,000 train, 10,000 test", "rows": [told]}
    keep("mnist", result)


if __name__ == "__main__":
    main()
