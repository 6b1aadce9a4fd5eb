"""Training networks on one machine: the same weights for the same seed, on one thread, interrupted and resumed.

Every epoch's order of rows comes from the seed and the number of the epoch alone, so a training that was interrupted
after any epoch goes on as if nothing had happened. More threads make small steps slower, not faster, and would round
differently: a machine with many cores trains many clients at a time, one thread each. A GPU is used where there is
one; its sums are its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import network
from fusionlearn.arrays import Arrays
from fusionlearn.errors import SettingsError
from fusionlearn.network import Module, torch_for
from fusionlearn.problem import Problem
from fusionlearn.sums import softmax

Tensor: TypeAlias = Any  # torch.Tensor
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # scores (b, c), targets (b, …) → losses (b,)

PREDICT_ROWS = 256  # rows predicted at a time


@dataclass(frozen=True)
class Training:
    """How a network is trained: stochastic gradient descent with momentum, the rate falling along half a cosine."""

    epochs: int = 5  # passes over the rows
    batch_size: int = 32  # rows a step
    rate: float = 0.05  # learning rate of the first step
    momentum: float = 0.9
    decay: float = 1e-4  # share of each weight added to its gradient
    precision: Literal["float32", "bfloat16"] = "float32"  # of products; weights are float32
    seed: int = 0  # of the order of rows

    def __post_init__(self) -> None:
        if not (0 <= self.epochs <= 100_000 and 1 <= self.batch_size <= 2**20):
            raise SettingsError("epochs may be 0 to 100000 and batch_size 1 to 1048576.")
        if not (0 < self.rate <= 100 and 0 <= self.momentum < 1 and 0 <= self.decay <= 1):
            raise SettingsError("rate must be above 0, momentum from 0 to below 1, decay from 0 to 1.")


# --- what a watcher sees --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epoch:
    """One pass over the rows is done."""

    number: int  # counted from 1
    of: int
    loss: float  # mean over the pass
    seconds_left: float


_watcher: contextvars.ContextVar[Callable[[Epoch], None] | None] = contextvars.ContextVar("watcher", default=None)


@contextlib.contextmanager
def watching(watcher: Callable[[Epoch], None]) -> Iterator[None]:
    """Within the block `watcher` is called after every epoch of every training."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


# --- losses ---------------------------------------------------------------------------------------------------------


def loss_of(problem: Problem, seen: NDArray[np.bool_] | None = None) -> Loss:
    """Cross-entropy against class codes (b,) or probabilities (b, c); half the squared error against values (b,).

    seen  (c,) the classes that are compared at all: a client that holds no row of a class has nothing to say of it,
          and would only say no. None: all
    """
    torch = torch_for("training")
    if not problem.labels:
        return lambda scores, targets: (scores[:, 0] - targets) ** 2 / 2
    if seen is None or seen.all():
        return lambda scores, targets: torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    held = np.flatnonzero(seen)

    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        columns = torch.from_numpy(held).to(scores.device)
        if targets.ndim == 1:
            targets = torch.searchsorted(columns, targets)
        else:
            targets = targets[:, columns]
            targets = targets / targets.sum(dim=1, keepdim=True).clamp_min(1e-12)
        return torch.nn.functional.cross_entropy(scores[:, columns], targets, reduction="none")

    return loss


# --- training -------------------------------------------------------------------------------------------------------


def fit(
    module: Module,
    x: NDArray[Any],
    targets: NDArray[Any],
    loss: Loss,
    settings: Training,
    *,
    checkpoint: Path | None = None,
) -> float:
    """Train a module in place; returns the mean loss of the last epoch.

    x           (n, d) features
    targets     (n, …) whatever `loss` takes, one row a row of x
    checkpoint  a file that is written after every epoch and removed at the end; when it exists and belongs to this
                very training (settings, rows, starting weights), training goes on from there
    Errors: SettingsError when the loss stops being finite.
    """
    torch = torch_for("training")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)
    goals = torch.from_numpy(_goals(targets)).to(device)
    has_images = any(weight.ndim == 4 for weight in module.parameters())
    module = module.to(device, memory_format=torch.channels_last) if has_images else module.to(device)
    weights = list(module.parameters())
    optimizer = torch.optim.SGD(weights, lr=settings.rate, momentum=settings.momentum, weight_decay=settings.decay)
    job = _job(module, x, targets, settings) if checkpoint else ""
    first = _resume(checkpoint, job, module, optimizer) if checkpoint else 0
    started, mean = time.monotonic(), math.nan
    with one_thread():
        for epoch in range(first, settings.epochs):
            mean = _epoch(module, rows, goals, loss, settings, optimizer, epoch)
            if not math.isfinite(mean):
                raise SettingsError(
                    f"training went astray in epoch {epoch + 1}: the loss is no longer finite. Lower the rate, now "
                    f"{settings.rate:g}."
                )
            if checkpoint and epoch + 1 < settings.epochs:
                _save(checkpoint, job, module, optimizer, epoch + 1)
            _tell(epoch + 1, settings.epochs, mean, started, first)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    module.to("cpu").eval()
    return mean


def _goals(targets: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(targets, np.int64 if targets.dtype.kind in "iu" else np.float32)


def _epoch(
    module: Module, rows: Tensor, goals: Tensor, loss: Loss, settings: Training, optimizer: Any, epoch: int
) -> float:
    """One pass; the mean loss of its rows."""
    torch = torch_for("training")
    order = torch.from_numpy(order_of(len(rows), settings.seed, epoch)).to(rows.device)
    half = settings.precision == "bfloat16"
    steps = math.ceil(len(rows) / settings.batch_size)
    total = torch.zeros((), device=rows.device)
    for step in range(steps):
        batch = order[step * settings.batch_size : (step + 1) * settings.batch_size]
        module.train(len(batch) > 1)  # batch statistics of one row say nothing
        for group in optimizer.param_groups:
            group["lr"] = rate_at(settings, epoch * steps + step, settings.epochs * steps)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=half):
            scores = module(rows[batch])
        missed = loss(scores.float(), goals[batch])
        missed.mean().backward()
        optimizer.step()
        total += missed.detach().sum()
    return float(total) / max(len(rows), 1)


def order_of(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the rows."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def rate_at(settings: Training, step: int, steps: int) -> float:
    """The learning rate of a step: half a cosine from `rate` to almost 0."""
    return settings.rate * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


def _tell(done: int, of: int, mean: float, started: float, first: int) -> None:
    watcher = _watcher.get()
    if watcher is not None:
        each = (time.monotonic() - started) / (done - first)
        watcher(Epoch(done, of, mean, each * (of - done)))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes on one thread."""
    torch = torch_for("training")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scores(module: Module, x: NDArray[Any]) -> NDArray[np.float64]:
    """What a module answers to rows (n, d): scores (n, c).

    Rows go through in batches of one size, the last one filled up: a product of another size may be rounded in
    another way, and what is said of a row must not depend on the rows beside it.
    """
    torch = torch_for("predicting")
    module.eval()
    found = []
    with torch.inference_mode(), one_thread():
        for start in range(0, max(len(x), 1), PREDICT_ROWS):
            batch = np.zeros((PREDICT_ROWS, x.shape[1]), np.float32)
            rows = x[start : start + PREDICT_ROWS]
            batch[: len(rows)] = rows
            found.append(module(torch.from_numpy(batch)).numpy()[: len(rows)])
    return np.concatenate(found).astype(np.float64)


def answers(text: str, problem: Problem, model: Arrays, x: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """What the network in a model answers to rows (n, d): {"probability": (n, c)} or {"value": (n,)}."""
    weights = network.weights_of(model, text, problem, "the model")
    found = scores(network.module_with(text, problem, weights), x)
    return {"probability": softmax(found)} if problem.labels else {"value": found[:, 0]}


# --- interrupted and resumed ----------------------------------------------------------------------------------------


def _job(module: Module, x: NDArray[Any], targets: NDArray[Any], settings: Training) -> str:
    """What makes two trainings the same one, as a digest."""
    hashed = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for array in (x, targets, *(weight.detach().cpu().numpy() for weight in module.parameters())):
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _save(path: Path, job: str, module: Module, optimizer: Any, epoch: int) -> None:
    """Write how far the training is, whole or not at all, readable by its owner only."""
    from safetensors.numpy import save

    held = {f"module.{name}": value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        held |= {f"optimizer.{index}.{key}": value.cpu().numpy() for key, value in entry.items() if value is not None}
    held = {name: np.ascontiguousarray(value) for name, value in held.items()}
    beside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(save(held, {"job": job, "epoch": str(epoch)}))
    os.replace(beside, path)


def _resume(path: Path, job: str, module: Module, optimizer: Any) -> int:
    """How many epochs are done already, with their weights put back; 0 where the file is of another training."""
    from safetensors import SafetensorError, safe_open

    torch = torch_for("training")
    if not path.exists():
        return 0
    try:
        with safe_open(path, "np") as held:
            notes = held.metadata() or {}
            if notes.get("job") != job:
                return 0
            arrays = {name: torch.from_numpy(held.get_tensor(name)) for name in held.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0
    module.load_state_dict(
        {name.removeprefix("module."): value for name, value in arrays.items() if name.startswith("module.")}
    )
    state: dict[int, dict[str, Any]] = {}
    for name, value in arrays.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(notes["epoch"])


def checkpoint_of(local: Mapping[str, str] | None, what: str) -> Path | None:
    """Where a client keeps one of its trainings while it runs: its choice `checkpoint` and the training's name."""
    path = (local or {}).get("checkpoint")
    return Path(f"{path}.{what}") if path else None
