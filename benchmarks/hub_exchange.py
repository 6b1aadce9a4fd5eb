"""A whole exchange over loopback, agents already trained: 4 × 6.65 MB up, fused, the model down to each.

The updates are those of `average` on a perceptron of 830,000 weights, of 8 bytes each. Beside it the floor
(`hub_floor`) on the same bytes: write, hash, fsync, commit a row, and hand a file out again. The hub does what it
always does: signatures, checks, its own process for fusing, a report, a signed model. It has exchanged once before, as
on any day but its first. Uploads are signed before the clock starts, as in `hub_ingest`: what is measured is the hub.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import fusionlearn as fl
from benchmarks import sections
from benchmarks.hub_ingest import PROJECT, busy, enrol, floor, hub
from fusionlearn import file, http_signature, keys
from fusionlearn.methods.average import Average

COLUMNS, HIDDEN = 784, 1045  # 830,796 weights
CLIENTS = 4
REPEATS = 5
ROWS = 64
SEED = 0
POLL = 0.005  # seconds between looks at the status


def task_of(owner: Any, name: str) -> fl.Task:
    """Ten classes from as many numbers as a small picture has."""
    made = fl.new_task(
        name,
        {"x": fl.Vector(COLUMNS, low=0, high=1)},
        fl.ClassLabel("y", tuple((str(code), (str(code),)) for code in range(10))),
        method=Average(network=f"mlp:hidden={HIDDEN}", epochs=1),
        encoder="identity",
        privacy=fl.Privacy("none", "allow"),
    )
    return file.sign(made, owner)


def updates_of(task: fl.Task, clients: list[Any]) -> list[fl.Update]:
    """What each client sends."""
    made = []
    for number, client in enumerate(clients):
        rng = np.random.default_rng([SEED, number])
        table = {"x": rng.uniform(0, 1, (ROWS, COLUMNS)), "y": rng.integers(0, 10, ROWS).astype(str)}
        made.append(file.sign(fl.summarize(task, table), client))
    return made


def headers_of(method: str, url: str, key: Any, body: bytes = b"") -> dict[str, str]:
    """What signs a request."""
    return http_signature.sign(method, url, {}, hashlib.sha256(body).digest() if body else None, key)


def ask(http: httpx.Client, base: str, method: str, path: str, key: Any, body: bytes = b"") -> httpx.Response:
    """A signed request that has to be answered well."""
    headers = headers_of(method, base + path, key, body)
    answer = http.request(method, base + path, content=body or None, headers=headers)
    answer.raise_for_status()
    return answer


Round = tuple[fl.Task, list[tuple[str, bytes]]]  # a task, and its updates' digests and bytes


def exchanged(folder: Path, rounds: list[Round], clients: list[Any], owner: Any) -> dict[str, Any]:
    """Seconds of each part of the last round, on a fresh hub that answers them in turn."""
    with hub(folder, owner) as (_, port), httpx.Client(trust_env=False, timeout=60) as http:
        enrol(folder, [keys.public_hex(client) for client in clients])
        for task, bodies in rounds:
            found = one(http, f"http://127.0.0.1:{port}", task, bodies, clients, owner)
    return found


def one(
    http: httpx.Client, base: str, task: fl.Task, bodies: list[tuple[str, bytes]], clients: list[Any], owner: Any
) -> dict[str, Any]:
    """One exchange, timed from the first upload to the last client's model."""
    path = f"/v1/projects/{PROJECT}/tasks/{file.digest(task)}"
    ask(http, base, "PUT", f"{path}?quorum={CLIENTS}", owner, file.to_bytes(task))
    ask(http, base, "GET", f"{path}/status", clients[0])
    signed = [
        (f"{base}{path}/updates/{digest}", headers_of("PUT", f"{base}{path}/updates/{digest}", client, body), body)
        for client, (digest, body) in zip(clients, bodies, strict=True)
    ]
    began = time.perf_counter()
    for url, headers, body in signed:
        http.put(url, content=body, headers=headers).raise_for_status()
    sent = time.perf_counter()
    while ask(http, base, "GET", f"{path}/status", clients[0]).json()["model"] is None:
        time.sleep(POLL)
    fused = time.perf_counter()
    models = {ask(http, base, "GET", f"{path}/models/latest", client).content for client in clients}
    done = time.perf_counter()
    (content,) = models
    model = file.from_bytes(content, fl.Model)
    file.verify(model, "the model")
    return {
        "up": sent - began, "fuse": fused - sent, "down": done - fused, "seconds": done - began,
        "model_bytes": len(content), "digest": file.digest(model),
    }  # fmt: skip


def least(folder: Path, bodies: list[bytes], answer: int) -> float:
    """Seconds the floor takes for the same uploads and downloads of this size."""
    with floor(folder) as (_, port), httpx.Client(trust_env=False, timeout=60) as http:
        base = f"http://127.0.0.1:{port}"
        began = time.perf_counter()
        for body in bodies:
            http.put(f"{base}/x", content=body).raise_for_status()
        taken = time.perf_counter() - began
        http.put(f"{base}/model", content=bytes(answer)).raise_for_status()
        began = time.perf_counter()
        for _ in bodies:
            http.get(f"{base}/model").raise_for_status()
        return taken + time.perf_counter() - began


def alone(task: fl.Task, updates: list[fl.Update], owner: Any) -> tuple[float, str]:
    """What fusing takes without any hub, and the model it gives."""
    began = time.perf_counter()
    model, _ = fl.fuse(task, updates)
    return time.perf_counter() - began, file.digest(file.sign(model, owner))


def measure() -> dict[str, Any]:
    """The best of several exchanges, hub and floor in turns."""
    owner, clients = keys.generate(), [keys.generate() for _ in range(CLIENTS)]
    made = []
    for name in ("the first", "the measured"):
        task = task_of(owner, name)
        updates = updates_of(task, clients)
        made.append((task, [(file.digest(update), file.to_bytes(update)) for update in updates]))
    seconds, digest = alone(task, updates, owner)
    bodies = [body for _, body in made[-1][1]]
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(REPEATS):
            found = exchanged(Path(name) / f"hub {number}", made, clients, owner)
            assert found.pop("digest") == digest
            floors = least(Path(name) / f"floor {number}", bodies, found["model_bytes"])
            rounds.append({**found, "floor": floors})
    best = min(rounds, key=lambda found: found["seconds"])
    least_seconds = min(found["floor"] for found in rounds)
    return {
        "clients": CLIENTS,
        "bytes": len(bodies[0]),
        "rounds": rounds,
        "fuse_alone": seconds,
        "best": best,
        "floor": least_seconds,
        "ratio": best["seconds"] / least_seconds,
        "transport_ratio": (best["up"] + best["down"]) / least_seconds,
    }


def section() -> Iterator[str]:
    """Of docs/benchmarks.md."""
    found = sections.result_of("hub_exchange")
    if found is None:
        return
    best = found["best"]
    yield "### A whole exchange\n"
    yield (
        f"{found['clients']} updates of {found['bytes'] / 1e6:.2f} MB up, fused, the model of "
        f"{best['model_bytes'] / 1e6:.2f} MB down to each client, over loopback; the best of {len(found['rounds'])} "
        f"rounds. Fusing alone, without a hub, takes {found['fuse_alone']:.3f} s. The bar is twice the floor."
        f"{busy(found)}\n"
    )
    yield sections.table(
        ("", "up", "fused", "down", "together"),
        [
            ("hub", *(f"{best[name]:.3f} s" for name in ("up", "fuse", "down", "seconds"))),
            ("floor", "", "", "", f"{found['floor']:.3f} s"),
            ("ratio", "", "", "", f"{found['ratio']:.2f}"),
        ],
    )


if __name__ == "__main__":
    print(json.dumps(measure()))
