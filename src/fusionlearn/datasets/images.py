"""Images: each loader gives part -> {"image": (n, height, width[, 3]), "label": (n,) int64}, in the published order."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.datasets.fetch import find
from fusionlearn.datasets.tables import Columns
from fusionlearn.download import needed
from fusionlearn.errors import DatasetError

_USPS_SIDE = 16  # pixels


def mnist() -> dict[str, Columns]:
    """Handwritten digits: train (60,000) and test (10,000). Images 28 x 28 uint8; labels 0 to 9."""
    folder = find("mnist")
    if (folder / "mnist.npz").is_file():
        arrays = _npz(folder / "mnist.npz")
        return {part: _part(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")}
    return {
        part: _part(_idx(folder / f"{prefix}-images-idx3-ubyte.gz"), _idx(folder / f"{prefix}-labels-idx1-ubyte.gz"))
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }


def usps() -> dict[str, Columns]:
    """Digits on letters: train (7,291) and test (2,007). Images 16 x 16 float32 in [0, 1]; labels 0 to 9.

    Reads `usps.h5` (values in [0, 1]) where there is one, else the official libsvm files (values v in [-1, 1] become
    (v + 1) / 2, labels 1 to 10 become 0 to 9). Errors: MissingExtra where that needs h5py.
    """
    folder = find("usps")
    if (folder / "usps.h5").is_file():
        with needed("h5py").File(folder / "usps.h5") as file:
            return {part: _digits(file[part]["data"][:], file[part]["target"][:]) for part in ("train", "test")}
    return {part: _digits(*_libsvm(folder / name)) for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2"))}


def pneumoniamnist() -> dict[str, Columns]:
    """Chest X-rays of children: train (4,708), val (524), test (624). Images 28 x 28 uint8; labels 0 normal,
    1 pneumonia. Copies may hold the same images in another order.
    """
    arrays = _npz(find("pneumoniamnist") / "pneumoniamnist.npz")
    return {part: _part(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "val", "test")}


def cifar10() -> dict[str, Columns]:
    """Ten kinds of things: train (50,000) and test (10,000), in the order of the copy. Images 32 x 32 x 3 uint8;
    labels 0 airplane to 9 truck, alphabetically.

    Reads `cifar10_{train,test}_jpeg.npz`: JPEG copies, slightly other pixels than the original. Needs Pillow.
    """
    folder = find("cifar10")
    return {part: _jpegs(folder / f"cifar10_{part}_jpeg.npz") for part in ("train", "test")}


def office_caltech10() -> dict[str, Columns]:
    """Ten things as four sources show them: amazon (958), caltech10 (1,123), dslr (157), webcam (295). Images
    160 x 160 x 3 uint8; labels 0 backpack to 9 projector. Needs Pillow.
    """
    folder = find("office_caltech10")
    return {part: _jpegs(folder / f"office10_{part}_jpeg160.npz") for part in ("amazon", "caltech10", "dslr", "webcam")}


def _jpegs(path: Path) -> Columns:
    """Images of one size from an npz file that holds JPEG files end to end, where each begins, and labels."""
    pillow = needed("PIL.Image", "pillow", extra="vision")
    arrays = _npz(path)
    try:
        bounds = itertools.pairwise(arrays["offsets"].tolist())
        files = [arrays["jpeg"][start:stop].tobytes() for start, stop in bounds]
        image = np.stack([np.asarray(pillow.open(io.BytesIO(file), formats=["JPEG"]).convert("RGB")) for file in files])
        return _part(image, arrays["labels"])
    except (KeyError, OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}): put the published file there.") from None


def _part(image: NDArray[Any], label: NDArray[Any]) -> Columns:
    return {"image": image, "label": label.reshape(len(image)).astype(np.int64)}


def _digits(values: NDArray[Any], label: NDArray[Any]) -> Columns:
    return _part(values.astype(np.float32).reshape(-1, _USPS_SIDE, _USPS_SIDE), label)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}): put the published file there.") from None


def _idx(path: Path) -> NDArray[np.uint8]:
    """An array in the format of the MNIST files: 0, 0, 8 (uint8), rank, each length as 4 bytes, then the entries."""
    try:
        content = gzip.decompress(path.read_bytes())
        rank = content[3]
        shape = np.frombuffer(content, ">i4", rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
    except (OSError, ValueError, IndexError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}): put the published file there.") from None


def _libsvm(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values in [0, 1] and labels from lines `label index:value …`; an index that is not listed has value 0."""
    try:
        lines = bz2.decompress(path.read_bytes()).decode("ascii").splitlines()
        values = np.zeros((len(lines), _USPS_SIDE**2))
        label = np.empty(len(lines), dtype=np.int64)
        for row, line in enumerate(lines):
            first, *pairs = line.split()
            label[row] = int(first) - 1
            for pair in pairs:
                index, _, value = pair.partition(":")
                values[row, int(index) - 1] = float(value)
    except (OSError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}): put the published file there.") from None
    return (values + 1) / 2, label
