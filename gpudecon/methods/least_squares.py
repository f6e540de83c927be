"""What least-squares methods share: the data's share of a field, inner products, the measured range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpudecon.backend import Array
from gpudecon.methods.problem import Data, Problem


def restrict(work: Array, data: Data) -> Array:
    """Work <- M work: 0 where there are no data; returns it."""
    nz, ny, nx = data.image.shape
    clear_behind(work, data.image.shape)
    if data.mask is not None:
        work[:nz, :ny, :nx] *= data.mask != 0
    return work


def clear_behind(work: Array, box: tuple[int, int, int]) -> None:
    """Work <- 0 outside its corner of shape ``box``."""
    nz, ny, nx = box
    work[nz:], work[:nz, ny:], work[:nz, :ny, nx:] = 0.0, 0.0, 0.0


def inner_product(problem: Problem) -> Callable[[Array, Array], float]:
    """A function that returns the sum over all voxels of the product of two fields, summed in double precision."""
    rows = problem.backend.xp.empty(problem.model.domain[:2], np.float64)

    def product(a: Array, b: Array) -> float:
        problem.backend.ops.inner_product(rows, a, b)
        return float(rows.sum())

    return product
