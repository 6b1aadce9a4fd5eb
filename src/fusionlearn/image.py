"""Images as rows of numbers: where they lie in a table, how large they are, and what cannot be a set of images.

An image is a row of one `Vector` column, (height, width, channels) laid out row by row, its pixels between the
column's `low` (black) and `high`. Encoders that look at images share what is said here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.arrays import Data
from fusionlearn.errors import DataError, Fault, SettingsError
from fusionlearn.problem import LABEL, Schema, Vector

LARGEST = 4096  # pixels along one side


def check(who: str, shape: tuple[int, ...], schema: Schema, first: bool) -> str:
    """Name of the schema's one image column.

    who    the encoder that asks
    shape  height, width, channels it was told
    first  whether it is the first encoder of its task
    Errors: SettingsError when the columns hold no images of that shape.
    """
    if not first:
        raise SettingsError(f"encoder '{who}' reads images themselves: it can only come first.")
    told = "x".join(map(str, shape))
    if len(shape) != 3 or not all(1 <= side <= LARGEST for side in shape[:2]) or shape[2] not in (1, 3):
        raise SettingsError(f"{who}: shape is {told}; it is height x width x channels, as in 32x32x3 or 28x28x1.")
    name, *others = schema.columns
    column = schema.columns[name]
    if others or not isinstance(column, Vector):
        raise SettingsError(f"encoder '{who}' needs a table of one vector column, the images, and the label.")
    if column.length != math.prod(shape):
        raise SettingsError(
            f"{who}: images of {told} hold {math.prod(shape)} numbers, column '{name}' holds {column.length}: set the "
            f"encoder's shape and the column's length to the same size."
        )
    return name


def pixels(data: Data, schema: Schema, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Images (n, height, width, channels), pixels in [0, 1].

    Errors: DataError when records to learn from are blank or all the same, which no collection of images is.
    """
    ((name, column),) = schema.columns.items()
    if not isinstance(column, Vector):
        raise SettingsError(f"column '{name}' holds no images: it is not a vector.")
    values = _host(data[name])
    if LABEL in data and len(values):
        if (values == values[:, :1]).all():
            raise _useless(name, "every image is blank: its pixels are all equal")
        if len(values) > 1 and (values == values[:1]).all():
            raise _useless(name, f"all {len(values)} images are the same")
    scaled = (values - column.low) / (column.high - column.low)
    return np.asarray(scaled.reshape(len(values), *shape), np.float32)


def _useless(name: str, kind: str) -> DataError:
    return DataError("data", [Fault(name, kind, hint="export the images again")])


def _host(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
