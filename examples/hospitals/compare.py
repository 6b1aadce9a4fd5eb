"""Fused against local and pooled: the table at the end of the example, from the files the four hospitals exchanged."""

import csv
import sys
from pathlib import Path

import numpy as np

import fusionlearn as fl
from fusionlearn.errors import UpdateError
from fusionlearn.file import read

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


def table(path: Path) -> dict[str, list[str]]:
    """Columns of a CSV file, cells as text."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def join(tables: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    """The rows of several tables: what nobody in the federation could do."""
    return {name: [cell for part in tables for cell in part[name]] for name in tables[0]}


work = Path(sys.argv[1])
task = read(work / "task.fusion", fl.Task)
fused = read(work / "model.fusion", fl.Model)
trains = [table(work / name / "train.csv") for name in HOSPITALS]
tests = join([table(work / name / "test.csv") for name in HOSPITALS])

pooled, _ = fl.fuse(task, [fl.summarize(task, join(trains))])


def alone(train: dict[str, list[str]]) -> str:
    """The accuracy of a hospital's own model; none where all its patients are of one class."""
    try:
        model, _ = fl.fuse(task, [fl.summarize(task, train)])
    except UpdateError:
        return "no model: one class only"
    return f"{fl.evaluate(model, tests)['accuracy']:.3f}"


print(f"{'trained on':<34} accuracy on the 254 patients kept back")
for name, train in zip(HOSPITALS, trains, strict=True):
    print(f"{name + ' alone':<34} {alone(train)}")
print(f"{'four hospitals, fused (one upload)':<34} {fl.evaluate(fused, tests)['accuracy']:.3f}")
print(f"{'all patients in one place':<34} {fl.evaluate(pooled, tests)['accuracy']:.3f}")
gap = max(
    float(np.abs(fused.arrays[name] - pooled.arrays[name]).max() / np.abs(pooled.arrays[name]).max())
    for name in pooled.arrays
)
print(f"Fused and pooled weights differ by at most {gap:.0e} of the largest." if gap else "Fused and pooled are equal.")
