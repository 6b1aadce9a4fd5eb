"""The floor: the loop that one writes by hand in PyTorch, in this process or in two; prints what it found as JSON.

python floor.py [1|2]
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.multiprocessing as mp
import work


def summed(clients: Sequence[int], into: Sequence[Any]) -> None:
    """Add these clients' parameters to tensors."""
    torch.set_num_threads(1)
    start = work.module()
    for client in clients:
        network = copy.deepcopy(start)
        work.train(network, client)
        with torch.no_grad():
            for total, weight in zip(into, network.parameters(), strict=True):
                total.add_(weight)


def main(processes: int) -> None:
    """One round."""
    network = work.module()
    parts = [[torch.zeros_like(weight).share_memory_() for weight in network.parameters()] for _ in range(processes)]
    shares = [range(first, work.CLIENTS, processes) for first in range(processes)]
    if processes == 1:
        summed(shares[0], parts[0])
    else:
        context = mp.get_context("fork")
        workers = [context.Process(target=summed, args=given) for given in zip(shares, parts, strict=True)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    with torch.no_grad():
        for weight, *totals in zip(network.parameters(), *parts, strict=True):
            weight.copy_(sum(totals) / work.CLIENTS)
    print(json.dumps({"accuracy": work.accuracy(network)}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
