"""Simulation: many clients on one machine, or on a cluster, through the very functions that clients and hubs call.

    from fusionlearn.partition import dirichlet
    from fusionlearn.simulate import simulate

    parts = dirichlet(labels, 100, 0.1, rng=rng)
    result = simulate(task, data, parts, runner="processes", seed=0)
    result.model, result.report, result.client_seconds, result.upload_bytes

A result does not depend on the runner: randomness is drawn for each client from the seed and the client's number.
"""

from fusionlearn.simulate.runners import RUNNERS, Runner, open_runner
from fusionlearn.simulate.simulation import Simulated, simulate

__all__ = ["RUNNERS", "Runner", "Simulated", "open_runner", "simulate"]
