"""Settings of other people's papers, run by name: their network, their rule of partition, their epochs, our seeds.

    FUSIONLEARN_DATA=… python benchmarks/preset.py dense --device cuda --resume FOLDER
    … co_boosting, afl --weights SHA256                                                    benchmarks/presets/*.toml

A preset trains every client once and keeps its update in the folder, checkpoints included, so that an interrupted run
goes on after the last epoch. Then it fuses, judges the last iterate on the test images that nobody learned from or
chose by, and writes results/preset-NAME.json with each partition's digest, bytes and seconds. What the papers publish
is of their partition and, where they say so, of their best epoch by test rows: it stands beside, and ranks nothing.
Networks of this size want a GPU: on two cores DENSE's takes weeks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
import fusionlearn as fl  # noqa: E402 - ROOT is found by the line above
from benchmarks import sections  # noqa: E402
from fusionlearn import datasets, encoder, file, partition, plugin  # noqa: E402
from fusionlearn.errors import FusionlearnError  # noqa: E402
from fusionlearn.method import GROUP, METHODS, Method  # noqa: E402

PRESETS = ROOT / "benchmarks" / "presets"
SHAPES = {"cifar10": 3072, "mnist": 784}
TRIES = 1000  # draws until every client has enough rows

Parts = list[NDArray[np.int64]]
Rows = dict[str, Any]


# --- who has what ---------------------------------------------------------------------------------------------------


def capped(labels: NDArray[Any], clients: int, alpha: float, at_least: int, rng: np.random.Generator) -> Parts:
    """Each class over the clients in Dirichlet shares; a client that has its equal share of all rows gets none of it.

    Drawn again until every client has `at_least` rows.
    Source  Li, Diao, Chen, He, Federated Learning on Non-IID Data Silos: An Experimental Study, 2022
    """
    for _ in range(TRIES):
        parts: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
        sizes = np.zeros(clients, np.int64)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(clients, alpha)) * (sizes < len(labels) / clients)
            cuts = (np.cumsum(shares / max(shares.sum(), 1e-300))[:-1] * len(rows)).astype(np.int64)
            for part, piece in zip(parts, np.split(rows, cuts), strict=True):
                part.append(piece)
            sizes = np.array([sum(map(len, part)) for part in parts])
        if sizes.min() >= at_least:
            return [np.sort(np.concatenate(part)) for part in parts]
    raise SystemExit(f"{TRIES} partitions left a client with fewer than {at_least} rows.")


def divided(told: dict[str, Any], labels: NDArray[Any], seed: int) -> Parts:
    """The rows of each client, by the preset's rule."""
    rng = np.random.default_rng(seed)
    if told["rule"] == "capped":
        return capped(labels, told["clients"], told["alpha"], told["at_least"], rng)
    # `dirichlet_per_client` takes the sum over the classes of what the papers give each class
    total = told["alpha"] * len(np.unique(labels))
    return partition.dirichlet_per_client(labels, told["clients"], total, rng=rng)


# --- running --------------------------------------------------------------------------------------------------------


def rows_of(told: dict[str, Any]) -> tuple[Rows, Rows]:
    """Training and test images."""
    parts = datasets.cifar10() if told["data"] == "cifar10" else datasets.mnist()
    found = []
    for part, most in ((parts["train"], told.get("most")), (parts["test"], told.get("most_test"))):
        images = part["image"].reshape(len(part["image"]), -1)[:most]
        found.append({"image": images, "label": part["label"][:most].astype(str)})
    return found[0], found[1]


def posed(told: dict[str, Any], entry: dict[str, Any], weights: str) -> fl.Task:
    """The task of one run."""
    settings = dict(entry["method"])
    method = plugin.make(plugin.find(Method, settings.pop("name"), METHODS, GROUP), settings)  # type: ignore[type-abstract]
    text = entry["encoder"].replace("WEIGHTS", weights)
    made = plugin.parse(encoder.Encoder, text, encoder.ENCODERS, encoder.GROUP)  # type: ignore[type-abstract]
    label = fl.ClassLabel("label", tuple((str(k), (str(k),)) for k in range(10)))
    columns = {"image": fl.Vector(SHAPES[told["data"]], 0, 255)}
    return fl.new_task(told["title"], columns, label, encoder=made, method=method, privacy="none", max_records=100_000)


def updates(task: fl.Task, train: Rows, parts: Parts, folder: Path, seed: int) -> Iterator[tuple[fl.Update, float]]:
    """Every client's update and the seconds it took; what the folder holds is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        path = folder / f"{number}.update"
        if not path.exists():
            began = time.perf_counter()
            local = {"checkpoint": str(folder / f"{number}.checkpoint")} if task.method.name == "average" else None
            some = {name: cells[part] for name, cells in train.items()}
            update = fl.summarize(task, some, rng=np.random.default_rng([seed, number]), local=local)
            path.with_suffix(".seconds").write_text(str(time.perf_counter() - began))
            file.write(path, update)
            print(f"{folder.name}: client {number + 1} of {len(parts)}", file=sys.stderr, flush=True)
        yield file.read(path, fl.Update), float(path.with_suffix(".seconds").read_text())


def one(task: fl.Task, entry: dict[str, Any], train: Rows, test: Rows, parts: Parts, at: Path, seed: int) -> Any:
    """One run under one seed: accuracy of the fused model, of the clients alone and of their ensemble."""
    made = list(updates(task, train, parts, at, seed))
    model, _ = fl.fuse(task, [update for update, _ in made])
    answers = []
    for update, _ in made:
        try:
            answers.append(fl.predict(fl.fuse(task, [update])[0], test)["probability"])
        except FusionlearnError:  # a client of one class
            continue
    truth = test["label"].astype(int)
    alone = [float((answer.argmax(axis=1) == truth).mean()) for answer in answers]
    return {
        "fused": float(fl.evaluate(model, test)["accuracy"]),
        "alone": float(np.mean(alone)) if alone else None,
        "ensemble": float((np.mean(answers, axis=0).argmax(axis=1) == truth).mean()) if entry.get("ensemble") else None,
        "upload_bytes": max(len(file.to_bytes(update)) for update, _ in made),
        "client_seconds": max(seconds for _, seconds in made),
    }


def run(name: str, told: dict[str, Any], folder: Path, weights: str = "") -> dict[str, Any]:
    """Every run of a preset over its seeds."""
    train, test = rows_of(told)
    found: dict[str, Any] = {"title": told["title"], "published": told["published"], "settings": told, "seeds": {}}
    for seed in told["seeds"]:
        parts = divided(told, train["label"].astype(int), seed)
        result: dict[str, Any] = {"partition": partition.digest(parts), "sizes": [len(part) for part in parts]}
        for entry in told["run"]:
            task = posed(told, entry, weights)
            at = folder / name / str(seed) / "-".join(re.findall(r"\w+", entry["name"]))
            result[entry["name"]] = one(task, entry, train, test, parts, at, seed)
        found["seeds"][str(seed)] = result
    return found


def choose(device: str) -> None:
    """The device that PyTorch shall use, before it is loaded. Errors: SystemExit where there is none."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: PyTorch finds no GPU here; install its CUDA build, or take --device cpu.")


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    yield "## Other people's settings\n"
    yield (
        "`python benchmarks/preset.py NAME --device cuda --resume FOLDER` runs the settings of "
        "[three papers](../benchmarks/presets): network, rule of partition, epochs. They take a GPU for hours. What is "
        "published is of their partitions, and of their best epoch by test rows; ours is the last iterate.\n"
    )
    lines = []
    for name in names:
        told, found = tomllib.loads((PRESETS / f"{name}.toml").read_text()), sections.result_of(f"preset-{name}")
        measured = "not run yet" if found is None else "; ".join(_measured(found))
        lines.append((f"`{name}`", told["title"], measured, told["published"]))
    yield sections.table(("preset", "settings", "measured", "published"), lines)


def _measured(found: dict[str, Any]) -> Iterator[str]:
    for entry in found["settings"]["run"]:
        values = [seed[entry["name"]]["fused"] for seed in found["seeds"].values()]
        yield f"{entry['name']} {100 * np.mean(values):.1f} % ± {100 * np.std(values):.1f}, {len(values)} seeds"


def main() -> None:
    """One preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in PRESETS.glob("*.toml")))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--resume", type=Path, required=True, help="folder of updates; what it holds is not made again")
    parser.add_argument("--weights", default="", help="afl: SHA-256 of ResNet-18 as ONNX in the folder of weights")
    given = parser.parse_args()
    choose(given.device)
    told = tomllib.loads((PRESETS / f"{given.name}.toml").read_text())
    if not given.weights and any("WEIGHTS" in entry["encoder"] for entry in told["run"]):
        parser.error(f"{given.name} needs --weights: see the comment in benchmarks/presets/{given.name}.toml")
    found = run(given.name, told, given.resume, given.weights)
    path = sections.RESULTS / f"preset-{given.name}.json"
    path.write_text(json.dumps(found | {"device": given.device}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["seeds"], indent=1))


if __name__ == "__main__":
    main()
