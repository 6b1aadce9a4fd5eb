"""The command line: one command for each verb. `base` is what commands share; each other module adds its commands."""

from fusionlearn.cli import agent, hub, simulate, verbs, weights
from fusionlearn.cli.base import main

__all__ = ["agent", "hub", "main", "simulate", "verbs", "weights"]
