"""Flower's round: its message API, its FedAvg, its simulation on Ray.

With AGREE=FOLDER it is the other half of benchmarks/peers/agree.py: several rounds from the weights in
FOLDER/start.npz, after each of which the global weights are written there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import agreed
import numpy as np
import torch
import work
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

AGREE = os.environ.get("AGREE", "")
CLIENTS = agreed.CLIENTS if AGREE else work.CLIENTS
client, server = ClientApp(), ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """One client's epoch."""
    torch.set_num_threads(1)
    number = int(context.node_config["partition-id"])
    network = agreed.module() if AGREE else work.module()
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    if AGREE:
        rows = agreed.train(network, number, int(message.content["config"]["server-round"]) - 1)
    else:
        work.train(network, number)
        rows = work.ROWS
    content = {"arrays": ArrayRecord(network.state_dict()), "metrics": MetricRecord({"num-examples": rows})}
    return Message(RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds, every client in each."""
    del context
    network = agreed.module() if AGREE else work.module()
    if AGREE:
        with np.load(Path(AGREE) / "start.npz") as held:
            network.load_state_dict({name: torch.from_numpy(held[name]) for name in held.files})
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=CLIENTS, min_train_nodes=CLIENTS)

    def keep(number: int, arrays: Any) -> None:
        if AGREE:
            state = {name: value.numpy() for name, value in arrays.to_torch_state_dict().items()}
            np.savez(Path(AGREE) / f"flower{number}.npz", **state)

    found = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(network.state_dict()),
        num_rounds=agreed.ROUNDS if AGREE else 1,
        evaluate_fn=keep,
    )
    if not AGREE:
        network.load_state_dict(found.arrays.to_torch_state_dict())
        print(json.dumps({"accuracy": work.accuracy(network)}))


if __name__ == "__main__":
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=CLIENTS, backend_config=resources)
