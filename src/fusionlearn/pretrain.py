"""Pre-training: the server's own public data fills a task's prior before the task goes out.

What can be learned from public rows is learned in the order in which data flows: each encoder that learns (the filters
of `patches`), then the method's start (a network's weights). Every client begins from the result, so what a client has
too few rows to learn, it does not have to learn, and networks that are averaged had one start.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Data, num_rows
from fusionlearn.errors import DataError, Fault, SettingsError
from fusionlearn.types import Task


def pretrain(
    task: Task,
    data: Data,
    *,
    epochs: int | None = None,
    rng: np.random.Generator | None = None,
    place: str = "public data",
) -> Task:
    """The task with a prior learned from public rows; unsigned, for it is another task.

    data    column name -> cells, as a client's; the label is needed where a network is trained
    epochs  passes over the public rows, for methods that count them; default as many as a client makes
    rng     default a fixed seed, so that doing it again gives the same task
    Errors: SettingsError when nothing in this task can be pre-trained; DataError when the rows do not fit it.
    """
    rng = rng or np.random.default_rng(0)
    labelled = task.schema.label.column in data
    if task.method.pretrains and not labelled:
        raise DataError(place, [Fault(task.schema.label.column, "is not in the data", hint="a network needs labels")])
    table = task.schema.read(data, place=place, with_label=labelled)
    if num_rows(table.data) == 0:
        raise DataError(place, [Fault("", "holds no complete rows")])
    prior: dict[str, NDArray[Any]] = dict(task.prior)
    encoded: Data = table.data
    for encoder in task.encoder.encoders:
        if hasattr(encoder, "pretrain"):
            prior |= encoder.pretrain(encoded, task.schema, rng=rng)
        encoded = encoder.encode(encoded, task.schema, prior)
    method = task.method
    if epochs is not None and "epochs" in {field.name for field in dataclasses.fields(method)}:  # type: ignore[arg-type]
        method = dataclasses.replace(method, epochs=epochs)  # type: ignore[type-var]
    if method.pretrains:
        prior |= method.pretrain(encoded, task.problem, prior, rng=rng)
    if prior.keys() == task.prior.keys() and all(prior[name] is task.prior[name] for name in prior):
        raise SettingsError(
            f"nothing in '{task.name}' can be pre-trained: its method '{task.method.name}' and its encoders learn "
            f"nothing from public data. Name a method with a network, or the encoder 'patches'."
        )
    return dataclasses.replace(task, prior=prior, signer="", signature="")
