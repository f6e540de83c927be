"""Photon transfer: how the variance of the noise grows with the level, from one image (Janesick 2007).

A camera's grey values have the variance  gain (level - offset) + read variance:  a line whose slope is the gain.  The
noise is taken from differences between neighbours that cancel what the specimen does.  A square of such a difference
and the mean of the image with the squared weights of the difference have exactly the same line as a single voxel,
however the specimen varies, so nothing is lost by their reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array

DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0])  # fourth difference: transfer (2 - 2 cos w)^2
SQUARED = DIFFERENCE**2 / np.sum(DIFFERENCE**2)
BOX = 5  # voxels along each axis over which squares and levels are averaged alike, against errors of the levels
STRIDE = 2  # between the averages that are looked at
BLOCK, MOST_BLOCKS = (20, 256, 256), 12  # what is looked at of a large image


@dataclass(frozen=True)
class NoiseLine:
    """variance = ``at_zero`` + ``slope`` level, over levels from ``lowest`` to ``highest``.

    ``error`` is the standard error of the slope, ``mean_level`` and ``mean_variance`` are means over all places.
    """

    at_zero: float
    slope: float
    error: float
    lowest: float
    highest: float
    mean_level: float
    mean_variance: float

    def variance(self, level: float) -> float:
        """At a level; the line is kept above 1 % of the mean variance."""
        return max(self.at_zero + self.slope * level, 0.01 * self.mean_variance)

    @property
    def is_significant(self) -> bool:
        """Whether the variance is seen to grow with the level."""
        return self.slope > 3 * self.error


def differences(image: Array, mask: Array | None, xp: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(levels, squared differences scaled to the variance of one voxel) in boxes of the image (z, y, x), in its units.

    Fourth differences along all axes of at least 9 voxels pass the corner of the spectrum only, which optics reach
    last.  Boxes that hold voxels where ``mask`` is 0 are left out, and so are the blocks of a large image that an even
    spread over it does not need.  Without any box it is the mean and variance of the whole image.
    """
    axes = [axis for axis, n in enumerate(image.shape) if n >= 2 * len(DIFFERENCE) - 1]
    levels, squares = [], []
    for cut in _blocks(image.shape) if axes else ():
        block = image[cut].astype(xp.float64)
        difference, level = block, block
        for axis in axes:
            difference = _weighted(difference, DIFFERENCE / np.sqrt(np.sum(DIFFERENCE**2)), axis)
            level = _weighted(level, SQUARED, axis)
        known = None
        if mask is not None:
            known = (mask[cut] != 0).astype(xp.float64)
            for axis in axes:
                known = _weighted(known, SQUARED, axis)
        level, square = in_boxes(level, axes), in_boxes(difference * difference, axes)
        if known is not None:
            complete = in_boxes(known, axes) > 1 - 1e-9
            level, square = level[complete], square[complete]
        levels.append(_on_host(level))
        squares.append(_on_host(square))
    if sum(map(len, levels)) > 0:
        return np.concatenate(levels), np.concatenate(squares)
    measured = _on_host((image if mask is None else image[mask != 0]).astype(xp.float64))
    return np.array([measured.mean()]), np.array([measured.var()])  # too little for differences


def in_boxes(values: Array, axes: list[int]) -> Array:
    """Means over `BOX` voxels along the axes that have as many, every `STRIDE`-th of them."""
    for axis in axes:
        if values.shape[axis] >= BOX:
            values = _weighted(values, np.full(BOX, 1 / BOX), axis)
    return values[::STRIDE, ::STRIDE, ::STRIDE] if max(values.shape) >= 4 * STRIDE else values


def fitted_line(levels: NDArray[np.float64], squares: NDArray[np.float64]) -> NoiseLine:
    """The line through squares gathered in bins of like levels, each weighed by its precision, n / variance^2.

    Bins halve the number of voxels towards the bright end, where few voxels tell most.  Bins off the line, where
    structure has passed for noise, lose weight (Huber 1964).
    """
    order = np.argsort(levels)
    edges = _bin_edges(len(order))
    number = np.diff(edges)
    level = np.add.reduceat(levels[order], edges[:-1]) / number
    variance = np.add.reduceat(squares[order], edges[:-1]) / number
    mean_level, mean_variance = float(levels.mean()), float(squares.mean())
    design = np.stack([np.ones_like(level), level - mean_level], axis=1)
    expected, trust = np.maximum(variance, 0.01 * mean_variance), np.ones_like(level)
    coefficients, error = np.array([mean_variance, 0.0]), np.inf
    for _ in range(20 if len(level) > 2 and mean_variance > 0 else 0):
        weight = number * trust / expected**2
        normal = design.T @ (weight[:, None] * design)
        if np.linalg.cond(normal / np.outer(*2 * [np.sqrt(np.diag(normal)) + 1e-300])) > 1e10:
            break
        coefficients = np.linalg.solve(normal, design.T @ (weight * variance))
        expected = np.maximum(design @ coefficients, 0.01 * mean_variance)
        relative = (variance - design @ coefficients) / expected * np.sqrt(number)
        scatter = float(np.sum(trust * relative**2) / (len(level) - 2))
        error = float(np.sqrt(scatter * np.linalg.inv(normal)[1, 1]))
        usual = max(1.5 * float(np.median(np.abs(relative))) / 0.6745, 1e-12)
        trust = np.minimum(1.0, usual / np.maximum(np.abs(relative), 1e-300))
    slope = float(coefficients[1])
    return NoiseLine(
        float(coefficients[0]) - slope * mean_level,
        slope,
        error,
        float(level[0]),
        float(level[-1]),
        mean_level,
        mean_variance,
    )


def _bin_edges(count: int, least: int = 60) -> NDArray[np.intp]:
    """0, ..., count: the lower half in 8 parts, half of the rest in 4, and so on while parts hold ``least``."""
    edges, rest, parts = [0], count, 8
    while rest // 2 >= parts * least:
        start = count - rest
        edges += [start + (rest // 2) * i // parts for i in range(1, parts + 1)]
        rest -= rest // 2
        parts = 4
    if edges[-1] < count:
        edges.append(count)
    return np.array(edges, np.intp)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """At most `MOST_BLOCKS` boxes spread evenly over the image; a small image whole."""
    if np.prod(shape, dtype=float) <= 4 * np.prod(BLOCK):
        yield tuple(slice(None) for _ in shape)
        return
    starts = [range(0, max(n - b // 2, 1), b) for n, b in zip(shape, BLOCK, strict=True)]
    corners = list(product(*starts))
    every = max(1.0, len(corners) / MOST_BLOCKS)
    for i in range(min(len(corners), MOST_BLOCKS)):
        yield tuple(slice(s, s + b) for s, b in zip(corners[int((i + 0.5) * every)], BLOCK, strict=True))


def _weighted(values: Array, weights: NDArray[np.float64], axis: int) -> Array:
    """Sums over neighbours along an axis, where all of them are there."""
    n = values.shape[axis] - len(weights) + 1
    before = (slice(None),) * axis
    total = values[(*before, slice(0, n))] * weights[0]
    for i, weight in enumerate(weights[1:], start=1):
        total += values[(*before, slice(i, n + i))] * weight
    return total


def _on_host(values: Array) -> NDArray[np.float64]:
    host: NDArray[np.float64] = (values.get() if hasattr(values, "get") else values).ravel()
    return host
