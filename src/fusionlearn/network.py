"""Networks by name: `mlp:hidden=200x100`, `cnn:shape=28x28x1`, `resnet18:shape=32x32x3,norm=group`.

A network is one file in `networks/` and one line in `NETWORKS` (or an entry point `fusionlearn.networks` in another
package). It builds a torch module from rows of features (n, d) to scores (n, c), whose last layer is a linear one
called `head`. Its weights travel as named float32 arrays, never as code: "network.head.weight" and so on.

Nothing here imports torch before a network is built.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusionlearn import dense, plugin
from fusionlearn.arrays import NAME, Arrays
from fusionlearn.errors import MissingExtra, SettingsError
from fusionlearn.problem import Problem

NETWORKS: Mapping[str, str] = {
    "cnn": "fusionlearn.networks.cnn:Cnn",
    "cnn5": "fusionlearn.networks.cnn5:Cnn5",
    "lenet5": "fusionlearn.networks.lenet5:LeNet5",
    "linear": "fusionlearn.networks.linear:Linear",
    "mlp": "fusionlearn.networks.mlp:Mlp",
    "resnet18": "fusionlearn.networks.resnet18:ResNet18",
    "seq2seq": "fusionlearn.networks.seq2seq:Seq2Seq",
}
GROUP = "fusionlearn.networks"
PREFIX = "network."  # of a network's arrays among those of a prior, an update, a model
HEAD = "head."  # what the names of the last layer's weights begin with
MEAN, VARIANCE = ".running_mean", ".running_var"  # what the names of batch statistics end with
COUNTER = ".num_batches_tracked"  # torch's counter, which nothing here reads

Module: TypeAlias = Any  # torch.nn.Module
Weights: TypeAlias = dict[str, NDArray[np.float32]]  # name without PREFIX -> weights


class Network(plugin.Plugin, abc.ABC):
    """A torch module by name. Final subclasses are frozen dataclasses; their fields are the settings."""

    @abc.abstractmethod
    def build(self, problem: Problem) -> Module:
        """A module from features (n, d) to scores (n, c), its last layer a Linear called `head`; weights as they come.

        Errors: SettingsError when the settings do not fit the problem; MissingExtra without torch.
        """

    def widths(self, problem: Problem) -> tuple[int, ...] | None:
        """Units from the features to the scores, where the network is linear layers with rectifiers between them.

        Such a network learns and answers in NumPy, without PyTorch; its arrays are named as in `dense.shapes`, which
        are the names that `build` gives them. None for any other network.
        """
        del problem
        return None


def parse(text: str) -> Network:
    """The network that a setting names: NAME or NAME:key=value,… Errors: SettingsError."""
    try:
        return plugin.parse(Network, text, NETWORKS, GROUP)  # type: ignore[type-abstract]
    except SettingsError as error:
        raise SettingsError(f"network '{text}': {error}") from error


def torch_for(who: str) -> Any:
    """The library, or the command that installs it. Errors: MissingExtra."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(who, "PyTorch", "torch") from error
    return torch


@functools.lru_cache(maxsize=64)
def shapes(text: str, problem: Problem) -> Mapping[str, tuple[int, ...]]:
    """Name → shape of every array of a network's state: weights and batch statistics.

    It is built without memory for its weights, so that a stranger's task cannot ask for much.
    Errors: SettingsError, also for a network without a head of the right size.
    """
    network = parse(text)
    widths = network.widths(problem)
    found = _built_shapes(network, problem) if widths is None else dense.shapes(widths)
    head = found.get(HEAD + "weight", ())
    if len(head) != 2 or head[0] != problem.num_classes:
        raise SettingsError(f"network '{text}' has no linear layer 'head' with {problem.num_classes} outputs.")
    odd = [name for name in found if not NAME.fullmatch(PREFIX + name)]
    if odd:
        raise SettingsError(f"network '{text}': '{odd[0]}' is no name for an array (lower case, 64 letters at most).")
    return found


def _built_shapes(network: Network, problem: Problem) -> dict[str, tuple[int, ...]]:
    torch = torch_for(f"network '{network.name}'")
    with torch.device("meta"):
        module = network.build(problem)
    return {name: tuple(value.shape) for name, value in module.state_dict().items() if not name.endswith(COUNTER)}


def num_weights(text: str, problem: Problem) -> int:
    """How many numbers a network's state holds."""
    return sum(math.prod(shape) for shape in shapes(text, problem).values())


def initial(text: str, problem: Problem, seed: int = 0) -> Weights:
    """Weights to start from, the same on every machine and with every version of torch.

    Matrices and convolutions are uniform with variance 2 / fan-in (1 / fan-in in the head), vectors called `weight`
    and variances are 1, everything else is 0.
    Source  He, Zhang, Ren, Sun, Delving Deep into Rectifiers, 2015
    """
    return {name: value.copy() for name, value in _initial(text, problem, seed).items()}


@functools.lru_cache(maxsize=4)
def _initial(text: str, problem: Problem, seed: int) -> Weights:
    rng = np.random.default_rng([seed, 0x6E6574])
    weights: Weights = {}
    for name, shape in shapes(text, problem).items():
        if len(shape) >= 2:
            reach = math.sqrt((3.0 if name.startswith(HEAD) else 6.0) / math.prod(shape[1:]))
            weights[name] = ((2 * rng.random(shape) - 1) * reach).astype(np.float32)
        else:
            ones = name.endswith((VARIANCE, "weight"))
            weights[name] = np.full(shape, 1.0 if ones else 0.0, np.float32)
    return weights


def start(text: str, problem: Problem, prior: Arrays, seed: int = 0) -> Weights:
    """The weights every client starts from: the prior's, or `initial` ones when it holds none.

    Errors: SettingsError when the prior's are not those of this network.
    """
    if not any(name.startswith(PREFIX) for name in prior):
        return initial(text, problem, seed)
    return weights_of(prior, text, problem, "the task's prior")


def check_start(text: str, problem: Problem, prior: Arrays) -> None:
    """What `start` would refuse is refused, without drawing weights."""
    if any(name.startswith(PREFIX) for name in prior):
        weights_of(prior, text, problem, "the task's prior")


def weights_of(arrays: Arrays, text: str, problem: Problem, place: str) -> Weights:
    """A network's weights out of named arrays, checked. Errors: SettingsError naming the first that does not fit."""
    wanted = shapes(text, problem)
    found = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
    odd = sorted(set(wanted) ^ set(found))
    if odd:
        what = "lacks" if odd[0] in wanted else "has unknown"
        raise SettingsError(f"{place} {what} the weights '{odd[0]}' of network '{text}': was it made for another one?")
    for name, shape in wanted.items():
        if tuple(found[name].shape) != shape:
            raise SettingsError(
                f"{place}: weights '{name}' are of shape {tuple(found[name].shape)}, network '{text}' has {shape}."
            )
        if not np.isfinite(found[name]).all():
            raise SettingsError(f"{place}: weights '{name}' of network '{text}' hold NaN or infinity.")
    return {name: np.asarray(found[name], np.float32) for name in wanted}


def named(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Weights under the names they travel by."""
    return {PREFIX + name: array for name, array in weights.items()}


def module_with(text: str, problem: Problem, weights: Mapping[str, NDArray[Any]]) -> Module:
    """The network with these weights, ready to predict."""
    network = parse(text)
    torch = torch_for(f"network '{network.name}'")
    with torch.device("meta"):
        module = network.build(problem)
    state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in weights.items()}
    counters = {name: torch.zeros((), dtype=torch.int64) for name in module.state_dict() if name.endswith(COUNTER)}
    module.load_state_dict(state | counters, assign=True)
    return module.eval()


def state(module: Module) -> Weights:
    """A module's weights and batch statistics as NumPy arrays of their own."""
    return {
        name: value.detach().float().cpu().numpy().copy()
        for name, value in module.state_dict().items()
        if not name.endswith(COUNTER)
    }


def available() -> dict[str, str]:
    """Name → "module:Class" of every network that can be built here."""
    return plugin.available(NETWORKS, GROUP)
