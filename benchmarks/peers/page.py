"""The section of docs/benchmarks.md on peers, from what `measure` keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.sections import mib, result_of, table

NAMES = {
    "ours": "fusionlearn, 2 processes", "floor 1": "by hand, 1 process", "floor 2": "by hand, 2 processes",
    "flower": "Flower, on Ray", "blazefl": "BlazeFL, 2 threads", "pfl": "pfl, 1 process", "fedlab": "FedLab, 1 process",
}  # fmt: skip
CORES = 2  # of the machine; where more is at work, the clock tells of the others
NETWORKS = {"mlp": "MLP 784-200-10", "cnn": "Two convolutions, 1,663,370 weights"}

INTRODUCTION = """\
What one would otherwise use, on the same work: one round of clients with 600 images of 28×28 each, batches of 32, one
local epoch of plain gradient descent in float32, the mean of all parameters. Each is a whole process, from start to the
accuracy of the model, in an environment of its own (`python benchmarks/peers/setup.py`). By hand is the loop one writes
in PyTorch, clients divided over forked processes. Ours is `simulate --runner processes`: rows are checked against the
schema, updates are files of four bytes a weight that are hashed, checked and added as integers. Shares are of the loop
by hand in two processes, measured in the same sitting. The clock also counts what else the machine did; processor time
of all processes does not.
"""


def section() -> Iterator[str]:
    """One table a network, the small clients, the agreement with Flower."""
    found = result_of("peers")
    if found is None:
        return
    yield "## Peers\n"
    yield INTRODUCTION
    for network in NETWORKS:
        sittings = [part for part in found.values() if isinstance(part, Mapping) and part.get("network") == network]
        if sittings:
            yield from _rounds(network, sittings)
    yield from _bars([part for part in found.values() if isinstance(part, Mapping) and "found" in part])
    if "small" in found:
        yield from _small(found["small"])
    if "agreement" in found:
        yield from _agreement(found["agreement"])


def _rounds(network: str, sittings: list[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    seen: set[str] = set()
    for sitting in sittings:
        floor = sitting["found"]["floor 2"]
        for name, one in sitting["found"].items():
            if name in seen and name not in ("floor 2", "ours"):
                continue
            seen.add(name)
            told = sitting["versions"].get(name, "")
            rows.append((
                NAMES[name] + (f" ({told})" if told else ""), f"{one['seconds']:.1f}",
                f"{one['seconds'] / floor['seconds']:.2f}", f"{one['processor_seconds']:.1f}",
                f"{one['processor_seconds'] / floor['processor_seconds']:.2f}", mib(one["peak_bytes"]),
            ))  # fmt: skip
    first = sittings[0]
    loads = sorted({sitting["load"] for sitting in sittings})
    yield f"{NETWORKS[network]}, {first['clients']} clients; load of the machine {loads[0]} to {loads[-1]}:\n"
    yield table(("who", "seconds", "share", "processor seconds", "share", "memory"), rows)


def _bars(sittings: list[Mapping[str, Any]]) -> Iterator[str]:
    """What was promised: no slower than the quickest peer on the MLP, 0.8 of the floor on the convolutions."""
    for network in NETWORKS:
        held = [one["found"] for one in sittings if one["network"] == network]
        if not held:
            continue
        if network == "mlp":
            told = "The bar, no more than the quickest peer"
            taken = [
                (one["ours"]["processor_seconds"] / least, one["ours"]["seconds"] / first)
                for one in held
                for peers in [[value for name, value in one.items() if name != "ours"]]
                for least in [min(value["processor_seconds"] for value in peers)]
                for first in [min(value["seconds"] for value in peers)]
            ]
            bar, why = 1.0, ""
        else:
            told = "The bar, 0.8 of the loop in two processes"
            taken = [
                tuple(one["ours"][key] / one["floor 2"][key] for key in ("processor_seconds", "seconds"))
                for one in held
            ]
            bar = 0.8
            why = (
                " Two thirds of a step are convolutions, which run at the processor's peak whoever calls them. What is "
                "saved: the wide dense layer multiplies by oneDNN, which on this maker's processors takes half the "
                "time; channels come last in memory; what is pooled is rectified, not the other way round; torch's "
                "compiler is not loaded; and the workers load torch while the task is made."
            )
        worst = [max(part) for part in zip(*taken, strict=True)]
        busy = any(one["load"] > CORES for one in sittings if one["network"] == network)
        clock = "on a busy machine the clock is not judged" if busy else f"by the clock it is {worst[1]:.2f}"
        yield (
            f"{NETWORKS[network]}: {told}, is {'held' if worst[0] <= bar else '**missed**'} in processor time, "
            f"{worst[0]:.2f}{' at the worst' if len(taken) > 1 else ''}; {clock}.{why}\n"
        )


def _small(found: Mapping[str, Any]) -> Iterator[str]:
    times = found["processor_seconds"]
    yield (
        f"{found['clients']} small tabular clients in one process, an MLP {found['features']}-{found['hidden']}-"
        f"{found['classes']}, {found['rows']} rows each, one epoch: `summarize_many`, which computes all clients' "
        f"steps together, against the loop over clients in PyTorch (its start left out), in turns:\n"
    )
    yield table(
        ("batch", "loop, seconds", "trained together", "times as fast", "with the updates made", "times as fast"),
        [
            (
                batch, f"{one['loop']:.3f}", f"{one['trained']:.4f}", f"{one['loop'] / one['trained']:.0f}",
                f"{one['summarized']:.4f}", f"{one['loop'] / one['summarized']:.0f}",
            )
            for batch, one in times.items()
        ],
    )  # fmt: skip


def _agreement(found: Mapping[str, Any]) -> Iterator[str]:
    far = max(found["difference"])
    yield (
        f"Our FedAvg, the rival in `compare`, and Flower's own ({found['version']}), from the same weights on the same "
        f"batches, {found['clients']} clients of {min(found['rows'])} to {max(found['rows'])} rows: after each of "
        f"{found['rounds']} rounds no weight differs by more than {far:.1g}, while weights moved by up to "
        f"{found['moved']:.2g}.\n"
    )
