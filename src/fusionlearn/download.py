"""Downloads: one file from one address, with a bar, or a reason why not. Whoever asks compares its hash."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fusionlearn.errors import MissingExtra

SECONDS = 30  # without a byte from the server before giving up
CHUNK = 2**16  # bytes


class Failed(Exception):
    """A download that did not happen; whoever asked for it says what to do instead."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host, self.reason = host, reason


def needed(library: str, package: str = "", who: str = "datasets", extra: str = "data") -> Any:
    """Import an optional library, or say how to install it (as `package`, where that differs from the import)."""
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError:
        raise MissingExtra(who, package or library, extra) from None


def transfer(url: str, target: Path, name: str, *, who: str, progress: bool) -> None:
    """The file at `url`, written to `target`; `name` stands beside the bar, `who` needs the extra.

    Errors: Failed, when a part of the file may be there; MissingExtra.
    """
    pooch, requests = needed("pooch", who=who), needed("requests", who=who)  # requests comes with pooch
    bar = _Bar(name) if progress else None
    downloader = pooch.HTTPDownloader(progressbar=bar or False, chunk_size=CHUNK, timeout=SECONDS)
    try:
        downloader(url, str(target), None)
    except requests.RequestException as error:
        status = getattr(error.response, "status_code", None)
        reason = f"the server answered {status}" if status else f"the connection failed, {type(error).__name__}"
        raise Failed(str(urlsplit(url).hostname), reason) from None
    finally:
        if bar:
            bar.close()


class _Bar:
    """What pooch expects of a progress bar, drawn by tqdm; a counter where the server does not tell the length."""

    def __init__(self, name: str) -> None:
        self.total = 0  # bytes; set by pooch once the server has answered
        self._bar = needed("tqdm").tqdm(desc=name, unit="B", unit_scale=True)

    def update(self, num_bytes: int) -> None:
        self._bar.total = self.total or None
        self._bar.update(num_bytes)

    def reset(self) -> None:
        if self.total:  # pooch refills the bar when all has come: the last chunk was counted as a whole one
            self._bar.reset()

    def close(self) -> None:
        self._bar.close()
