"""Training networks on one machine: the same weights for the same seed, on one thread, interrupted and resumed.

Every epoch's order of rows comes from the seed and the number of the epoch alone, so a training that was interrupted
after any epoch goes on as if nothing had happened. More threads make small steps slower, not faster, and would round
differently: a machine with many cores trains many clients at a time, one thread each.

Dense networks (`Network.widths`) learn in NumPy, many clients in shared steps where a step is small; all others in
PyTorch. Where there is a GPU, PyTorch uses it, also for long trainings of large dense networks; its sums are its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import dense, network
from fusionlearn.arrays import Arrays, Data, as_numpy
from fusionlearn.errors import MissingExtra, SettingsError
from fusionlearn.fixed import one_blas_thread
from fusionlearn.network import Module, Weights, torch_for
from fusionlearn.problem import Problem
from fusionlearn.sums import softmax

Floats: TypeAlias = NDArray[np.float32]
# Scores (…, c) and targets (…) or (…, t) → losses (…) and their slopes in the scores (…, c).
Loss: TypeAlias = Callable[[Floats, NDArray[Any]], tuple[Floats, Floats]]

TOGETHER = 128  # clients whose steps are shared
SMALL_STEP = 5e6  # floating-point operations: larger steps gain nothing by being shared, and lose the cache
LONG = 1e12  # floating-point operations of a training that is worth a GPU's while
CLOSED = -1e4  # added to the score of a class that is not compared: its exponential is 0 in float32
WIDE = 2**17  # weights of a dense layer from which oneDNN's products are worth handing it the rows
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
    """Cross-entropy against class codes (…) or probabilities (…, c); half the squared error against values (…)."""
    return cross_entropy if problem.labels else squared_error


def cross_entropy(scores: Floats, targets: NDArray[Any]) -> tuple[Floats, Floats]:
    """−log softmax(scores) of the class, or its mean under the probabilities, which may sum to less than 1."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    slopes = np.exp(shifted)
    total = slopes.sum(axis=-1, keepdims=True)
    slopes /= total
    if targets.dtype.kind in "iu":
        at = np.arange(targets.size) * scores.shape[-1] + targets.reshape(-1)
        slopes.reshape(-1)[at] -= 1
        return np.log(total)[..., 0] - shifted.reshape(-1)[at].reshape(targets.shape), slopes
    losses = (targets * (np.log(total) - shifted)).sum(axis=-1)
    slopes *= targets.sum(axis=-1, keepdims=True)
    slopes -= targets
    return losses, slopes


def squared_error(scores: Floats, targets: NDArray[Any]) -> tuple[Floats, Floats]:
    """Half the squared distance of the only score from the value."""
    slopes = scores - targets[..., None]
    return slopes[..., 0] ** 2 / 2, slopes


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


def fit(
    text: str,
    problem: Problem,
    weights: Weights,
    job: Job,
    settings: Training,
    loss: Loss | None = None,
    *,
    checkpoint: Path | None = None,
) -> Weights:
    """The weights of a network by name after training from those given, which are not changed.

    loss        `loss_of` the problem by default
    checkpoint  a file that is written after every epoch and removed at the end; when it exists and belongs to this
                very training (settings, rows, starting weights), training goes on from there
    Errors: SettingsError when the loss stops being finite.
    """
    loss = loss or loss_of(problem)
    learner: _Learner
    if _in_numpy(text, problem, settings, len(job.x)):
        learner = _Dense(weights, [job], settings, loss)
    else:
        learner = _Torch(network.module_with(text, problem, weights), job, settings, loss)
    _train(learner, settings, checkpoint, job)
    return learner.weights(0)


def pretrained(
    text: str, problem: Problem, weights: Weights, data: Data, settings: Training, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """A network's arrays after it has learned from labelled public rows, for a task's prior."""
    job = Job(as_numpy(data["x"]), as_numpy(data["y"]), int(rng.integers(2**31)))
    return network.named(fit(text, problem, weights, job, settings))


def fit_many(
    text: str, problem: Problem, weights: Weights, jobs: Sequence[Job], settings: Training, loss: Loss | None = None
) -> list[Weights]:
    """The weights of each client, bit for bit what `fit` gives each of them alone.

    Where a step is small, clients of like sizes share their steps, TOGETHER at a time; else one follows the other.
    """
    if not shares(text, problem, settings):
        return [fit(text, problem, weights, job, settings, loss) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda k: len(jobs[k].x))
    found: list[Weights] = [{} for _ in jobs]
    for start in range(0, len(order), TOGETHER):
        chosen = order[start : start + TOGETHER]
        learner = _Dense(weights, [jobs[k] for k in chosen], settings, loss or loss_of(problem))
        _train(learner, settings)
        for place, k in enumerate(chosen):
            found[k] = learner.weights(place)
    return found


def shares(text: str, problem: Problem, settings: Training) -> bool:
    """Whether clients are better trained in shared steps than one after another."""
    small = _operations(text, problem, settings.batch_size) <= SMALL_STEP
    return small and _in_numpy(text, problem, settings, 0)


def _in_numpy(text: str, problem: Problem, settings: Training, num_rows: int) -> bool:
    """Whether a network is dense and PyTorch has nothing to offer: no lower precision, no GPU where one would help."""
    if network.parse(text).widths(problem) is None or settings.precision != "float32":
        return False
    small = _operations(text, problem, settings.batch_size) <= SMALL_STEP  # alone it is computed as with others
    return small or _operations(text, problem, num_rows * settings.epochs) < LONG or not _has_gpu()


def _operations(text: str, problem: Problem, num_rows: int) -> float:
    """Floating-point operations, forward and back, of so many rows through a dense network."""
    return 6.0 * network.num_weights(text, problem) * num_rows


@functools.cache
def _has_gpu() -> bool:
    try:
        return bool(torch_for("training").cuda.is_available())
    except MissingExtra:
        return False


class _Learner(Protocol):
    """A network, or a stack of them, in training."""

    def epoch(self, number: int) -> float:
        """One pass over the rows; their mean loss."""

    def weights(self, place: int) -> Weights:
        """The weights of one network."""

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next epoch depends on."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put a state back."""


def _train(learner: _Learner, settings: Training, checkpoint: Path | None = None, job: Job | None = None) -> None:
    """All epochs, or those that a checkpoint says are still to be done."""
    name = _name(learner, job, settings) if checkpoint and job else ""
    first = _resume(checkpoint, name, learner) if checkpoint else 0
    started = time.monotonic()
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told below
        for epoch in range(first, settings.epochs):
            mean = learner.epoch(epoch)
            if not math.isfinite(mean):
                raise SettingsError(
                    f"training went astray in epoch {epoch + 1}: the loss is no longer finite. Lower the rate, now "
                    f"{settings.rate:g}."
                )
            if checkpoint and epoch + 1 < settings.epochs:
                _save(checkpoint, name, learner, epoch + 1)
            tell(epoch + 1, settings.epochs, mean, started, first)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)


# --- in NumPy -------------------------------------------------------------------------------------------------------


class _Dense:
    """Dense networks of several clients, in steps they share. Jobs come in the order of their numbers of rows."""

    def __init__(self, weights: Weights, jobs: Sequence[Job], settings: Training, loss: Loss) -> None:
        self.stack = dense.Stack(weights, len(jobs))
        self.jobs, self.settings, self.loss = jobs, settings, loss
        self.rows = _joined([job.x for job in jobs], np.float32)
        self.goals = _joined([job.targets for job in jobs], _kind(jobs[0].targets))
        self.sizes = np.array([len(job.x) for job in jobs])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.steps = -(-self.sizes // settings.batch_size)  # of an epoch, for each job
        closed = [_closed(job) for job in jobs]
        width = max((one.size for one in closed if one is not None), default=0)
        none = np.zeros((1, width), np.float32)
        self.closed = np.stack([none if one is None else one for one in closed]) if width else None

    def epoch(self, number: int) -> float:
        """One pass over the rows of every client."""
        places, rates = self._places(number), self._rates(number)
        total, size = 0.0, self.settings.batch_size
        for step in range(places.shape[1]):
            first = int(np.searchsorted(self.steps, step, side="right"))  # the clients before it have done their epoch
            here = places[first:, step]
            is_full = bool((self.sizes[first:] >= (step + 1) * size).all())
            passed = self.stack.forward(self.rows.take(here, axis=0), first)
            scores = passed.pop()
            if self.closed is not None:
                scores += self.closed[first:]
            losses, slopes = self.loss(scores, self.goals.take(here, axis=0))
            if is_full:
                slopes *= np.float32(1) / np.float32(size)
            else:
                filled = np.arange(step * size, (step + 1) * size) < self.sizes[first:, None]
                slopes *= (filled / filled.sum(axis=1, keepdims=True, dtype=np.float32))[..., None]
                losses = losses * filled
            total += float(losses.sum())
            self.stack.descend(passed, slopes, rates[first:, step], self.settings.momentum, self.settings.decay, first)
        return total / max(int(self.sizes.sum()), 1)

    def _places(self, number: int) -> NDArray[np.int64]:
        """(clients, steps, batch) places of rows; where a batch is not full, a row of the client's own, not counted."""
        found = np.empty((len(self.jobs), int(self.steps.max()) * self.settings.batch_size), np.int64)
        for job, row, size, start in zip(self.jobs, found, self.sizes, self.starts, strict=True):
            row[:size] = order_of(int(size), job.seed, number)
            row[size:] = 0
            row += start
        return found.reshape(len(self.jobs), -1, self.settings.batch_size)

    def _rates(self, number: int) -> Floats:
        """(clients, steps) the learning rate of each step."""
        found = np.zeros((len(self.jobs), int(self.steps.max())), np.float32)
        for steps in map(int, np.unique(self.steps)):
            of = self.settings.epochs * steps
            found[self.steps == steps, :steps] = [
                rate_at(self.settings, number * steps + step, of) for step in range(steps)
            ]
        return found

    def weights(self, place: int) -> Weights:
        """One client's weights."""
        return self.stack.of(place)

    def state(self) -> dict[str, NDArray[Any]]:
        """Weights and momentum."""
        named = {"weights": self.stack.weights, "moving": self.stack.moving}
        return {f"{kind}.{index}": value for kind, held in named.items() for index, value in enumerate(held)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put weights and momentum back."""
        for name, value in self.state().items():
            value[...] = state[name]


def _joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts), kind)


def _kind(targets: NDArray[Any]) -> Any:
    return np.int64 if targets.dtype.kind in "iu" else np.float32


def _closed(job: Job) -> Floats | None:
    """(1, c) what is added to the scores so that classes not seen are not compared; None: all are."""
    return None if job.seen is None or job.seen.all() else np.where(job.seen, 0.0, CLOSED).astype(np.float32)[None]


# --- in PyTorch -----------------------------------------------------------------------------------------------------


class _Torch:
    """One client's module."""

    def __init__(self, module: Module, job: Job, settings: Training, loss: Loss) -> None:
        torch = torch_for("training")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        has_images = any(weight.ndim == 4 for weight in module.parameters())
        # Images come with their channels last, and convolutions are quicker that way.
        layout = torch.channels_last if has_images else torch.preserve_format
        self.module = module.to(self.device, memory_format=layout)
        if self.device.type == "cpu" and settings.precision == "float32":
            _quicken(self.module)
        self.rows = torch.from_numpy(_joined([job.x], np.float32)).to(self.device)
        self.goals = _joined([job.targets], _kind(job.targets))
        self.job, self.settings, self.loss, self.closed = job, settings, loss, _closed(job)
        self.parameters = list(self.module.parameters())
        self.moving = [torch.zeros_like(weight) for weight in self.parameters if settings.momentum]

    def epoch(self, number: int) -> float:
        """One pass over the rows."""
        torch, size = torch_for("training"), self.settings.batch_size
        order = order_of(len(self.rows), self.job.seed, number)
        steps, total = -(-len(order) // size), 0.0
        half = self.settings.precision == "bfloat16"
        products = torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext()
        self.module.train()
        with one_thread():
            for step in range(steps):
                here = order[step * size : (step + 1) * size]
                if len(here) == 1:
                    self.module.eval()  # batch statistics of one row say nothing
                with products:
                    answered = self.module(self.rows[torch.from_numpy(here).to(self.device)])
                answered = answered.float()
                scores = answered.detach().cpu().numpy()
                losses, slopes = self.loss(scores if self.closed is None else scores + self.closed, self.goals[here])
                slopes /= np.float32(len(here))
                # The slope of this sum is `slopes`. Given to `backward`, they would load an algebra system first.
                (answered * torch.from_numpy(slopes).to(self.device)).sum().backward()
                self._descend(rate_at(self.settings, number * steps + step, self.settings.epochs * steps))
                total += float(losses.sum())
        return total / max(len(order), 1)

    def _descend(self, rate: float) -> None:
        """One step along the gradients. torch's own descent would first load its compiler, for a second and more."""
        torch = torch_for("training")
        with torch.no_grad():
            for place, weight in enumerate(self.parameters):
                change, weight.grad = weight.grad, None
                if change is None:
                    continue
                if self.settings.decay:
                    change.add_(weight, alpha=self.settings.decay)
                if self.settings.momentum:
                    moving = self.moving[place]
                    change = torch.add(change, moving, alpha=self.settings.momentum, out=moving)
                weight.sub_(change, alpha=rate)

    def weights(self, place: int) -> Weights:
        """The module's."""
        del place  # there is one
        return network.state(self.module)

    def state(self) -> dict[str, NDArray[Any]]:
        """Weights, batch statistics and momentum."""
        held = {f"module.{name}": value.detach().cpu().numpy() for name, value in self.module.state_dict().items()}
        return held | {f"moving.{index}": moving.cpu().numpy() for index, moving in enumerate(self.moving)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put them back."""
        torch = torch_for("training")
        given = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        self.module.load_state_dict({name: given[f"module.{name}"] for name in self.module.state_dict()})
        for index, moving in enumerate(self.moving):
            moving.copy_(given[f"moving.{index}"])


def _quicken(module: Module) -> None:
    """Have wide dense layers multiply by oneDNN, as convolutions do already.

    It uses every processor's widest instructions; the library that torch multiplies with by itself uses them on one
    maker's only, and elsewhere takes twice the time.
    """
    torch = torch_for("training")
    if not _has_onednn():
        return
    for layer in module.modules():
        if type(layer) is torch.nn.Linear and layer.weight.numel() >= WIDE:
            layer.forward = functools.partial(_product, layer)


def _product(layer: Any, x: Any) -> Any:
    return _onednn_product().apply(x, layer.weight, layer.bias)


@functools.cache
def _onednn_product() -> Any:
    """oneDNN's product of rows and weights (m, k), with its slopes."""
    torch = torch_for("training")
    linear = torch.ops.mkldnn._linear_pointwise

    def times(rows: Any, weights: Any, bias: Any = None) -> Any:
        return linear(rows, weights, bias, "none", [], "")

    class Product(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, rows: Any, weights: Any, bias: Any) -> Any:
            ctx.save_for_backward(rows, weights)
            ctx.has_bias = bias is not None
            return times(rows, weights, bias)

        @staticmethod
        def backward(ctx: Any, slopes: Any) -> Any:
            rows, weights = ctx.saved_tensors
            flat = slopes.reshape(-1, slopes.shape[-1])
            return (
                times(slopes, weights.t()) if ctx.needs_input_grad[0] else None,
                times(flat.t(), rows.reshape(-1, rows.shape[-1]).t()),
                flat.sum(0) if ctx.has_bias else None,
            )

    return Product


@functools.cache
def _has_onednn() -> bool:
    """Whether this torch, on this processor, can multiply by oneDNN."""
    torch = torch_for("training")
    try:
        ones = torch.ones(2, 2, requires_grad=True)
        _onednn_product().apply(ones, ones, None).sum().backward()
        return bool((ones.grad == 4).all())
    except (RuntimeError, AttributeError, TypeError):
        return False


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
    with torch.inference_mode(), one_thread():
        return _in_batches(lambda batch: module(torch.from_numpy(batch)).numpy(), x)


def _in_batches(answer: Callable[[Floats], Floats], x: NDArray[Any]) -> NDArray[np.float64]:
    found = []
    for start in range(0, max(len(x), 1), PREDICT_ROWS):
        batch = np.zeros((PREDICT_ROWS, x.shape[1]), np.float32)
        rows = x[start : start + PREDICT_ROWS]
        batch[: len(rows)] = rows
        found.append(answer(batch)[: len(rows)])
    return np.concatenate(found).astype(np.float64)


def scores_of(text: str, problem: Problem, weights: Weights, x: NDArray[Any]) -> NDArray[np.float64]:
    """What a network by name answers to rows (n, d): scores (n, c)."""
    if network.parse(text).widths(problem) is None:
        return scores(network.module_with(text, problem, weights), x)
    stack = dense.Stack(weights, 1)
    with one_blas_thread():
        return _in_batches(lambda batch: stack.forward(batch[None])[-1][0], x)


def answers(text: str, problem: Problem, model: Arrays, x: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """What the network in a model answers to rows (n, d): {"probability": (n, c)} or {"value": (n,)}."""
    found = scores_of(text, problem, network.weights_of(model, text, problem, "the model"), x)
    return {"probability": softmax(found)} if problem.labels else {"value": found[:, 0]}


# --- interrupted and resumed ----------------------------------------------------------------------------------------


def _name(learner: _Learner, job: Job, settings: Training) -> str:
    """What makes two trainings the same one, as a digest."""
    hashed = hashlib.sha256(json.dumps([asdict(settings), job.seed], sort_keys=True).encode())
    seen = np.array([]) if job.seen is None else job.seen
    for array in (job.x, job.targets, seen, *learner.state().values()):
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _save(path: Path, name: str, learner: _Learner, epoch: int) -> None:
    """Write how far the training is, whole or not at all, readable by its owner only."""
    from safetensors.numpy import save

    held = {key: np.ascontiguousarray(value) for key, value in learner.state().items()}
    beside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(save(held, {"job": name, "epoch": str(epoch)}))
    os.replace(beside, path)


def _resume(path: Path, name: str, learner: _Learner) -> int:
    """How many epochs are done already, with their state put back; 0 where the file is of another training."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return 0
    try:
        with safe_open(path, "np") as held:
            notes = held.metadata() or {}
            if notes.get("job") != name:
                return 0
            state = {key: held.get_tensor(key) for key in held.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0
    learner.restore(state)
    return int(notes["epoch"])


def checkpoint_of(local: Mapping[str, str] | None, what: str) -> Path | None:
    """Where a client keeps one of its trainings while it runs: its choice `checkpoint` and the training's name."""
    path = (local or {}).get("checkpoint")
    return Path(f"{path}.{what}") if path else None
