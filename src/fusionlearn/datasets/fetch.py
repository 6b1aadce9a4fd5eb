"""Finding a data set: in $FUSIONLEARN_DATA, in the cache, or downloaded from its official place.

A folder in the cache is whole or absent: everything is downloaded, unpacked and compared with its hashes in a folder
of its own, which then takes its name in one step. A file without a published hash is trusted when it is first seen;
its hash goes to `NAME.sha256` beside the folder (in the format of `sha256sum`) and every later copy must have it,
also after the folder was deleted and downloaded again.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from fusionlearn import download
from fusionlearn.datasets.registry import Dataset, File, Source, record
from fusionlearn.download import needed
from fusionlearn.errors import DatasetError

VARIABLE = "FUSIONLEARN_DATA"  # names a folder that holds data sets, one folder each


def find(name: str, *, progress: bool = True) -> Path:
    """The folder that holds the files of data set `name`, downloaded if need be.

    Looks in `$FUSIONLEARN_DATA/NAME`, whose files are taken as they are, then in the cache, whose files are compared
    with their hashes each time, then at the official place. `progress` shows a bar on the standard error output.

    Errors: DatasetError when the name is unknown, the set is nowhere to be had, or a file is not the published one;
    MissingExtra where pooch or tqdm is needed and missing.
    """
    wanted = record(name)
    return _given(wanted) or _cached(wanted) or _download(wanted, progress)


def cache_folder() -> Path:
    """Where downloads are kept: `fusionlearn/datasets` in the user's cache folder (`~/.cache` on Linux)."""
    return Path(needed("pooch").os_cache("fusionlearn")) / "datasets"


def _given(wanted: Dataset) -> Path | None:
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    if not Path(root).is_dir():
        raise DatasetError(f"{VARIABLE} is set to {root}, which is not a folder: correct it or unset it.")
    folder = Path(root) / wanted.name
    return folder if folder.is_dir() else None


def _cached(wanted: Dataset) -> Path | None:
    if not wanted.sources:
        return None
    folder = cache_folder() / wanted.name
    if not folder.is_dir():
        return None
    again = f"delete {folder} and ask again to download it anew."
    seen = _read_seen(wanted)
    for file in wanted.files:
        path = folder / file.name
        if not path.is_file():
            raise DatasetError(f"{path} is missing from the cache: {again}")
        if not _has_hash(path, file.hash or seen.get(file.name)):
            raise DatasetError(f"{path} no longer has the hash recorded for it: {again}")
    return folder


def _download(wanted: Dataset, progress: bool) -> Path:
    if not wanted.sources:
        raise DatasetError(
            f"{wanted.name} cannot be downloaded by a program: get it from {wanted.page}, put its files in a folder "
            f"called {wanted.name}, and set {VARIABLE} to the folder that holds that one."
        )
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{wanted.name}-", dir=cache) as staging:
            folder = Path(staging) / wanted.name
            folder.mkdir()
            for source in wanted.sources:
                _fetch(wanted, source, folder, progress)
            _remember(wanted, folder)
            folder.rename(cache / wanted.name)
    except OSError as error:
        if (cache / wanted.name).is_dir():  # another process was quicker; its copy is compared like any other
            return _cached(wanted) or cache / wanted.name
        raise DatasetError(
            f"cannot keep {wanted.name} in the cache {cache} ({error.strerror or type(error).__name__}): make room "
            f"there, or set {VARIABLE} to a folder that holds {wanted.name}/."
        ) from None
    return cache / wanted.name


def _fetch(wanted: Dataset, source: Source, folder: Path, progress: bool) -> None:
    """Download one source into `folder`, unpack it if it is an archive, and compare every published hash."""
    target = folder.parent / "archive" if source.archive else folder / source.files[0].name
    _transfer(wanted, source.url, target, progress)
    if source.archive:
        if source.hash:
            _refuse_other(wanted, source.url, target, source.hash)
        _unpack(wanted, source, target, folder)
        target.unlink()
    for file in source.files:
        _refuse_other(wanted, source.url, folder / file.name, file.hash)


def _transfer(wanted: Dataset, url: str, target: Path, progress: bool) -> None:
    try:
        download.transfer(url, target, wanted.name, who="datasets", progress=progress)
    except download.Failed as error:
        raise DatasetError(
            f"cannot download {wanted.name} from {error.host} ({error.reason}): connect to the internet and try "
            f"again, or set {VARIABLE} to a folder that holds {wanted.name}/ (see {wanted.page})."
        ) from None


def _unpack(wanted: Dataset, source: Source, archive: Path, folder: Path) -> None:
    """Copy the named members, and nothing else, to names of our own choosing: no path of the archive is used."""
    try:
        if source.archive == "zip":
            with zipfile.ZipFile(archive) as opened:
                for file in source.files:
                    with opened.open(file.member or file.name) as stream:
                        _copy(wanted, stream, folder, file)
        else:
            with tarfile.open(archive, "r:*") as unrolled:
                for file in source.files:
                    member = unrolled.extractfile(file.member or file.name)
                    if member is None:  # a folder or a device
                        raise KeyError(file.name)
                    _copy(wanted, member, folder, file)
    except (KeyError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError):
        raise DatasetError(
            f"{source.url} is not the archive it should be: it cannot be read, or lacks one of "
            f"{', '.join(file.member or file.name for file in source.files)}; see {wanted.page}."
        ) from None


def _copy(wanted: Dataset, stream: IO[bytes], folder: Path, file: File) -> None:
    content = stream.read(file.max_bytes + 1)
    if len(content) > file.max_bytes:
        raise DatasetError(
            f"{file.name} of {wanted.name} unpacks to more than the {file.max_bytes} bytes it should have: "
            f"the archive is not the published one; see {wanted.page}."
        )
    (folder / file.name).write_bytes(content)


def _refuse_other(wanted: Dataset, url: str, path: Path, expected: str | None) -> None:
    if expected and not _has_hash(path, expected):
        raise DatasetError(
            f"what {url} sent as {path.name} is not the published file (its hash differs from {expected}), so nothing "
            f"was kept: try again later, or set {VARIABLE} to a folder that holds {wanted.name}/."
        )


def _has_hash(path: Path, expected: str | None) -> bool:
    if expected is None:
        return False
    algorithm, _, digest = expected.partition(":")
    return bool(needed("pooch").file_hash(str(path), alg=algorithm) == digest)


def _remember(wanted: Dataset, folder: Path) -> None:
    """Compare files without a published hash with the first ones ever seen, or keep their hashes if these are they."""
    seen = _read_seen(wanted)
    unpublished = [file.name for file in wanted.files if file.hash is None]
    for name in unpublished:
        if name in seen and not _has_hash(folder / name, seen[name]):
            raise DatasetError(
                f"{name} of {wanted.name} is not the file that was downloaded first (its hash differs from "
                f"{seen[name]}); if its publisher changed it on purpose, delete {_seen(wanted)} and ask again."
            )
    if set(unpublished) - set(seen):
        sums = {name: needed("pooch").file_hash(str(folder / name), alg="sha256") for name in unpublished}
        draft = folder.parent / "seen"
        draft.write_text("".join(f"{digest}  {wanted.name}/{name}\n" for name, digest in sums.items()))
        draft.replace(_seen(wanted))


def _seen(wanted: Dataset) -> Path:
    return cache_folder() / f"{wanted.name}.sha256"


def _read_seen(wanted: Dataset) -> dict[str, str]:
    """Name of file -> "sha256:…" of the files trusted at their first download."""
    path = _seen(wanted)
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = (line.split("  ", maxsplit=1) for line in lines)
    return {name.removeprefix(f"{wanted.name}/"): f"sha256:{digest}" for digest, name in pairs}
