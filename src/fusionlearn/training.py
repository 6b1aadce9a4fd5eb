"""Training networks on one machine: the same weights for the same seed, on one thread, interrupted and resumed.

Every epoch's order of rows comes from the seed and the number of the epoch alone, so a training that was interrupted
after any epoch goes on as if nothing had happened. More threads make small steps slower, not faster, and would round
differently: a machine with many cores trains many clients at a time, one thread each. A GPU is used where there is
one; its sums are its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

TOGETHER = 128  # clients whose steps are shared
SMALL_STEP = 5e6  # floating-point operations: larger steps gain nothing by being shared, and lose the cache
CLOSED = -1e4  # added to the score of a class that is not compared: its exponential is 0 in float32
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


def loss_of(problem: Problem) -> Loss:
    """Cross-entropy against class codes (b,) or probabilities (b, c); half the squared error against values (b,)."""
    torch = torch_for("training")
    if problem.labels:
        return lambda scores, targets: torch.nn.functional.cross_entropy(scores, targets, reduction="none")
    return lambda scores, targets: (scores[:, 0] - targets) ** 2 / 2


def restricted(probability: NDArray[np.float64], seen: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Probabilities (n, c) of the classes seen alone, 0 for the others."""
    if seen is None:
        return probability
    kept = np.where(seen, probability, 0.0)
    return np.asarray(kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-12))


# --- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What one client's network learns from."""

    x: NDArray[Any]  # (n, d) features
    targets: NDArray[Any]  # (n, …) whatever the loss takes, one row a row of x
    seed: int = 0  # of the order of rows
    # (c,) the classes that are compared at all: a client that holds no row of a class has nothing to say of it, and
    # would only say no. Probabilities among the targets are 0 elsewhere (`restricted`). None: all.
    seen: NDArray[np.bool_] | None = None


def fit(module: Module, job: Job, loss: Loss, settings: Training, *, checkpoint: Path | None = None) -> float:
    """Train a module in place; returns the mean loss of the last epoch.

    checkpoint  a file that is written after every epoch and removed at the end; when it exists and belongs to this
                very training (settings, rows, starting weights), training goes on from there
    Errors: SettingsError when the loss stops being finite.
    """
    if not stacks(module):
        return _train(module, [job], loss, settings, checkpoint, stacked=False)
    stack = _stacked(module, 1)
    mean = _train(stack, [job], loss, settings, checkpoint, stacked=True)
    stack.give(0, module)
    module.eval()
    return mean


def fit_many(module: Module, jobs: Sequence[Job], loss: Loss, settings: Training) -> list[network.Weights]:
    """Train copies of a module, a client's each, in shared steps; bit for bit what `fit` gives each of them alone.

    For modules that stack. Clients of like sizes share their steps, TOGETHER at a time.
    """
    order = sorted(range(len(jobs)), key=lambda k: len(jobs[k].x))
    found: list[network.Weights] = [{} for _ in jobs]
    for start in range(0, len(order), TOGETHER):
        chosen = order[start : start + TOGETHER]
        stack = _stacked(module, len(chosen))
        _train(stack, [jobs[k] for k in chosen], loss, settings, None, stacked=True)
        for place, k in enumerate(chosen):
            copied = copy.deepcopy(module)
            stack.give(place, copied)
            found[k] = network.state(copied)
    return found


def shares(module: Module, settings: Training) -> bool:
    """Whether clients are better trained in shared steps than one after another."""
    size = sum(weight.numel() for weight in module.parameters())
    return stacks(module) and 6 * size * settings.batch_size <= SMALL_STEP


def stacks(module: Module) -> bool:
    """Whether many copies can be computed as one: linear layers and rectifiers, one after another."""
    nn = torch_for("training").nn
    leaves = [layer for layer in module.modules() if not isinstance(layer, nn.Sequential)]
    return all(isinstance(layer, nn.Linear | nn.ReLU) for layer in leaves) and isinstance(module, nn.Sequential)


def _stacked(module: Module, count: int) -> Any:
    """`count` copies of a module that stacks, as one module from (count, b, d) to (count, b, c).

    A batched product rounds each of its products as it would alone, which is what makes `fit_many` equal `fit`.
    """
    torch = torch_for("training")
    nn = torch.nn
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    rectified = [isinstance(layer, nn.ReLU) for layer in module.modules() if isinstance(layer, nn.Linear | nn.ReLU)]

    class Stack(nn.Module):  # type: ignore[misc,name-defined]
        """Weights with a leading axis."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.ParameterList([layer.weight.detach().repeat(count, 1, 1) for layer in linear])
            self.bias = nn.ParameterList([layer.bias.detach().repeat(count, 1, 1) for layer in linear])

        def forward(self, x: Any) -> Any:
            place = 0
            for is_rectifier in rectified:
                if is_rectifier:
                    x = torch.relu(x)
                else:
                    x = torch.bmm(x, self.weight[place].transpose(1, 2)) + self.bias[place]
                    place += 1
            return x

        def give(self, place: int, to: Any) -> None:
            """Copy one client's weights into a module like the first."""
            layers = [layer for layer in to.modules() if isinstance(layer, nn.Linear)]
            with torch.no_grad():
                for layer, weight, bias in zip(layers, self.weight, self.bias, strict=True):
                    layer.weight.copy_(weight[place])
                    layer.bias.copy_(bias[place, 0])

    return Stack()


def _train(
    module: Module, jobs: Sequence[Job], loss: Loss, settings: Training, checkpoint: Path | None, *, stacked: bool
) -> float:
    """Train a module, or a stack of as many as there are jobs; the mean loss of the last epoch."""
    torch = torch_for("training")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    has_images = any(weight.ndim == 4 for weight in module.parameters())
    module = module.to(device, memory_format=torch.channels_last) if has_images else module.to(device)
    work = _Work(jobs, settings, device, stacked=stacked)
    descent = _Descent(module, settings, stacked=stacked)
    name = _job(module, jobs[0], settings) if checkpoint else ""
    first = _resume(checkpoint, name, module, descent) if checkpoint else 0
    started, mean = time.monotonic(), math.nan
    with one_thread():
        for epoch in range(first, settings.epochs):
            mean = _epoch(module, work, loss, settings, descent, epoch)
            if not math.isfinite(mean):
                raise SettingsError(
                    f"training went astray in epoch {epoch + 1}: the loss is no longer finite. Lower the rate, now "
                    f"{settings.rate:g}."
                )
            if checkpoint and epoch + 1 < settings.epochs:
                _save(checkpoint, name, module, descent, epoch + 1)
            tell(epoch + 1, settings.epochs, mean, started, first)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    module.to("cpu").eval()
    return mean


class _Work:
    """The rows of all jobs in one tensor, and which of them a step takes."""

    def __init__(self, jobs: Sequence[Job], settings: Training, device: Any, *, stacked: bool) -> None:
        torch = torch_for("training")
        self.jobs, self.size, self.stacked = jobs, settings.batch_size, stacked
        self.rows = torch.from_numpy(np.concatenate([job.x for job in jobs]).astype(np.float32)).to(device)
        self.goals = torch.from_numpy(_goals(np.concatenate([job.targets for job in jobs]))).to(device)
        self.sizes = np.array([len(job.x) for job in jobs])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.steps = -(-self.sizes // self.size)  # of an epoch, for each job
        closed = [None if job.seen is None or job.seen.all() else np.where(job.seen, 0.0, CLOSED) for job in jobs]
        self.closed = None
        if any(one is not None for one in closed):
            width = max(len(one) for one in closed if one is not None)
            filled = np.stack([np.zeros(width) if one is None else one for one in closed])
            self.closed = torch.from_numpy(filled[:, None].astype(np.float32)).to(device)

    def epoch(self, number: int) -> NDArray[np.int64]:
        """(jobs, steps, batch) places of rows, -1 where a batch is not full."""
        places = np.full((len(self.jobs), int(self.steps.max()) * self.size), -1, np.int64)
        for k, job in enumerate(self.jobs):
            places[k, : self.sizes[k]] = order_of(int(self.sizes[k]), job.seed, number) + self.starts[k]
        return places.reshape(len(self.jobs), -1, self.size)


class _Descent:
    """Gradient descent with momentum, each stacked client at its own rate."""

    def __init__(self, module: Module, settings: Training, *, stacked: bool) -> None:
        torch = torch_for("training")
        self.weights, self.stacked = list(module.parameters()), stacked
        self.settings = settings
        self.moving = [torch.zeros_like(weight) for weight in self.weights]

    def step(self, rates: list[float]) -> None:
        """One step along the gradients, each job at its rate; at 0 it rests."""
        torch = torch_for("training")
        some_rest = min(rates) == 0.0
        with torch.no_grad():
            each = torch.tensor(rates, dtype=torch.float32, device=self.weights[0].device).reshape(-1, 1, 1)
            for weight, moving in zip(self.weights, self.moving, strict=True):
                before = moving.clone() if some_rest else moving
                moving.mul_(self.settings.momentum).add_(weight.grad).add_(weight, alpha=self.settings.decay)
                if some_rest:
                    torch.where(each > 0, moving, before, out=moving)
                # With `alpha` the product is not rounded, one client or many must not differ in that.
                if self.stacked:
                    weight.sub_(moving * each)
                else:
                    weight.sub_(moving, alpha=rates[0])
                weight.grad = None


def _goals(targets: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(targets, np.int64 if targets.dtype.kind in "iu" else np.float32)


def _epoch(module: Module, work: _Work, loss: Loss, settings: Training, descent: _Descent, epoch: int) -> float:
    """One pass; the mean loss of its rows."""
    torch = torch_for("training")
    places, half = work.epoch(epoch), settings.precision == "bfloat16"
    device = work.rows.device
    total = torch.zeros((), device=device)
    for step in range(places.shape[1]):
        here = places[:, step]
        if not work.stacked:
            here = here[:, here[0] >= 0]  # a batch that is not full need not be filled up
        filled = torch.from_numpy((here >= 0).astype(np.float32)).to(device)
        batch = torch.from_numpy(np.maximum(here, 0)).to(device)
        goals = work.goals[batch.reshape(-1)]
        module.train(here.shape[1] > 1)  # batch statistics of one row say nothing
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            scores = module(work.rows[batch]) if work.stacked else module(work.rows[batch[0]])[None]
        scores = scores.float()
        if work.closed is not None:
            scores = scores + work.closed
        missed = loss(scores.reshape(-1, scores.shape[-1]), goals).reshape(filled.shape) * filled
        (missed.sum(dim=1) / filled.sum(dim=1).clamp_min(1.0)).sum().backward()
        descent.step(_rates(work, settings, epoch, step))
        total += missed.detach().sum()
    return float(total) / max(int(work.sizes.sum()), 1)


def _rates(work: _Work, settings: Training, epoch: int, step: int) -> list[float]:
    """The learning rate of each job, 0 for those whose epoch is over."""
    return [
        rate_at(settings, epoch * int(steps) + step, settings.epochs * int(steps)) if step < steps else 0.0
        for steps in work.steps
    ]


def order_of(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the rows."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def rate_at(settings: Training, step: int, steps: int) -> float:
    """The learning rate of a step: half a cosine from `rate` to almost 0."""
    return settings.rate * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


def tell(done: int, of: int, mean: float, started: float, first: int) -> None:
    """Tell whoever watches that an epoch is done; `started` by the monotonic clock, after `first` epochs."""
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


def _job(module: Module, job: Job, settings: Training) -> str:
    """What makes two trainings the same one, as a digest."""
    hashed = hashlib.sha256(json.dumps([asdict(settings), job.seed], sort_keys=True).encode())
    seen = np.array([]) if job.seen is None else job.seen
    for array in (job.x, job.targets, seen, *(weight.detach().cpu().numpy() for weight in module.parameters())):
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _save(path: Path, job: str, module: Module, descent: _Descent, epoch: int) -> None:
    """Write how far the training is, whole or not at all, readable by its owner only."""
    from safetensors.numpy import save

    held = {f"module.{name}": value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    held |= {f"moving.{index}": value.cpu().numpy() for index, value in enumerate(descent.moving)}
    held = {name: np.ascontiguousarray(value) for name, value in held.items()}
    beside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(save(held, {"job": job, "epoch": str(epoch)}))
    os.replace(beside, path)


def _resume(path: Path, job: str, module: Module, descent: _Descent) -> int:
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
    for index, moving in enumerate(descent.moving):
        moving.copy_(arrays[f"moving.{index}"])
    return int(notes["epoch"])


def checkpoint_of(local: Mapping[str, str] | None, what: str) -> Path | None:
    """Where a client keeps one of its trainings while it runs: its choice `checkpoint` and the training's name."""
    path = (local or {}).get("checkpoint")
    return Path(f"{path}.{what}") if path else None
