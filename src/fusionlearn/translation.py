"""Learning to answer texts with texts: teacher forcing, and writing piece after piece.

While it learns, the network is shown each text read and the right answer up to every place, and is to name the piece
that follows (teacher forcing); the loss is the cross-entropy of the pieces, a little of it spread over all pieces.
Steps are Adam's, for plain gradient descent hardly moves a transformer. When it answers, it sees what it wrote itself:
the best piece each time, or the best `beam` beginnings kept side by side.

Rows of like lengths go together, so that little is computed for nothing. The order of rows comes from the seed and
the number of the epoch alone: a training that was interrupted after any epoch goes on as if nothing had happened.

Source   Williams, Zipser, A Learning Algorithm for Continually Running Fully Recurrent Neural Networks, 1989;
         Kingma, Ba, Adam, 2015; label smoothing: Szegedy et al., Rethinking the Inception Architecture, 2016
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import SettingsError
from fusionlearn.network import Module, torch_for
from fusionlearn.problem import BEGIN, END, NOTHING
from fusionlearn.training import one_thread, order_of, tell

POOL = 50  # batches whose rows are sorted by length together
STEEPEST = 1.0  # the longest gradient a step follows
ROWS = 128  # texts answered at a time


@dataclass(frozen=True)
class Schedule:
    """How a transformer is trained: Adam, the rate rising along a line, then falling along half a cosine."""

    epochs: int = 3  # passes over the rows
    batch_size: int = 64  # texts a step
    rate: float = 5e-4  # the highest learning rate
    warmup: int = 50  # steps while it rises, at most half of all
    smoothing: float = 0.1  # share of the loss spread over all pieces

    def __post_init__(self) -> None:
        if not (0 <= self.epochs <= 100_000 and 1 <= self.batch_size <= 2**20 and 0 <= self.warmup <= 2**30):
            raise SettingsError("epochs may be 0 to 100000, batch_size 1 to 1048576, warmup 0 or more.")
        if not (0 < self.rate <= 1 and 0 <= self.smoothing < 1):
            raise SettingsError("rate must be above 0 and at most 1, smoothing from 0 to below 1.")


def fit(
    module: Module,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    settings: Schedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> float:
    """Train a transformer in place; the mean loss of a piece in the last epoch.

    source, target  (n, length) numbers of pieces, each row up to END and NOTHING after it
    checkpoint      a file written after every epoch and removed at the end; training goes on from there when it is
                    of this very training
    Errors: SettingsError when the loss stops being finite.
    """
    torch = torch_for("training")
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.rate, betas=(0.9, 0.98))
    name = _name(module, source, target, settings, seed) if checkpoint else ""
    first = _resume(checkpoint, name, module, optimizer) if checkpoint else 0
    started, mean = time.monotonic(), math.nan
    module.train()
    with one_thread():
        for epoch in range(first, settings.epochs):
            mean = _epoch(module, source, target, settings, optimizer, seed, epoch)
            if not math.isfinite(mean):
                raise SettingsError(
                    f"training went astray in epoch {epoch + 1}: the loss is no longer finite. Lower the rate, now "
                    f"{settings.rate:g}."
                )
            if checkpoint and epoch + 1 < settings.epochs:
                _save(checkpoint, name, module, optimizer, epoch + 1)
            tell(epoch + 1, settings.epochs, mean, started, first)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    module.eval()
    return mean


def _epoch(
    module: Module,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    settings: Schedule,
    optimizer: Any,
    seed: int,
    epoch: int,
) -> float:
    """One pass; the mean loss of its pieces."""
    torch = torch_for("training")
    steps = -(-len(source) // settings.batch_size)
    total, pieces = 0.0, 0
    for step, rows in enumerate(batches(source, target, settings.batch_size, seed, epoch)):
        read, goals = (torch.from_numpy(trimmed(part[rows])) for part in (source, target))
        for group in optimizer.param_groups:
            group["lr"] = rate_at(settings, epoch * steps + step, settings.epochs * steps)
        loss = _loss(module, read, goals, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), STEEPEST)
        optimizer.step()
        count = int((goals != NOTHING).sum())
        total, pieces = total + float(loss.detach()) * count, pieces + count
    return total / max(pieces, 1)


def _loss(module: Module, read: Any, goals: Any, settings: Schedule) -> Any:
    """Mean cross-entropy of the pieces to be written; scores are computed only where there is one."""
    torch = torch_for("training")
    begins = torch.full_like(goals[:, :1], BEGIN)
    written = torch.cat([begins, goals[:, :-1]], dim=1)
    there = goals != NOTHING
    states = module.decode(written, *module.encode(read))[there]
    return torch.nn.functional.cross_entropy(module.head(states), goals[there], label_smoothing=settings.smoothing)


def batches(
    source: NDArray[np.int64], target: NDArray[np.int64], size: int, seed: int, epoch: int
) -> Iterator[NDArray[np.int64]]:
    """The rows of each step of an epoch: drawn at random, then sorted by length within a pool, in random order."""
    lengths = (target != NOTHING).sum(axis=1) * 1000 + (source != NOTHING).sum(axis=1)
    order = order_of(len(source), seed, epoch)
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        found += [pool[at : at + size] for at in range(0, len(pool), size)]
    for place in np.random.default_rng([seed, epoch, 1]).permutation(len(found)):
        yield found[place]


def trimmed(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows without the columns that none of them needs."""
    longest = int((numbers != NOTHING).sum(axis=1).max(initial=1))
    return np.ascontiguousarray(numbers[:, :longest])


def rate_at(settings: Schedule, step: int, steps: int) -> float:
    """The learning rate of a step, never quite 0."""
    rising = min(settings.warmup, steps // 2)
    if step < rising:
        return settings.rate * (step + 1) / rising
    return settings.rate * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


# --- answering ------------------------------------------------------------------------------------------------------


def write(
    modules: Sequence[Module],
    source: NDArray[np.int64],
    longest: int,
    *,
    beam: int = 1,
    reward: float = 0.6,
    trust: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """What the networks, whose probabilities are averaged, answer to texts (n, length): (n, longest) pieces.

    trust   (n, networks) the weight of each network for each text, rows that sum to 1; None: all the same
    beam    beginnings kept side by side; 1: the best piece each time
    reward  the power of its length that a text's log-probability is divided by, lest short ones always win
    Texts of like lengths are answered together; what is answered does not depend on the order of rows.
    Source  the reward: Wu et al., Google's Neural Machine Translation System, 2016
    """
    torch = torch_for("predicting")
    answers = np.full((len(source), longest), NOTHING, np.int64)
    order = np.argsort((source != NOTHING).sum(axis=1), kind="stable")
    alike = np.full((len(source), len(modules)), 1.0 / len(modules))
    logs = np.log(np.maximum(alike if trust is None else trust, 1e-30))
    for module in modules:
        module.eval()
    with torch.inference_mode(), one_thread():
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            heard = torch.from_numpy(logs[rows].astype(np.float32))
            found = _beams(modules, torch.from_numpy(trimmed(source[rows])), heard, longest, beam, reward)
            answers[rows, : found.shape[1]] = found
    return answers


def _beams(
    modules: Sequence[Module], read: Any, heard: Any, longest: int, beam: int, reward: float
) -> NDArray[np.int64]:
    """(n, t) and logs of weights (n, networks) → (n, longest) pieces, END and NOTHING after the end."""
    torch = torch_for("predicting")
    memories = [tuple(part.repeat_interleave(beam, dim=0) for part in module.encode(read)) for module in modules]
    heard = heard.repeat_interleave(beam, dim=0)
    left = torch.arange(len(read))  # texts whose answers are still written
    found = np.full((len(read), longest), NOTHING, np.int64)
    written = torch.full((len(read), beam, 1), BEGIN, dtype=torch.int64)
    score = torch.full((len(read), beam), -math.inf)
    score[:, 0] = 0.0  # at first all beginnings are one
    length, ended = torch.zeros(len(read), beam), torch.zeros(len(read), beam, dtype=torch.bool)
    for _ in range(longest):
        following = _following(modules, written.flatten(0, 1), memories, heard).unflatten(0, (len(left), beam))
        following[:, :, [NOTHING, BEGIN]] = -math.inf
        following[ended] = -math.inf
        following[:, :, NOTHING].masked_fill_(ended, 0.0)
        size = following.shape[2]
        sums = (score[:, :, None] + following).flatten(1)
        ahead = ((length + ~ended) ** reward).repeat_interleave(size, dim=1)
        chosen = (sums / ahead).topk(beam, dim=1).indices
        origin, piece = chosen // size, chosen % size
        score = sums.gather(1, chosen)
        length = (length + ~ended).gather(1, origin)
        ended = ended.gather(1, origin) | (piece == END)
        written = torch.cat([written[torch.arange(len(left))[:, None], origin], piece[:, :, None]], dim=2)
        over = ended.all(dim=1)
        if bool(over.any()):
            _keep(found, left, written, score / length**reward, over)
            stay = ~over
            left, written, score, length, ended = (part[stay] for part in (left, written, score, length, ended))
            each = stay.repeat_interleave(beam)
            memories, heard = [tuple(part[each] for part in memory) for memory in memories], heard[each]
        if not len(left):
            return found
    _keep(found, left, written, score / length**reward, torch.ones(len(left), dtype=torch.bool))
    return found


def _keep(found: NDArray[np.int64], left: Any, written: Any, judged: Any, over: Any) -> None:
    """Put the best of each finished text's answers in its place."""
    best = judged[over].argmax(dim=1)
    answers = written[over][range(len(best)), best, 1:].numpy()
    found[left[over].numpy(), : answers.shape[1]] = answers


def _following(modules: Sequence[Module], written: Any, memories: Sequence[Any], heard: Any) -> Any:
    """(n, size) log of the weighted mean probability of each piece that may follow."""
    torch = torch_for("predicting")
    logs = [
        module.head(module.decode(written, *memory)[:, -1]).log_softmax(dim=1)
        for module, memory in zip(modules, memories, strict=True)
    ]
    return torch.logsumexp(torch.stack(logs) + heard.T[:, :, None], dim=0)


# --- interrupted and resumed ----------------------------------------------------------------------------------------


def _name(module: Module, source: NDArray[np.int64], target: NDArray[np.int64], settings: Schedule, seed: int) -> str:
    """What makes two trainings the same one, as a digest."""
    hashed = hashlib.sha256(json.dumps([asdict(settings), seed], sort_keys=True).encode())
    for array in (source, target, *(weight.detach().numpy() for weight in module.parameters())):
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _save(path: Path, name: str, module: Module, optimizer: Any, epochs: int) -> None:
    """Write how far the training is, whole or not at all, readable by its owner only."""
    from safetensors.numpy import save

    held = {f"module.{key}": value.detach().numpy() for key, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        held |= {f"adam.{index}.{key}": value.numpy() for key, value in state.items()}
    beside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(save({key: np.array(value) for key, value in held.items()}, {"name": name, "epochs": str(epochs)}))
    os.replace(beside, path)


def _resume(path: Path, name: str, module: Module, optimizer: Any) -> int:
    """How many epochs are done already, with their weights put back; 0 where the file is of another training."""
    from safetensors import SafetensorError, safe_open

    torch = torch_for("training")
    if not path.exists():
        return 0
    try:
        with safe_open(path, "np") as held:
            notes = held.metadata() or {}
            if notes.get("name") != name:
                return 0
            arrays = {key: torch.from_numpy(held.get_tensor(key)) for key in held.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0
    module.load_state_dict(
        {key.removeprefix("module."): value for key, value in arrays.items() if key.startswith("module.")}
    )
    states: dict[int, dict[str, Any]] = {}
    for key, value in arrays.items():
        if key.startswith("adam."):
            _, index, what = key.split(".")
            states.setdefault(int(index), {})[what] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(notes["epochs"])
