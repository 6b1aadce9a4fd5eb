"""FedLab's round: its standalone serial simulation.

FedLab loads torchvision for data sets that nobody here uses; an empty stand-in spares the download.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from typing import Any

for name in ("", ".transforms", ".datasets", ".datasets.utils", ".models"):
    stand_in = types.ModuleType("torchvision" + name)
    stand_in.__file__, stand_in.__path__ = "stand-in", []
    stand_in.__getattr__ = lambda attribute: type(attribute, (), {})  # type: ignore[method-assign]
    sys.modules["torchvision" + name] = stand_in

import torch  # noqa: E402
import work  # noqa: E402
from fedlab.contrib.algorithm.basic_client import SGDSerialClientTrainer  # noqa: E402
from fedlab.contrib.algorithm.basic_server import SyncServerHandler  # noqa: E402
from fedlab.core.standalone import StandalonePipeline  # noqa: E402


class Loader:
    """One client's batches."""

    def __init__(self, client: int) -> None:
        self.client = client

    def __iter__(self) -> Iterator[Any]:
        """One epoch."""
        return work.batches(self.client)


class Rows:
    """Where the trainer asks for a client's batches."""

    def get_dataloader(self, client: int, batch_size: int) -> Loader:
        """A client's batches."""
        del batch_size
        return Loader(client)


class Silent:
    """A logger that says nothing."""

    def info(self, *told: Any) -> None:
        """Nothing."""


class Pipeline(StandalonePipeline):
    """The loop, without looking at the model in between."""

    def evaluate(self) -> None:
        """Nothing."""


def main() -> None:
    """One round."""
    torch.set_num_threads(1)
    server = SyncServerHandler(work.module(), 1, 1.0, logger=Silent())
    trainer = SGDSerialClientTrainer(work.module(), work.CLIENTS, logger=Silent())
    trainer.setup_dataset(Rows())
    trainer.setup_optim(1, work.BATCH, work.RATE)
    Pipeline(server, trainer).main()
    print(json.dumps({"accuracy": work.accuracy(server.model)}))


if __name__ == "__main__":
    main()
