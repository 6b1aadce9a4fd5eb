"""Runs the benchmarks, keeps their results as JSON, and writes docs/benchmarks.md from them.

python benchmarks/run.py             runs those of NAMES and two comparisons, a quarter of an hour on two cores, writes
                                     results/NAME.json and the page                          (make bench)
python benchmarks/run.py NAME...     runs these only
python benchmarks/run.py --full      runs the others, hours of work; each keeps its own results      (make bench-full)
python benchmarks/run.py --page      runs none, writes the page from what is kept

Each benchmark is a module that prints one JSON object; it runs in a process of its own with one BLAS thread, so that
neither its memory nor its time holds anything of the others. Exits with 1 when a bar is missed. How a benchmark gets
a section of the page: benchmarks/sections.py.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
from benchmarks.sections import MIB, RESULTS, mib, table  # noqa: E402 - found by the line above

PAGE = ROOT / "docs" / "benchmarks.md"
NAMES = ("gram", "many", "tables", "start", "hospitals", "digits", "simulate_many")
# modules with a `section`, in the page's order
SECTIONS = (
    "compare",
    "images",
    "auto",
    "preset",
    "hospitals",
    "digits",
    "synthesize",
    "after_averaging",
    "distill_frozen",
    "upload_sizes",
    "client_cost",
    "phrases",
    "translation",
    "hub_ingest",
    "hub_exchange",
    "peers.page",
)
COMPARED = ("heart", "homes")  # of benchmarks/tasks, those that `make bench` compares anew
FULL = (  # modules and what they are given; each needs $FUSIONLEARN_DATA and says what it lacks
    ("compare", "--fresh"), ("auto",), ("amazon",), ("cifar10_scratch",), ("cifar10_features",), ("mnist",),
    ("distill", "heart"), ("distill", "mnist"), ("distill_frozen", "cifar10"), ("distill_frozen", "amazon"),
    ("distill_frozen", "office"), ("synthesize",), ("upload_sizes",), ("client_cost",), ("peers.measure", "small"),
    ("peers.measure", "mlp", "floor 1", "flower", "blazefl", "pfl", "fedlab"),
    ("peers.measure", "cnn", "floor 1", "flower", "blazefl", "pfl", "fedlab"),
)  # fmt: skip
HUBS = ("hub_ingest", "hub_exchange")  # print what they find, as NAMES do; minutes of a machine of their own
LIBRARIES = ("fusionlearn", "numpy", "safetensors", "cryptography", "scikit-learn")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
DIGITS = 6  # significant ones that are kept

Results = Mapping[str, Mapping[str, Any]]


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names the machine or its owner."""
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401 - so that its BLAS is among the loaded libraries
    from threadpoolctl import threadpool_info

    blas = next((lib for lib in threadpool_info() if lib["user_api"] == "blas"), {})
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "blas": " ".join(str(blas.get(key, "")) for key in ("internal_api", "version", "architecture")),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def measured(name: str) -> dict[str, Any]:
    """What a benchmark found. Errors: CalledProcessError, its message on stderr."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, check=True)
    return {"machine": machine(), **_rounded(json.loads(done.stdout))}


def keep(names: Sequence[str]) -> None:
    """Run benchmarks that print what they find, and keep it."""
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        text = json.dumps(measured(name), indent=1, ensure_ascii=False)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def others(given: Sequence[tuple[str, ...]]) -> int:
    """Run benchmarks that keep their own results, one after the other; how many failed."""
    failed = 0
    for module, *arguments in given:
        print(f"{module} {' '.join(arguments)} …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        paths = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))  # some import each other by their bare names
        done = subprocess.run(command, cwd=ROOT, env=os.environ | ONE_THREAD | {"PYTHONPATH": paths}, check=False)
        if done.returncode:
            failed += 1
            print(f"{module} failed with status {done.returncode}.", file=sys.stderr)
    return failed


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def results() -> dict[str, dict[str, Any]]:
    """What is kept, by name."""
    return {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}


# --- the bars -------------------------------------------------------------------------------------------------------


def bars(found: Results) -> Iterator[tuple[str, str, str, bool]]:
    """What was promised, what was measured, and whether it holds: (what, bar, measured, holds)."""
    gram, many, tables, start = (found[name] for name in ("gram", "many", "tables", "start"))
    rows, columns = f"{gram['rows']:,}", f"{gram['columns']:,}"
    for name, what in (("method", "`ridge.summarize`"), ("verb", "`fusionlearn.summarize`, every value checked")):
        rate = gram["rate"][name]
        yield (
            f"{what}: {rows} × {columns} float32 rows, beside the bare Gram product in float64",
            "at least 60 % of its rate",
            f"{100 * rate:.0f} %",
            rate >= 0.60,
        )
    last = many["runs"][-1]
    busy = f"at a load of {many['machine']['load']} on {many['machine']['cores']} cores"
    yield (
        f"`fusionlearn fuse`: {last['updates']:,} signed updates of {many['columns']} columns",
        "10 s",
        f"{last['processor_seconds']:.1f} s of processor time; {last['seconds']:.1f} s by the clock, {busy}",
        last["processor_seconds"] <= 10,
    )
    first = many["runs"][0]
    yield (
        f"… its memory, from {first['updates']} updates to {last['updates']:,}",
        "does not grow (16 MiB of slack)",
        f"{mib(first['peak_bytes'])} to {mib(last['peak_bytes'])}",
        many["growth_bytes"] <= 16 * MIB,
    )
    long, small = tables["long"], tables["small"]
    yield (
        f"`fusionlearn summarize`: {long['rows']:,} rows of CSV, memory",
        "512 MiB",
        mib(long["peak_bytes"]),
        long["peak_bytes"] <= 512 * MIB,
    )
    yield (
        f"`fusionlearn summarize`: {small['rows']:,} rows under `ulimit -v`",
        f"runs in {mib(small['address_space'])}",
        f"runs; {mib(small['peak_bytes'])} resident",
        True,  # else there would be no result
    )
    yield from _simulated(found["simulate_many"])
    seconds = start["processor_seconds"]["import"]
    yield "`import fusionlearn` beyond `import numpy`", "0.10 s", f"{seconds:.3f} s", seconds <= 0.10
    headline = found["digits"]["headline"]
    yield (
        f"`ridge` on 2,048 random features against the best pooled model, {len(found['digits']['seeds'])} fresh seeds",
        "half a point, in the mean",
        f"{100 * headline['mean_difference']:+.2f} points",
        headline["mean_difference"] >= -headline["loss"],
    )
    mean = found["hospitals"]["mean"]
    difference, splits = mean["ridge"] - mean["pooled logistic regression"], len(found["hospitals"]["seeds"])
    yield (
        f"Fused `ridge` against pooled logistic regression, {splits} splits of four hospitals",
        "half a point, in the mean",
        f"{100 * difference:+.2f} points",
        difference >= -0.005,
    )


def _simulated(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    few, here, workers = found["runs"]
    for one in (here, workers):
        yield (
            f"`fusionlearn simulate`: {one['asked']:,} clients of digits, `--runner {one['runner']}`",
            "120 s and 1,024 MiB, all processes together",
            f"{one['seconds']:.0f} s and {mib(one['peak_bytes'])}",
            one["seconds"] <= 120 and one["peak_bytes"] <= 1024 * MIB,
        )
    yield (
        f"… its memory, from {few['asked']:,} clients to {here['asked']:,} with the same rows; its models",
        "does not grow (32 MiB of slack); one digest",
        f"{mib(few['peak_bytes'])} to {mib(here['peak_bytes'])}; {'one' if found['equal'] else 'two'}",
        found["growth_bytes"] <= 32 * MIB and found["equal"],
    )


# --- the page -------------------------------------------------------------------------------------------------------


def page(found: Results) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n",
        "<!-- Written by `make bench` from benchmarks/results/*.json. Change benchmarks/run.py, not this page. -->\n",
        INTRODUCTION,
        table(
            ("what", "bar", "measured", "holds"),
            [(what, bar, value, "yes" if holds else "**no**") for what, bar, value, holds in bars(found)],
        ),
        *_speed(found),
        *(part for name in SECTIONS for part in importlib.import_module(f"benchmarks.{name}").section()),
        *_machines(found),
    ]
    return "\n".join(parts)


INTRODUCTION = """\
`make bench` runs what fits a quarter of an hour on two cores and `make bench-full` the rest; both keep what they find
in [benchmarks/results](../benchmarks/results), seeds, versions and the partitions' digests among it, and write this
page. Seconds are processor time with one BLAS thread: on a machine that others use too, a clock would measure them as
well, and waiting for a disk is left out. Each stands beside a floor measured in the same run, because a ratio means
something on another machine too.
"""


def _speed(found: Results) -> Iterator[str]:
    gram, many, tables, start = (found[name] for name in ("gram", "many", "tables", "start"))
    seconds, update = gram["processor_seconds"], many["processor_seconds"]
    yield "## Speed\n"
    yield table(
        ("work", "seconds", "floor", "seconds", "ratio"),
        [
            (work, _seconds(taken), floor, _seconds(least), f"{taken / least:.2f}")
            for work, taken, floor, least in (
                ("`ridge.summarize`", seconds["method"], "XᵀX in float64", seconds["product"]),
                ("`fusionlearn.summarize`", seconds["verb"], "XᵀX in float64", seconds["product"]),
                ("one more update to fuse", update["update"], "its Cholesky and SHA-256", update["floor"]),
                (
                    f"{tables['long']['rows']:,} rows of CSV",
                    tables["long"]["processor_seconds"],
                    "Python's `csv` reading them",
                    tables["floor_processor_seconds"],
                ),
                (
                    "`fusionlearn --version`",
                    start["processor_seconds"]["command"],
                    "`import numpy`",
                    start["processor_seconds"]["floor"],
                ),
            )
        ],
    )
    long, last = tables["long"], many["runs"][-1]
    yield (
        f"The {last['updates']:,} updates are {last['updates'] * many['bytes'] / 1e9:.1f} GB of files. The CSV took "
        f"{long['seconds']:.1f} s by the clock, at a load of {tables['machine']['load']} on "
        f"{tables['machine']['cores']} cores.\n"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.4f}"


def _machines(found: Results) -> Iterator[str]:
    yield "## Where this was measured\n"
    rows = []
    for name, result in found.items():
        its = result["machine"]
        versions = ", ".join(f"{library} {version}" for library, version in its["versions"].items())
        rows.append((f"`{name}`", f"{its['system']}, {its['cores']} cores, {its['blas']}", str(its["load"]), versions))
    yield table(("benchmark", "machine", "load", f"versions, Python {its['python']}"), rows)


def main(arguments: list[str]) -> int:
    """Run, keep, write the page; 1 when a bar is missed."""
    RESULTS.mkdir(exist_ok=True)
    if arguments == ["--full"]:
        keep(HUBS)
        failed = others(FULL)
        PAGE.write_text(page(results()), encoding="utf-8")
        return 1 if failed else 0
    names = [] if arguments == ["--page"] else arguments or list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"There is no benchmark '{unknown[0]}'; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    keep(names)
    if not arguments:
        others([("compare", "--fresh", *COMPARED)])
    found = results()
    PAGE.write_text(page(found), encoding="utf-8")
    missed = 0
    for what, bar, value, holds in bars(found):
        missed += not holds
        print(f"{'holds ' if holds else 'MISSED'}  {what}: {value} (bar: {bar})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
