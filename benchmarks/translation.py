"""German captions into English by transformers: four clients by topic, one upload each, one model fused from theirs.

Public: `tatoeba_en_de`, everyday sentences of four words, and the same sentences joined by up to five, so that the
network has seen long texts. The task's prior (subwords and a transformer of 1.3 million weights) is learned from them.
Private: `multi30k`, ROWS captions drawn for each seed, over the clients by topic of the German text
(`partition.by_topic`). Every client starts from the prior and sends one update; the pooled model is the same training
on all the rows; an isolated one is a client's own. How to fuse was chosen on the first HELD validation captions with
seed 0 (TRIED: what was found); the first TEST test captions (test_2016_flickr) were translated once.

    python -m benchmarks.translation prior FOLDER          learns the prior, once: FOLDER/prior.task
    python -m benchmarks.translation validate FOLDER       how to fuse: BLEU on validation captions, seed 0
    python -m benchmarks.translation measure FOLDER        writes results/translation.json; goes on where it stopped
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusionlearn as fl
from benchmarks import sections
from benchmarks.measure import ROOT
from fusionlearn import file, network, translation
from fusionlearn.encoders.subwords import Subwords
from fusionlearn.methods.translate import Translate
from fusionlearn.partition import by_topic, digest

SEEDS = (0,)
CLIENTS = 4
ROWS = 8_000  # of 29,000: what fits in a few minutes of one core
TEST = 300  # test captions
HELD = 300  # validation captions that choices are made on
METHOD = Translate(
    network="seq2seq:width=128,heads=4,encoder=2,decoder=2,hidden=384",
    fusing="pieces", epochs=4, batch_size=32, rate=1e-3, warmup=50, beam=1,
)  # fmt: skip
FUSED: dict[str, Any] = {"fusing": "experts", "sharpness": 0.3}  # as chosen on validation captions
# FUSED in words
HOW = "each text is answered by all clients' networks, most by those whose texts are like it (`experts`)."
TRIED = {  # BLEU, the best piece each time, on HELD validation captions, seed 0
    "pooled": 22.66, "isolated": [11.68, 14.85, 14.72, 10.54],
    "mean": {"1.0": 15.55, "1.5": 12.60, "2.0": 6.34}, "pieces": {"1.0": 15.31, "1.5": 13.43, "2.0": 6.87},
    "weighted by Gram matrices": 15.38, "ensemble": 16.46, "experts": {"0.1": 17.03, "0.3": 17.57, "100": 16.86},
    "29,000 rows, 3 epochs, 3 clients of 17,541, 3,475 and 7,984": {
        "isolated": [25.33, 16.21, 19.91], "mean": 23.06, "experts": 23.83,
    },
}  # fmt: skip
# (epochs, highest rate, warmup, of joined sentences) of the prior's two trainings
LESSONS = ((8, 2e-3, 400, False), (1, 1e-3, 100, True))
COPIES = 3  # times each public sentence is joined with others
JOINED = 5  # the most sentences in one text
LENGTH = 40  # pieces
SIZE = 4000  # pieces there are

Pairs = dict[str, NDArray[np.object_]]


def folder() -> Path:
    """Where the data sets are."""
    return Path(os.environ.get("FUSIONLEARN_DATA", ROOT.parent / "shared" / "data"))


def lines(path: Path) -> list[str]:
    """Of a compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as opened:
        return opened.read().splitlines()


def table(pairs: list[tuple[str, str]]) -> Pairs:
    """(German, English) as columns."""
    return {"de": np.array([de for de, _ in pairs], object), "en": np.array([en for _, en in pairs], object)}


def captions(part: str) -> Pairs:
    """Of multi30k: train, val or a test set."""
    at = folder() / "multi30k"
    return table(list(zip(lines(at / f"{part}.de.gz"), lines(at / f"{part}.en.gz"), strict=True)))


def chosen(pairs: Pairs, rows: NDArray[np.int64]) -> Pairs:
    """Some rows."""
    return {name: column[rows] for name, column in pairs.items()}


def sentences() -> list[tuple[str, str]]:
    """The public pairs."""
    found = (line.split("\t")[:2] for line in lines(folder() / "tatoeba_en_de" / "deu.txt.gz"))
    return [(de, en) for en, de in found]


def joined(pairs: list[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """All pairs in random order, one to JOINED of them made one text each."""
    rng = np.random.default_rng(seed)
    order, at, found = rng.permutation(len(pairs)), 0, []
    while at < len(order):
        count = int(rng.integers(1, JOINED + 1))
        group = [pairs[k] for k in order[at : at + count]]
        found.append((" ".join(de for de, _ in group), " ".join(en for _, en in group)))
        at += count
    return found


# --- the prior ------------------------------------------------------------------------------------------------------


def blank() -> fl.Task:
    """The task without a prior."""
    encoder = Subwords(size=SIZE, length=LENGTH)
    return fl.new_task(
        "captions", {"de": fl.Text()}, fl.TextLabel("en"), encoder=encoder, method=METHOD, privacy="none",
        max_records=100_000,
    )  # fmt: skip


def with_prior() -> fl.Task:
    """The task, its pieces and its network learned from public sentences."""
    task, pairs = blank(), sentences()
    coder = task.encoder.encoders[0]
    assert isinstance(coder, Subwords)
    columns = table(pairs)
    pieces = coder.pretrain({"de": columns["de"], "y": columns["en"]}, task.schema, rng=np.random.default_rng(0))
    weights = network.initial(METHOD.network, task.problem)
    for number, (epochs, rate, warmup, joins) in enumerate(LESSONS):
        rows = [pair for copy in range(COPIES) for pair in joined(pairs, copy)] if joins else pairs
        data = coder.encode({"de": table(rows)["de"], "y": table(rows)["en"]}, task.schema, pieces)
        module = network.module_with(METHOD.network, task.problem, weights)
        plan = translation.Schedule(epochs, 64, rate, warmup)
        translation.fit(module, np.asarray(data["x"], np.int64), np.asarray(data["y"]), plan, seed=number)
        weights = network.state(module)
    return dataclasses.replace(task, prior={**pieces, **network.named(weights)})


def task_of(at: Path) -> fl.Task:
    """The task with the prior kept in a folder."""
    prior = file.read(at / "prior.task", fl.Task)
    return dataclasses.replace(prior, method=METHOD, max_bytes=0)


# --- one seed -------------------------------------------------------------------------------------------------------


def rows_of(train: Pairs, seed: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The rows drawn for a seed, and each client's."""
    rng = np.random.default_rng([11, seed])
    rows = np.sort(rng.permutation(len(train["de"]))[:ROWS])
    return rows, [rows[part] for part in by_topic(train["de"][rows].tolist(), CLIENTS, rng=rng)]


def update_of(task: fl.Task, data: Pairs, kept: Path, seed: int) -> fl.Update:
    """A client's update; made once and kept, with the seconds it took beside it."""
    if not kept.exists():
        began = time.process_time()
        update = fl.summarize(
            task, data, rng=np.random.default_rng(seed), local={"checkpoint": str(kept.with_suffix(".checkpoint"))}
        )
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        kept.with_suffix(".json").write_text(json.dumps({"seconds": seconds, "peak": peak}))
        file.write(kept, update)
    return file.read(kept, fl.Update)


def updates_of(task: fl.Task, train: Pairs, at: Path, seed: int) -> tuple[list[fl.Update], fl.Update]:
    """Each client's update, and the one of all their rows together."""
    rows, parts = rows_of(train, seed)
    clients = [update_of(task, chosen(train, part), at / f"{seed}-{k}.update", seed) for k, part in enumerate(parts)]
    return clients, update_of(task, chosen(train, rows), at / f"{seed}-pooled.update", seed)


def fused_by(task: fl.Task, updates: list[fl.Update], **given: Any) -> fl.Model:
    """The model of the updates under one of the ways to fuse: all of them can do with the same updates."""
    method = dataclasses.replace(METHOD, **given)
    rng = np.random.default_rng(0)
    arrays, _ = method.fuse([update.arrays for update in updates], task.problem, task.prior, rng=rng)
    return model_of(task, method, arrays)


def model_of(task: fl.Task, method: Translate, arrays: dict[str, NDArray[Any]]) -> fl.Model:
    """A model of these arrays."""
    prior = {name: array for name, array in task.prior.items() if not name.startswith(network.PREFIX)}
    return fl.Model(
        task=file.digest(task), name=task.name, schema=task.schema, encoder=task.encoder, method=method,
        max_records=task.max_records, arrays=arrays, prior=prior,
    )  # fmt: skip


def bleu(model: fl.Model, pairs: Pairs) -> float:
    """BLEU of a model's translations, in lower case."""
    return float(fl.evaluate(model, pairs)["bleu"])


def prior_alone(task: fl.Task) -> fl.Model:
    """The prior as a model: what a client had before it learned anything."""
    weights = {name: np.asarray(array) for name, array in task.prior.items() if name.startswith(network.PREFIX)}
    return model_of(task, dataclasses.replace(METHOD, fusing="mean"), weights)


def validate(at: Path) -> None:
    """BLEU of ways to fuse on validation captions, seed 0, the best piece each time."""
    task, train, held = task_of(at), captions("train"), chosen(captions("val"), np.arange(HELD))
    clients, pooled = updates_of(task, train, at, 0)
    print(f"pooled {bleu(fused_by(task, [pooled]), held):.2f}", flush=True)
    for k, update in enumerate(clients):
        print(f"client {k} alone {bleu(fused_by(task, [update]), held):.2f}", flush=True)
    for fusing in ("mean", "pieces"):
        for step in (1.0, 1.5, 2.0):
            found = bleu(fused_by(task, clients, fusing=fusing, step=step), held)
            print(f"{fusing} step={step} {found:.2f}", flush=True)
    for sharpness in (0.0, 0.1, 0.3, 1.0):
        found = bleu(fused_by(task, clients, fusing="experts", sharpness=sharpness), held)
        print(f"experts sharpness={sharpness} {found:.2f}", flush=True)


def one(task: fl.Task, train: Pairs, test: Pairs, at: Path, seed: int) -> dict[str, Any]:
    """One seed's figures on the test captions."""
    kept = at / f"{seed}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    clients, pooled = updates_of(task, train, at, seed)
    costs = [json.loads((at / f"{seed}-{k}.json").read_text()) for k in range(CLIENTS)]
    _, parts = rows_of(train, seed)
    found = {
        "fused": bleu(fused_by(task, clients, **FUSED), test),
        "mean of weights": bleu(fused_by(task, clients, fusing="mean", step=1.0), test),
        "isolated": [bleu(fused_by(task, [update], fusing="mean", step=1.0), test) for update in clients],
        "pooled": bleu(fused_by(task, [pooled], fusing="mean", step=1.0), test),
        "rows": [len(part) for part in parts],
        "partition": digest(parts),
        "upload bytes": max(len(file.to_bytes(update)) for update in clients),
        "client seconds": max(cost["seconds"] for cost in costs),
        "client peak bytes": max(cost["peak"] for cost in costs),
    }
    kept.write_text(json.dumps(found))
    print(seed, json.dumps(found), flush=True)
    return found


def measure(at: Path, output: Path, seeds: list[int]) -> None:
    """Everything, over the seeds; what is kept is not made again."""
    task, train, test = task_of(at), captions("train"), chosen(captions("test_2016_flickr"), np.arange(TEST))
    runs = [one(task, train, test, at, seed) for seed in seeds]
    result = {
        "seeds": seeds,
        "clients": CLIENTS,
        "fused": FUSED,
        "how": HOW,
        "captions": TEST,
        "tried": TRIED,
        "method": json.loads(json.dumps(dataclasses.asdict(METHOD))),
        "prior": bleu(prior_alone(task), test),
        "runs": runs,
        "share of pooled": [run["fused"] / run["pooled"] for run in runs],
        "beyond the best isolated": [run["fused"] - max(run["isolated"]) for run in runs],
        "task": file.digest(task),
        "data": hashlib.sha256("\n".join(train["de"]).encode()).hexdigest(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    output.write_text(json.dumps(result, indent=2) + "\n")


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("translation")
    if found is None:
        return
    runs = found["runs"]
    yield "### By transformers\n"
    yield (
        f"The same {sum(runs[0]['rows']):,} captions and clients; a small transformer (`translate`) whose prior "
        f"learned the everyday sentences. BLEU on the first {found['captions']} test captions; {found['how']}\n"
    )
    names = {
        "fused": "**fused**",
        "mean of weights": "mean of the weights",
        "pooled": "pooled",
    }
    lines = {shown: [run[name] for run in runs] for name, shown in names.items()}
    lines |= {
        "best isolated client": [max(run["isolated"]) for run in runs],
        "mean isolated client": [sum(run["isolated"]) / len(run["isolated"]) for run in runs],
        "the prior alone": [found["prior"]] * len(runs),
    }
    yield sections.table(
        ("model", *(f"seed {seed}" for seed in found["seeds"])),
        [
            (name, *(f"{value:.1f}" for value in values))
            for name, values in sorted(lines.items(), key=lambda line: -sum(line[1]))
        ],
    )
    shares, upload = found["share of pooled"], max(run["upload bytes"] for run in runs)
    yield (
        f"{len(runs)} of 3 seeds. At the least, fused is {100 * min(shares):.0f} % of pooled (90 is the aim), and "
        f"{min(found['beyond the best isolated']):+.1f} points from the best isolated client. An update is "
        f"{upload / 1e6:.1f} MB; a client takes up to {max(run['client seconds'] for run in runs):.0f} s of processor "
        f"time and {sections.mib(max(run['client peak bytes'] for run in runs))}.\n"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prior", "validate", "measure"])
    parser.add_argument("folder", type=Path, help="where the prior and the updates are kept")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "translation.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "prior":
        file.write(options.folder / "prior.task", with_prior())
    elif options.what == "validate":
        validate(options.folder)
    else:
        measure(options.folder, options.output, options.seeds)


if __name__ == "__main__":
    main()
