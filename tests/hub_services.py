"""A PostgreSQL and an S3 server of the tests' own: on 127.0.0.1, in temporary folders, gone afterwards.

PostgreSQL is the machine's (Debian: the package postgresql; nothing of its own cluster is touched). The S3 server is
moto's, a stand-in that keeps objects in memory: it speaks the protocol, it does not show how a real store behaves.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUCKET = "hub"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def postgres_binaries() -> Path | None:
    """The folder of initdb and postgres, the newest version's; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A private server; it may be stopped and started again."""

    def __init__(self, binaries: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fusionlearn-pg-", dir="/tmp"))
        self.port = free_port()
        self.binaries = binaries
        self.who: dict[str, Any] = {}
        if os.getuid() == 0:  # it refuses to run as root
            user = next(name for name in ("postgres", "nobody") if _exists(name))
            os.chown(self.folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
            self.who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        command = [
            binaries / "initdb",
            "-D",
            self.folder / "data",
            "-A",
            "trust",
            "-U",
            "hub",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        self._run(command)
        self.url = f"postgresql://hub@127.0.0.1:{self.port}/postgres"
        self.start()

    def _run(self, command: list[Any]) -> None:
        done = subprocess.run(
            [*map(str, command)], cwd=self.folder, capture_output=True, text=True, check=False, **self.who
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = self.folder / "log"
        control = self.binaries / "pg_ctl"
        self._run([control, "-D", self.folder / "data", "-w", "-t", "30", "-l", log, "-o", options, "start"])

    def stop(self) -> None:
        """As when its machine goes: at once."""
        self._run([self.binaries / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop"])

    def remove(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class S3:
    """moto's server in a process; what it holds is gone when it stops."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip
        self.url = f"s3://{BUCKET}/files"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while True:
            try:
                made = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
                with urllib.request.urlopen(made, timeout=5):
                    return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for the block; skips where there is none."""
    import pytest

    binaries = postgres_binaries()
    if binaries is None or not sys.platform.startswith("linux"):
        pytest.skip("PostgreSQL's binaries are needed (Debian, Ubuntu: apt install postgresql)")
    pytest.importorskip("psycopg", reason='PostgreSQL needs psycopg: pip install "fusionlearn[postgresql]"')
    made = Postgres(binaries)
    try:
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    """A stand-in for S3 for the block; skips where moto is not installed."""
    import pytest

    pytest.importorskip("moto", reason="the stand-in for S3 is moto's server: pip install 'moto[s3]' flask flask-cors")
    made = S3()
    try:
        yield made
    finally:
        made.stop()
