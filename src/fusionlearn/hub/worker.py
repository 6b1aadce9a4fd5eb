"""A worker: closes tasks whose time is up, fuses what is asked for. Any number may run, and be killed at any time."""

from __future__ import annotations

import logging
import threading

from fusionlearn.hub import fusions
from fusionlearn.hub.hub import Hub
from fusionlearn.hub.refusal import Refusal

IDLE = 0.1  # seconds between looks
TROUBLE = 2.0  # … after database or store did not answer
LOG = logging.getLogger("fusionlearn.hub")


def work(hub: Hub, stop: threading.Event, wake: threading.Event | None = None) -> None:
    """Work until told to stop; `wake` is set when there is something to do, and looked for all the same."""
    name = fusions.worker_name()
    wake = wake or threading.Event()
    while not stop.is_set():
        wake.clear()
        try:
            busy = step(hub, name)
        except Refusal as refusal:  # gone for now: the lease runs out and the work is done again
            LOG.warning("worker: %s", refusal)
            stop.wait(TROUBLE)
            continue
        if not busy:
            wake.wait(IDLE)


def step(hub: Hub, name: str) -> bool:
    """One look: close what is due, make one version; whether there was anything to do."""
    closed = fusions.close_due(hub)
    job = fusions.claim(hub, name)
    if job is not None:
        made = fusions.make(hub, job)
        LOG.info("task %s: model %d %s", job.task[:12], job.number, "published" if made else "failed")
    return job is not None or closed > 0
