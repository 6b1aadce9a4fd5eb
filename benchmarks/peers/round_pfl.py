"""pfl's round: its federated averaging on its simulated backend, in one process."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import work
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel


class Network(torch.nn.Module):
    """The network with the loss that pfl asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = work.module()

    def forward(self, x: Any) -> Any:
        """Scores."""
        return self.inner(x)

    def loss(self, x: Any, y: Any, is_eval: bool = False) -> Any:
        """Cross-entropy."""
        self.train(not is_eval)
        return torch.nn.functional.cross_entropy(self(x), y)

    @torch.no_grad()
    def metrics(self, x: Any, y: Any) -> dict[str, Any]:
        """None are wanted."""
        del x
        return {"loss": Weighted(0.0, len(y))}


def dataset(client: int) -> Any:
    """A client's rows, in the order in which they are visited."""
    x, y = work.rows(client)
    order = work.order(client)
    images = torch.from_numpy(x[order]).reshape(-1, 1, work.SIDE, work.SIDE)
    return PyTorchTensorDataset((images, torch.from_numpy(y[order])), user_id=client)


def main() -> None:
    """One round."""
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002 - pfl draws its users from it
    network = Network()
    model = PyTorchModel(
        model=network, local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(network.parameters(), 1.0),
    )  # fmt: skip
    users = FederatedDataset(dataset, get_user_sampler("minimize_reuse", list(range(work.CLIENTS))))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=1, evaluation_frequency=1_000, train_cohort_size=work.CLIENTS, val_cohort_size=0
        ),
        backend=SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=work.RATE, local_num_epochs=1, local_batch_size=work.BATCH
        ),
        model_eval_params=None,
        callbacks=[],
    )
    print(json.dumps({"accuracy": work.accuracy(network)}))


if __name__ == "__main__":
    main()
