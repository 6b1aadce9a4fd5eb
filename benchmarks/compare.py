"""One-shot against FedAvg, FedProx and FedAdam on eight tasks: accuracy, bytes, elapsed time, membership attacks.

    FUSIONLEARN_DATA=… python benchmarks/compare.py NAME... [--workers 1]     runs these tasks of benchmarks/tasks
    FUSIONLEARN_DATA=… python benchmarks/compare.py                           runs all
    FUSIONLEARN_DATA=… python benchmarks/compare.py --validate NAME METHOD…   one-shot methods on validation rows
    python benchmarks/compare.py --page                                       writes docs/compare.md and docs/plots

One toml a task; results/compare-NAME.json holds every seed's figures, the partitions' digests and the settings that
validation rows chose. Two tables that are never mixed: frozen encoders, and from scratch. No task is dropped.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusionlearn as fl
from fusionlearn import datasets, encoder, partition, plugin
from fusionlearn.method import GROUP as METHOD_GROUP
from fusionlearn.method import METHODS, Method
from fusionlearn.simulate import compare, open_runner, plots, simulate
from fusionlearn.simulate.simulation import rows_of
from fusionlearn.types import Task

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
from benchmarks import sections  # noqa: E402 - found by the line above

TASKS = ROOT / "benchmarks" / "tasks"
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "compare.md"
PLOTS = ROOT / "docs" / "plots"
VALIDATIONS = 5  # divisions of the first seed's training rows that `--validate` looks at
MILLION = 1_000_000  # weights from which on a network must cost us a twentieth

Rows = tuple[dict[str, Any], Any, dict[str, Any]]  # columns, label, rows


def _classes(names: list[str]) -> Any:
    return tuple((name, (name,)) for name in names)


# --- rows -----------------------------------------------------------------------------------------------------------


def digits() -> Rows:
    """scikit-learn's digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    label = fl.ClassLabel("digit", _classes([str(k) for k in range(10)]))
    return {"pixels": fl.Vector(64, 0, 16)}, label, {"pixels": found.data, "digit": found.target.astype(str)}


def heart() -> Rows:
    """The four hospitals, FLamby's columns, complete rows."""
    columns = {
        "age": fl.Number(0, 120, center=54, scale=9), "sex": fl.Category(("0", "1")),
        "cp": fl.Category(("1", "2", "3", "4")), "trestbps": fl.Number(0, 300, center=132, scale=19),
        "chol": fl.Number(0, 700, center=200, scale=110), "fbs": fl.Category(("0", "1")),
        "restecg": fl.Category(("0", "1", "2")), "thalach": fl.Number(0, 250, center=138, scale=26),
        "exang": fl.Category(("0", "1")), "oldpeak": fl.Number(-10, 10, center=0.9, scale=1.1),
    }  # fmt: skip
    parts = {
        hospital: {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
        for hospital, halves in datasets.fed_heart_disease().items()
    }
    rows = {name: np.concatenate([part[name] for part in parts.values()]) for name in (*columns, "target")}
    rows["target"] = (rows["target"] > 0).astype(int)
    rows["source"] = np.concatenate([np.full(len(part["target"]), name) for name, part in parts.items()])
    return columns, fl.ClassLabel("target", (("healthy", ("0",)), ("ill", ("1",)))), rows


def fraud() -> Rows:
    """Car insurance claims of sixteen claim agents: 6 % are frauds."""
    import csv
    import gzip

    folder = datasets.find("vehicle_claim_fraud")
    path = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")])[0]
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    table = list(csv.DictReader(text.decode("utf-8", "replace").splitlines()))
    rows = {name: np.array([row[name].strip() for row in table]) for name in table[0]}
    numbers = {"Age": (0, 120), "Deductible": (0, 1000), "DriverRating": (1, 4), "WeekOfMonth": (1, 5)}
    columns: dict[str, Any] = {}
    for name, cells in rows.items():
        if name in ("PolicyNumber", "FraudFound_P", "RepNumber"):
            continue
        if name in numbers:
            low, high = numbers[name]
            columns[name] = fl.Number(low, high, center=(low + high) / 2, scale=(high - low) / 4)
        else:
            columns[name] = fl.Category(tuple(sorted(set(cells.tolist()))))
    rows["agent"] = rows["RepNumber"]
    return columns, fl.ClassLabel("FraudFound_P", (("honest", ("0",)), ("fraud", ("1",)))), rows


ACTIVITIES = (
    ("leave-house", r"leave-house|Going-out"), ("use-toilet", r"use-toilet|Toileting"),
    ("take-shower", r"take-shower|Bathing"), ("brush-teeth", r"brush-teeth|Grooming"),
    ("go-to-bed", r"go-to-bed|Sleeping"), ("prep-breakfast", r"prep-breakfast|Preparing-breakfast"),
    ("prep-dinner", r"prep-dinner|Preparing-dinner"), ("get-drink", r"get-drink|Preparing-a-beverage"),
)  # fmt: skip
SENSORS = (
    ("toilet", r"toilet"), ("shower", r"shower|bath"), ("sink", r"sink|faucet|basin"),
    ("fridge", r"fridge|refriger|freez"), ("cooking", r"microwave|oven|stove|burner|toaster|kettle|coffee"),
    ("cupboard", r"cup|cabinet|plates|pans|grocer|drawer"), ("bed", r"bed"), ("door", r"door"),
    ("washing", r"wash|laundry|dish"), ("light", r"light|lamp"), ("other", r""),
)  # fmt: skip


def _table(path: Path) -> list[list[str]]:
    lines = path.read_text("utf-8", "replace").splitlines()
    return [line.strip().split("\t") for line in lines if line.strip()]


def homes() -> Rows:
    """Five homes: each activity by which kinds of sensor fired during it, how long it took and at what hour."""
    folder = datasets.find("smart_home_adl")
    lines: list[list[float]] = []
    labels: list[str] = []
    houses: list[str] = []
    for house in "ABCDE":
        names = dict(row[:2] for row in _table(folder / f"house{house}.activity_names"))
        kinds = {
            row[0]: next(place for place, (_, found) in enumerate(SENSORS) if re.search(found, row[1], re.IGNORECASE))
            for row in _table(folder / f"house{house}.sensor_names")
        }
        events = [(int(r[0]), kinds.get(r[2], len(SENSORS) - 1)) for r in _table(folder / f"house{house}.sensors")]
        for start, length, code, *_ in _table(folder / f"house{house}.activities"):
            activity = next((name for name, said in ACTIVITIES if re.search(said, names.get(code, ""))), None)
            if activity is None:
                continue
            first, last = int(start), int(start) + int(length)
            counts = np.zeros(len(SENSORS))
            for moment, kind in events:
                if first - 30 <= moment <= last:
                    counts[kind] += 1
            hour = first % 86400 / 86400 * 2 * np.pi
            lines.append([*np.log1p(counts), np.log1p(int(length)), np.sin(hour), np.cos(hour)])
            labels.append(activity)
            houses.append(house)
    names = [*(name for name, _ in SENSORS), "length", "sine", "cosine"]
    values = np.array(lines)
    columns: dict[str, Any] = {name: fl.Number(0, 15, center=1, scale=1) for name in names[:-3]}
    columns |= {"length": fl.Number(0, 15, center=6, scale=2)}
    columns |= {name: fl.Number(-1, 1, center=0, scale=0.7) for name in names[-2:]}
    rows: dict[str, Any] = {name: values[:, place] for place, name in enumerate(names)}
    rows |= {"activity": np.array(labels), "house": np.array(houses)}
    return columns, fl.ClassLabel("activity", _classes([name for name, _ in ACTIVITIES])), rows


def mnist() -> Rows:
    """All 70,000 images, divided anew by each seed."""
    parts = datasets.mnist()
    images = np.concatenate([part["image"].reshape(len(part["image"]), -1) for part in parts.values()])
    labels = np.concatenate([part["label"] for part in parts.values()])
    label = fl.ClassLabel("digit", _classes([str(k) for k in range(10)]))
    columns = {"pixels": fl.Vector(784, 0, 255)}
    return columns, label, {"pixels": images, "digit": labels.astype(str)}


def cifar10_scratch() -> Rows:
    """All 60,000 images of CIFAR-10 (JPEG copy) as they are, divided anew by each seed."""
    parts = datasets.cifar10()
    images = np.concatenate([part["image"].reshape(len(part["image"]), -1) for part in parts.values()])
    labels = np.concatenate([part["label"] for part in parts.values()])
    label = fl.ClassLabel("label", _classes([str(k) for k in range(10)]))
    return {"pixels": fl.Vector(3072, 0, 255)}, label, {"pixels": images, "label": labels.astype(str)}


def cifar10() -> Rows:
    """1,568 learned mixtures of a frozen EfficientNet-Lite0's outputs, all 60,000 images; kept beside them."""
    sys.path[:0] = [] if str(ROOT / "benchmarks") in sys.path else [str(ROOT / "benchmarks")]
    import cifar10_features as known

    parts = datasets.cifar10()
    images = np.concatenate([parts["train"]["image"], parts["test"]["image"]])
    public = known.encoded("office-crops-wide-160", known.crops(known.PUBLIC))
    prior = known.directions(public)
    wide = known.encoded("cifar10-wide-160", images)
    features = known.features("cifar10-mixtures-1568", 1568, wide, lambda some: known.projected(some, prior, 1568))
    labels = np.concatenate([parts["train"]["label"], parts["test"]["label"]])
    label = fl.ClassLabel("label", _classes([str(k) for k in range(10)]))
    return {"features": fl.Vector(1568, -10, 10)}, label, {"features": features, "label": labels.astype(str)}


def office() -> Rows:
    """Four sources of ten things, by a frozen EfficientNet-Lite0's blocks, 512 random mixtures of them."""
    from fusionlearn.encoders.backbone import Backbone

    images, labels, sources = [], [], []
    for source, part in datasets.office_caltech10().items():
        images.append(part["image"])
        labels.append(part["label"])
        sources += [source] * len(part["label"])
    stacked = np.concatenate(images)
    backbone = Backbone(shape=(160, 160, 3), side=160)
    schema = fl.Schema({"image": fl.Vector(160 * 160 * 3, 0, 255)}, fl.ClassLabel("y", _classes(["0", "1"])))
    features = np.concatenate([
        np.asarray(backbone.encode({"image": stacked[i : i + 64].reshape(-1, 76800)}, schema, {})["x"], np.float32)
        for i in range(0, len(stacked), 64)
    ])  # fmt: skip
    rng = np.random.default_rng(0)
    mixture = rng.choice([-1.0, 1.0], size=(features.shape[1], 512)) / np.sqrt(features.shape[1])
    mixed = np.clip(features @ mixture, -20, 20)
    label = fl.ClassLabel("label", _classes([str(k) for k in range(10)]))
    rows = {"features": mixed, "label": np.concatenate(labels).astype(str), "source": np.array(sources)}
    return {"features": fl.Vector(512, -20, 20)}, label, rows


def amazon() -> Rows:
    """8,000 reviews of four departments."""
    from benchmarks import amazon as known

    texts, labels, domains = known.reviews()
    rows = {"text": list(texts), "stars": labels.astype(str), "department": np.array(known.DOMAINS)[domains]}
    return {"text": fl.Text()}, known.LABEL, rows


LOADERS: dict[str, Callable[[], Rows]] = {
    "digits": digits, "heart": heart, "fraud": fraud, "homes": homes, "mnist": mnist, "cifar10": cifar10,
    "office": office, "amazon": amazon, "cifar10_scratch": cifar10_scratch,
}  # fmt: skip


# --- running --------------------------------------------------------------------------------------------------------


def posed(told: dict[str, Any], columns: dict[str, Any], label: Any) -> Task:
    """The task of a toml: its encoder and its method on these columns."""
    method = plugin.parse(Method, told["method"], METHODS, METHOD_GROUP)  # type: ignore[type-abstract]
    return fl.new_task(
        told["title"], columns, label, encoder=encoders(told["encoder"]), method=method, privacy="none",
        max_records=1_000_000, missing="center", out_of_range="clip",
    )  # fmt: skip


def question(told: dict[str, Any]) -> tuple[compare.Question, dict[str, Any]]:
    """A task's toml, and its rows."""
    columns, label, rows = loaded(told)
    asked = compare.Question(
        posed(told, columns, label), partition.parse(told["partition"]), told["clients"], told["seeds"],
        told["rounds"], tuple(told["methods"]), tuple(told["networks"]),
        network_encoder=encoders(told["network_encoder"]) if "network_encoder" in told else (),
        tuning_rounds=told.get("tuning_rounds", compare.SHORT_ROUNDS),
    )  # fmt: skip
    return asked, rows


def loaded(told: dict[str, Any]) -> Rows:
    """Columns, label and rows of a toml; `most` of the rows where it says so."""
    columns, label, rows = LOADERS[told["rows"]]()
    return columns, label, some(rows, told["most"]) if "most" in told else rows


def encoders(text: str) -> tuple[Any, ...]:
    """Encoders one after another, separated by a comma and a space."""
    return tuple(
        plugin.parse(encoder.Encoder, part.strip(), encoder.ENCODERS, encoder.GROUP)  # type: ignore[type-abstract]
        for part in text.split(", ")
    )


def some(rows: dict[str, Any], most: int) -> dict[str, Any]:
    """So many rows drawn at random, once for all seeds, in their old order."""
    total = len(next(iter(rows.values())))
    chosen = np.sort(np.random.default_rng(0).permutation(total)[:most])
    return {
        name: [cells[i] for i in chosen] if isinstance(cells, list) else np.asarray(cells)[chosen]
        for name, cells in rows.items()
    }


def run(name: str, workers: int, *, fresh: bool = False, seeds: int = 0) -> None:
    """One task's comparison, kept as JSON; an interrupted one goes on, unless it shall be made afresh.

    seeds  in the place of the toml's; further ones can be added later
    """
    told = tomllib.loads((TASKS / f"{name}.toml").read_text())
    told["seeds"] = seeds or told["seeds"]
    asked, rows = question(told)
    path = RESULTS / f"compare-{name}.json"
    known = json.loads(path.read_text()) if path.exists() and not fresh else None
    settings = json.loads(json.dumps(asked.settings()))
    if known is not None and _but_methods(known["settings"]) != _but_methods(settings):
        known = None
    if known is not None:
        known["settings"] = settings  # methods that were added or taken away leave the rivals as they are

    def keep(found: dict[str, Any]) -> None:
        path.write_text(json.dumps(_short(found), indent=1) + "\n")

    def tell(what: str, share: float) -> None:
        if what:
            print(f"{name} {share:4.0%} {what}", file=sys.stderr, flush=True)

    with open_runner("serial" if workers == 1 else "processes", workers) as runner:
        found = compare.compare(asked, rows, runner, known=known, done=keep, tell=tell)
    keep({**found, "about": told})


def validate(name: str, more: list[str]) -> None:
    """Prints how each one-shot method does on validation rows: what a toml lists is chosen by this alone.

    A fifth of every client's training rows of the first seed, five times anew; no test row is looked at.

    more  methods in the place of those the toml lists; on other features METHOD @ ENCODER, ENCODER
    """
    told = tomllib.loads((TASKS / f"{name}.toml").read_text())
    columns, label, rows = loaded(told)
    asked, _ = question(told)
    metric = compare.metric_for(asked.task.schema, compare.class_codes(asked.task.schema, rows))
    divided = compare.split(asked, rows, asked.first_seed)
    for text in more or (told["method"], *told["methods"]):
        method, _, features = text.partition(" @ ")
        task = posed(told | {"method": method, "encoder": features or told["encoder"]}, columns, label)
        began, found, most = time.perf_counter(), [], 0
        for number in range(VALIDATIONS):
            parts, held = held_back(divided.parts, number)
            made = simulate(task, divided.train, parts, seed=number)
            found.append(compare.judged(made.model, rows_of(divided.train, held), metric))
            most = max(most, made.most_bytes)
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        print(f"{name}: {text}: {np.mean(found):.4f} ± {error:.4f}, {most:,} bytes, "
              f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip


def held_back(parts: Sequence[NDArray[np.int64]], number: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Every client's rows less a fifth, and those fifths together."""
    rng = np.random.default_rng([number, 0x76])
    fit, held = [], []
    for part in parts:
        order = rng.permutation(part)
        cut = round(len(part) * compare.VALIDATION)
        held.append(order[:cut])
        fit.append(np.sort(order[cut:]))
    return fit, np.sort(np.concatenate(held))


def _but_methods(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "methods"}


def _short(value: Any) -> Any:
    """Figures to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list | tuple) else value


# --- the pages ------------------------------------------------------------------------------------------------------


def kept() -> dict[str, dict[str, Any]]:
    """Finished comparisons by task."""
    found = {
        path.stem.removeprefix("compare-"): json.loads(path.read_text())
        for path in sorted(RESULTS.glob("compare-*.json"))
    }
    return {name: result for name, result in found.items() if "table" in result and "about" in result}


def section() -> Iterator[str]:
    """Of docs/benchmarks.md: both tables, the plots, and what does not hold."""
    found = kept()
    if not found:
        return
    yield "## One contact or many rounds\n"
    yield (
        "One-shot methods against FedAvg, FedProx and FedAdam on the same rows, partitions and seeds; rivals' settings "
        "were chosen on validation rows, five tries each. Every row, with spread, time and a measured membership "
        "attack: [compare.md](compare.md). *Rival* is the one with the best last round, whatever it sends. *Network*: "
        "elapsed over 20 Mbit/s and 50 ms with a tenth of the clients ten times as slow. **Published figures are of "
        "their data and their partition**, so they rank nothing here; those marked ° were read in transcripts, not in "
        "the papers.\n"
    )
    yield "\n".join(_verdict(found))
    published = tomllib.loads((ROOT / "benchmarks" / "published.toml").read_text())["figure"]
    for name in TABLES:
        rows = {task: result for task, result in found.items() if result["about"]["table"] == name}
        yield f"### {name.capitalize()}\n"
        yield (
            sections.table(HEAD, [_summary(task, result, published) for task, result in rows.items()])
            if rows
            else "Nothing is measured here yet.\n"
        )
        yield (
            "\n".join(
                f"![{result['metric']} against bytes: {result['about']['title']}](plots/{task}.svg)"
                for task, result in rows.items()
            )
            + "\n"
        )
    large = [text for result in found.values() for text in _large(result)]
    if large:
        yield "Against networks above a million weights:\n"
        yield "\n".join(large) + "\n"


TABLES = ("frozen encoders", "from scratch")
HEAD = (
    "task", "clients", "best one-shot", "sent", "rival", "sent", "bytes", "network", "a client alone", "pooled",
    "published: their data, their partition",
)  # fmt: skip


def _best(result: dict[str, Any], kind: str) -> dict[str, Any]:
    rows = [row for row in result["table"]["rows"] if row["kind"] == kind]
    return max(rows, key=lambda row: (float(row["value"]), -float(row["up"])))  # of equals the one that sends least


def _summary(task: str, result: dict[str, Any], published: list[dict[str, str]]) -> tuple[str, ...]:
    """A line of one of the two tables."""
    table, ours, theirs = result["table"], _best(result, "one_shot"), _best(result, "rivals")

    def told(row: dict[str, Any]) -> str:
        return f"{row['name']} {plots.share(result, row['value'])} ± {plots.share(result, row['spread'])}"

    figures = [entry for entry in published if entry["task"] == task]
    return (
        result["about"]["title"] + ("" if result["metric"] == "accuracy" else f" ({result['metric']})"),
        f"{len(next(iter(result['seeds'].values()))['sizes'])}, `{result['about']['partition']}`",
        f"**{told(ours)}**", plots.size(ours["up"]), told(theirs), plots.size(theirs["up"]),
        _times(theirs["up"] / ours["up"]), _times(theirs["elapsed_network"] / ours["elapsed_network"]),
        plots.share(result, table["isolated"][0] if table["isolated"] else None),
        plots.share(result, table["pooled"][0]),
        "; ".join(
            f"{entry['what']}: {entry['value']}{'°' * (entry['seen'] == 'transcript')} ({entry['source']})"
            for entry in figures
        ),
    )  # fmt: skip


def _times(ratio: float) -> str:
    """How many times what one contact takes."""
    return f"{ratio:.2g} ×" if ratio < 10 else f"{ratio:,.0f} ×"


def _large(result: dict[str, Any]) -> Iterator[str]:
    """What one contact takes against each network above a million weights, at which accuracy."""
    ours = _best(result, "one_shot")
    for row in result["table"]["rows"]:
        if row["kind"] != "rivals":
            continue
        weights = next(iter(result["seeds"].values()))["rivals"][row["name"]]["weights_bytes"] // 4
        if weights <= MILLION:
            continue
        holds = (
            ours["value"] >= row["value"] and ours["up"] <= row["up"] / 20
            and ours["elapsed_network"] <= row["elapsed_network"] / 5
        )  # fmt: skip
        yield (
            f"- {result['about']['title']}, {row['name']}, {weights / 1e6:.2f} M weights, {row['rounds']} rounds: "
            f"{plots.share(result, row['value'])} with {plots.size(row['up'])} in {plots.seconds(row['elapsed'])} here "
            f"and {plots.seconds(row['elapsed_network'])} over the network; {ours['name']} "
            f"{plots.share(result, ours['value'])} with {plots.size(ours['up'])}, "
            f"{plots.seconds(ours['elapsed'])} and {plots.seconds(ours['elapsed_network'])}. At most a twentieth of "
            f"the bytes and a fifth of the time at no less accuracy: {'yes' if holds else '**no**'}."
        )


def draw() -> None:
    """docs/plots: the metric against bytes, a picture a task."""
    PLOTS.mkdir(exist_ok=True)
    for name, result in kept().items():
        (PLOTS / f"{name}.svg").write_bytes(plots.against_bytes(result, plots.PAPER))


def page() -> str:
    """docs/compare.md: every task's table, and on how many none of the rivals' points is better in both."""
    found = kept()
    lines = [
        "# One contact or many rounds",
        "",
        "<!-- Written by `python benchmarks/compare.py --page` from benchmarks/results/compare-*.json. -->",
        "",
        "The same rows, partitions and seeds for all: one-shot methods against FedAvg, FedProx and FedAdam on the same",
        "features (*same head*) and on a network; rivals' settings were chosen on validation rows, five tries each.",
        "*Network*: elapsed over 20 Mbit/s and 50 ms with a tenth of the clients ten times as slow. *Attack*: AUC of",
        "membership inference against what a server sees, 0.5 is guessing. How it is measured:",
        "[how-to/compare](how-to/compare.md). All in two tables:",
        "[benchmarks](benchmarks.md#one-contact-or-many-rounds).",
        "",
        *_verdict(found),
    ]
    for table in TABLES:
        lines += [f"## {table.capitalize()}", ""]
        if not any(result["about"]["table"] == table for result in found.values()):
            lines += ["Nothing is measured here yet.", ""]
        for name, result in found.items():
            if result["about"]["table"] == table:
                lines += _section(name, result)
    return "\n".join(lines).rstrip() + "\n"


def _verdict(found: dict[str, Any]) -> list[str]:
    better = [name for name, result in found.items() if not result["table"]["dominated"]]
    behind = [name for name in found if name not in better]
    count = f"On **{len(better)} of {len(found)}** tasks"
    told = [count + " no point of a rival, after any round, is both more accurate and smaller in bytes than the best",
            "one-shot row."]  # fmt: skip
    if behind:
        told.append(f"It is otherwise on: {', '.join(found[name]['about']['title'] for name in behind)}; see below.")
    own = [name for name, result in found.items() if not _beats_own(result)]
    told.append(f"Best is meant in hindsight, by test rows; held against the task's own method it is {len(own)} of "
                f"{len(found)}.")  # fmt: skip
    told += [f"On {result['about']['title']}: {text}" for name, result in found.items() if (text := _note(name))]
    more = [text for text in map(_more_accurate, found.values()) if text]
    if more:
        told += ["", "At any price in bytes, after whichever round test rows favour, a rival is ahead of the best",
                 "one-shot row on:", ""]  # fmt: skip
        told += [f"- {text}" for text in more]
    missing = sorted({path.stem for path in TASKS.glob("*.toml")} - set(found))
    if missing:
        told += ["", f"Not measured yet: {', '.join(missing)}. No claim is made about them."]
    return [*told, ""]


def _note(name: str) -> str:
    """What a reader must know of how a task's methods came to be listed."""
    return str(tomllib.loads((TASKS / f"{name}.toml").read_text()).get("note", ""))


def _beats_own(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rivals both more accurate and smaller than the task's own method, which nobody chose by test rows."""
    rows = result["table"]["rows"]
    return compare._dominated(rows, next(row for row in rows if row["mine"]), result["seeds"])


def _more_accurate(result: dict[str, Any]) -> str:
    """The best round of any rival where it is ahead of the best one-shot row; else nothing."""
    best, seeds = _best(result, "one_shot"), list(result["seeds"].values())
    points = [
        (float(value), row["name"], number, row["up"] / row["rounds"] * number)
        for row in result["table"]["rows"]
        if row["kind"] == "rivals"
        for number, value in enumerate(np.mean([seed["rivals"][row["name"]]["curve"] for seed in seeds], axis=0), 1)
    ]
    value, name, number, up = max(points, key=lambda point: (point[0], -point[3]))
    if value <= best["value"]:
        return ""
    return (
        f"{result['about']['title']}: {name} {plots.share(result, value)} after {number} rounds and {plots.size(up)}, "
        f"against {best['name']} {plots.share(result, best['value'])} with {plots.size(best['up'])}"
    )


def _section(name: str, result: dict[str, Any]) -> list[str]:
    table, about = result["table"], result["about"]
    sizes = next(iter(result["seeds"].values()))["sizes"]
    lines = [
        f"### {about['title']}",
        "",
        f"{result['rows']:,} rows, `{about['partition']}`, {len(sizes)} clients, {len(result['seeds'])} seeds; "
        f"features `{about['encoder']}`; {result['metric']}"
        + (f" ({result['metric_why']})" if result["metric_why"] else "")
        + ".",
        "",
        f"![{result['metric']} against bytes](plots/{name}.svg)",
        "",
        f"| {result['metric']} | rounds | value | sent by a client | client time | network | to reach | attack |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table["rows"]:
        title = f"**{row['name']}**" if row["kind"] == "one_shot" else row["name"]
        value, spread = (plots.share(result, row[key]) for key in ("value", "spread"))
        spent, elapsed = (plots.seconds(row[key]) for key in ("client_seconds", "elapsed_network"))
        cells = (title, row["rounds"], f"{value} ± {spread}", plots.size(row["up"]), spent, elapsed, row["reached"])
        lines.append(f"| {' | '.join(map(str, cells))} | {row['privacy']} |")
    for label, value in (
        ("mean isolated client", table["isolated"]), ("best isolated client", table["isolated_best"]),
        (f"{table['own']}, pooled", table["pooled_own"]), (f"pooled: {', '.join(table['pooled_by'])}", table["pooled"]),
        ("commonest answer", table["majority"]),
    ):  # fmt: skip
        lines.append(f"| *{label}* | | {plots.share(result, value[0] if value else None)} | | | | | |")
    lines.append("")
    for row in table["dominated"]:
        lines.append(
            f"One-shot is behind here: {row['name']} has {plots.share(result, row['value'])} after {row['round']} "
            f"rounds and {plots.size(row['up'])}."
        )
    if table["leakier"]:
        lines.append(f"{table['best_one_shot']} gives more away than {', '.join(table['leakier'])}.")
    if max(table["larger_than_data"]):
        lines.append(f"For {max(table['larger_than_data'])} clients the update is larger than their rows.")
    if max(table["empty"]):
        lines.append(f"Up to {max(table['empty'])} clients got no row and took no part.")
    lines += [text] if (text := _note(name)) else []
    return [*lines, ""] if lines[-1] else lines


def main() -> None:
    """Run, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in TASKS.glob("*.toml"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all where none is given")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="make anew what is kept")
    parser.add_argument("--seeds", type=int, default=0, help="in the place of those that the toml names")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--validate", metavar="NAME", choices=known, help="what follows are methods")
    given = parser.parse_args()
    if given.validate:
        validate(given.validate, given.names)
        return
    if unknown := set(given.names) - set(known):
        parser.error(f"there is no task {min(unknown)}")
    if not given.page:
        for name in given.names or known:
            run(name, given.workers, fresh=given.fresh, seeds=given.seeds)
    draw()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
