"""Watches what Python itself reports (`sys.addaudithook`): that reading a file runs nothing and opens nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

BEGINNINGS = (
    "exec", "compile", "import", "open", "pickle.", "marshal.", "subprocess.", "socket.", "ctypes.", "code.__new__",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename", "os.mkdir", "os.chmod",
    "shutil.", "tempfile.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "winreg.", "glob.",
)  # fmt: skip

_seen: list[str] | None = None
_hooked = False


def _hook(event: str, details: tuple[object, ...]) -> None:
    if _seen is None or not event.startswith(BEGINNINGS):
        return
    # A plug-in is looked up by its name in what is told of the installed packages: that is read, nothing else is.
    looked_up = event == "open" and str(details[0]).startswith(tuple(sys.path)) and details[1] == "r"
    if not looked_up:
        _seen.append(f"{event} {str(details)[:100]}")


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The list fills with what ran or was opened within the block."""
    global _seen, _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # for the life of the process; silent outside the block
        _hooked = True
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None
