"""Running a graph over images: resized, centred, a few at a time on as many threads as BLAS was given.

Each image's features are the same in any company: images are resized by products of one size each, and a graph treats
the images of a batch alike.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlearn.errors import SettingsError
from fusionlearn.fixed import one_blas_thread

BATCH = 16  # images at a time: their activations stay in the cache of a core
SHARPNESS = -0.5  # of cubic interpolation

Matrix = NDArray[np.float32]


def features(
    graph: Any, images: NDArray[np.float32], side: int, mean: Iterable[float], scale: Iterable[float], mirror: bool
) -> Matrix:
    """What a graph says of images (n, height, width, channels) with pixels in [0, 255]: (n, d) float32.

    side         pixels along the side of what the graph sees; images are stretched to it
    mean, scale  of red, green and blue: the graph sees (pixel - mean) / scale
    mirror       whether to average over each image and its mirror image
    Errors: SettingsError when the graph does not take such images.
    """
    if not len(images):  # how wide nothing is, the graph tells of one image
        blank = np.zeros((1, *images.shape[1:]), np.float32)
        return features(graph, blank, side, mean, scale, mirror)[:0]
    name, centre, spread = graph.get_inputs()[0].name, _channels(mean), _channels(scale)
    down, across = interpolation(images.shape[1], side), interpolation(images.shape[2], side)

    def one(image: Matrix) -> Matrix:
        planes = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        return np.asarray((down @ (planes.transpose(2, 0, 1) @ across.T) - centre) / spread)

    def some(batch: NDArray[np.float32]) -> Matrix:
        seen = np.stack([one(image) for image in batch])
        views = [seen, np.ascontiguousarray(seen[..., ::-1])] if mirror else [seen]
        said = [np.asarray(graph.run(None, {name: view})[0], np.float32) for view in views]
        return np.asarray(sum(said[1:], said[0]) / np.float32(len(said))).reshape(len(batch), -1)

    try:
        with one_blas_thread() as threads, ThreadPoolExecutor(threads) as workers:
            rows = list(workers.map(some, _batches(images)))
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            raise SettingsError(
                f"the graph does not take images of 3 x {side} x {side} ({type(error).__name__}): set the side it "
                f"was exported for."
            ) from None
        raise
    return np.concatenate(rows)


def _batches(images: Matrix) -> Iterator[Matrix]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def _channels(values: Iterable[float]) -> Matrix:
    return np.asarray(tuple(values), np.float32)[:, None, None]


@functools.lru_cache(maxsize=8)
def interpolation(have: int, want: int) -> Matrix:
    """(want, have): a line of pixels → a line of another length, by cubic interpolation, averaging when it shrinks.

    Source  Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981
    """
    ratio = have / want
    reach = max(ratio, 1.0)
    centres = (np.arange(want) + 0.5) * ratio - 0.5
    places = np.arange(-int(2 * reach) - 2, have + int(2 * reach) + 2)
    far = np.abs(places - centres[:, None]) / reach
    a = SHARPNESS
    near = (a + 2) * far**3 - (a + 3) * far**2 + 1
    beyond = a * far**3 - 5 * a * far**2 + 8 * a * far - 4 * a
    weights = np.where(far <= 1, near, np.where(far < 2, beyond, 0.0))
    matrix = np.zeros((want, have))
    for place, column in zip(np.clip(places, 0, have - 1), weights.T, strict=True):
        matrix[:, place] += column  # what lies beyond the edge repeats the edge
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float32)
