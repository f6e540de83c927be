"""Lengths that an FFT library transforms quickly, from its measured cost table; picks padded shapes.

``fft_cost.json`` holds, for each library, nanoseconds per element of a one-dimensional complex64 transform of each
length worth using; ``bench/fft_cost.py`` measures it.  "The next product of small primes" is not good enough: a longer
transform is often faster.
"""

from __future__ import annotations

import functools
import json
import math
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


@functools.cache
def cost_table(library: str) -> dict[int, float]:
    """Cost per element of each tabulated length, in ascending order of length."""
    text = (files("gpudecon.backend") / "fft_cost.json").read_text()
    table: dict[str, float] = json.loads(text)[library]
    return {int(n): cost for n, cost in table.items()}


def cost(length: int, library: str) -> float:
    """Cost per element; beyond the table that of half the length and one more radix-2 pass."""
    table = cost_table(library)
    if length in table:
        return table[length]
    if length % 2 == 0 and length > max(table):
        return cost(length // 2, library) * 1.1
    return 2 * max(table.values())  # not a fast length


def shape_cost(shape: tuple[int, ...], library: str) -> float:
    """Cost of a transform: (number of elements) x (sum over axes of the cost per element)."""
    return math.prod(shape) * sum(cost(n, library) for n in shape if n > 1)


@functools.lru_cache(maxsize=4096)
def fastest_shape(least: tuple[int, ...], library: str) -> tuple[int, ...]:
    """The shape >= ``least`` with the least `shape_cost`."""
    choices = [_candidates(n, library) for n in least]
    size, each = np.ones(()), np.zeros(())
    for lengths, costs in choices:  # one more axis each
        size, each = size[..., None] * lengths, each[..., None] + costs
    best = np.unravel_index(int(np.argmin(size * each)), size.shape)
    return tuple(int(lengths[i]) for (lengths, _), i in zip(choices, best, strict=True))


@functools.lru_cache(maxsize=4096)
def _candidates(least: int, library: str, count: int = 8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(length, cost per element) of the next few tabulated lengths from ``least`` on.

    Beyond the table they are those of its upper half, doubled as often as needed.
    """
    if least == 1:
        return np.ones(1), np.zeros(1)
    lengths = list(cost_table(library))
    doublings = 0
    while lengths[-1] << doublings < least:
        doublings += 1
    fitting = [n << doublings for n in lengths if n << doublings >= least][:count]
    return np.array(fitting, np.float64), np.array([cost(n, library) for n in fitting])
