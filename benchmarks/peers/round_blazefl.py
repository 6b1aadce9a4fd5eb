"""BlazeFL's round: its contributed FedAvg on two threads of one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
import work
from blazefl.contrib import FedAvgBaseServerHandler, FedAvgThreadPoolClientTrainer


class Loader:
    """One client's batches."""

    def __init__(self, client: int) -> None:
        self.client, self.dataset = client, None

    def __iter__(self) -> Iterator[Any]:
        """One epoch."""
        return work.batches(self.client)


class Partition:
    """Where the trainer asks for a client's batches."""

    def get_dataset(self, type_: Any, cid: Any) -> None:
        """Nobody asks for rows one by one."""

    def set_dataset(self, type_: Any, cid: Any, dataset: Any) -> None:
        """Nothing is kept."""

    def get_dataloader(self, type_: Any, cid: Any, batch_size: int | None = None, generator: Any = None) -> Loader:
        """A client's batches."""
        del type_, batch_size, generator
        return Loader(int(cid))


class Selector:
    """Where the network comes from."""

    def select_model(self, name: str, seed: int | None = None) -> Any:
        """The network."""
        del name, seed
        return work.module()


def main() -> None:
    """One round."""
    torch.set_num_threads(1)
    server = FedAvgBaseServerHandler(Selector(), "peer", Partition(), 1, work.CLIENTS, 1.0, "cpu", work.BATCH, 0)
    trainer = FedAvgThreadPoolClientTrainer(
        model_selector=Selector(), model_name="peer", dataset=Partition(), device="cpu", num_clients=work.CLIENTS,
        epochs=1, batch_size=work.BATCH, lr=work.RATE, seed=0, num_parallels=2,
    )  # fmt: skip
    trainer.local_process(server.downlink_package(), server.sample_clients())
    for package in trainer.uplink_package():
        server.load(package)
    print(json.dumps({"accuracy": work.accuracy(server.model)}))


if __name__ == "__main__":
    main()
