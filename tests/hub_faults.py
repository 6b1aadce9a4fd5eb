"""Faults by count: kill a process at its N-th change to a folder, or let that change fail (tests/hub_faults.c).

A shared file says what to do, so a test can arm a process that runs already, and a hub and its workers count together.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
KILL, TEAR, FAIL, SHORT = 1, 2, 3, 4
WRITE, SYNC, NAME, SEND = 1, 2, 4, 8
FILES = WRITE | SYNC | NAME
FOR_EVER = 2**62
_FIELDS = struct.Struct("<7q64s")


@functools.cache
def shim_file() -> Path | None:
    """The compiled shim; None where there is no Linux or no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        return None
    name = f"fusionlearn-faults-{os.getuid()}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    made = Path(tempfile.gettempdir()) / name
    if not made.exists():
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / name
            flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-U_FORTIFY_SOURCE"]
            subprocess.run([compiler, *flags, "-o", fresh, SOURCE, "-ldl"], check=True)
            shutil.move(fresh, made.with_suffix(f".{os.getpid()}"))
            made.with_suffix(f".{os.getpid()}").rename(made)
    return made


class Faults:
    """The control file of one folder's processes."""

    def __init__(self, path: Path, under: Path) -> None:
        """path: where the control file lies; under: the folder whose changes count"""
        if not path.exists():  # never cut short what a process has mapped
            path.write_bytes(bytes(_FIELDS.size))
        self.path, self.under = path, under
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FIELDS.size)

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to be counted."""
        shim = shim_file()
        assert shim is not None
        return {"LD_PRELOAD": str(shim), "FAULTS": str(self.path), "FAULTS_UNDER": str(self.under)}

    def arm(
        self, kind: int, at: int, *, until: int | None = None, error: int = errno.EIO, classes: int = FILES
    ) -> None:
        """From the `at`-th call on, counted from now, `kind` happens: once, or `until` a later one (exclusive)."""
        self._map[:] = _FIELDS.pack(0, at, until or at + 1, kind, error, classes, 0, b"")

    def count(self, classes: int = FILES) -> None:
        """Only count from here."""
        self._map[:] = _FIELDS.pack(0, 0, 0, 0, 0, classes, 0, b"")

    def disarm(self) -> None:
        """Nothing is counted nor happens any more."""
        self.count(classes=0)

    @property
    def seen(self) -> int:
        """Calls since it was armed."""
        return int(_FIELDS.unpack(self._map[:])[0])

    @property
    def hits(self) -> int:
        """Faults made since it was armed."""
        return int(_FIELDS.unpack(self._map[:])[6])

    @property
    def last(self) -> str:
        """The call that met the last fault."""
        return str(_FIELDS.unpack(self._map[:])[7].rstrip(b"\0").decode())
