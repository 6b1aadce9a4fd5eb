"""Makes the environments that the peers run in, one each, in .cache/peers (PEERS names another folder).

python benchmarks/peers/setup.py flower blazefl pfl fedlab

They are kept apart from ours and from each other: their requirements contradict. Every one has the same torch, the CPU
build on Linux; TORCH names another. A peer that cannot be installed is left out of the benchmark, which says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("PEERS") or ROOT / ".cache" / "peers")
TORCH = os.environ.get("TORCH") or "torch==2.13.0" + ("+cpu" if sys.platform == "linux" else "")
PACKAGES = {
    "flower": ("flwr[simulation]==1.41.0",),
    "blazefl": ("blazefl==2.0.3", "tqdm"),
    "pfl": ("pfl==0.6.0",),
    "fedlab": ("fedlab==1.3.0",),
}


def python(peer: str) -> Path:
    """The interpreter of a peer's environment, whether or not it is there."""
    return FOLDER / peer / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_there(peer: str) -> bool:
    """Whether a peer's environment was made to its end."""
    return (FOLDER / peer / "complete").exists()


def make(peer: str) -> None:
    """Install a peer. Errors: CalledProcessError, pip's message on stderr."""
    venv.create(FOLDER / peer, with_pip=True, clear=True)
    pip = [python(peer), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, TORCH, "numpy"], check=True)
    # BlazeFL asks for Python 3.12 but runs on 3.11; what it needs is installed first, so that pip need not look there.
    subprocess.run([*pip, *PACKAGES[peer][1:], *(() if peer == "blazefl" else PACKAGES[peer][:1]), TORCH], check=True)
    if peer == "blazefl":
        subprocess.run([*pip, "--no-deps", "--ignore-requires-python", PACKAGES[peer][0]], check=True)
    (FOLDER / peer / "complete").touch()


def main(names: list[str]) -> int:
    """Make the environments named; 1 when one of them cannot be had."""
    missing = 0
    for name in names or list(PACKAGES):
        if is_there(name):
            continue
        try:
            make(name)
        except subprocess.CalledProcessError:
            print(f"{name} cannot be installed here; the benchmark leaves it out.", file=sys.stderr)
            missing = 1
    return missing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
