"""The product in ten seconds: twenty very uneven clients, one upload each, beside local and pooled models.

scikit-learn's handwritten digits (1,797 images of 8 x 8 pixels, bundled with it) are halved into rows to learn from
and rows to test on; the first half is split over twenty clients by `partition.dirichlet` at alpha 0.1. Every method
takes the real path, by files: task → summarize → sign → write → read → verify → fuse → predict.

Nothing is chosen on the rows to test on. The bandwidth of the random features is half the square root of the number
of columns, a rule that looks at no data; penalties are chosen from the sums, by generalised cross-validation. The
pooled rivals are scikit-learn's, on the same scaled columns, tuned by cross-validation on the rows to learn from.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import encoder, file, keys, partition, run
from fusionlearn.encoder import Encoder
from fusionlearn.errors import MissingExtra
from fusionlearn.problem import ClassLabel, Vector
from fusionlearn.types import Model, Task, Update

if TYPE_CHECKING:
    from rich.console import Console

CLIENTS = 20
ALPHA = 0.1
PIXELS = 64
DARKEST = 16  # pixels are whole numbers from 0 to 16
FEATURES = (256, 2048)  # random features, small and large
COMPARED = 1000  # features up to which an exact method is also run on all rows at once, to show that it is exact

# Name in the table, method, number of random features (0: the columns themselves). The last is the headline.
FUSED: Sequence[tuple[str, str, int]] = (
    ("ensemble", "ensemble", 0),
    ("forest", "forest", 0),
    ("gaussian", "gaussian", 0),
    ("ridge", "ridge", 0),
    *((f"ridge, {size} random features", "ridge", size) for size in FEATURES),
)

Rows = tuple[NDArray[Any], NDArray[Any]]  # pixels (n, 64), digits (n,)
Progress = Callable[[str], object]


def rows(seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Everything the table says, as JSON values.

    seed      of the halving and of the partition
    progress  told the name of each step before it begins
    Errors: MissingExtra without scikit-learn.
    """
    from threadpoolctl import threadpool_limits

    began = time.perf_counter()
    train, test = _halves(seed)  # loads scikit-learn, so that the limit below holds for it too
    with threadpool_limits(1):  # small products: on a busy machine threads that wait for one another take longer
        return _rows(seed, train, test, progress or str) | {"seconds": time.perf_counter() - began}


def _rows(seed: int, train: Rows, test: Rows, tell: Progress) -> dict[str, Any]:
    parts = partition.dirichlet(train[1], CLIENTS, ALPHA, at_least=1, rng=np.random.default_rng(seed))
    clients = [(train[0][part], train[1][part]) for part in parts]
    fused = []
    for name, method, size in FUSED:
        tell(name)
        fused.append({"name": name, **_fused(method, size, clients, train, test)})
    tell("local models")
    local = _local(clients, test)
    pooled = []
    for name, fit in _rivals().items():
        tell(f"pooled {name}")
        pooled.append({"name": name, "accuracy": _accuracy(fit(*train), test)})
    sizes, classes = [len(part) for part in parts], [len(np.unique(digits)) for _, digits in clients]
    return {
        "seed": seed,
        "rows": {"train": len(train[1]), "test": len(test[1])},
        "partition": {
            "clients": CLIENTS,
            "alpha": ALPHA,
            "sha256": partition.digest(parts),
            "rows": [min(sizes), int(np.median(sizes)), max(sizes)],
            "classes": [min(classes), int(np.median(classes)), max(classes)],
        },
        "raw_bytes": PIXELS * len(train[1]) // CLIENTS,  # of a client's pixels, at one byte each; the mean
        "local": local,
        "fused": fused,
        "pooled": pooled,
    }


def _halves(seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to test on, each class halved."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtra("demo", "scikit-learn", "demo") from error
    pixels, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(pixels, digits, test_size=0.5, stratify=digits, random_state=seed)
    return (x, y), (x_test, y_test)


def task(method: str, num_features: int) -> Task:
    """The question, as a coordinator would put it: 64 pixels from 0 to 16, ten digits."""
    encoders: list[Encoder] = [encoder.make("table")]
    if num_features:
        # Scaled pixels lie in [-1, 1], so squared distances grow with the number of columns: so does the bandwidth.
        settings = {"num_features": num_features, "bandwidth": math.sqrt(PIXELS) / 2}
        encoders.append(encoder.make("random_features", settings))
    return run.new_task(
        "digits",
        {"pixels": Vector(PIXELS, low=0, high=DARKEST)},
        ClassLabel("digit", tuple((str(digit), (str(digit),)) for digit in range(10))),
        encoder=encoders,
        method=method,
        privacy="none",
        max_records=100_000,
    )


# --- one upload each ------------------------------------------------------------------------------------------------


def _fused(method: str, num_features: int, clients: Sequence[Rows], train: Rows, test: Rows) -> dict[str, Any]:
    """One method, by files; for an exact one also how far it is from the same method on all rows at once."""
    question = file.sign(task(method, num_features), keys.generate())
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.update" for number in range(len(clients))]
        sizes = [_answer(question, rows, path) for rows, path in zip(clients, paths, strict=True)]
        model, _ = run.fuse(question, (file.read(path, Update) for path in paths), allow_unsigned=False)
    result = {
        "accuracy": _accuracy(_predictor(model), test),
        "bytes": sum(sizes) // len(sizes),
        "contacts": 1,
        "additive": question.method.additive,
        "exact": question.method.exact,
    }
    if question.method.exact and num_features <= COMPARED:
        together, _ = run.fuse(question, [run.summarize(question, _columns(train))])
        result["difference"] = _difference(model, together)
        result["changed_answers"] = int((_predictor(model)(test[0]) != _predictor(together)(test[0])).sum())
    return result


def _answer(question: Task, rows: Rows, path: Path) -> int:
    """A client's whole job; the size of its file in bytes."""
    return file.write(path, file.sign(run.summarize(question, _columns(rows)), keys.generate()))


def _columns(rows: Rows) -> dict[str, NDArray[Any]]:
    return {"pixels": rows[0], "digit": rows[1]}


def _difference(model: Model, other: Model) -> float:
    """The largest difference of any entry, relative to the largest entry of its array."""
    return max(
        float(np.abs(array - other.arrays[name]).max() / np.abs(other.arrays[name]).max())
        for name, array in model.arrays.items()
    )


def _predictor(model: Model) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda pixels: run.predict(model, {"pixels": pixels})["label"].astype(int)


def _accuracy(predict: Callable[[NDArray[Any]], NDArray[Any]], test: Rows) -> float:
    return float((predict(test[0]) == test[1]).mean())


# --- the rivals -----------------------------------------------------------------------------------------------------


def _scaled(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """What the task's table encoder makes of the pixels."""
    return np.asarray(2.0 * pixels / DARKEST - 1.0)


def _rivals() -> Mapping[str, Callable[[NDArray[Any], NDArray[Any]], Callable[[NDArray[Any]], NDArray[Any]]]]:
    """What a data centre that holds all rows would fit; settings by cross-validation on the rows given."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    def fitted(estimator: Any) -> Any:
        def fit(pixels: NDArray[Any], digits: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
            estimator.fit(_scaled(pixels), digits)
            return lambda pixels: estimator.predict(_scaled(pixels))

        return fit

    return {
        "logistic regression": fitted(LogisticRegression(max_iter=1000)),
        "ridge": fitted(RidgeClassifierCV(np.logspace(-3, 3, 13))),
        "RBF-SVC": fitted(GridSearchCV(SVC(), {"C": [1.0, 10.0, 100.0]})),
    }


def _local(clients: Sequence[Rows], test: Rows) -> dict[str, float]:
    """Mean and best accuracy of an RBF-SVC fitted by each client alone; one with a single class always answers it."""
    from sklearn.svm import SVC

    accuracies = []
    for pixels, digits in clients:
        if len(np.unique(digits)) == 1:
            accuracies.append(float((test[1] == digits[0]).mean()))
        else:
            alone = SVC(C=10.0).fit(_scaled(pixels), digits)
            accuracies.append(float((alone.predict(_scaled(test[0])) == test[1]).mean()))
    return {"mean": float(np.mean(accuracies)), "best": max(accuracies)}


# --- the table ------------------------------------------------------------------------------------------------------


def render(result: Mapping[str, Any], console: Console) -> None:
    """Print what `rows` found: who trained on what, how good it is, and what it cost each client."""
    from rich import box
    from rich.table import Table

    split = result["partition"]
    console.print(
        f"[bold]Handwritten digits, {split['clients']} clients, one upload each.[/] A client holds "
        f"{split['rows'][0]} to {split['rows'][2]} of {result['rows']['train']} images and "
        f"{split['classes'][0]} to {split['classes'][2]} of the 10 digits (Dirichlet, alpha {split['alpha']}).",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))  # 80 columns
    table.add_column("model", no_wrap=True)
    table.add_column("accuracy", justify="right")
    table.add_column("bytes each", justify="right")
    table.add_column("contacts", justify="right")
    table.add_column("equals pooled")
    for which in ("mean", "best"):
        table.add_row(f"a client alone, {which}", f"{result['local'][which]:.1%}", "0", "0", "")
    table.add_section()
    for row in result["fused"]:
        equal = _equal(row.get("difference")) if row["exact"] else "no"
        style = "bold" if row is result["fused"][-1] else ""
        cells = (f"fused {row['name']}", f"{row['accuracy']:.1%}", _size(row["bytes"]), str(row["contacts"]), equal)
        table.add_row(*cells, style=style)
    table.add_section()
    for row in result["pooled"]:
        table.add_row(f"pooled {row['name']}", f"{row['accuracy']:.1%}", "its data", "", "")
    console.print()
    console.print(table)
    console.print()
    best, headline = max(result["pooled"], key=lambda row: row["accuracy"]), result["fused"][-1]
    console.print(
        f"One upload each gives {headline['accuracy']:.1%}; the best pooled model, {best['name']}, has "
        f"{best['accuracy']:.1%} ({result['rows']['test']} test images, {result['seconds']:.1f} s).",
        highlight=False,
    )


def _equal(difference: float | None) -> str:
    """What the column says of an exact method: measured, or for the largest left to the law its tests hold it to."""
    return "yes" if difference is None else "yes, to 1e-9" if difference <= 1e-9 else f"no: {difference:.0e}"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
