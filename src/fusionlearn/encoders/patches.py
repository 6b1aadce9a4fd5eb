"""Patches: random convolution features of images, learned from no record of anybody.

Every filter is one small patch of a public image. A patch of a client's image is brought to mean 0 and contrast 1 and
whitened, which undoes the correlation of neighbouring pixels; its inner products with the filters, above a threshold
and below minus the threshold, are averaged over the cells of a grid and over the image and its mirror image; square
roots of these averages are the features. A linear head on them is close to a kernel machine for images. They are the
same public function everywhere, so a head fused from sums is exact for any split of the data.

Filters and whitening come from synthetic images, overlapping discs of random colours whose sizes follow a power law,
as in photographs; or from public images of the coordinator (`pretrain`), in the prior, for each of the sizes k:

    patches.filters.k  (k·k·channels, m) float32  whitening and filters in one matrix
    patches.offset.k   (m,)              float32  what the mean patch gives

Needs    a table of one vector column, the images; comes first
Emits    x (n, 2·filters·grid²) float32
Bounds   √10: responses have variance about 1, those beyond 10 are cut
Cost     about 4·filters·k²·channels·height·width operations an image, twice with `mirror`
Source   Coates, Ng, Lee, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, 2011; the synthetic
         images: Lee, Mumford, Huang, Occlusion Models for Natural Images, 2001
"""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusionlearn import image
from fusionlearn.arrays import Arrays, Data
from fusionlearn.encoder import Encoder, Features, X
from fusionlearn.errors import SettingsError
from fusionlearn.fixed import one_blas_thread
from fusionlearn.problem import LABEL, Schema

FILTERS, OFFSET = "patches.filters.{}", "patches.offset.{}"  # of patches of one size
BOUND = 10.0  # of a response, whose variance is about 1
CONTRAST = 0.01  # standard deviation of pixels in [0, 1] added to every patch's, so that flat patches stay small
RIDGE = 0.1  # share of the mean variance added before whitening: noise is not blown up
SYNTHETIC = 400  # images drawn when there are no public ones
PATCHES = 40_000  # patches that whitening is computed from

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Patches(Encoder):
    name: ClassVar[str] = "patches"
    SLOW: ClassVar[bool] = True

    shape: tuple[int, ...] = (32, 32, 3)  # height, width, channels of an image
    filters: int = 255  # patches to compare with, shared out evenly over the sizes
    sizes: tuple[int, ...] = (4, 6, 9)  # pixels along the sides of patches
    grid: int = 2  # cells along each side over which responses are averaged
    threshold: float = 0.5  # responses closer to 0 count as none, in standard deviations
    mirror: bool = True  # average over the image and its mirror image
    seed: int = 0  # public

    def __post_init__(self) -> None:
        short = min(self.shape[:2], default=0)
        if not len(self.sizes) <= self.filters <= 8192:
            raise SettingsError(f"patches: filters is {self.filters}; it may be 1 to 8192, one or more for each size.")
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise SettingsError("patches: sizes lists the sides of patches, each once, at least one.")
        if not all(1 <= size <= min(16, short) for size in self.sizes):
            raise SettingsError("patches: a size may be 1 to 16, and no more than an image's side.")
        if not 1 <= self.grid <= short - max(self.sizes) + 1:
            raise SettingsError(f"patches: grid is {self.grid}; there are not so many places for a patch.")
        if not 0 <= self.threshold < BOUND:
            raise SettingsError(f"patches: threshold is {self.threshold}; it may be 0 to {BOUND:g}.")

    def features(self, schema: Schema, before: Features | None) -> Features:
        image.check(self.name, self.shape, schema, before is None)
        width = 2 * self.filters * self.grid**2
        return Features(tuple(f"patch[{i}]" for i in range(width)), (math.sqrt(BOUND),) * width)

    def encode(self, data: Data, schema: Schema, prior: Arrays) -> Data:
        images = image.pixels(data, schema, self.shape)
        banks = [(size, *self._learned(prior, size, count), self._cells(size)) for size, count in self._counts()]

        def one(pixels: Matrix) -> Matrix:
            # Each image is a product of its own, of one size: no result depends on which images it came with.
            averages = np.concatenate([self._respond(pixels, *bank) for bank in banks])
            if self.mirror:
                averages += np.concatenate([self._respond(pixels[:, ::-1], *bank) for bank in banks])
                averages *= 0.5
            return np.asarray(np.sqrt(np.maximum(averages, 0.0)))  # rounding may leave a hair below 0

        with one_blas_thread() as threads, ThreadPoolExecutor(threads) as workers:
            rows = list(workers.map(one, images))
        width = 2 * self.filters * self.grid**2
        encoded: dict[str, Any] = {X: np.stack(rows) if rows else np.zeros((0, width), np.float32)}
        return encoded | ({LABEL: data[LABEL]} if LABEL in data else {})

    def pretrain(self, data: Data, schema: Schema, *, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Filters and whitening from public images, for a task's prior.

        data  clean columns, as `encode` gets them
        """
        images = image.pixels({name: cells for name, cells in data.items() if name != LABEL}, schema, self.shape)
        prior: dict[str, NDArray[Any]] = {}
        for size, count in self._counts():
            prior[FILTERS.format(size)], prior[OFFSET.format(size)] = _learn(images, count, size, rng.random)
        return prior

    def _counts(self) -> list[tuple[int, int]]:
        """(size, number of filters), those that do not divide evenly going to the first sizes."""
        each, more = divmod(self.filters, len(self.sizes))
        return [(size, each + (i < more)) for i, size in enumerate(self.sizes)]

    def _learned(self, prior: Arrays, size: int, count: int) -> tuple[Matrix, Matrix]:
        shapes = {FILTERS.format(size): (size**2 * self.shape[2], count), OFFSET.format(size): (count,)}
        if not any(name.startswith("patches.") for name in prior):
            return _synthetic(self.shape[2], count, size, self.seed)
        for name, shape in shapes.items():
            have = prior.get(name)
            if have is None or have.shape != shape or have.dtype != np.float32:
                told = "is missing" if have is None else f"is {have.shape} {have.dtype}"
                raise SettingsError(f"patches: prior array '{name}' {told}, {shape} float32 is expected.")
        filters, offset = (prior[name] for name in shapes)
        return filters, offset

    def _cells(self, size: int) -> Matrix:
        """(grid², places): row c averages over the places of cell c."""
        spans = np.array(self.shape[:2]) - size + 1
        places = np.stack(np.meshgrid(*map(np.arange, spans), indexing="ij"), axis=-1).reshape(-1, 2)
        cell = places * self.grid // spans @ np.array([self.grid, 1])
        inside = (cell == np.arange(self.grid**2)[:, None]).astype(np.float32)
        return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)

    def _respond(self, pixels: Matrix, size: int, filters: Matrix, offset: Matrix, pool: Matrix) -> Matrix:
        """Averages (2·filters·grid²,) of one image over the patches of one size."""
        responses = _normalised(_windows(pixels, size)) @ filters
        responses -= offset
        np.clip(responses, -BOUND, BOUND, out=responses)
        above = pool @ np.maximum(responses, self.threshold)
        below = pool @ np.minimum(responses, -self.threshold)
        return np.concatenate([above.ravel() - np.float32(self.threshold), -below.ravel() - np.float32(self.threshold)])


def _windows(pixels: Matrix, size: int) -> Matrix:
    """Every patch of an image: (places, size·size·channels)."""
    views = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(0, 1))
    return views.transpose(0, 1, 3, 4, 2).reshape(-1, size * size * pixels.shape[2])


def _normalised(patches: Matrix) -> Matrix:
    """Patches with mean 0 and contrast 1."""
    patches = patches - patches.mean(axis=1, keepdims=True)
    contrast = np.sqrt(np.mean(patches**2, axis=1, keepdims=True))
    patches /= contrast + np.float32(CONTRAST)
    return np.asarray(patches)


def _learn(images: Matrix, filters: int, size: int, uniform: Any) -> tuple[Matrix, Matrix]:
    """Filters (k·k·channels, filters), whitening included, and their offset; `uniform(n)` draws from [0, 1).

    With mean m and covariance C of normalised patches p, the whitened patch is w = A (p - m), A = (C + ε)^-1/2. A
    filter is a whitened patch of length 1, f = w/|w|, so its response fᵀA(p - m) has variance about 1.
    """
    count = max(PATCHES, 2 * filters)
    places = np.array([images.shape[1] - size + 1, images.shape[2] - size + 1])
    which = (uniform(count) * len(images)).astype(np.int64)
    rows, columns = ((uniform(count) * limit).astype(np.int64) for limit in places)
    patches = np.stack(
        [images[i, a : a + size, b : b + size].ravel() for i, a, b in zip(which, rows, columns, strict=True)]
    )
    normal = _normalised(patches).astype(np.float64)
    lively = normal[np.mean(normal**2, axis=1) > 0.25]  # flat patches tell no direction
    if len(lively) < filters:
        raise SettingsError("patches: the public images are nearly blank: no filters can be learned from them.")
    with one_blas_thread():
        mean = normal.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(normal, rowvar=False))
        whiten = (vectors / np.sqrt(np.maximum(values, 0) + RIDGE * values.mean())) @ vectors.T
        chosen = (lively[:filters] - mean) @ whiten
        chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
        matrix = whiten @ chosen.T
        return matrix.astype(np.float32), (mean @ matrix).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _synthetic(channels: int, filters: int, size: int, seed: int) -> tuple[Matrix, Matrix]:
    """What `_learn` gives for images drawn from a public seed; NumPy promises the stream of PCG64's raw bits."""
    bits = np.random.PCG64(seed)

    def uniform(count: int) -> NDArray[np.float64]:
        return np.asarray((bits.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    images = np.stack([_leaves(channels, uniform) for _ in range(SYNTHETIC)])
    return _learn(images, filters, size, uniform)


def _leaves(channels: int, uniform: Any, side: int = 32, discs: int = 160) -> Matrix:
    """One image (side, side, channels) of discs that hide one another, drawn at twice the size and averaged down.

    Radii have density ∝ r^-3, which makes the image look alike at every scale. Colours vary mostly in lightness.
    """
    fine, least, most = 2 * side, 2.0, float(side)
    radii = 1 / np.sqrt(least**-2 - uniform(discs) * (least**-2 - most**-2))
    centres = uniform(2 * discs).reshape(2, discs) * fine
    colours = uniform(discs)[:, None] + 0.35 * (uniform(discs * channels).reshape(discs, channels) - 0.5)
    down, across = np.mgrid[:fine, :fine]
    canvas = np.full((fine, fine, channels), 0.5)
    for radius, a, b, colour in zip(radii, *centres, colours, strict=True):
        canvas[(down - a) ** 2 + (across - b) ** 2 < radius**2] = colour
    halved = canvas.reshape(side, 2, side, 2, channels).mean(axis=(1, 3))
    return np.asarray(np.clip(halved, 0.0, 1.0), np.float32)
