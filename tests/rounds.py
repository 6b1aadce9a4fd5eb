"""Small rounds for the tests of files and of the gate: a task, its clients' records, their signed answers."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fusionlearn import file, keys, run
from fusionlearn.problem import Category, ClassLabel, Number, NumberLabel
from fusionlearn.types import Model, Privacy, Report, Task, Total, Update

METHODS = ("ridge", "gaussian", "ensemble", "forest")
COLUMNS = {
    "age": Number(20.0, 90.0, unit="years"),
    "dose": Number(0.0, 5.0, center=1.0, scale=2.0),
    "ward": Category(("north", "süd", "west")),
}
CLASSES = ClassLabel("ill", (("no", ("0",)), ("yes", ("1", "2"))))
NUMBER = NumberLabel("days", 0.0, 30.0, unit="d")


def key(number: int) -> Ed25519PrivateKey:
    """A test key anybody can make: worth nothing. 0 is the coordinator's, 1, 2, … the clients'."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"fusionlearn test key {number}".encode()).digest())


def public(number: int) -> str:
    return keys.public_hex(key(number))


def task(method: Any = "ridge", *, regression: bool = False, signed: bool = True, **settings: Any) -> Task:
    """A task on three columns, signed by key 0."""
    if method == "forest":
        from fusionlearn.methods.forest import Forest

        method = Forest(trees=3, max_leaves=4, min_leaf=2)
    label = NUMBER if regression else CLASSES
    made = run.new_task("wards", COLUMNS, label, method=method, privacy=Privacy("none", "allow"), **settings)
    return file.sign(made, key(0)) if signed else made


def records(client: int, rows: int = 40, classes: str = "012") -> dict[str, Any]:
    """A client's raw table; the label goes with age."""
    rng = np.random.default_rng(1000 + client)
    age = rng.uniform(20, 90, rows)
    ill = np.array(list(classes))[
        ((age + 15 * rng.standard_normal(rows) > 60) * (1 + rng.integers(0, 2, rows))) % len(classes)
    ]
    return {
        "age": age,
        "dose": rng.uniform(0, 5, rows),
        "ward": np.array(["north", "süd", "west"])[rng.integers(0, 3, rows)],
        "ill": ill,
        "days": np.clip(age / 4 + rng.standard_normal(rows), 0, 30),
    }


def update(of: Task, client: int, *, rows: int = 40, classes: str = "012", signed: bool = True, **more: Any) -> Update:
    """The answer of one client, signed by its key."""
    made = run.summarize(of, records(client, rows, classes), rng=np.random.default_rng(client), **more)
    return file.sign(made, key(client)) if signed else made


def updates(of: Task, count: int = 4) -> list[Update]:
    return [update(of, client) for client in range(1, count + 1)]


@functools.cache
def round_of(method: str) -> dict[str, Any]:
    """One file of each kind, by name, as a round with that method gives them."""
    made = task(method)
    answers = updates(made, 3)
    model, report = run.fuse(made, answers)
    files: dict[str, Task | Update | Total | Model | Report] = {"task": made}
    files |= {f"update-{i}": answer for i, answer in enumerate(answers, 1)}
    if made.method.additive:
        files["total"] = file.sign(run.add(made, *answers), key(0))
    files["model"] = file.sign(model, key(0))
    files["report"] = file.sign(report, key(0))
    return files
