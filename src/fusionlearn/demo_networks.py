"""The pipeline with networks, stage by stage: pre-train, train, distil, average, broadcast.

Ten very uneven clients hold scikit-learn's handwritten digits (1,797 images of 8 x 8 pixels, bundled with it). The
public data set that the server pre-trains on is drawn here: the ten figures of a 5 x 7 dot-matrix font, moved, slanted,
thickened and blurred at random, so no handwriting is in it. Everything takes the real path, by signed files.

Nothing is chosen on the images to test on.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn import file, keys, partition, run, teacher
from fusionlearn.errors import MissingExtra
from fusionlearn.methods.distill import Distill
from fusionlearn.pretrain import pretrain
from fusionlearn.problem import ClassLabel, Vector
from fusionlearn.types import Model, Privacy, Task, Update

if TYPE_CHECKING:
    from rich.console import Console

CLIENTS = 10
ALPHA = 0.1
PUBLIC_ROWS = 6000  # images drawn for pre-training
TEACHER = "cnn:shape=8x8x1,width=32,hidden=256,epochs=15"
STUDENT = "cnn:shape=8x8x1,width=16,hidden=64"
METHOD = Distill(student=STUDENT, temperature=1.0, epochs=10, rate=0.02)
DARKEST = 16  # pixels are whole numbers from 0 to 16

# A figure is seven rows of five dots, each row a number in binary.
FONT = (
    (14, 17, 19, 21, 25, 17, 14), (4, 12, 4, 4, 4, 4, 14), (14, 17, 1, 2, 4, 8, 31), (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2), (31, 16, 30, 1, 1, 17, 14), (6, 8, 16, 30, 17, 17, 14), (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14), (14, 17, 17, 15, 1, 2, 12),
)  # fmt: skip

Rows = tuple[NDArray[Any], NDArray[Any]]  # pixels (n, 64), digits (n,)
Progress = Callable[[str], object]


def rows(seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Every stage with its accuracy and bytes, as JSON values.

    seed      of the halving, of the partition and of the drawn images
    progress  told the name of each stage before it begins
    Errors: MissingExtra without scikit-learn or torch.
    """
    began = time.perf_counter()
    tell: Progress = progress or str
    train, test = _halves(seed)
    parts = partition.dirichlet(train[1], CLIENTS, ALPHA, at_least=2, rng=np.random.default_rng(seed))
    clients = [(train[0][part], train[1][part]) for part in parts]
    stages = []
    with tempfile.TemporaryDirectory() as folder:
        tell("pre-training")
        question = file.sign(pretrain(_task(METHOD), columns(draw(PUBLIC_ROWS, seed)), epochs=6), keys.generate())
        task_bytes = file.write(Path(folder) / "task", question)
        stages.append({"name": "pre-train", "accuracy": _start_accuracy(question, train, test), "bytes": task_bytes})
        tell("training")
        stages.append({"name": "train", **_teachers(question, clients, test)})
        tell("distilling")
        paths = [Path(folder) / f"{number}.update" for number in range(CLIENTS)]
        sizes = [_answer(question, part, path) for part, path in zip(clients, paths, strict=True)]
        stages.append({"name": "distil", **_students(question, paths, clients, test), "bytes": sum(sizes) // CLIENTS})
        tell("averaging")
        fused, _ = run.fuse(question, (file.read(path, Update) for path in paths), allow_unsigned=False)
        model_bytes = file.write(Path(folder) / "model", file.sign(fused, keys.generate()))
        stages.append({"name": "average", "accuracy": _accuracy(fused, test), "bytes": model_bytes})
        tell("broadcasting")
        fetched = [file.read(Path(folder) / "model", Model) for _ in clients]
        reached = float(np.mean([_accuracy(model, test) for model in fetched]))
        stages.append({"name": "broadcast", "accuracy": reached, "bytes": model_bytes * CLIENTS})
        tell("comparing")
        compared = _compared(question, clients, train, test)
    sizes, classes = [len(part) for part in parts], [len(np.unique(digits)) for _, digits in clients]
    return {
        "seed": seed,
        "rows": {"public": PUBLIC_ROWS, "train": len(train[1]), "test": len(test[1])},
        "partition": {
            "clients": CLIENTS,
            "alpha": ALPHA,
            "sha256": partition.digest(parts),
            "rows": [min(sizes), int(np.median(sizes)), max(sizes)],
            "classes": [min(classes), int(np.median(classes)), max(classes)],
        },
        "teacher": TEACHER,
        "student": STUDENT,
        "stages": stages,
        "compared": compared,
        "seconds": time.perf_counter() - began,
    }


def draw(count: int, seed: int) -> Rows:
    """Public figures: pixels (n, 64) from 0 to 16 and digits (n,), no two alike and none by hand."""
    rng = np.random.default_rng([seed, 7])
    dots = np.array([[[row >> (4 - i) & 1 for i in range(5)] for row in figure] for figure in FONT], np.float64)
    digits = rng.integers(0, 10, count)
    fine = (np.arange(8) + 0.5) / 8 * 2 - 1  # centres of the pixels, from -1 to 1
    down, across = np.meshgrid(fine, fine, indexing="ij")
    images = np.empty((count, 8, 8))
    for i, digit in enumerate(digits):
        slant, tall, wide = rng.normal(0, 0.2), rng.uniform(0.9, 1.15), rng.uniform(0.35, 0.7)
        wave, phase = rng.normal(0, 0.12, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
        bend = [sum(a * np.sin(k * t + p) for k, (a, p) in enumerate(zip(*w, strict=True), 1))
                for t, *w in ((down, wave[0], phase[0]), (across, wave[1], phase[1]))]  # fmt: skip
        # Where each pixel lies in the figure: moved, slanted, squeezed and bent as a hand would.
        u = (across - rng.normal(0, 0.08) + slant * down + bend[0]) / wide
        v = (down - rng.normal(0, 0.08) + bend[1]) / tall
        thick = rng.uniform(0.4, 0.8)  # of a dot, in dots
        rows_at, columns_at = np.nonzero(dots[digit])
        distance = ((v[..., None] * 3 + 3 - rows_at) ** 2 + (u[..., None] * 2 + 2 - columns_at) ** 2).min(axis=2)
        images[i] = np.exp(-distance / (2 * thick**2)) ** 1.5
    grey = images * rng.uniform(0.8, 1.1, (count, 1, 1)) + rng.normal(0, 0.04, images.shape)
    return np.rint(np.clip(grey, 0, 1) * DARKEST).reshape(count, 64), digits.astype(np.int64)


def _halves(seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to test on, each class halved."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtra("demo --networks", "scikit-learn", "demo") from error
    pixels, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(pixels, digits, test_size=0.5, stratify=digits, random_state=seed)
    return (x, y), (x_test, y_test)


def _task(method: Distill) -> Task:
    """The question, as a coordinator would put it: 64 pixels from 0 to 16, ten digits."""
    return run.new_task(
        "digits by networks",
        {"pixels": Vector(64, low=0, high=DARKEST)},
        ClassLabel("digit", tuple((str(digit), (str(digit),)) for digit in range(10))),
        method=method,
        privacy=Privacy("none", "allow"),
        max_records=100_000,
    )


def columns(part: Rows) -> dict[str, NDArray[Any]]:
    """Rows as the task's raw columns."""
    return {"pixels": part[0], "digit": part[1]}


def _accuracy(model: Model, test: Rows) -> float:
    return float((run.predict(model, {"pixels": test[0]})["label"].astype(int) == test[1]).mean())


def _answer(question: Task, part: Rows, path: Path) -> int:
    """A client's whole job; the size of its file in bytes."""
    update = run.summarize(question, columns(part), local={"teacher": TEACHER})
    return file.write(path, file.sign(update, keys.generate()))


def _start_accuracy(question: Task, train: Rows, test: Rows) -> float:
    """How good the start is that every client gets: the model of a client that learns nothing."""
    idle = dataclasses.replace(question, method=dataclasses.replace(METHOD, epochs=0), signer="", signature="")
    update = run.summarize(idle, columns(train), local={"teacher": "linear:epochs=0"})
    return _accuracy(run.fuse(idle, [update])[0], test)


def _teachers(question: Task, clients: Sequence[Rows], test: Rows) -> dict[str, Any]:
    """What the clients' own teachers are worth, alone."""
    scale = DARKEST / 2  # of the task's columns, which are centred as well
    found, size = [], 0
    for pixels, digits in clients:
        taught = teacher.parse(TEACHER).fit(pixels / scale - 1, digits, question.problem, rng=np.random.default_rng(0))
        size = max(size, taught.num_bytes)
        found.append(float((taught.answer(test[0] / scale - 1).argmax(axis=1) == test[1]).mean()))
    return {"accuracy": float(np.mean(found)), "best": max(found), "bytes": size}


def _students(question: Task, paths: Sequence[Path], clients: Sequence[Rows], test: Rows) -> dict[str, float]:
    """What the clients' students are worth, alone; one with a single class always answers it."""
    found = []
    for path, (_, digits) in zip(paths, clients, strict=True):
        if len(np.unique(digits)) == 1:
            found.append(float((test[1] == digits[0]).mean()))
        else:
            found.append(_accuracy(run.fuse(question, [file.read(path, Update)])[0], test))
    return {"accuracy": float(np.mean(found)), "best": max(found)}


def _compared(question: Task, clients: Sequence[Rows], train: Rows, test: Rows) -> list[dict[str, Any]]:
    """The same round without one of its parts, and with all rows in one place."""

    def fused(asked: Task, parts: Sequence[Rows]) -> float:
        updates = [run.summarize(asked, columns(part), local={"teacher": TEACHER}) for part in parts]
        return _accuracy(run.fuse(asked, updates)[0], test)

    plain = dataclasses.replace(METHOD, mix=0.0)
    untaught = dataclasses.replace(question, method=plain, signer="", signature="")
    return [
        {"name": "without a teacher", "accuracy": fused(untaught, clients)},
        {"name": "without pre-training", "accuracy": fused(_task(METHOD), clients)},
        {"name": "all rows in one place", "accuracy": fused(question, [train])},
    ]


def render(result: Mapping[str, Any], console: Console) -> None:
    """Print what `rows` found, a stage a line."""
    from rich import box
    from rich.table import Table

    split, stages = result["partition"], {stage["name"]: stage for stage in result["stages"]}
    console.print(
        f"[bold]Handwritten digits, {split['clients']} clients, one upload each.[/] A client holds "
        f"{split['rows'][0]} to {split['rows'][2]} of {result['rows']['train']} images and {split['classes'][0]} to "
        f"{split['classes'][2]} of the 10 digits (Dirichlet, alpha {split['alpha']}). The public images that the start "
        f"is pre-trained on are {result['rows']['public']} drawn figures, none by hand.",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, how in (("stage", "left"), ("accuracy", "right"), ("bytes", "right"), ("what the bytes are", "left")):
        table.add_column(name, justify=how)  # type: ignore[arg-type]
    told = {
        "pre-train": "the task, with the student to start from",
        "train": "a teacher, which stays at its client",
        "distil": "an update, sent once",
        "average": "the fused model",
        "broadcast": f"the model, to {split['clients']} clients",
    }
    for name, what in told.items():
        stage = stages[name]
        best = f" (best {stage['best']:.1%})" if "best" in stage else ""
        style = "bold" if name == "average" else ""
        table.add_row(name, f"{stage['accuracy']:.1%}{best}", _size(stage["bytes"]), what, style=style)
    table.add_section()
    for row in result["compared"]:
        table.add_row(row["name"], f"{row['accuracy']:.1%}", "", "")
    console.print(table)
    smaller = stages["train"]["bytes"] / stages["distil"]["bytes"]
    console.print(
        f"One upload of {_size(stages['distil']['bytes'])} each, a {smaller:.0f}th of the teacher's size, gives "
        f"{stages['average']['accuracy']:.1%} where a client's own teacher has {stages['train']['accuracy']:.1%} "
        f"({result['rows']['test']} test images, {result['seconds']:.1f} s).",
        highlight=False,
    )


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
